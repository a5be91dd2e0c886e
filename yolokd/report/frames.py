"""The images on which two models differ most, and what stands below each panel."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from yolokd.report.matching import Box, LossAccumulator, match
from yolokd.report.scoring import Finding, ScoredImages

COUNT = 6  # images shown


@dataclass(frozen=True)
class Cast:
    """Whose detections are shown: label → finding; the last is compared with the one before it."""

    members: Mapping[str, Finding]

    @property
    def pair(self) -> tuple[str, str] | None:
        """Baseline and student, or teacher and student; None for a single model."""
        labels = list(self.members)
        return (labels[-2], labels[-1]) if len(labels) > 1 else None


@dataclass(frozen=True)
class Shown:
    """One model on one image."""

    label: str
    boxes: Sequence[Box]
    missed: Sequence[Box]
    accumulator: LossAccumulator


@dataclass(frozen=True)
class Frame:
    """One image with its objects and what each model found."""

    place: int  # in `Images.files`
    objects: Sequence[Box]
    counts: Mapping[str, int]  # class → objects
    shown: Sequence[Shown]


def choose(images: ScoredImages, cast: Cast, count: int = COUNT) -> list[int]:
    """Return the images to show, the most telling first.

    With two models or more they are those on which student and baseline differ most in F1 (in either direction), with
    a single one those on which its F1 is lowest. Of equals the images with more objects come first. Images without
    objects are left out.
    """
    objects = Counter(box["image_id"] for box in images.objects)
    tallies = {label: accumulator(images, finding) for label, finding in cast.members.items()}
    pair = cast.pair
    last = list(tallies.values())[-1]

    def telling(place: int) -> float:
        if pair is None:
            return 1 - last[place].f1
        return abs(tallies[pair[1]][place].f1 - tallies[pair[0]][place].f1)

    ranked = sorted(objects, key=lambda place: (-telling(place), -objects[place], place))
    return [place for place in ranked[:count] if telling(place) > 0]


def accumulator(images: ScoredImages, finding: Finding) -> list[LossAccumulator]:
    """Count what a model found in each image."""
    objects = Counter(box["image_id"] for box in images.objects)
    right = Counter(box["image_id"] for box in finding.boxes if box["right"])
    every = Counter(box["image_id"] for box in finding.boxes)
    return [LossAccumulator(objects[n], right[n], every[n] - right[n]) for n in range(len(images.files))]


def frames(images: ScoredImages, cast: Cast, places: Sequence[int]) -> list[Frame]:
    """Gather what is drawn into the chosen images."""
    truth = _by_image(images.objects)
    found = {label: _by_image(finding.boxes) for label, finding in cast.members.items()}
    made = []
    for place in places:
        shown = []
        for label in cast.members:
            boxes = found[label][place]
            right, hit = match(truth[place], boxes)
            missed = [box for box, seen in zip(truth[place], hit.tolist(), strict=True) if not seen]
            count = int(right.sum())
            shown.append(Shown(label, boxes, missed, LossAccumulator(len(truth[place]), count, len(boxes) - count)))
        counts = Counter(images.names[box["category_id"]] for box in truth[place])
        made.append(Frame(place, truth[place], dict(counts.most_common()), shown))
    return made


def _by_image(boxes: Sequence[Box]) -> dict[int, list[Box]]:
    found: dict[int, list[Box]] = defaultdict(list)
    for box in boxes:
        found[box["image_id"]].append(box)
    return found
