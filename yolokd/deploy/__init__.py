"""Export, and the check that the result equals the checkpoint. Uses Ultralytics' public API only."""
