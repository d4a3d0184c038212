"""`python -m pipeline.cli` is `redkv`."""

from pipeline.cli.app import main

main()
