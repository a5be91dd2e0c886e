"""Weight selection: a student without trained weights starts from a part of the teacher's.

Source: Xu et al., "Initializing Models with Larger Ones", ICLR 2024: of each layer evenly spaced channels, of a deeper
stack the first blocks.
Differs: a layer's input channels are those that the layers before it kept, also through concatenations, splits and
residual sums, where the paper spaces each tensor by itself; rows of the class output go by class; attention, whose
channels belong to its heads, is taken over only where it has the same shape; weights of convolutions without
normalization are scaled by the share of inputs kept, so that their output keeps its size.

Who kept what is found by running both models on tags: every convolution emits a number for each channel in place of a
image, the student's convolution the numbers of the teacher's channels that it takes over.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from yolokd.backend.api import AAttn, Attention, Conv, DetectionModel
from yolokd.backend.classes import ClassMatch
from yolokd.errors import PairError

MIXING = (Attention, AAttn)  # whose channels belong to heads
SIDE = 64  # pixels of the tagged image, or the largest stride if that is more


class UnfitTeacherError(PairError):
    """The teacher's weights do not fit the student; `reason` says why, without what to do."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(
            f"student.init: teacher takes over a part of the teacher's weights layer by layer, but {reason}. Take a "
            f"wider teacher of the same family, or student.init: random."
        )


@dataclass(frozen=True)
class Rows:
    """Output channels that a convolution takes over: its own, and the teacher's."""

    own: Tensor
    theirs: Tensor


@dataclass(frozen=True)
class Selection:
    """What was taken over."""

    parameters: int  # of the student that came from the teacher
    total: int  # parameters of the student
    rows: Mapping[str, Rows] = field(
        repr=False
    )  # convolution → output channels that have a partner, in the order of the forward pass

    @property
    def share(self) -> float:
        """Share of the student's parameters that came from the teacher."""
        return self.parameters / self.total


def require_same_layers(student: DetectionModel, teacher: DetectionModel) -> None:
    """Refuse a teacher of another family, whose layers mean something else.

    Raises:
        UnfitTeacherError: The kinds of layers differ, or what they are connected to, or the keypoints of the heads; or
            a student of masks.
    """
    ours, theirs = ([(type(layer).__name__, layer.f) for layer in model.model] for model in (student, teacher))
    if ours == theirs:
        if any(isinstance(module, nn.ConvTranspose2d) for module in student.modules()):
            raise UnfitTeacherError("its prototypes of masks take a transposed convolution, which is not followed")
        own, other = (list(getattr(model.model[-1], "kpt_shape", ())) for model in (student, teacher))
        if own != other:
            raise UnfitTeacherError(f"kpt_shape is {own} in the student and {other} in the teacher")
        return
    place = next((i for i, pair in enumerate(zip(ours, theirs, strict=False)) if pair[0] != pair[1]), len(ours))
    kinds = [layers[place][0] if place < len(layers) else "nothing" for layers in (ours, theirs)]
    raise UnfitTeacherError(f"layer {place} is {kinds[0]} in the student and {kinds[1]} in the teacher")


@torch.no_grad()
def select_weights(student: DetectionModel, teacher: DetectionModel, classes: ClassMatch) -> Selection:
    """Fill the student with a part of the teacher's weights, in place.

    Args:
        student: Freshly built; what the teacher has no part for keeps its random weights.
        teacher: Not yet folded, of the same family, at least as wide.
        classes: Which rows of the class output belong together.

    Raises:
        UnfitTeacherError: Another family, or nothing at all could be taken over.
    """
    require_same_layers(student, teacher)
    given = _Tagged(teacher)
    taken = _Tagged(student, given, classes)
    for model, tagged in ((teacher, given), (student, taken)):
        with _in_place_of_convolutions(model, tagged):
            model.model[-1].training, mode = True, model.model[-1].training  # raw outputs, no decoding
            channels, side = int(model.yaml.get("channels", 3)), max(SIDE, int(model.stride.max()))
            model(torch.arange(1.0, channels + 1, dtype=torch.float64).view(1, -1, 1, 1).expand(1, -1, side, side))
            model.model[-1].training = mode
    copied = sum(
        _copy(taken.units[name], given.units[name], taken.rows[name], given, taken, name) for name in taken.rows
    )
    copied += _copy_mixing(student, teacher)
    if not copied:
        raise UnfitTeacherError("the teacher has no layer at least as wide as the student's")
    return Selection(copied, sum(p.numel() for p in student.parameters()), taken.rows)


@dataclass
class _Tagged:
    """A model's convolutions and the tags that came in and went out."""

    model: DetectionModel
    teacher: _Tagged | None = None  # None: this is the teacher
    classes: ClassMatch | None = None
    units: dict[str, nn.Module] = field(default_factory=dict)
    inputs: dict[str, Tensor] = field(default_factory=dict)  # name → tags, (C_in,)
    outputs: dict[str, Tensor] = field(default_factory=dict)  # name → tags, (C_out,)
    rows: dict[str, Rows] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.random = torch.Generator().manual_seed(0 if self.teacher is None else 1)
        modules = dict(self.model.named_modules())
        self.mixing = [module for module in modules.values() if isinstance(module, MIXING)]
        inner = {id(part) for module in self.mixing for part in module.modules()}
        modules = {name: module for name, module in modules.items() if id(module) not in inner}
        wrapped = [name for name, module in modules.items() if isinstance(module, Conv)]
        inside = {f"{name}.conv" for name in wrapped}
        bare = [n for n, m in modules.items() if isinstance(m, nn.Conv2d) and n not in inside]
        self.units = {
            name: self.model.get_submodule(name) for name in (*wrapped, *bare) if not name.endswith("dfl.conv")
        }
        head = self.model.model[-1]
        lists = [part for part in (head.cv3, getattr(head, "one2one_cv3", None)) if part is not None]
        ends = {id(branch[-1]) for part in lists for branch in part}
        self.class_outputs = {name for name, unit in self.units.items() if id(unit) in ends}

    def pass_tags(self, name: str, x: Tensor) -> Tensor:
        """Stand in for a convolution: note what comes in, emit the tags of what goes out."""
        conv = convolution(self.units[name])
        self.inputs[name] = x[0, :, 0, 0]
        tags = torch.rand(conv.out_channels, generator=self.random, dtype=torch.float64)
        if self.teacher is not None and (rows := self._rows(name, conv)) is not None:
            self.rows[name] = rows
            tags[rows.own] = self.teacher.outputs[name][rows.theirs]
        self.outputs[name] = tags
        sides = [
            (side + 2 * p - d * (k - 1) - 1) // s + 1
            for side, p, d, k, s in zip(
                x.shape[-2:], padding(conv), conv.dilation, conv.kernel_size, conv.stride, strict=True
            )
        ]
        return tags.view(1, -1, 1, 1).expand(1, -1, *sides)

    def _rows(self, name: str, conv: nn.Conv2d) -> Rows | None:
        """Return what this convolution takes over; None if the teacher has nothing that fits."""
        if self.teacher is None or name not in self.teacher.outputs:
            return None
        other = convolution(self.teacher.units[name])
        depthwise = [c.groups == c.in_channels == c.out_channels and c.groups > 1 for c in (conv, other)]
        plain = conv.groups == other.groups == 1
        if conv.kernel_size != other.kernel_size or not (plain or all(depthwise)):
            return None
        if name in self.class_outputs and self.classes is not None:
            return Rows(torch.tensor(self.classes.student), torch.tensor([first for first, *_ in self.classes.teacher]))
        if conv.out_channels > other.out_channels or conv.in_channels > other.in_channels:
            return None
        every = torch.arange(conv.out_channels)
        return Rows(every, self.columns(name) if all(depthwise) else spaced(conv.out_channels, other.out_channels))

    def columns(self, name: str) -> Tensor:
        """Return the teacher's input channels that belong to this convolution's, evenly spaced if that is unknown."""
        if self.teacher is None:
            raise ValueError("the teacher takes over nothing")
        ours, theirs = self.inputs[name].tolist(), self.teacher.inputs[name].tolist()
        places: dict[float, list[int]] = {}
        for place, tag in reversed(list(enumerate(theirs))):
            places.setdefault(tag, []).append(place)
        # of channels that were concatenated several times, the first to the first, the second to the second
        found = [places[tag].pop() if places.get(tag) else -1 for tag in ours]
        return spaced(len(ours), len(theirs)) if -1 in found else torch.tensor(found)


def spaced(count: int, of: int) -> Tensor:
    """Return `count` evenly spaced indices below `of`, (count,)."""
    return torch.arange(count) * of // count


def _copy(own: nn.Module, other: nn.Module, rows: Rows, given: _Tagged, taken: _Tagged, name: str) -> int:
    """Take over one convolution with its normalization; return the number of parameters."""
    conv, source = convolution(own), convolution(other)
    weight = source.weight[rows.theirs]  # (C_out, C_in / groups, h, w)
    norm, source_norm = getattr(own, "bn", None), getattr(other, "bn", None)
    if conv.groups == 1:
        weight = weight[:, taken.columns(name)]
        if norm is None:
            weight = weight * (source.in_channels / conv.in_channels)
    conv.weight[rows.own] = weight.to(conv.weight)
    pairs: list[tuple[Any, Any]] = [(conv.bias, source.bias)]
    if norm is not None and source_norm is not None:
        pairs += [
            (getattr(norm, k), getattr(source_norm, k)) for k in ("weight", "bias", "running_mean", "running_var")
        ]
    copied = weight.numel()
    for target, value in pairs:
        if target is not None and value is not None:
            target[rows.own] = value[rows.theirs].to(target)
            copied += len(rows.own) if isinstance(target, nn.Parameter) else 0
    return copied


def _copy_mixing(student: DetectionModel, teacher: DetectionModel) -> int:
    """Take over attention that has the same shape in both; return the number of parameters."""
    theirs = dict(teacher.named_modules())
    copied = 0
    module: Any
    for name, module in student.named_modules():
        other: Any = theirs.get(name)
        if isinstance(module, MIXING) and type(other) is type(module) and _shapes(module) == _shapes(other):
            module.load_state_dict(other.state_dict())
            copied += sum(parameter.numel() for parameter in module.parameters())
    return copied


def _shapes(module: nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in module.state_dict().items()}


def convolution(unit: nn.Module) -> nn.Conv2d:
    """Return the convolution of a unit: Ultralytics' `Conv`, or a convolution by itself."""
    conv = unit.conv if isinstance(unit, Conv) else unit
    if not isinstance(conv, nn.Conv2d):
        raise TypeError(f"{type(conv).__name__} is not a convolution")
    return conv


def padding(conv: nn.Conv2d) -> tuple[int, int]:
    """Return the rows and columns that a convolution adds at each side."""
    if isinstance(conv.padding, str):
        raise TypeError(f"a convolution with padding {conv.padding!r}")
    return conv.padding[0], conv.padding[1]


@contextmanager
def _in_place_of_convolutions(model: DetectionModel, tagged: _Tagged) -> Iterator[None]:
    for name, unit in tagged.units.items():
        unit.forward = partial(tagged.pass_tags, name)
    for module in tagged.mixing:
        module.forward = torch.zeros_like  # it is added to its input, whose tags go on
    try:
        yield
    finally:
        for unit in (*tagged.units.values(), *tagged.mixing):
            del unit.forward
