"""Tiny detectors that respond to their images, which freshly drawn weights hardly do."""

from __future__ import annotations

from typing import Any

import torch

from tests.helpers.models import detector


def lively(family: str = "v8", **options: Any) -> Any:
    """A detector whose signals do not fade with depth, and that scores about one half everywhere."""
    model = detector(family, **options)
    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        model.train()(torch.rand(8, 3, 64, 64, generator=torch.Generator().manual_seed(5)))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    for branch in model.model[-1].cv3:
        branch[-1].bias.data.zero_()
    return model.eval()
