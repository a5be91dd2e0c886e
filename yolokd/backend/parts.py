"""Parts of a detector that an export in 8 bits can leave in full precision.

Every layer belongs to one part: the stem (the first two convolutions), the stages of the backbone by stride (`p2` is
stride 4), the neck, the two branches of the head, and what the task computes beside them, such as `head.mask`. Where
the backbone ends is told by the model's YAML, where a stage begins by the size of what a layer returns.

Ultralytics (8.4.190) has no option for this. Its OpenVINO export calls `nncf.quantize` with a scope of its own, which
leaves the decoding of boxes and scores in full precision; its ONNX export calls `quantize_static` of ONNX Runtime with
every node that is no convolution or matrix product. Both names are looked up when the export runs, so `kept_in_float`
puts a function in their place that adds operations to what Ultralytics leaves out. Operations carry the name of the
module that they were traced from. OpenVINO's Swish does not (all of them have the name of the last one), and is never
in 8 bits.
"""

from __future__ import annotations

import contextlib
import importlib
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from ultralytics.nn.tasks import DetectionModel

from yolokd.backend.tasks import TASKS, task_of_head
from yolokd.errors import RunError, UserError

FORMATS = ("openvino", "onnx")  # exports in 8 bits that can leave parts in full precision
STEM, NECK, BOX, CLS = "stem", "neck", "head.box", "head.cls"
STEM_CONVOLUTIONS = 2
UNNAMED = ("Constant", "Parameter", "Result", "Swish")  # OpenVINO's operations that tell no module, or hold no sum
_MODULE = re.compile(r"\bmodel\.(\d+)(?:[./](\w+))?")  # __module.model.22.cv3.0/…, /model.22/cv3.0/…
_CHILD = {"cv2": BOX, "dfl": BOX, "cv3": CLS}  # of the head; a second branch has the prefix one2one_


@dataclass(frozen=True)
class Partition:
    """Which part each layer of a detector belongs to."""

    layers: Mapping[int, str]  # layer → part, all but the head
    head: int  # its place among the layers
    further: tuple[str, tuple[str, ...]] = ("", ())  # `yolokd.backend.tasks.Task.part` of the head

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all parts, from the input to the output."""
        return (
            *dict.fromkeys(self.layers[layer] for layer in sorted(self.layers)),
            BOX,
            CLS,
            *filter(None, (self.further[0],)),
        )

    def part_of(self, operation: str) -> str | None:
        """Return the part of an operation of an export; None for the decoding in the head, and for unnamed ones."""
        found = _MODULE.search(operation)
        if found is None:
            return None
        if int(found[1]) == self.head:
            name, children = self.further
            return (_CHILD | dict.fromkeys(children, name)).get((found[2] or "").removeprefix("one2one_"))
        return self.layers.get(int(found[1]))

    def check(self, kept: Iterable[str], source: object) -> None:
        """Raise `UserError` for a name that is no part of this detector; it lists those that are.

        Args:
            kept: Names of parts.
            source: What the detector was loaded from, for the message.
        """
        if unknown := [f"'{part}'" for part in dict.fromkeys(kept) if part not in self.names]:
            raise UserError(f"'{source}' has no part {', '.join(unknown)}; known: {', '.join(self.names)}.")

    def operations(self, kept: Collection[str], operations: Sequence[str]) -> list[str]:
        """Return the operations of some parts.

        Raises:
            RunError: A part has none, so that it would be in 8 bits without a word.
        """
        part_of = {name: self.part_of(name) for name in operations}
        if absent := [part for part in kept if part not in part_of.values()]:
            raise RunError(f"The export has no operation that belongs to {', '.join(absent)}.")
        return [name for name, part in part_of.items() if part in kept]


def partition_of(model: DetectionModel) -> Partition:
    """Return the parts of a detector; the backbone is what its YAML calls so."""
    layers: list[nn.Module] = list(model.model)
    head = len(layers) - 1
    ends = len(model.yaml["backbone"])
    strides = _strides(model)
    part_of, seen = {}, 0
    for place, layer in enumerate(layers[:head]):
        has = any(isinstance(module, nn.Conv2d) for module in layer.modules())
        if place >= ends:
            part_of[place] = NECK
        elif seen < STEM_CONVOLUTIONS:
            part_of[place] = STEM
        else:
            part_of[place] = f"backbone.p{strides[place].bit_length() - 1}"
        seen += has
    return Partition(part_of, head, TASKS[task_of_head(layers[head])].part)


def _strides(model: DetectionModel) -> list[int]:
    """Ratio of the input's side to that of each layer's output, in their order; without a feature map, the last one."""
    found = [1]  # of the input
    side = 4 * int(model.stride.max())

    def record(layer: nn.Module, inputs: Any, output: Any) -> None:
        is_map = isinstance(output, torch.Tensor) and output.ndim == 4
        found.append(side // output.shape[-1] if is_map else found[-1])

    hooks = [layer.register_forward_hook(record) for layer in model.model]
    was_training, like = model.training, next(model.parameters())
    try:
        with torch.no_grad():
            model.eval()(torch.zeros(1, int(model.yaml.get("channels", 3)), side, side).to(like))
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
    return found[1:]


@contextlib.contextmanager
def kept_in_float(format: str, partition: Partition, kept: Collection[str]) -> Iterator[None]:
    """While active, Ultralytics' exports in 8 bits leave some parts in full precision.

    Args:
        format: One of `FORMATS`.
        partition: Of the detector that is exported.
        kept: Names of parts; with none, nothing changes.

    Raises:
        RunError: Ultralytics made an export without the function that is replaced here.
    """
    if not kept:
        yield
        return
    package, name, change = {
        "openvino": ("nncf", "quantize", _nncf),
        "onnx": ("onnxruntime.quantization", "quantize_static", _onnx),
    }[format]
    module, calls = importlib.import_module(package), []
    original = getattr(module, name)

    def replaced(*args: Any, **options: Any) -> Any:
        calls.append(name)
        return change(original, partition, kept, *args, **options)

    setattr(module, name, replaced)
    try:
        yield
    finally:
        setattr(module, name, original)
    if not calls:
        raise RunError(f"Ultralytics did not use {package}.{name}: {', '.join(kept)} would be in 8 bits.")


def _nncf(
    quantize: Callable[..., Any], partition: Partition, kept: Collection[str], /, *args: Any, **options: Any
) -> Any:
    """Call `nncf.quantize` with the operations of the parts in its ignored scope."""
    import nncf

    network = options["model"] if "model" in options else args[0]
    named = [op.get_friendly_name() for op in network.get_ordered_ops() if op.get_type_name() not in UNNAMED]
    scope = options.get("ignored_scope") or nncf.IgnoredScope()
    names = [*scope.names, *partition.operations(kept, named)]
    return quantize(*args, **{**options, "ignored_scope": replace(scope, names=list(dict.fromkeys(names)))})


def _onnx(
    quantize: Callable[..., Any], partition: Partition, kept: Collection[str], /, *args: Any, **options: Any
) -> Any:
    """Call `quantize_static` of ONNX Runtime with the nodes of the parts among those that it leaves out."""
    import onnx

    network = onnx.load(args[0], load_external_data=False)
    names = [
        *options.get("nodes_to_exclude", ()), *partition.operations(kept, [n.name for n in network.graph.node])
    ]  # fmt: skip
    return quantize(*args, **{**options, "nodes_to_exclude": list(dict.fromkeys(names))})
