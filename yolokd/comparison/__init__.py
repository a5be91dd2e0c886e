"""Many runs of one budget: recipes, students and seeds, executed and summarized."""
