"""One serving shard: a process with a live RocksDB, read-only version directories beside it, and the Redis protocol in front."""
