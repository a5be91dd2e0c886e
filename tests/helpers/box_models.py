"""Tiny models of every kind that gives boxes, and of kinds that give none, for tests."""

from __future__ import annotations

import sys
from copy import deepcopy
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor
from ultralytics.nn import tasks
from ultralytics.nn.tasks import guess_model_task
from ultralytics.utils import YAML

from tests.helpers.models import CONFIGS, training_args
from yolokd.backend import prompts

NAMES = {0: "car", 1: "bus", 2: "rider"}
KINDS = {  # kind → class and description
    "detect": ("DetectionModel", "v8/yolov8.yaml"),
    "detect-26": ("DetectionModel", "26/yolo26.yaml"),
    "detect-p2": ("DetectionModel", "v8/yolov8-p2.yaml"),
    "segment": ("SegmentationModel", "v8/yolov8-seg.yaml"),
    "segment-11": ("SegmentationModel", "11/yolo11-seg.yaml"),
    "segment-26": ("SegmentationModel", "26/yolo26-seg.yaml"),
    "pose": ("PoseModel", "v8/yolov8-pose.yaml"),
    "pose-11": ("PoseModel", "11/yolo11-pose.yaml"),
    "pose-26": ("PoseModel", "26/yolo26-pose.yaml"),
    "rtdetr": ("RTDETRDetectionModel", "v8/yolov8-rtdetr.yaml"),
    "world": ("WorldModel", "v8/yolov8-worldv2.yaml"),
    "yoloe": ("YOLOEModel", "v8/yoloe-v8.yaml"),
    "yoloe-segment-11": ("YOLOESegModel", "11/yoloe-11-seg.yaml"),
    "yoloe-26": ("YOLOEModel", "26/yoloe-26.yaml"),
    "obb": ("OBBModel", "11/yolo11-obb.yaml"),
    "classify": ("ClassificationModel", "11/yolo11-cls.yaml"),
    "semantic": ("SemanticSegmentationModel", "26/yolo26-sem.yaml"),
    "depth": ("DepthModel", "26/yolo26-depth.yaml"),
}
EMBEDDING = 512
LOGIT = -2.0  # around which class scores lie


def box_model(kind: str) -> Any:
    """A tiny model of a kind with random weights, in evaluation mode, that sees something; YOLOE with a vocabulary."""
    return deepcopy(_box_model(kind))


@cache
def _box_model(kind: str) -> Any:
    family, file = KINDS[kind]
    config = YAML.load(CONFIGS / file)
    depth, _, limit = config["scales"]["n"]
    config |= {"scales": {"n": [depth, 0.125, limit]}, "scale": "n", "nc": len(NAMES)}
    if "kpt_shape" in config:
        config["kpt_shape"] = [5, 3]
    if kind == "rtdetr":  # width, queries, points, heads, layers, width of the feed-forward part
        config["head"][-1][-1] = ["nc", 32, 30, 2, 2, 2, 32]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = getattr(tasks, family)(config, nc=len(NAMES), verbose=False)
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):  # small: what an image holds matters in every layer
                module.state_dict()["running_mean"].normal_(0, 0.1)
                module.state_dict()["running_var"].uniform_(0.1, 0.3)
    model.names = dict(NAMES)
    model.task = guess_model_task(model) or "detect"
    model.args = dict(training_args(task=model.task))
    if kind.startswith("yoloe"):
        model.pe = embeddings(list(NAMES.values()))
    return lively(model).eval()


def lively(model: Any) -> Any:
    """Set the class rows so that scores spread around a tenth."""
    head = model.model[-1]
    with torch.no_grad():
        if hasattr(head, "dec_score_head"):
            for layer in (head.enc_score_head, *head.dec_score_head):
                layer.weight.normal_(0, 0.3, generator=torch.Generator().manual_seed(1))
                layer.bias.fill_(LOGIT)
        for name in ("cv3", "one2one_cv3"):
            for branch in getattr(head, name, None) or ():
                branch[-1].weight.mul_(10)
                branch[-1].bias.fill_(LOGIT)
        for branch in getattr(head, "cv4", None) or ():
            if hasattr(branch, "logit_scale"):  # contrastive
                branch.bias.fill_(LOGIT)
                branch.logit_scale.fill_(0.5 if type(model).__name__ == "WorldModel" else -2.0)
    return model


def embeddings(texts: list[str]) -> Tensor:
    """The features of a stub text encoder, (1, texts, 512), of length 1, that depend on the texts."""
    rows = [torch.randn(EMBEDDING, generator=torch.Generator().manual_seed(sum(map(ord, text)))) for text in texts]
    return torch.nn.functional.normalize(torch.stack(rows), dim=-1)[None]


def save(model: Any, path: Path, **extra: Any) -> Path:
    """Write the model as Ultralytics writes a finished checkpoint, in single precision."""
    torch.save({"model": deepcopy(model), "epoch": -1, "train_args": {"imgsz": 64, "task": model.task}, **extra}, path)
    return path


def stub_encoder(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Put a stub in the place of the text encoders, and return the list of the variants that are going to be built."""
    built: list[str] = []

    class Encoder:
        """Text → a number per text → the features of `embeddings`."""

        def tokenize(self, texts: list[str]) -> Tensor:
            self.texts = texts
            return torch.arange(len(texts))

        def encode_text(self, tokens: Tensor) -> Tensor:
            return embeddings([self.texts[token] for token in tokens.tolist()])[0]

    def build(variant: str, device: object = None) -> Encoder:
        built.append(variant)
        return Encoder()

    module = ModuleType("ultralytics.nn.text_model")
    monkeypatch.setattr(module, "build_text_model", build, raising=False)
    monkeypatch.setitem(sys.modules, "ultralytics.nn.text_model", module)
    monkeypatch.setattr(prompts, "missing_parts", lambda variant: [])
    return built


def scene(height: int = 64, width: int = 96, *, images: int = 2, seed: int = 0) -> Tensor:
    """Images of rectangles of any color on noise, (B, 3, H, W) in [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    found = torch.rand(images, 3, height, width, generator=generator) / 4
    for image in found:
        for _ in range(6):
            top, left = (int(torch.randint(side - 16, (1,), generator=generator)) for side in (height, width))
            tall, wide = (int(torch.randint(8, 32, (1,), generator=generator)) for _ in range(2))
            image[:, top : top + tall, left : left + wide] = torch.rand(3, 1, 1, generator=generator)
    return found
