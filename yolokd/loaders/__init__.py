"""What a batch holds: deterministic sampling, IKD's samples, unlabeled images."""
