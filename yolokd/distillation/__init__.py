"""Teacher, student and losses: the loss vector of one training step."""
