"""Listeners and connections: the only part that knows sockets."""
