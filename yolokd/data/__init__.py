"""Data sets: the built-in Streets, converters to YOLO's layout, checks before a training."""
