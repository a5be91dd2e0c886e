"""Runs that differ by their seed alone form an arm; what an arm gains is its paired difference to plain training.

For a comparison the arms are those that `yolokd compare` shows. Runs given one by one are put together here: the same
student, recipe and budget, one run per seed; a difference is taken only to plain training with an equal budget.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yolokd.backend.opening import short_names
from yolokd.comparison.checks import NEUTRAL
from yolokd.comparison.resampling import METRICS, DrawnScores, differences, draw_scores
from yolokd.comparison.results import ArmResult, results, seconds_per_epoch
from yolokd.comparison.spec import BASELINE, Comparison
from yolokd.comparison.statistics import gap_closed, spread
from yolokd.errors import RecipeError
from yolokd.files import sha256
from yolokd.recipe import Recipe
from yolokd.report.runs import RunFolder
from yolokd.report.scoring import Finding, Scores
from yolokd.report.study import Study

# Besides: what says which models take part, where the run goes, and how validation in between is done.
APART = NEUTRAL | {"model", "distill_model", "dis", "save_dir", "resume", "task", "mode", "val"}


@dataclass(frozen=True)
class Arm:
    """One recipe on one student, over its seeds."""

    label: str  # what tells it from the other arms of its student
    runs: Mapping[str, RunFolder]  # name → run, by seed
    control: bool  # plain training
    result: ArmResult
    against: Mapping[int, float]  # seed → AP of the plain training that its difference is to


@dataclass(frozen=True)
class Arms:
    """All arms, student by student, plain training first; and why some differences are not taken."""

    arms: tuple[Arm, ...]
    teacher: Mapping[str, float]  # metric → score; empty without one, or with several
    notes: tuple[str, ...] = ()

    def students(self) -> list[str]:
        """Names of the students in order."""
        return list(dict.fromkeys(arm.result.student for arm in self.arms))

    def of(self, student: str) -> list[Arm]:
        """The arms of one student."""
        return [arm for arm in self.arms if arm.result.student == student]


def gather(study: Study, scores: Scores) -> Arms:
    """Put the runs together in arms and sum up their scores."""
    return _grouped(study, scores) if study.comparison is None else _compared(study.comparison, study.runs)


def budget(run: RunFolder) -> dict[str, Any]:
    """Return the training arguments of a run that must be equal for a comparison."""
    return {key: value for key, value in run.arguments.items() if key not in APART}


def _compared(comparison: Comparison, runs: Mapping[str, RunFolder]) -> Arms:
    found = results(comparison)
    known = {run.name: run for run in comparison.runs}
    plain = {result.student: result.scores["AP"] for result in found.arms if result.recipe == BASELINE}
    arms = []
    for result in found.arms:
        own = {
            name: runs[name]
            for name, run in known.items()
            if (run.student, run.recipe) == (result.student, result.recipe) and name in runs
        }
        if own:
            control = result.recipe == BASELINE
            against = {} if control else plain[result.student]
            arms.append(Arm(result.recipe, own, control, result, against))
    return Arms(tuple(arms), found.teacher)


def _grouped(study: Study, scores: Scores) -> Arms:
    masters = {run.teacher_sha256 for run in study.runs.values()} - {None}
    runs = {name: run for name, run in study.runs.items() if not _is_any(run, masters)}
    specs = list(dict.fromkeys(run.student for run in runs.values()))
    titles = dict(zip(specs, short_names_of(specs), strict=True))
    groups: dict[str, dict[str, RunFolder]] = {}
    for name, run in runs.items():
        groups.setdefault(_identity(run), {})[name] = run
    parts = [part for group in groups.values() for part in _by_seed(group)]
    parts.sort(key=lambda part: (specs.index(_first(part).student), _first(part).distilled))
    arms, notes = [], []
    for part in parts:
        rivals = [other for other in parts if _first(other).student == _first(part).student]
        arm, note = _arm(part, rivals, titles, scores)
        arms.append(arm)
        notes += [note] if note else []
    metrics = [_metrics(scores, digest) for digest in masters]
    return Arms(tuple(arms), metrics[0] if len(metrics) == 1 else {}, tuple(dict.fromkeys(notes)))


def _arm(
    part: dict[str, RunFolder], rivals: Sequence[dict[str, RunFolder]], titles: Mapping[str, str], scores: Scores
) -> tuple[Arm, str]:
    first = _first(part)
    control = not first.distilled
    plain = [] if control else [rival for rival in rivals if not _first(rival).distilled]
    fair = [rival for rival in plain if budget(_first(rival)) == budget(first)]
    own = _scores(part, scores)
    base = _scores(fair[0], scores) if len(fair) == 1 else {metric: {} for metric in METRICS}
    drawn = (_drawn(part, scores), _drawn(fair[0], scores)) if len(fair) == 1 else ({}, {})
    found = differences(own, base, *drawn)
    top = _metrics(scores, first.teacher_sha256)
    gaps = {metric: gap_closed(own[metric], base[metric], top[metric]) for metric in METRICS if metric in top}
    times = [time for run in part.values() if (time := seconds_per_epoch(run.folder)) is not None]
    same_name = sum(_first(rival).recipe_name == first.recipe_name for rival in rivals)
    label = first.recipe_name if same_name == 1 else f"{first.recipe_name} ({next(iter(part))})"
    result = ArmResult(
        student=titles[first.student],
        recipe=first.recipe_name,
        scores=own,
        spread={metric: spread(list(values.values())) for metric, values in own.items() if values},
        difference=found,
        gap_closed={metric: gap for metric, gap in gaps.items() if gap is not None},
        seconds_per_epoch=statistics.median(times) if times else None,
        peak_memory_bytes=None,
        continued=(),
    )
    arm = Arm(label, part, control, result, base["AP"])
    return arm, "" if control else _reason(arm, plain, fair)


def _reason(arm: Arm, plain: Sequence[dict[str, RunFolder]], fair: Sequence[dict[str, RunFolder]]) -> str:
    """Say why an arm has no difference to plain training, if it has none.

    Args:
        arm: A recipe's.
        plain: Plain trainings of its student.
        fair: Those of them with an equal budget.
    """
    run = _first(arm.runs)
    if not plain:
        return f"There is no plain training of '{run.student}' among the runs, so nothing is said of a gain over it."
    if len(fair) > 1:
        names = " and ".join(next(iter(rival)) for rival in fair)
        return f"There are several plain trainings to be compared with ({names}), so no difference is taken; give one."
    if fair and (arm.result.difference or not arm.result.scores["AP"]):
        return ""
    if fair:
        return f"{arm.label} and plain training have no scored seed in common, so no difference is taken."
    here, there = budget(run), budget(_first(plain[0]))
    keys = [key for key in dict.fromkeys((*here, *there)) if here.get(key) != there.get(key)]
    pairs = "; ".join(f"{key} {here.get(key)} against {there.get(key)}" for key in keys[:5])
    return f"{arm.label} and plain training had different budgets, so no difference is taken: {pairs}."


def short_names_of(specs: Sequence[str]) -> list[str]:
    """Return short names of models, told apart by the folders they lie in where need be."""
    stems = [Path(spec).stem for spec in specs]
    return stems if len(set(stems)) == len(stems) else short_names([Path(spec) for spec in specs])


def _identity(run: RunFolder) -> str:
    """What all runs of an arm have in common, as text."""
    recipe = {**run.recipe, "train": {}, "summary": ""}
    with suppress(RecipeError):  # of another version of yolokd: as it is written
        recipe = Recipe.from_dict(recipe).to_dict()
    start = run.provenance.get("student_initialisation")
    parts = [run.student, start, run.recipe_name, recipe, run.teacher_sha256, budget(run)]
    return json.dumps(parts, sort_keys=True, default=str)


def _by_seed(group: dict[str, RunFolder]) -> list[dict[str, RunFolder]]:
    """Split a group in which a seed is missing or given twice, whose runs cannot be told apart, into single runs."""
    seeds = [run.seed for run in group.values()]
    if None in seeds or len(set(seeds)) < len(seeds):
        return [{name: run} for name, run in group.items()]
    return [dict(sorted(group.items(), key=lambda item: item[1].seed or 0))]


def _is_any(run: RunFolder, digests: set[str | None]) -> bool:
    """Whether one of the run's checkpoints is a teacher."""
    if not digests or run.digest is None:
        return False
    best = run.folder / "weights" / "best.pt"
    return run.digest in digests or (best.is_file() and sha256(best) in digests)


def _scores(part: Mapping[str, RunFolder], scores: Scores) -> dict[str, dict[int, float]]:
    """Metric → seed → score, of finished runs."""
    found = _findings(part, scores)
    return {metric: {seed: float(getattr(one.score, metric)) for seed, one in found.items()} for metric in METRICS}


def _drawn(part: Mapping[str, RunFolder], scores: Scores) -> dict[int, DrawnScores]:
    """Seed → scores on draws of the images, of finished runs."""
    return draw_scores({seed: finding.matches for seed, finding in _findings(part, scores).items()})


def _findings(part: Mapping[str, RunFolder], scores: Scores) -> dict[int, Finding]:
    done = {name: run for name, run in part.items() if run.state == "finished" and name in scores.runs}
    return {run.seed or 0: scores.runs[name] for name, run in done.items()}


def _metrics(scores: Scores, digest: str | None) -> dict[str, float]:
    finding = scores.teachers.get(digest or "")
    return {} if finding is None else {metric: getattr(finding.score, metric) for metric in METRICS}


def _first(part: Mapping[str, RunFolder]) -> RunFolder:
    return next(iter(part.values()))
