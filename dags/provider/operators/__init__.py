"""The operators, a task per step of a load."""
