"""What a recipe sees in one image."""
