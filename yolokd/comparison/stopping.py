"""When a comparison that adds seeds one by one has seen enough: each recipe has an interval that decides."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from yolokd.comparison.results import Results, run_score
from yolokd.comparison.spec import BASELINE, Comparison
from yolokd.comparison.statistics import Difference

FEWEST = 2  # seeds that an interval needs


def looks(comparison: Comparison) -> Iterator[Comparison]:
    """Yield the comparison over its first seeds, one seed more each time.

    It begins with the seeds whose runs have all finished before, and at least two, so that nothing that was found is
    left out. The intervals of `yolokd.comparison.sequential` hold wherever it begins and stops.

    Args:
        comparison: With all seeds that may be used.
    """
    complete = 0
    for seed in comparison.seeds:
        if any(run_score(run.folder) is None for run in comparison.runs if run.seed == seed):
            break
        complete += 1
    for count in range(max(complete, FEWEST), len(comparison.seeds) + 1):
        yield replace(comparison, seeds=comparison.seeds[:count])


def undecided(found: Results, precision: float | None = None) -> list[tuple[str, str]]:
    """Return student and recipe of those whose interval over the seeds decides nothing yet.

    It decides if it excludes 0, or if it is narrow enough; of several metrics, the interval of each.

    Args:
        found: From `results` of a sequential comparison.
        precision: Half width in AP in [0, 1] below which an interval is narrow enough; None: only the sign decides.
    """
    left = []
    for arm in found.arms:
        if arm.recipe == BASELINE:
            continue
        if not all(_decides(arm.difference.get(metric.AP), precision) for metric in found.metrics):
            left.append((arm.student, arm.recipe))
    return left


def _decides(difference: Difference | None, precision: float | None) -> bool:
    interval = None if difference is None else difference.seeds
    if interval is None:
        return False
    return interval.sign != 0 or (precision is not None and (interval.high - interval.low) / 2 < precision)


def missing_pairs(comparison: Comparison, found: Results) -> dict[tuple[str, str], list[int]]:
    """Return for each student and recipe the seeds of the comparison without a pair; only where some are missing."""
    plain = {arm.student: arm.scores["AP"] for arm in found.arms if arm.recipe == BASELINE}
    missing = {}
    for arm in found.arms:
        common = arm.scores["AP"].keys() & plain[arm.student].keys()
        if seeds := [seed for seed in comparison.seeds if seed not in common]:
            missing[arm.student, arm.recipe] = seeds
    return missing
