"""Augmentation that serves the distillation: IKD's changes to pictures by the size of their objects, and its attack."""
