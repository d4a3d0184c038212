"""`redkv node`: the processes of one machine, its shards and its sidecar, started, watched and stopped together."""
