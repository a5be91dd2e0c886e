"""Distillation losses: the maths as functions, and the classes that wire them. Needs torch only."""
