"""Adaptive instance distillation: trust the teacher less where it is wrong itself.

Source: Lan and Tian, "Adaptive Instance Distillation for Object Detection in Autonomous Driving", ICPR 2022
(arXiv:2201.11097): the weight exp(−α · D), α = 0.1, with D the task loss of the teacher. No code was published.
Differs: D is any tensor, so that a weight may belong to an image, a level, an object or an anchor, and weights are
never renormalized.
"""

from __future__ import annotations

from torch import Tensor

from yolokd.losses.tensors import widen, without_autocast


@without_autocast
def aid_weight(teacher_loss: Tensor, *, alpha: float = 0.1) -> Tensor:
    """Return exp(−α · D), a weight in (0, 1] for D of at least 0, of the shape of `teacher_loss`.

    Args:
        teacher_loss: D, the teacher's own task loss, of any shape; no gradient flows into it.
        alpha: How fast the trust falls with D; at least 0, and 0 means weight 1 everywhere.

    Raises:
        ValueError: `alpha` is negative.

    Example:
        >>> import torch
        >>> aid_weight(torch.tensor([0.0, 10.0, 20.0]))
        tensor([1.0000, 0.3679, 0.1353])
    """
    if alpha < 0:
        raise ValueError(f"alpha must be at least 0, got {alpha}")
    return (-alpha * widen(teacher_loss.detach())).exp()
