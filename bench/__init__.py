"""Benchmarks: `make bench-NAME` runs `bench/NAME.py`. What all share is in `harness.py`."""
