"""The contract: every byte that crosses from one part to another. docs/format.md says it in prose, tests/golden holds its bytes.

This package does no I/O, starts no threads and reads no clock. It is all that `server/` may know of `pipeline/`.
"""
