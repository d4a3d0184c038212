"""The commands: what each declares is in registry.py, which exist is in table.py, one module per family."""
