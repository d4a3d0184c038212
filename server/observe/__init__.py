"""What the shard knows of itself: commands counted and timed, the slow log, clients that were cut off, the Prometheus endpoint."""
