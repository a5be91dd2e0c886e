"""What a recipe writes out that names one loss and the sections alone."""

from __future__ import annotations

from typing import Any

DEFAULTS: dict[str, Any] = {
    "summary": "",
    "losses": {"ultralytics": {"gain": 6.0, "levels": None}},
    "weighting": {"aid": {"alpha": 0.1, "scope": "instance", "normalize": "raw"}},
    "augment": {
        "ikd": {
            "noise": 0.3,
            "crop": 0.8,
            "adversarial": {"gain": 4e-5, "eps": 8.0, "step": 2.0, "steps": 5, "every": 4},
            "until": 0.67,
        }
    },
    "schedule": {"warmup": 0.0, "shape": "constant", "until": 1.0},
    "balance": {"share": 0.1, "every": 50, "log": False},
    "teacher": {
        "classes": {},
        "precision": "auto",
        "compile": False,
        "answers": "live",
        "imgsz": None,
        "flip": True,
        "models": [],
        "scale": 1,
    },
    "student": {"init": "random", "classes": {}},
    "train": {},
}
