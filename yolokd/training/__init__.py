"""A run from its plan to its run directory."""
