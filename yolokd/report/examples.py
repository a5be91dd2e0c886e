"""Images with the ground truth and what teacher, plain training and a recipe found, side by side."""

from __future__ import annotations

from yolokd.errors import printable
from yolokd.report.arms import Arm, Arms
from yolokd.report.drawing import LabeledImage, draw, read_labeled_image
from yolokd.report.formatting import counted
from yolokd.report.frames import Cast, Frame, Shown, choose, frames
from yolokd.report.runs import RunFolder
from yolokd.report.scoring import Finding, ScoredImages, Scores
from yolokd.report.view import Panel, Row, Section

TITLE = "Images"


def examples(arms: Arms, scores: Scores, images: ScoredImages) -> Section:
    """Make the section; it is empty if nothing was scored."""
    cast = choose_cast(arms, scores)
    if cast is None:
        return Section(TITLE)
    places = choose(images, cast)
    rows = [_row(frame, number, images) for number, frame in enumerate(frames(images, cast, places), start=1)]
    return Section(TITLE, text=_explained(cast, len(rows)), key=bool(rows), rows=rows)


def choose_cast(arms: Arms, scores: Scores) -> Cast | None:
    """Return whose detections are shown: teacher, plain training and the recipe of highest AP, of the first student.

    Of an arm the run of the lowest seed is taken that both have; None without a scored run.
    """
    for student in arms.students():
        scored = [arm for arm in arms.of(student) if arm.result.scores["AP"] and _finding(arm, scores, None)]
        if not scored:
            continue
        plain = next((arm for arm in scored if arm.control), None)
        recipes = [arm for arm in scored if not arm.control]
        best = max(recipes, key=lambda arm: arm.result.spread["AP"].mean, default=None)
        seeds = [set(arm.result.scores["AP"]) for arm in (plain, best) if arm is not None]
        seed = min(set.intersection(*seeds), default=None)
        members: dict[str, Finding] = {}
        if best is not None:
            digest = next(iter(best.runs.values())).teacher_sha256 or ""
            if digest in scores.teachers:
                members["teacher"] = scores.teachers[digest]
        for arm in (plain, best):
            if arm is not None and (found := _finding(arm, scores, seed)) is not None:
                members[f"{arm.label}, seed {found[0].seed}" if len(arm.runs) > 1 else arm.label] = found[1]
        return Cast(members)
    return None


def _finding(arm: Arm, scores: Scores, seed: int | None) -> tuple[RunFolder, Finding] | None:
    for name, run in arm.runs.items():
        if run.state == "finished" and name in scores.runs and seed in {None, run.seed}:
            return run, scores.runs[name]
    return None


def _explained(cast: Cast, count: int) -> list[str]:
    pair = cast.pair
    if not count:
        what = f"{pair[0]} and {pair[1]} do equally well on every image" if pair else "it does perfectly on all"
        return [f"No image to show: by the F1 of each image at IoU 0.5, {what}."]
    thresholds = "; ".join(f"{label}: {finding.threshold:.2f}" for label, finding in cast.members.items())
    if pair:
        chosen = (
            f"the {counted(count, 'image')} with objects on which {pair[0]} and {pair[1]} differ most in F1, in "
            f"either direction"
        )
    else:
        chosen = f"the {counted(count, 'image')} with objects of lowest F1"
    return [
        f"Chosen by a measure, not by hand: {chosen}. F1 is 2 · right / (objects + detections) of an image; a "
        f"detection is right if it matches an object of its class at IoU 0.5 or more.",
        f"Detections count from the score at which a model's F1 over all images is largest ({thresholds}).",
    ]


def _row(frame: Frame, number: int, images: ScoredImages) -> Row:
    path = images.files[frame.place]
    image, factor = read_labeled_image(path)
    name = printable(path.name)
    counts = ", ".join(f"{count} {name}" for name, count in frame.counts.items())
    truth = draw(image, factor, [("object", box) for box in frame.objects])
    panels = [Panel("ground truth", counts, f"{name} with its labeled objects: {counts}", truth)]
    panels += [_panel(shown, image, factor, name) for shown in frame.shown]
    return Row(f"image{number}", name, counts, panels)


def _panel(shown: Shown, image: LabeledImage, factor: float, name: str) -> Panel:
    marks = [("missed", box) for box in shown.missed]
    marks += [("right" if box["right"] else "false", box) for box in shown.boxes]
    accumulator = shown.accumulator
    text = f"F1 {accumulator.f1:.2f}: {accumulator.right} right, {accumulator.false} false, {accumulator.missed} missed"
    return Panel(shown.label, text, f"{name} with what {shown.label} found. {text}", draw(image, factor, marks))
