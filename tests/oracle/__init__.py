"""A Hypothesis state machine against a real redis-server 7.0: random commands, valid and not, and the same replies."""
