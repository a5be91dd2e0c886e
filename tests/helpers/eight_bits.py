"""Networks with ModelOpt's quantizers, where the package is installed."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.helpers.models import detector, save
from yolokd.backend.quantization import STATE, insert_quantizers, remove_quantizers

needs_modelopt = pytest.mark.skipif(
    find_spec("modelopt") is None or find_spec("huggingface_hub") is None,
    reason="nvidia-modelopt or huggingface_hub is not installed (the extra qat)",
)


def images(count: int = 2, *, seed: int = 0) -> Tensor:
    """Random images of 64 px."""
    return torch.rand(count, 3, 64, 64, generator=torch.Generator().manual_seed(seed))


def quantized(family: str = "v8") -> Any:
    """A detector in evaluation mode with quantizers whose ranges are those of random images."""
    model = detector(family).eval()
    insert_quantizers(model, [images(seed=1), images(seed=2)], lambda batch: batch)
    return model


def quantizers(model: nn.Module) -> list[str]:
    """Names of the quantizers below a module."""
    return [name for name, module in model.named_modules() if type(module).__name__ == "TensorQuantizer"]


def save_quantized(path: Path, model: Any) -> Path:
    """Write a checkpoint as Ultralytics writes that of a training in 8 bits; the model loses its quantizers."""
    state = remove_quantizers(model)
    return save(model, path, **{STATE: state})
