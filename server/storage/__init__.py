"""Where values lie: the live RocksDB, the version directories, and who answers for a key."""
