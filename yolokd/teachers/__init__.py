"""The kinds of teachers."""
