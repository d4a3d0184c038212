"""The ingest sidecar: on every storage node, from the object store to version directories that its shards serve."""
