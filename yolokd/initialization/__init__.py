"""The first weights of a student."""
