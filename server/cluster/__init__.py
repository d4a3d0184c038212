"""Who owns which slot, and what a client is told when it asked the wrong shard."""
