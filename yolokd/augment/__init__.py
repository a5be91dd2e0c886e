"""Augmentation that serves the distillation: IKD's changes to images by the size of their objects, and its attack."""
