"""yolokd: knowledge distillation for YOLO detectors, on top of Ultralytics.

The Python API behind the commands: `load_recipe`, `train`, `label`, `evaluate`,
`export`. Importing this package imports
neither torch nor ultralytics; the functions do so when they are called.
"""

from __future__ import annotations

from yolokd.api import evaluate, export, label, train
from yolokd.recipe import Recipe, load_recipe
from yolokd.version import __version__

__all__ = ["Recipe", "__version__", "evaluate", "export", "label", "load_recipe", "train"]
