"""From the runs to the page: reads, scores, gathers, and hands everything on as plain data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path

from yolokd.errors import DataError
from yolokd.evaluation.models import Progress
from yolokd.evaluation.wording import NOTE, everywhere, words_for
from yolokd.report import eight_bits, sections
from yolokd.report.anomalies import find_anomalies
from yolokd.report.arms import Arms, gather
from yolokd.report.examples import examples
from yolokd.report.formatting import counted, listed, mean_and_spread, percent, statement, together
from yolokd.report.runs import UNKNOWN, RunFolder
from yolokd.report.scoring import ScoredImages, Scores, open_images, score_study
from yolokd.report.study import Study
from yolokd.report.view import Page, Statement, Tile
from yolokd.version import __version__


def make_page(
    study: Study,
    cache: Path,
    *,
    data: str | None = None,
    teacher: str | Path | None = None,
    device: str | None = None,
    progress: Progress,
) -> Page:
    """Score what there is and put the page together; without its data the report comes without what needs them.

    Args:
        study: From `open_study`.
        cache: Folder of earlier findings.
        data: Where the data lie now, if they were moved.
        teacher: Where the teacher lies now, if it was moved.
        device: As Ultralytics takes it.
        progress: Told a model's name and the share of its images that are done.

    Raises:
        UserError: `data` cannot be used, or `teacher` is not the one of these runs.
    """
    images, scores, gone = None, Scores({}, {}), []
    try:
        images = open_images(data or study.data, progress, single_cls=study.single_cls, classes=study.classes)
    except DataError as error:
        if data is not None:
            raise
        gone = [f"Nothing was scored and there are no images here, since the data are not to be had: {error}"]
    if images is not None:
        scores = score_study(study, images, cache, teacher=teacher, device=device, progress=progress)
    arms = gather(study, scores)
    parts = [sections.comparison(arms)]
    if images is not None:
        parts += [*sections.accuracies(arms, scores, images), sections.costs(arms, scores)]
    parts += [eight_bits.section(study, arms), *sections.trainings(arms, scores), sections.limits(study, scores)]
    if images is not None:
        parts.append(examples(arms, scores, images))
    parts += [sections.method(study, arms, images), sections.each_run(study, arms, scores)]
    page = Page(
        title=_title(study, arms),
        facts=_facts(study, arms, images),
        tiles=_tiles(arms),
        statements=_statements(arms),
        anomalies=[*gone, *find_anomalies(study, arms, scores, images)],
        sections=[part for part in parts if not part.empty],
        footer=f"Made by yolokd {__version__} on {date.today().isoformat()}.",
    )
    words = words_for(data or study.data)
    if words is str:
        return page
    return everywhere(replace(page, anomalies=[NOTE, *page.anomalies]), words)


def _tiles(arms: Arms) -> list[Tile]:
    """AP of the teacher, of plain training and of the recipe that reaches most; none for several students."""
    if len(arms.students()) != 1:
        return []
    scored = [arm for arm in arms.arms if "AP" in arm.result.spread]
    recipes = [arm for arm in scored if not arm.control]
    best = max(recipes, key=lambda arm: arm.result.spread["AP"].mean, default=None)
    tiles = [Tile("teacher", percent(arms.teacher["AP"]), "AP")] if arms.teacher else []
    for arm in (*(arm for arm in scored if arm.control), best):
        if arm is not None:
            count = counted(len(arm.result.scores["AP"]), "seed")
            label = arm.label if arm.control or len(recipes) == 1 else f"{arm.label}, the recipe of highest AP"
            tiles.append(Tile(label, mean_and_spread(arm.result.spread["AP"]), f"AP, {count}"))
    return tiles


def _statements(arms: Arms) -> list[Statement]:
    students = arms.students()
    found = [statement(arm, arm.result.student if len(students) > 1 else "") for arm in arms.arms]
    said = [one for one in found if one is not None]
    order = ("gain", "loss", "undecided", "seeds", "open")
    if not said:
        return [Statement("open", "No claim.", "No difference to plain training can be taken from these runs.")]
    return [one for kind in order for one in together([one for one in said if one.kind == kind])]


def _facts(study: Study, arms: Arms, images: ScoredImages | None) -> list[tuple[str, str]]:
    runs = [run for arm in arms.arms for run in arm.runs.values()]
    shape = [_each(runs, "epochs", "{} epochs"), _each(runs, "imgsz", "{} px"), _each(runs, "batch", "batch {}")]
    facts = [
        ("Comparison", study.title if study.comparison else ""),
        ("Data", study.data if images is None else _data(images)),
        ("Teacher", listed(_teachers(runs))),
        ("Student", listed(arms.students())),
        ("Budget", ", ".join(words for words in shape if words)),
        ("Seeds", ", ".join(map(str, sorted({run.seed for run in runs if run.seed is not None})))),
        ("Versions", listed(_versions(runs))),
    ]
    return [(key, value) for key, value in facts if value and value != UNKNOWN]


def _title(study: Study, arms: Arms) -> str:
    """Such as "yolov8n on kitti"."""
    path = Path(study.data)
    named = path.stem if path.stem != "data" else path.parent.name
    return f"{listed(arms.students())} on {named}" if arms.students() else study.title


def _teachers(runs: Sequence[RunFolder]) -> list[str]:
    paths = [Path(str(run.provenance.get("teacher"))) for run in runs if run.teacher_sha256]
    return list(dict.fromkeys("/".join(path.parts[-3:]) for path in paths))


def _data(images: ScoredImages) -> str:
    path = Path(images.yaml)
    size = f"{counted(len(images.files), 'image')} and {counted(len(images.objects), 'object')} in val"
    return f"{path.parent.name}/{path.name}: {size}, {counted(len(images.names), 'class', 'classes')}"


def _each(runs: Sequence[RunFolder], key: str, words: str) -> str:
    """The values of an argument over all runs, such as "30 or 50 epochs"."""
    values = list(dict.fromkeys(str(run.arguments[key]) for run in runs if key in run.arguments))
    return words.format(" or ".join(values)) if values else ""


def _versions(runs: Sequence[RunFolder]) -> list[str]:
    found = [f"{name} {number}" for run in runs for name, number in run.provenance.get("versions", {}).items()]
    return list(dict.fromkeys(found))
