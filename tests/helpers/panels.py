"""Teachers that are asked about whole images, for tests."""

from __future__ import annotations

from typing import Any

import torch
from ultralytics.nn.tasks import DetectionModel

from tests.helpers.models import detector
from yolokd.teachers.asking import Panel
from yolokd.teachers.detector import DetectorTeacher


def seeing(family: str, seed: int = 0) -> DetectionModel:
    """A tiny detector with random weights and scores around 0.1."""
    model = detector(family, seed=seed)
    head: Any = model.model[-1]
    with torch.no_grad():
        for branch in head.cv3:
            branch[-1].bias.fill_(-2.2)
    return model


def panel(*families: str, flip: bool = False) -> Panel:
    """Tiny detectors with random weights that see something; one of YOLOv8 by default."""
    models = [seeing(family, seed) for seed, family in enumerate(families or ("v8",))]
    return Panel([DetectorTeacher(model) for model in models], [dict(m.names) for m in models], flip=flip)
