"""What a wired loss sees (`Step`) and returns: loss maps, one per term.

A loss map says how wrong the student is at each place: (B, A), A being the cells of the levels that both models have,
one level after the other from fine to coarse, row-major. A loss without a place returns (B,). Each wired loss scales
its maps so that `map.sum(1).mean(0)` (or `.mean(0)` of a (B,) loss) is the value that its paper defines for the batch;
gains, schedules and weights come later.

Nothing here is saved with a model: trainable parts are plain torch modules that `Loss.build` returns.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, reduce
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from yolokd.losses.levels import STRIDES
from yolokd.losses.rotated import rotated_around, upright
from yolokd.losses.tensors import mean_over_ranks, widen, without_autocast

MASKS, KEYPOINTS = "masks", "keypoints"  # of `Requirements.extras`
ANGLES = "angles"  # the same, and of `Head.extras`: with them boxes are rotated
COEFFICIENTS, PROTOTYPES = "coefficients", "prototypes"  # of `Head.extras`: what masks are made of
# of `Head.extras`: keypoints in cells from the center of the anchor, x and y of each, (B, A, 2·N); logits of their
# visibility, (B, A, N), where the head gives any
OFFSETS, VISIBILITY = "offsets", "visibility"


@dataclass(frozen=True)
class Grid:
    """Where the anchors lie: the cells of each level, levels from fine to coarse, rows first."""

    shapes: Mapping[str, tuple[int, int]]  # level → (H, W)
    strides: Mapping[str, int]  # level → pixels per cell

    @classmethod
    def of_images(cls, images: Tensor, levels: Iterable[str]) -> Grid:
        """Return the grid of some levels, from fine to coarse, for images (B, C, H, W) whose sides they divide."""
        height, width = images.shape[-2:]
        strides = {level: STRIDES[level] for level in levels}
        return cls({level: (height // stride, width // stride) for level, stride in strides.items()}, strides)

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the images in pixels."""
        level, (height, width) = next(iter(self.shapes.items()))
        return height * self.strides[level], width * self.strides[level]

    @property
    def anchors(self) -> int:
        """A, the number of cells of all levels."""
        return sum(h * w for h, w in self.shapes.values())

    def places(self, level: str) -> slice:
        """The anchors of one level."""
        start = 0
        for name, (h, w) in self.shapes.items():
            if name == level:
                return slice(start, start + h * w)
            start += h * w
        raise KeyError(level)

    def at(self, levels: Collection[str]) -> Grid:
        """Return the grid of some of its levels alone, in its own order."""
        return Grid(
            {level: shape for level, shape in self.shapes.items() if level in levels},
            {level: stride for level, stride in self.strides.items() if level in levels},
        )

    def pick(self, x: Tensor, levels: Collection[str], dim: int = 1) -> Tensor:
        """Return the anchors of some of its levels, in its own order; `x` itself if those are all.

        Args:
            x: Has A places along `dim`.
            levels: Of the grid; others are passed over.
            dim: Along which the anchors lie.
        """
        if all(level in levels for level in self.shapes):
            return x
        places = [self.places(level) for level in self.shapes if level in levels]
        parts = [x.narrow(dim, one.start, one.stop - one.start) for one in places]
        return torch.cat(parts, dim) if parts else x.narrow(dim, 0, 0)

    def spread(self, maps: Mapping[str, Tensor]) -> Tensor:
        """Join maps (B, H, W) of some levels into (B, A); levels that are not given are zero."""
        first = next(iter(maps.values()))
        parts = [
            maps[name].flatten(1) if name in maps else first.new_zeros(len(first), h * w)
            for name, (h, w) in self.shapes.items()
        ]
        return torch.cat(parts, 1)  # (B, A)

    def centers(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Centers of the cells in pixels of the input image, (A, 2) x and y, and their strides, (A, 1)."""
        points, strides = [], []
        for name, (h, w) in self.shapes.items():
            stride = self.strides[name]
            y, x = torch.meshgrid(
                torch.arange(h, device=device) + 0.5, torch.arange(w, device=device) + 0.5, indexing="ij"
            )
            points.append(torch.stack((x, y), -1).reshape(-1, 2) * stride)  # (H·W, 2)
            strides.append(torch.full((h * w, 1), float(stride), device=device))
        return torch.cat(points), torch.cat(strides)


@dataclass(frozen=True)
class Head:
    """What one branch of one model says at every anchor, before any threshold. Half precision is widened."""

    logits: Tensor  # (B, A, K), float32 or wider
    raw: Tensor  # (B, A, 4·R): bins of the distances left, top, right, bottom; R = 1 means the distances themselves
    grid: Grid
    # what the task gives beside: (B, A, ·) such as `COEFFICIENTS`, or of the image, (B, ·, ·, ·), such as `PROTOTYPES`;
    # with `ANGLES`, (B, A, 1) in radians, the distances are along the axes of a rotated box
    extras: Mapping[str, Tensor] = field(default_factory=dict)

    def at(self, levels: Collection[str]) -> Head:
        """Return what it says at the anchors of some levels; itself if those are all of its levels."""
        if all(level in levels for level in self.grid.shapes):
            return self
        pick = self.grid.pick
        extras = {name: pick(value, levels) if value.ndim == 3 else value for name, value in self.extras.items()}
        return Head(pick(self.logits, levels), pick(self.raw, levels), self.grid.at(levels), extras)

    @property
    def bins(self) -> int:
        """R, the number of distribution bins per side."""
        return self.raw.shape[-1] // 4

    @cached_property
    def distribution(self) -> Tensor:
        """Logits of the distances' distribution, (B, A, 4, R), float32 or wider."""
        return widen(self.raw).view(*self.raw.shape[:2], 4, self.bins)

    @cached_property
    @without_autocast
    def boxes(self) -> Tensor:
        """Decoded boxes, (B, A, 4), xyxy in pixels of the input image; not clipped to it.

        Where the head gives angles, the upright rectangles around its rotated boxes.
        """
        if self.rotated is not None:
            return upright(self.rotated)
        points, strides = self.grid.centers(self.raw.device)
        return around(points, self._distances(strides))

    @cached_property
    @without_autocast
    def rotated(self) -> Tensor | None:
        """Decoded rotated boxes, (B, A, 5): middle, width, height in pixels, angle in radians; None without angles."""
        if ANGLES not in self.extras:
            return None
        points, strides = self.grid.centers(self.raw.device)
        return rotated_around(points, self._distances(strides), widen(self.extras[ANGLES]))

    def _distances(self, strides: Tensor) -> Tensor:
        """Return the distances to the left, top, right and bottom side in pixels, (B, A, 4)."""
        if self.bins == 1:
            distances = widen(self.raw)  # (B, A, 4)
        else:
            bins = torch.arange(self.bins, dtype=self.distribution.dtype, device=self.raw.device)
            distances = (bins @ self.distribution.permute(0, 2, 3, 1).softmax(2)).mT  # as it lies in memory; (B, A, 4)
        return distances * strides

    @without_autocast
    def boxes_at(self, image: Tensor, anchor: Tensor) -> Tensor:
        """Return the boxes of some anchors alone, (F, 4), as `boxes` gives them.

        Args:
            image: The image of each, (F,) long.
            anchor: Its place, (F,) long.
        """
        points, strides = self.grid.centers(self.raw.device)
        distances = widen(self.raw[image, anchor])  # (F, 4·R)
        if self.bins > 1:
            bins = torch.arange(self.bins, dtype=distances.dtype, device=distances.device)
            distances = distances.view(-1, 4, self.bins).softmax(-1) @ bins
        distances, points = distances * strides[anchor], points[anchor]
        if ANGLES in self.extras:
            return upright(rotated_around(points, distances, widen(self.extras[ANGLES][image, anchor])))
        return around(points, distances)


def around(points: Tensor, distances: Tensor) -> Tensor:
    """Return boxes xyxy from points x, y (…, 2) and the distances to their left, top, right and bottom, (…, 4)."""
    left_top, right_bottom = distances.chunk(2, -1)
    return torch.cat((points - left_top, points + right_bottom), -1)


Averages = Mapping[str, Tensor]  # "positives" and "target_scores" of one branch → () per labeled image


@dataclass(frozen=True)
class Branch:
    """One pair of heads, one-to-many or one-to-one, and what the student's own assignment says about it."""

    name: str  # "one2many" or "one2one"
    weight: float  # share of this branch in the detection loss
    student: Head
    teacher: Head
    positives: Tensor  # (B, A) bool: anchors that the student's assignment gave to an object; none without labels
    target_scores_sum: Tensor  # (): mass of the assignment's soft labels, at least 1
    labeled: float = 1.0  # share of the B images that have labels, which alone can have positives
    averages: Averages | None = None  # of the run so far, this step included; None: this step stands alone

    def expected(self, quantity: Literal["positives", "target_scores"]) -> Tensor:
        """Return how many positives, or how much mass of soft labels, a batch of this size holds on average, ().

        By the averages of the run, so that a batch of backgrounds counts no more than others. Without them by the
        batch alone (at least 1), scaled up to the images without labels; over several processes their mean.
        """
        if self.averages is not None:
            return self.averages[quantity] * len(self.positives)
        mass = self.positives.sum().float() if quantity == "positives" else self.target_scores_sum
        return mean_over_ranks(mass).clamp_min(1) / self.labeled


@dataclass(frozen=True)
class Answered:
    """One branch of the student's head, and what stored answers of the teacher ask of it at every anchor."""

    weight: float  # share of this branch in the detection loss
    student: Head  # over the common classes
    targets: Tensor  # (B, A, K): alignment × the teacher's probabilities
    boxes: Tensor  # (B, A, 4), xyxy in pixels; meaningless where the targets are 0
    mass: Tensor  # (): what the targets of a batch of this size add up to, on average over the run; above 0


@dataclass(frozen=True)
class Step:
    """Everything that the losses may look at in one training step."""

    student: Mapping[str, Tensor]  # level → neck features (B, C, H, W), with gradient
    teacher: Mapping[str, Tensor]  # level → neck features of the teacher, without
    grid: Grid  # of the levels that both have
    number: int = 1  # of the step in the run, from 1
    branches: tuple[Branch, ...] = ()  # empty if no loss needs a head
    teacher_scores: Tensor | None = None  # (B, A): the teacher's largest score over all of its own classes
    boxes_xyxy_px: tuple[Tensor, ...] = field(default=())  # ground truth of each image, (N, 4)
    adversarial: AdversarialExamples | None = None  # of the batch; None on steps without
    answered: tuple[Answered, ...] = ()  # empty if no loss asks for stored answers


LevelMaps = Callable[[Mapping[str, Tensor], Mapping[str, Tensor]], Mapping[str, Tensor]]


class AdversarialExamples(Protocol):
    """Adversarial examples of a batch, and the neck features that both models have of them."""

    def compare(self, distance: LevelMaps) -> Tensor:
        """Return a loss map, (B, A), of the distance between the neck features of student and teacher.

        Args:
            distance: From the features of the student and of the teacher, each level → (B, C, H, W), to level →
                (B, H, W). It may run again in the backward pass.
        """
        ...


@dataclass(frozen=True)
class Requirements:
    """What losses take from a step, and so from teacher and data; `|` joins those of several losses."""

    levels: tuple[str, ...] = ()  # neck features of both models on these levels
    heads: bool = False  # `Step.branches`: what both heads predict at every anchor
    classes: bool = False  # scores class by class, so teacher and student must know the same classes
    overlaps: bool = False  # of decoded boxes of both heads
    distributions: bool = False  # box distributions over the same bins: equal reg_max above 1
    teacher_scores: bool = False  # `Step.teacher_scores`
    boxes: bool = False  # `Step.boxes_xyxy_px`
    objects: bool = False  # labeled objects: images without labels teach nothing
    adversarial: bool = False  # `Step.adversarial`
    answers: bool = False  # `Step.answered`: stored answers of the teacher
    extras: tuple[str, ...] = ()  # of both heads, beside scores and boxes: `MASKS`, `KEYPOINTS`; see `Head.extras`
    visibility: bool = False  # of both heads' keypoints: `VISIBILITY`

    def __or__(self, other: Requirements) -> Requirements:
        """Return what both together need; `objects` only if both act on labeled objects alone."""
        return Requirements(
            levels=tuple(sorted({*self.levels, *other.levels})),
            heads=self.heads or other.heads,
            classes=self.classes or other.classes,
            overlaps=self.overlaps or other.overlaps,
            distributions=self.distributions or other.distributions,
            teacher_scores=self.teacher_scores or other.teacher_scores,
            boxes=self.boxes or other.boxes,
            objects=self.objects and other.objects,
            adversarial=self.adversarial or other.adversarial,
            answers=self.answers or other.answers,
            extras=tuple(dict.fromkeys((*self.extras, *other.extras))),
            visibility=self.visibility or other.visibility,
        )

    @property
    def teacher_head(self) -> bool:
        """Whether the teacher's head has to run on the clean images."""
        return self.heads or self.teacher_scores


def requirements(losses: Iterable[Loss]) -> Requirements:
    """Return what some losses need together."""
    needs = [loss.requires for loss in losses]
    return reduce(Requirements.__or__, needs) if needs else Requirements()


class Loss(ABC):
    """Wires one method: from a step to loss maps. Holds no tensors and is never saved; parts are passed in."""

    terms: tuple[str, ...]  # names of the maps, without the prefix kd_
    requires: Requirements = Requirements()
    head_terms: frozenset[str] = frozenset()  # of the terms, those that compare head outputs; the rest, features

    @abstractmethod
    def __init__(self, config: Any) -> None:
        """Take the method's section of the recipe."""

    def build(self, student: Mapping[str, int], teacher: Mapping[str, int]) -> nn.ModuleDict:
        """Make the trainable parts from the channels per level of both models: plain torch modules only."""
        return nn.ModuleDict()

    @property
    def levels(self) -> tuple[str, ...]:
        """Levels whose neck features it compares."""
        return self.requires.levels

    @abstractmethod
    def maps(self, step: Step, parts: nn.ModuleDict, active: Collection[str]) -> dict[str, Tensor]:
        """Return the map of each active term: (B, A), or (B,) for a loss without a place."""

    def pieces(self, step: Step, parts: nn.ModuleDict, active: Collection[str]) -> Iterator[dict[str, Tensor]]:
        """Give `maps` in pieces that add up to it; the caller may be done with one before it asks for the next.

        A piece holds terms on features or terms on head outputs, never both, and shares no graph with another.
        """
        yield self.maps(step, parts, active)


class FeatureLoss(Loss):
    """A loss that compares neck features, each level by itself."""

    @abstractmethod
    def level_maps(self, step: Step, parts: nn.ModuleDict, level: str, active: Collection[str]) -> dict[str, Tensor]:
        """Return what one level adds to each active term on features: (B, H, W), or (B,) for one without a place."""

    def pieces(self, step: Step, parts: nn.ModuleDict, active: Collection[str]) -> Iterator[dict[str, Tensor]]:
        """Give one level after the other, so that only one at a time takes memory.

        Raises:
            ValueError: No levels were named; see `yolokd.losses.table.losses_of`.
        """
        if not self.levels:
            raise ValueError(f"the loss of {', '.join(self.terms)} was given no levels to compare")
        for level in self.levels:
            yield {
                term: values if values.ndim == 1 else step.grid.spread({level: values})
                for term, values in self.level_maps(step, parts, level, active).items()
            }

    @without_autocast
    def maps(self, step: Step, parts: nn.ModuleDict, active: Collection[str]) -> dict[str, Tensor]:
        """Return the map of each active term: (B, A), or (B,) for a term without a place."""
        maps: dict[str, Tensor] = {}
        for piece in self.pieces(step, parts, active):
            add(maps, piece)
        return maps


def add(sums: dict[str, Tensor], more: Mapping[str, Tensor]) -> None:
    """Add to each sum by name, in place of it."""
    for name, value in more.items():
        sums[name] = sums[name] + value if name in sums else value


def adapters(levels: Collection[str], student: Mapping[str, int], teacher: Mapping[str, int]) -> nn.ModuleDict:
    """Return one 1×1 convolution per level from the student's channels to the teacher's; none where they are equal."""
    return nn.ModuleDict(
        {
            level: nn.Identity() if student[level] == teacher[level] else nn.Conv2d(student[level], teacher[level], 1)
            for level in levels
        }
    )
