"""`python -m server --config FILE.toml` runs one shard until SIGTERM."""

from __future__ import annotations

import sys

from server.allocator import prefer_jemalloc

if __name__ == "__main__":
    prefer_jemalloc()  # begins the process anew, so it comes before everything that takes time to import
    from server.start import main

    sys.exit(main())
