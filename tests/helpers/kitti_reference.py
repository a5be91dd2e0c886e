"""A slow reference of KITTI's 2D evaluation: plain loops in the order of the development kit's description."""

from __future__ import annotations

from collections.abc import Sequence

from yolokd.evaluation.kitti import Box

NAMES = ("Car", "Pedestrian", "Cyclist")
OVERLAP = {"Car": 0.7, "Pedestrian": 0.5, "Cyclist": 0.5}
HEIGHT, OCCLUSION, TRUNCATION = (40, 25, 25), (0, 1, 2), (0.15, 0.3, 0.5)
NOTHING = -10_000_000.0


def overlap(a: Box, b: Box, criterion: str) -> float:
    """`criterion`: "union", or "a": over the area of the first box."""
    width = min(a.xyxy[2], b.xyxy[2]) - max(a.xyxy[0], b.xyxy[0])
    height = min(a.xyxy[3], b.xyxy[3]) - max(a.xyxy[1], b.xyxy[1])
    if width <= 0 or height <= 0:
        return 0.0
    inter = width * height
    area_a = (a.xyxy[2] - a.xyxy[0]) * (a.xyxy[3] - a.xyxy[1])
    area_b = (b.xyxy[2] - b.xyxy[0]) * (b.xyxy[3] - b.xyxy[1])
    return inter / (area_a + area_b - inter) if criterion == "union" else inter / area_a


def clean(truth: Sequence[Box], found: Sequence[Box], name: str, level: int) -> tuple[list[int], list[int], list[Box]]:
    """Flags of ground truth and detections (0 counts, 1 ignored, -1 other class) and the DontCare boxes."""
    truth_flags, found_flags = [], []
    for box in truth:
        kind = box.type.lower()
        if kind == name.lower():
            valid = 1
        elif (name, kind) in {("Pedestrian", "person_sitting"), ("Car", "van")}:
            valid = 0
        else:
            valid = -1
        height = box.xyxy[3] - box.xyxy[1]
        ignore = box.occlusion > OCCLUSION[level] or box.truncation > TRUNCATION[level] or height <= HEIGHT[level]
        if valid == 1 and not ignore:
            truth_flags.append(0)
        elif valid == 0 or (ignore and valid == 1):
            truth_flags.append(1)
        else:
            truth_flags.append(-1)
    for box in found:
        if int(abs(box.xyxy[1] - box.xyxy[3])) < HEIGHT[level]:
            found_flags.append(1)
        else:
            found_flags.append(0 if box.type.lower() == name.lower() else -1)
    return truth_flags, found_flags, [box for box in truth if box.type.lower() == "dontcare"]


def statistics(
    truth: Sequence[Box],
    found: Sequence[Box],
    flags: tuple[list[int], list[int], list[Box]],
    limit: float,
    threshold: float | None,
) -> tuple[int, int, list[float]]:
    """True positives, false positives and the scores of the true positives; without threshold the first pass."""
    truth_flags, found_flags, stuff = flags
    scores = [float(box.score or 0.0) for box in found]
    assigned = [False] * len(found)
    low = [threshold is not None and s < threshold for s in scores]
    hits: list[float] = []
    for i, box in enumerate(truth):
        if truth_flags[i] == -1:
            continue
        chosen, valid, largest, chosen_is_ignored = -1, NOTHING, 0.0, False
        for j, other in enumerate(found):
            if found_flags[j] == -1 or assigned[j] or low[j]:
                continue
            iou = overlap(other, box, "union")
            if not iou > limit:
                continue
            if threshold is None:
                if scores[j] > valid:
                    chosen, valid = j, scores[j]
            elif (iou > largest or chosen_is_ignored) and found_flags[j] == 0:
                chosen, valid, largest, chosen_is_ignored = j, 1.0, iou, False
            elif valid == NOTHING and found_flags[j] == 1:
                chosen, valid, chosen_is_ignored = j, 1.0, True
        if valid == NOTHING:
            continue
        assigned[chosen] = True
        if truth_flags[i] == 0 and found_flags[chosen] == 0:
            hits.append(scores[chosen])
    false = 0
    if threshold is not None:
        for j in range(len(found)):
            if not (assigned[j] or found_flags[j] != 0 or low[j]):
                false += 1
        for region in stuff:
            for j, other in enumerate(found):
                if assigned[j] or found_flags[j] != 0 or low[j]:
                    continue
                if overlap(other, region, "a") > limit:
                    assigned[j] = True
                    false -= 1
    return len(hits), false, hits


def thresholds(scores: list[float], objects: int) -> list[float]:
    scores = sorted(scores, reverse=True)
    picked, current = [], 0.0
    for i, score in enumerate(scores):
        left = (i + 1) / objects
        right = (i + 2) / objects if i < len(scores) - 1 else left
        if right - current < current - left and i < len(scores) - 1:
            continue
        picked.append(score)
        current += 1.0 / 40.0
    return picked


def average_precision(
    truth: Sequence[Sequence[Box]], found: Sequence[Sequence[Box]], name: str, level: int
) -> list[float]:
    """The 41 precision samples of one class and difficulty."""
    flags = [clean(t, f, name, level) for t, f in zip(truth, found, strict=True)]
    scores: list[float] = []
    for t, f, flag in zip(truth, found, flags, strict=True):
        scores += statistics(t, f, flag, OVERLAP[name], None)[2]
    objects = sum(flag[0].count(0) for flag in flags)
    precision = [0.0] * 41
    limits = thresholds(scores, objects)
    for n, limit in enumerate(limits):
        counts = [statistics(t, f, flag, OVERLAP[name], limit) for t, f, flag in zip(truth, found, flags, strict=True)]
        true, false = sum(c[0] for c in counts), sum(c[1] for c in counts)
        precision[n] = true / (true + false) if true + false else 0.0
    for n in range(len(limits)):
        precision[n] = max(precision[n:])
    return precision


def evaluate(
    truth: Sequence[Sequence[Box]], found: Sequence[Sequence[Box]], metric: str
) -> dict[str, dict[str, float]]:
    result: dict[str, dict[str, float]] = {}
    for name in NAMES:
        result[name] = {}
        for level, difficulty in enumerate(("easy", "moderate", "hard")):
            samples = average_precision(truth, found, name, level)
            if metric == "R40":
                result[name][difficulty] = sum(samples[1:41]) / 40 * 100
            else:
                result[name][difficulty] = sum(samples[0:41:4]) / 11 * 100
    return result
