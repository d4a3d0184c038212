"""RESP without I/O: bytes to commands, replies to bytes, and every error text."""
