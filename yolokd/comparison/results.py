"""What a comparison has found so far, read from the files that its runs left."""

from __future__ import annotations

import csv
import itertools
import math
import statistics
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from yolokd.comparison.metrics import BOXES, Metric, metrics_of
from yolokd.comparison.resampling import METRICS, DrawnScores, differences, draw_scores
from yolokd.comparison.sequential import sequence_quantile
from yolokd.comparison.spec import BASELINE, Comparison, Run
from yolokd.comparison.statistics import Difference, Spread, gap_closed, seed_quantile, spread
from yolokd.evaluation.matches import read_matches
from yolokd.files import sha256
from yolokd.inputs import misfits, read_json, refuse_special

SCORE = "score.json"  # in a run's folder
PEAK = "memory.json"  # in a run's folder
TEACHER = "teacher"


@dataclass(frozen=True)
class ArmResult:
    """One recipe on one student. AP values are in [0, 1]; None where there is nothing to say."""

    student: str
    recipe: str
    scores: Mapping[str, Mapping[int, float]]  # metric → seed → value, finished runs only
    spread: Mapping[str, Spread]  # empty without a finished run
    difference: Mapping[str, Difference]  # to the baseline; empty for itself and without a common seed
    gap_closed: Mapping[str, float]
    seconds_per_epoch: float | None
    peak_memory_bytes: int | None
    continued: tuple[int, ...]  # seeds whose run was interrupted and continued


@dataclass(frozen=True)
class _Scored:
    """What the finished runs of an arm scored."""

    scores: Mapping[str, Mapping[int, float]]  # metric → seed → value
    drawn: Mapping[Metric, Mapping[int, DrawnScores]]  # seed → scores on draws of the images, where matches were kept


@dataclass(frozen=True)
class Results:
    """All arms, student by student in the order of the recipes."""

    arms: tuple[ArmResult, ...]
    teacher: Mapping[str, float]  # metric → value; empty without a teacher or before it was scored
    metrics: tuple[Metric, ...] = (BOXES,)  # what is judged

    def to_dict(self, comparison: Comparison) -> dict[str, Any]:
        """Plain data for `--json`."""
        arms = []
        for arm in self.arms:
            plain = asdict(arm)
            for metric, difference in arm.difference.items():
                plain["difference"][metric]["verdict"] = difference.verdict
            arms.append(plain)
        return {
            "comparison": comparison.folder.name,
            "data": comparison.data,
            "budget": dict(comparison.budget),
            "seeds": list(comparison.seeds),
            "sequential": comparison.sequential,
            "task": comparison.task,
            "teacher": None if comparison.teacher is None else {"path": comparison.teacher, **self.teacher},
            "arms": arms,
        }


def results(comparison: Comparison) -> Results:
    """Sum up the finished runs; with the intervals of `sequential` if seeds were added until something was decided."""
    quantile = sequence_quantile if comparison.sequential else seed_quantile
    teacher = teacher_score(comparison) or {}
    arms = []
    metrics = metrics_of(comparison.task)
    for student in comparison.students:
        own = [run for run in comparison.runs if run.student == student]
        baseline = _scored([run for run in own if run.recipe == BASELINE], metrics)
        for recipe in comparison.recipes:
            plain = comparison.recipes[recipe]
            if plain.get("regimes"):
                plain = comparison.recipe_for(student, recipe).to_dict()
            section = plain.get("teacher")
            seen = teacher if not isinstance(section, Mapping) or sees_the_same(section) else {}
            arms.append(_arm([run for run in own if run.recipe == recipe], baseline, seen, quantile))
    keys = [key for metric in metrics for key in metric.keys]
    return Results(tuple(arms), {key: teacher[key] for key in keys if _is_score(teacher.get(key))}, metrics)


def sees_the_same(teacher: Mapping[str, Any]) -> bool:
    """Whether the teacher teaches as it is scored: alone, and at the student's size; else no gap to it is closed.

    Args:
        teacher: The section `teacher` of a recipe, as plain data.
    """
    return teacher.get("answers", "live") == "live" and teacher.get("scale", 1) == 1 and not teacher.get("models")


def run_score(folder: Path) -> dict[str, Any] | None:
    """Return the score of a finished run; None if there is none, or of another `last.pt` than lies there now."""
    last = folder / "weights" / "last.pt"
    return _cached(folder / SCORE, sha256(last)) if last.is_file() else None


def teacher_score(comparison: Comparison) -> dict[str, Any] | None:
    """Return the score of the teacher, if it has been found."""
    return _cached(comparison.folder / f"{TEACHER}.json", comparison.teacher_sha256)


def seconds_per_epoch(folder: Path) -> float | None:
    """Return the median time of an epoch from `results.csv`, whose clock starts anew where a run was continued."""
    steps = _epoch_seconds(folder)
    return statistics.median(steps) if steps else None


def run_seconds(folder: Path) -> float | None:
    """Return how long a finished run took: with its start and scoring if it was trained at once, else its epochs."""
    taken = (run_score(folder) or {}).get("seconds")
    if isinstance(taken, (int, float)) and 0 < taken < math.inf:
        return float(taken)
    steps = _epoch_seconds(folder)
    return sum(steps) if steps else None


def _epoch_seconds(folder: Path) -> list[float]:
    """Return the time of each epoch; nothing where `results.csv` cannot be read."""
    try:
        refuse_special(folder / "results.csv")
        with (folder / "results.csv").open(encoding="utf-8", newline="") as file:
            times = [0.0, *(float(row["time"]) for row in csv.DictReader(file))]
    except (OSError, KeyError, ValueError, TypeError, csv.Error):
        return []
    return [after - before if after > before else after for before, after in itertools.pairwise(times)]


def _arm(runs: list[Run], baseline: _Scored, teacher: Mapping[str, Any], quantile: Callable[[int], float]) -> ArmResult:
    control = runs[0].recipe == BASELINE
    own = baseline if control else _scored(runs, tuple(baseline.drawn))
    scores = own.scores
    found: dict[str, Difference] = {}
    for metric, drawn in own.drawn.items() if not control else ():
        sides = (scores, baseline.scores, drawn, baseline.drawn[metric])
        found |= differences(*sides, metrics=metric.keys, quantile=quantile)
    gaps = {m: gap_closed(scores[m], baseline.scores[m], teacher[m]) for m in found if _is_score(teacher.get(m))}
    times = [time for run in runs if (time := seconds_per_epoch(run.folder)) is not None]
    memory = {run.seed: _plain(run.folder / PEAK) for run in runs}
    peaks = [kept["bytes"] for kept in memory.values() if isinstance(kept.get("bytes"), int)]
    return ArmResult(
        student=runs[0].student,
        recipe=runs[0].recipe,
        scores=scores,
        spread={m: spread(list(values.values())) for m, values in scores.items() if values},
        difference=found,
        gap_closed={m: gap for m, gap in gaps.items() if gap is not None},
        seconds_per_epoch=statistics.median(times) if times else None,
        peak_memory_bytes=max(peaks, default=None),
        continued=tuple(seed for seed, kept in memory.items() if kept.get("continued")),
    )


def _scored(runs: list[Run], metrics: tuple[Metric, ...]) -> _Scored:
    found = {run: score for run in runs if (score := run_score(run.folder)) is not None}
    scores, drawn = {}, {}
    for metric in metrics:
        for key in metric.keys:
            scores[key] = {run.seed: score[key] for run, score in found.items() if _is_score(score.get(key))}
        kept = {run.seed: read_matches(run.folder / metric.matches, score["sha256"]) for run, score in found.items()}
        known = {seed: matches for seed, matches in kept.items() if matches is not None}
        drawn[metric] = draw_scores(known, metric.keys)
    return _Scored(scores, drawn)


def _is_score(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _cached(file: Path, digest: str | None) -> dict[str, Any] | None:
    plain = _plain(file)
    known = all(metric in plain for metric in METRICS) and not misfits(plain, dict.fromkeys(METRICS, (int, float)))
    return plain if known and plain.get("sha256") == digest else None


def _plain(file: Path) -> dict[str, Any]:
    try:
        plain = read_json(file)
    except (OSError, ValueError):
        return {}
    return plain if isinstance(plain, dict) else {}
