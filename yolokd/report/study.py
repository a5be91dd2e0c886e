"""What a report is about: the runs of one comparison, or runs given one by one, all on the same data."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from yolokd.backend.opening import short_names
from yolokd.backend.tasks import TASKS
from yolokd.comparison.execution import log_file
from yolokd.comparison.spec import FILE, Comparison, read
from yolokd.errors import UserError
from yolokd.inputs import read_text
from yolokd.report.runs import UNKNOWN, RunFolder, is_run, read_run
from yolokd.training.events import read_events
from yolokd.training.task import chosen_classes

CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f]")  # colors and bars of a terminal


@dataclass(frozen=True)
class Study:
    """The runs of a report, in the order in which they are shown."""

    title: str
    runs: Mapping[str, RunFolder]  # short name → run
    comparison: Comparison | None = None
    absent: tuple[str, ...] = ()  # runs of the comparison that have not been started
    anomalies: tuple[str, ...] = ()  # what the logs of the comparison's runs say

    @property
    def single_cls(self) -> bool:
        """Whether all classes of the data are one to these runs."""
        return any(run.single_cls for run in self.runs.values())

    @property
    def classes(self) -> tuple[int, ...] | None:
        """The classes of the data that these runs learn; None: all."""
        return next((chosen_classes(run.arguments) for run in self.runs.values() if run.arguments), None)

    @property
    def data(self) -> str:
        """The data set's YAML, as the first run names it."""
        return self.comparison.data if self.comparison else next(iter(self.runs.values())).data


def open_study(folders: Sequence[str | Path]) -> Study:
    """Read runs, or one comparison.

    Args:
        folders: Folders of runs in the order in which they are to be shown, or the folder of one comparison.

    Raises:
        UserError: No folder, one that is neither run nor comparison, a comparison among runs, a comparison in which
            nothing has been trained, or runs on different data.
    """
    places = list(dict.fromkeys(Path(folder).expanduser().absolute() for folder in folders))
    if not places:
        raise UserError("Name the runs to report on: yolokd report runs/baseline runs/bckd, or a comparison's folder.")
    comparisons = [place for place in places if (place / FILE).is_file()]
    if not comparisons:
        runs = dict(zip(short_names(places), map(read_run, places), strict=True))
        refuse_other_tasks(runs)
        refuse_different_data(runs)
        refuse_different_tasks(runs)
        return Study(title=", ".join(runs) if len(runs) <= 3 else f"{len(runs)} runs", runs=runs)
    if len(places) > 1:
        raise UserError(
            f"'{comparisons[0]}' is a comparison, which is reported by itself: give it alone, or give runs only."
        )
    return _open_comparison(comparisons[0])


def _open_comparison(folder: Path) -> Study:
    comparison = read(folder)
    known = {run.name: run.folder for run in comparison.runs}
    runs = {name: read_run(place) for name, place in known.items() if place.is_dir() and is_run(place)}
    if not runs:
        raise UserError(
            f"The comparison in '{folder}' has not trained anything yet, so there is nothing to report. Start it again "
            f"with its 'yolokd compare' command."
        )
    refuse_other_tasks(runs)
    anomalies = [line for name in known for line in read_log(log_file(comparison, name), name, runs.get(name))]
    absent = tuple(name for name in known if name not in runs)
    return Study(folder.name, runs, comparison, absent, tuple(anomalies))


def read_log(log: Path, name: str, run: RunFolder | None) -> list[str]:
    """Return the events of a comparison's run, and how its log ends if the run did not finish."""
    try:
        text = read_text(log, errors="replace")
    except OSError:
        return []
    lines = [CONTROL.sub("", line.rpartition("\r")[2]).strip() for line in text.splitlines()]
    found = [] if run is None else [f"{name}: {event}." for event in read_events(run.folder)]
    if (run is None or run.state != "finished") and (last := next((line for line in reversed(lines) if line), "")):
        found.append(f"{name} is not finished; its log ends with: {last[:300]}")
    return found


def refuse_other_tasks(runs: Mapping[str, RunFolder]) -> None:
    """Refuse runs whose models give more than boxes, which a report scores and draws.

    Raises:
        UserError: Names the first of them.
    """
    for name, run in runs.items():
        task = str(run.arguments.get("task") or "detect")
        if task not in TASKS or not TASKS[task].boxes_suffice:
            raise UserError(
                f"report scores the boxes of detect models, and the task of the run '{name}' is {task}. Score it with "
                f"yolokd eval; results.csv holds the losses."
            )


def refuse_different_data(runs: Mapping[str, RunFolder]) -> None:
    """Refuse runs that were trained on different data, by fingerprint, or by path where a run has none.

    Raises:
        UserError: Names the runs by data set.
    """
    prints = {name: str(run.provenance.get("data_fingerprint") or "") for name, run in runs.items()}
    by_print = all(prints.values()) and len({":" in found for found in prints.values()}) == 1  # of one version
    groups: dict[str, list[str]] = {}
    for name, run in runs.items():
        if run.data != UNKNOWN:
            groups.setdefault(prints[name] if by_print else run.data, []).append(name)
    if len(groups) > 1:
        each = "; ".join(f"{', '.join(names)}: {runs[names[0]].data}" for names in groups.values())
        same = len({runs[names[0]].data for names in groups.values()}) == 1
        why = " (the same path, but other images or labels by then)" if same else ""
        raise UserError(
            f"The runs were trained on different data, so their scores cannot be compared: {each}{why}. Report on each "
            f"group by itself."
        )


def refuse_different_tasks(runs: Mapping[str, RunFolder]) -> None:
    """Refuse runs that learned different classes of the same data, by `train.single_cls` and `train.classes`.

    Raises:
        UserError: Names the runs by task.
    """
    groups: dict[tuple[bool, tuple[int, ...] | None], list[str]] = {}
    for name, run in runs.items():
        if run.arguments:
            groups.setdefault((run.single_cls, chosen_classes(run.arguments)), []).append(name)
    if len(groups) > 1:
        each = "; ".join(
            f"{', '.join(names)}: single_cls {str(single).lower()}, classes {'all' if classes is None else [*classes]}"
            for (single, classes), names in groups.items()
        )
        raise UserError(
            f"The runs learned different classes, so their scores cannot be compared: {each}. Report on each group by "
            f"itself."
        )
