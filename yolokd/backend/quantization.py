"""Quantizers in a network that is trained for 8 bits: NVIDIA ModelOpt's, inserted and saved as Ultralytics does it.

Ultralytics (`prepare_qat`, 8.4.190) rounds input and weight of every convolution to 8 bits in the forward pass,
measures all ranges once and then keeps them, and leaves the output layers of the head in full precision. A checkpoint
holds the plain network. The state of its quantizers lies beside it under the key `modelopt`: dicts, scalars, dtypes and
tensors, which the restricted unpickler reads without any class of ModelOpt.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable, Iterable, Iterator
from importlib.util import find_spec
from typing import Any

from torch import Tensor, nn
from ultralytics.utils.torch_utils import is_qat, prepare_qat, qat_state, restore_qat, strip_qat

from yolokd.errors import UserError

STATE = "modelopt"  # key of a checkpoint
PACKAGES = {"modelopt": "nvidia-modelopt", "huggingface_hub": "huggingface_hub"}  # module → distribution
INSTALL = "pip install 'yolokd[qat]'"
FORMATS = ("onnx", "openvino", "engine")  # exports that keep the ranges


def require_modelopt() -> None:
    """Raise `UserError` where a package is missing that training in 8 bits needs; it names the extra that brings it."""
    if missing := [name for module, name in PACKAGES.items() if find_spec(module) is None]:
        raise UserError(f"train.quantize=8 needs {' and '.join(missing)}: {INSTALL}")


def is_quantized(model: nn.Module) -> bool:
    """Whether a network, or the student of a pair, has quantizers."""
    return bool(is_qat(getattr(model, "student_model", model)))


def insert_quantizers(model: nn.Module, batches: Iterable[Any], images_of: Callable[[Any], Tensor]) -> None:
    """Give a network quantizers, in place, with ranges from the first eight batches; its mode stays as it is.

    Args:
        model: A detector that is not folded, on the device of the images.
        batches: What a loader delivers.
        images_of: Batch → images, (B, 3, H, W) in [0, 1].

    Raises:
        UserError: ModelOpt is not installed.
    """
    require_modelopt()
    with silenced():
        prepare_qat(model, batches, images_of)


def restore_quantizers(model: nn.Module, state: dict[str, Any]) -> None:
    """Give a plain network the quantizers of a checkpoint, in place; `state` is what lies under `STATE`.

    Raises:
        UserError: ModelOpt is not installed.
    """
    require_modelopt()
    with silenced():
        restore_qat(model, state)


def remove_quantizers(model: nn.Module) -> dict[str, Any] | None:
    """Take the quantizers out of a network, or of the student of a pair, in place.

    Returns:
        Their state, for a checkpoint; None if there are none.
    """
    state: dict[str, Any] | None = qat_state(model)
    strip_qat(model)
    return state


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Keep ModelOpt off stdout and warnings; it announces itself where quantizers are inserted or restored."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def without_warnings() -> Iterator[None]:
    """Drop ModelOpt's own warnings, in a run that goes on printing: on models of transformers, on devices."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="modelopt")
        yield
