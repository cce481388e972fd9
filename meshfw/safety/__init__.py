"""Changes that can't lock an operator out: on trial until something or somebody confirms them, else undone."""
