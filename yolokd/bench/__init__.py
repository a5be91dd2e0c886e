"""What a recipe costs."""
