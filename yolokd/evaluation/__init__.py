"""Scores: COCO's and KITTI's average precision, and what a model costs. Uses Ultralytics' public API only."""
