"""What a reader should know before the numbers: runs that are not finished, values that are not finite."""

from __future__ import annotations

import math
from collections.abc import Iterator

from yolokd.report.arms import Arms
from yolokd.report.formatting import percent
from yolokd.report.runs import RunFolder
from yolokd.report.scoring import ScoredImages, Scores
from yolokd.report.study import Study
from yolokd.training.events import RATIO_LIMIT

SAME = 0.001  # AP; scoring again on another device may differ by less


def find_anomalies(study: Study, arms: Arms, scores: Scores, images: ScoredImages | None) -> list[str]:
    """Return sentences, each once, the gravest first."""
    found = [*_of_runs(study), *study.anomalies, *_of_arms(arms), *arms.notes, *_of_data(study, images)]
    found += [*scores.notes, *_of_scores(study, arms, scores)]
    return list(dict.fromkeys(found))


def _of_runs(study: Study) -> Iterator[str]:
    if study.absent:
        yield f"Not started yet: {', '.join(study.absent)}."
    for name, run in study.runs.items():
        if run.state == "without weights":
            yield f"{name} has no weights/last.pt that can be read, so it is not scored."
        if run.state == "unfinished":
            yield f"{name} is {run.progress}; its score stands with the runs and counts in no mean."
        if run.state == "finished" and run.epochs < (run.arguments.get("epochs") or 0):
            yield f"{name} stopped early: {run.progress}."
        for problem in run.problems:
            yield f"{name}: {problem}."
        yield from (f"{name}: {line}" for line in of_columns(run))


def of_columns(run: RunFolder) -> Iterator[str]:
    """Say which columns of results.csv hold values that a training should not have."""
    epochs = run.columns.get("epoch", ())
    for column, values in run.columns.items():
        bad = [epoch for epoch, value in zip(epochs, values, strict=False) if not math.isfinite(value)]
        ratio = max((value for value in values if math.isfinite(value)), default=0)
        if column.startswith("train/") and bad:
            more = f" and {len(bad) - 1} later" if len(bad) > 1 else ""
            yield f"{column} is not finite in epoch {bad[0]:.0f}{more}."
        if column.startswith("train/kd_") and values and not any(values):
            yield f"{column} is 0 in every epoch: the term taught nothing."
        if column.startswith("gradient/") and ratio > RATIO_LIMIT:
            yield f"{column[9:]} had up to {ratio:.0f} times the detection loss's gradient at the neck."


def _of_arms(arms: Arms) -> Iterator[str]:
    for arm in arms.arms:
        if arm.result.continued:
            seeds = ", ".join(map(str, arm.result.continued))
            yield f"{arm.label}: seeds continued after an interruption, so not exactly paired: {seeds}."
        difference = arm.result.difference.get("AP")
        if difference is not None and not arm.control and difference.images is None:
            yield (
                f"{arm.label} has no interval for new images: some runs have no matches.npz, since an earlier version "
                f"scored them, or the runs were scored on one image or on different objects."
            )
        if arms.teacher and "AP" in arm.result.difference and not arm.control and "AP" not in arm.result.gap_closed:
            yield "The teacher scores no higher than plain training: there is no gap to close."


def _of_data(study: Study, images: ScoredImages | None) -> Iterator[str]:
    if images is None:
        return
    recorded = {str(run.provenance.get("data_fingerprint") or "") for run in study.runs.values()} - {""}
    if recorded and not images.whole & recorded:
        yield (
            f"The data in '{images.yaml}' are not those of the training (another fingerprint); the models were "
            f"scored on what is there now."
        )


def _of_scores(study: Study, arms: Arms, scores: Scores) -> Iterator[str]:
    kept = _kept_scores(study, arms)
    for name, finding in (*(("teacher", found) for found in scores.teachers.values()), *scores.runs.items()):
        for note in finding.score.notes:
            yield f"{name}: {note}."
        now, before = finding.score.AP, kept.get(name)
        if before is not None and abs(now - before) > SAME:
            yield (
                f"{name} scores {percent(now, 2)} now and scored {percent(before, 2)} in the comparison; its table "
                f"keeps the latter."
            )
    versions = {str(sorted(run.provenance.get("versions", {}).items())) for run in study.runs.values()}
    if len(versions) > 1:
        yield "The runs were made with different versions of the libraries; see the origin of each."


def _kept_scores(study: Study, arms: Arms) -> dict[str, float]:
    """The AP of the teacher and of each run as their comparison found it."""
    if study.comparison is None:
        return {}
    pairs = [(name, run.seed, arm.result.scores["AP"]) for arm in arms.arms for name, run in arm.runs.items()]
    of_teacher = {"teacher": arms.teacher["AP"]} if arms.teacher else {}
    return of_teacher | {name: kept[seed] for name, seed, kept in pairs if seed is not None and seed in kept}
