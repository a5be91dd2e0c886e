"""After weight selection: each convolution of the student is fitted to what the teacher's gives, layer by layer.

Source: He et al., "Channel Pruning for Accelerating Very Deep Neural Networks", ICCV 2017, eq. 5: linear least squares
from the inputs that are left to the outputs of the whole layer, in the order of the forward pass, so that each fit
makes up for the errors before it.
Differs: the target is the teacher's normalized output, and the student's normalization takes over mean and deviation of
the fit, so that it gives the same in training; a ridge of 1e-4 of the mean square of the inputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from yolokd.backend.api import Conv, DetectionModel, build_yolo_dataset, get_split_fraction
from yolokd.backend.label_scan import kept_apart
from yolokd.initialization.weight_selection import Rows, convolution, padding, spaced

SUFFIXES = 256  # that a fit looks at
POSITIONS = 256  # of an image, at most, that a fit looks at
RIDGE = 1e-4
EPS = 1e-12


def calibration(args: Any, data: dict[str, Any], device: torch.device) -> list[Tensor]:
    """Return up to 256 of the images that are trained on, without augmentation, in batches (B, 3, H, W) in [0, 1].

    Args:
        args: Ultralytics' training arguments.
        data: Ultralytics' checked data set.
        device: Where to put them.
    """
    args = copy(args)
    args.cache, args.rect = None, False
    share = get_split_fraction(args.fraction, "train")  # which the mode would take from the validation images
    with kept_apart():
        dataset = build_yolo_dataset(args, data["train"], args.batch, data, mode="val", fraction=share)
    images = [dataset[int(index)]["img"] for index in spaced(min(SUFFIXES, len(dataset)), len(dataset))]
    return [part.to(device).float() / 255 for part in torch.stack(images).split(16)]


class _ReachedError(Exception):
    """Ends a forward pass at the convolution whose input was wanted."""


@torch.no_grad()
def reconstruct(
    student: DetectionModel, teacher: DetectionModel, rows: Mapping[str, Rows], batches: Sequence[Tensor]
) -> None:
    """Fit the student's convolutions to the teacher's outputs, in place.

    Args:
        student: With selected weights; see `yolokd.initialization.weight_selection`.
        teacher: Not folded, on the same device.
        rows: Which output channels belong together, in the order of the forward pass.
        batches: Images, each (B, 3, H, W) in [0, 1].
    """
    modes = [(module, module.training) for model in (student, teacher) for module in model.modules()]
    for model in (student, teacher):
        model.eval()
        model.model[-1].training = True  # raw outputs, no decoding
    try:
        targets = _targets(teacher, rows, batches)
        for name in rows:
            fit = Fit(convolution(student.get_submodule(name)), targets[name][0].shape[-1])
            for number, (batch, target) in enumerate(zip(batches, targets.pop(name), strict=True)):
                fit.add(_input(student, name, batch), target, number)
            _apply(student.get_submodule(name), rows[name].own, fit)
    finally:
        for module, mode in modes:
            module.training = mode


class Fit:
    """Linear least squares from patches of the input to the target, gathered batch by batch in float64.

    Groups are fitted each by itself; a plain convolution is a single group.

    Args:
        conv: The convolution to be fitted; only its shape counts.
        outputs: Number of its output channels that are fitted.
        ridge: What is added to the mean squares of the inputs, as a share of their mean.
    """

    def __init__(self, conv: nn.Conv2d, outputs: int, *, ridge: float = RIDGE) -> None:
        self.conv, self.ridge = conv, ridge
        self.size = conv.in_channels // conv.groups * conv.kernel_size[0] * conv.kernel_size[1]  # D, without the bias
        width = self.size + 1
        self.gram = torch.zeros(conv.groups, width, width, dtype=torch.float64)
        self.cross = torch.zeros(conv.groups, width, outputs // conv.groups, dtype=torch.float64)

    def add(self, x: Tensor, target: Tensor, number: int) -> None:
        """Add a batch: its input (B, C, H, W), and the targets at the sampled positions, (B, P, outputs)."""
        patches = F.unfold(x, self.conv.kernel_size, padding=padding(self.conv), stride=self.conv.stride)
        patches = patches.unflatten(1, (self.conv.groups, self.size))  # (B, G, D, L)
        patches = patches[..., positions(patches.shape[-1], number).to(x.device)].permute(1, 0, 3, 2).flatten(1, 2)
        place = "cpu" if x.device.type == "mps" else x.device  # which has no float64
        inputs = F.pad(patches, (0, 1), value=1.0).to(place).double()  # (G, B·P, D + 1)
        outputs = target.flatten(0, 1).unflatten(-1, (self.conv.groups, -1)).transpose(0, 1).to(place).double()
        self.gram += (inputs.mT @ inputs).to(self.gram)
        self.cross += (inputs.mT @ outputs).to(self.cross)

    def solve(self) -> Solution:
        """Return weights and bias of the fit, and mean and variance of what the weights give without the bias."""
        ridge = self.ridge * self.gram.diagonal(dim1=1, dim2=2)[:, :-1].mean(1, keepdim=True) + EPS
        damped = self.gram.clone()
        damped.diagonal(dim1=1, dim2=2)[:, :-1].add_(ridge)
        solved = torch.linalg.solve(damped, self.cross)  # (G, D + 1, outputs / G)
        weight, count = solved[:, :-1], self.gram[0, -1, -1]
        mean = (weight * self.gram[:, :-1, -1:]).sum(1) / count
        square = (weight * (self.gram[:, :-1, :-1] @ weight)).sum(1) / count
        return Solution(
            weight.mT.reshape(-1, self.conv.in_channels // self.conv.groups, *self.conv.kernel_size),
            solved[:, -1].flatten(),
            mean.flatten(),
            (square - mean.square()).clamp_min(EPS).flatten(),
        )


@dataclass(frozen=True)
class Solution:
    """Weights (outputs, C / G, h, w), bias (outputs,), and mean and variance of the weighted sums, (outputs,)."""

    weight: Tensor
    bias: Tensor
    mean: Tensor
    variance: Tensor


def positions(count: int, number: int) -> Tensor:
    """Return the sampled positions among `count` of a map, the same for both models; drawn anew for each batch."""
    if count <= POSITIONS:
        return torch.arange(count)
    return torch.randperm(count, generator=torch.Generator().manual_seed(number))[:POSITIONS]


def _targets(teacher: DetectionModel, rows: Mapping[str, Rows], batches: Sequence[Tensor]) -> dict[str, list[Tensor]]:
    """Return the teacher's normalized outputs, name → (B, P, outputs) of each batch."""
    found: dict[str, list[Tensor]] = {name: [] for name in rows}

    def note(name: str) -> object:
        def hook(unit: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            value = unit.bn(unit.conv(inputs[0])) if isinstance(unit, Conv) else output
            value = value[:, rows[name].theirs.to(value.device)].flatten(2)  # (B, outputs, L)
            found[name].append(value[..., positions(value.shape[-1], len(found[name])).to(value.device)].mT)

        return teacher.get_submodule(name).register_forward_hook(hook)

    handles = [note(name) for name in rows]
    try:
        for batch in batches:
            teacher(batch)
    finally:
        for handle in handles:
            handle.remove()  # type: ignore[attr-defined]
    return found


def _input(student: DetectionModel, name: str, batch: Tensor) -> Tensor:
    """Return what a convolution of the student gets, (B, C, H, W); the pass ends there."""
    found: list[Tensor] = []

    def note(unit: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        found.append(inputs[0])
        raise _ReachedError

    handle = student.get_submodule(name).register_forward_pre_hook(note)
    try:
        student(batch)
    except _ReachedError:
        pass
    finally:
        handle.remove()
    return found[0]


def _apply(unit: nn.Module, own: Tensor, fit: Fit) -> None:
    """Give a convolution the fitted weights, and its normalization what makes it pass them on as they are."""
    conv, found = convolution(unit), fit.solve()
    conv.weight[own] = found.weight.to(conv.weight)
    norm = getattr(unit, "bn", None)
    if norm is None:
        if conv.bias is not None:
            conv.bias[own] = found.bias.to(conv.bias)
        return
    values = {
        "running_mean": found.mean,
        "running_var": found.variance,
        "weight": (found.variance + norm.eps).sqrt(),
        "bias": found.bias + found.mean,
    }
    for key, value in values.items():
        target = getattr(norm, key)
        target[own] = value.to(target)
