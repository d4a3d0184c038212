"""One load, from a spec to an active version: its states, what nodes report, and the coordinator."""
