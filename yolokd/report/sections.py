"""The sections of a report but for the images: comparison, accuracy, cost, training, runs, method."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import yaml

from yolokd.evaluation.coco import AP_METRICS
from yolokd.report.arms import Arm, Arms
from yolokd.report.evidence import known_lines
from yolokd.report.figures import accuracy, cost, gains, training
from yolokd.report.formatting import (
    NOTHING,
    counted,
    interval,
    mean_and_spread,
    percent,
    second_interval,
    share,
    signed,
)
from yolokd.report.runs import UNKNOWN, RunFolder
from yolokd.report.scoring import Finding, ScoredImages, Scores
from yolokd.report.series import MOST, Series, latency, series_of
from yolokd.report.study import Study
from yolokd.report.view import Listing, Section, Table

READ_GAINS = (
    "Thick bar: the 95 % interval of the mean difference over the seeds; thin line: over images and seeds; strokes: "
    "single seeds."
)
BANDS = "Lines and bars are means over the seeds; bands and thin lines reach from the lowest to the highest run."


def comparison(arms: Arms) -> Section:
    """The table of `yolokd compare`: mean ± standard deviation, paired difference, both intervals, share of the gap."""
    tables = []
    for student in arms.students():
        rows = [_arm_row(arm) for arm in arms.of(student)]
        if arms.teacher:
            scores = [percent(arms.teacher[metric]) for metric in ("AP", "AP50")]
            rows = [["teacher", NOTHING, *scores, *[NOTHING] * 7], *rows]
        header = ["recipe", "seeds", "AP", "AP50", "difference in AP", "95 % interval, seeds"]
        header += ["95 % interval, images and seeds", "verdict", "gap closed", "s/epoch", "memory MiB"]
        table = Table(f"Student {student}", header, rows)
        tables.append(without_empty_columns(table))
    charts = [chart for n, student in enumerate(arms.students()) for chart in gains(arms.of(student), f"gain{n}")]
    after = READ_GAINS if charts else ""
    return Section("Comparison", tables=tables, charts=charts, after=after)


def _arm_row(arm: Arm) -> list[str]:
    result = arm.result
    count = len(result.scores["AP"])
    row = [arm.label, str(count) if count == len(arm.runs) else f"{count} of {len(arm.runs)}"]
    row += [mean_and_spread(result.spread.get(metric)) for metric in ("AP", "AP50")]
    difference = result.difference.get("AP")
    if difference is None or arm.control:
        row += [NOTHING] * 4
    else:
        row += [signed(difference.mean), interval(difference.seeds), second_interval(difference), difference.verdict]
    gap, pace, memory = result.gap_closed.get("AP"), result.seconds_per_epoch, result.peak_memory_bytes
    row.append(NOTHING if gap is None or arm.control else share(gap))
    row.append(NOTHING if pace is None else f"{pace:.1f}")
    row.append(NOTHING if memory is None else f"{memory / 2**20:.0f}")
    return row


def without_empty_columns(table: Table) -> Table:
    """Leave out the columns in which no row says anything."""
    kept = [n for n in range(len(table.header)) if n == 0 or any(row[n] != NOTHING for row in table.rows)]
    return replace(table, header=[table.header[n] for n in kept], rows=[[row[n] for n in kept] for row in table.rows])


def accuracies(arms: Arms, scores: Scores, images: ScoredImages) -> list[Section]:
    """By class and by recall, a section per student."""
    objects = dict.fromkeys(images.names.values(), 0)
    objects |= Counter(images.names[box["category_id"]] for box in images.objects)
    classes = [name for name, count in objects.items() if count]
    found = []
    students = arms.students()
    for number, student in enumerate(students):
        series = series_of(arms.of(student), scores)
        charts = list(accuracy(series, classes, objects, f"accuracy{number}"))
        if charts:
            title = "Accuracy" if len(students) == 1 else f"Accuracy of {student}"
            table = _class_table([one for one in series if one.findings], classes, objects)
            found.append(Section(title, tables=[table], charts=charts, after=_read_charts(arms.of(student))))
    return found


def _class_table(series: Sequence[Series], classes: Sequence[str], objects: Mapping[str, int]) -> Table:
    rows = []
    for name in classes:
        means = [statistics.fmean(finding.score.per_class[name] for finding in one.findings) for one in series]
        rows.append([name, str(objects[name]), *map(percent, means)])
    header = ["class", "objects", *(one.label for one in series)]
    return Table("AP by class in percent, means over the seeds", header, rows, folded=len(rows) > 10)


def costs(arms: Arms, scores: Scores) -> Section:
    """AP against latency and parameters, and the numbers of every model."""
    students = arms.students()
    every: list[Series] = []
    for student in students:
        for one in series_of(arms.of(student), scores):
            name = one.label if len(students) == 1 or one.look.role == "teacher" else f"{student}, {one.label}"
            if all(known.label != name for known in every):
                every.append(replace(one, label=name))
    every = [one for one in every if one.findings]
    if not every:
        return Section("Accuracy and cost")
    header = ["model", *AP_METRICS, "params M", "GFLOPs", "ms", "imgsz"]
    after = (
        "Latency is the median time of a forward pass with one image on the machine that scored, as it was loaded "
        "then. Models of the same size and cost share the median of all their measurements."
    )
    rows = [_cost_row(one, latency(one, every)) for one in every]
    table = without_empty_columns(Table("Means over the seeds; AP in percent", header, rows))
    return Section("Accuracy and cost", tables=[table], charts=list(cost(every)), after=after)


def _cost_row(one: Series, milliseconds: float) -> list[str]:
    scores = [finding.score for finding in one.findings]
    first = scores[0]
    aps = [
        NOTHING if getattr(first, metric) < 0 else percent(statistics.fmean(getattr(s, metric) for s in scores))
        for metric in AP_METRICS
    ]
    gflops = f"{first.gflops:.2f}" if first.gflops else NOTHING
    return [one.label, *aps, f"{first.parameters / 1e6:.2f}", gflops, f"{milliseconds:.1f}", str(first.imgsz)]


def trainings(arms: Arms, scores: Scores) -> list[Section]:
    """Losses, terms and gradients over the epochs, a section per student."""
    students = arms.students()
    found = []
    for number, student in enumerate(students):
        own = arms.of(student)
        charts = list(training(series_of(own, scores), f"training{number}"))
        text = [line for arm in own for line in _weights(arm)]
        title = "Training" if len(students) == 1 else f"Training of {student}"
        if charts:
            found.append(Section(title, text=text, charts=charts, after=_read_charts(own)))
    return found


def _read_charts(arms: Sequence[Arm]) -> str:
    """How the charts of a student are to be read."""
    left_out = sum(not arm.control for arm in arms) - MOST
    return BANDS + (f" The {MOST} recipes of highest AP are shown, {left_out} are left out." if left_out > 0 else "")


def _weights(arm: Arm) -> list[str]:
    """What AID's weights were in the last epoch."""
    last = [run.aid[-1] for run in arm.runs.values() if run.aid and _is_weighed(run.aid[-1])]
    if not last:
        return []
    mean = statistics.fmean(line["mean_weight"] for line in last)
    count = round(statistics.fmean(line["instances"] for line in last))
    return [
        f"{arm.label}: adaptive instance distillation gave its {count} objects of the last epoch a mean weight of "
        f"{mean:.2f} (1: full trust in the teacher)."
    ]


def _is_weighed(line: Mapping[str, Any]) -> bool:
    return line.get("mean_weight") is not None and "instances" in line


def limits(study: Study, scores: Scores) -> Section:
    """What is known of what a student lacks, for a single finished run."""
    runs = [(name, run) for name, run in study.runs.items() if run.state == "finished"]
    if len(study.runs) != 1 or study.comparison is not None or not runs:
        return Section("What the student lacks")
    (name, run), *_ = runs
    finding = scores.runs.get(name)
    return Section("What the student lacks", points=known_lines(run, None if finding is None else finding.score.AP))


def each_run(study: Study, arms: Arms, scores: Scores) -> Section:
    """What every run was, with its recipe and command."""
    rows, listings = [], []
    compared = {name for arm in arms.arms for name in arm.runs}
    for name, run in study.runs.items():
        role = run.recipe_name if name in compared else f"{run.recipe_name}, made the teacher"
        row = [name, role, str(NOTHING if run.seed is None else run.seed), run.progress]
        finding = scores.runs.get(name)
        row += [NOTHING] * 2 if finding is None else [percent(finding.score.AP), percent(finding.score.AP50)]
        rows.append(row)
        listings.append(Listing(name, _origin(run, finding)))
    rows += [[name, NOTHING, NOTHING, "not started", NOTHING, NOTHING] for name in study.absent]
    table = Table("Every run by itself", ["run", "recipe", "seed", "state", "AP", "AP50"], rows)
    return Section("Runs", tables=[table], listings=listings, listed="Recipe, origin and command of each run")


def _origin(run: RunFolder, finding: Finding | None) -> str:
    keys = ("teacher", "teacher_sha256", "student", "student_initialisation", "data", "data_fingerprint", "seed")
    origin = {key: run.provenance.get(key, UNKNOWN) for key in keys}
    budget = {key: run.arguments.get(key, UNKNOWN) for key in ("epochs", "imgsz", "batch", "optimizer", "lr0")}
    plain = {
        "folder": str(run.folder),
        "state": run.progress,
        **origin,
        "budget": budget,
        "versions": run.provenance.get("versions", UNKNOWN),
        "command": run.provenance.get("command", UNKNOWN),
        "scored": UNKNOWN if finding is None else {"last.pt": run.digest, "notes": list(finding.score.notes)},
        "recipe": dict(run.recipe) or UNKNOWN,
    }
    return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=100)


def method(study: Study, arms: Arms, images: ScoredImages | None) -> Section:
    """How the numbers came about."""
    added = study.comparison is not None and study.comparison.sequential
    kind = (
        "which holds at every number of seeds at once, since seeds were added until it decided"
        if added
        else "Student's"
    )
    points = [
        "AP is COCO's, the mean over IoU 0.50 to 0.95 and over the classes, in percent; AP50 at IoU 0.50.",
        "Every run is scored by last.pt, since best.pt is chosen on the images that are scored here.",
        "A difference is taken seed by seed to plain training of the same student with the same budget. The first 95 % "
        f"interval, {kind}, covers other seeds on the same images; the second one covers other seeds and other "
        "images like these, which are drawn anew for it. A gain or a loss is called so only if both exclude 0.",
    ]
    taken = [arm for arm in arms.arms if "AP" in arm.result.difference and not arm.control]
    if len(taken) > 1:
        points.append(
            "Each interval speaks of one recipe by itself: each of several recipes that do nothing has a chance of 5 % "
            "to seem a gain or a loss."
        )
    if study.comparison is None and any(arm.result.difference["AP"].pairs > 1 for arm in taken):
        points.append(
            "These runs were not made by 'yolokd compare': runs of one seed need not have seen the same images in "
            "the same order, which widens the intervals."
        )
    if images is not None:
        points.append(
            f"Scored on {counted(len(images.files), 'image')} with {counted(len(images.objects), 'object')}, the "
            f"split val of {images.yaml}."
        )
    return Section("How this was measured", points=points)
