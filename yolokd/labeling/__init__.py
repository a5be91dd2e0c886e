"""Data sets made by teachers: images and what detectors see in them become a labeled set in YOLO's layout."""
