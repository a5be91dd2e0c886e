"""The images of which an inspection's figure is made: what each shows, and what stands below it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from yolokd.inspection.fourier import HeatMap
from yolokd.inspection.images import LabeledImage
from yolokd.inspection.maps import (
    CONFIDENCE,
    AdversarialView,
    Boxes,
    Inspection,
    InstanceWeights,
    Levels,
    Term,
    over_image,
)

COLORS = ("#ffb000", "#3fb1ff", "#ff5fa2", "#7fdc3f", "#c58bff", "#ff7a3c", "#35e0c8", "#f5f56b", "#e86a6a", "#9fb7ff")


@dataclass(frozen=True)
class Panel:
    """One image of the figure."""

    title: str
    lines: tuple[str, ...]  # what stands below it
    draw: Callable[[Any], None]
    shape: float = 0.0  # height over width; 0 for the image's
    indent: float = 0.0  # inches that its axis labels need on the left


def panels_of(view: Inspection) -> Iterator[Panel]:
    """Make every panel that the recipe and the options call for."""
    colors, image = colors_of(view), view.image
    truth = view.truth
    lines = ("no label file beside the image",) if truth is None else (f"{len(truth.names)} labeled objects",)
    yield Panel("Image and ground truth", lines, lambda axes: boxes(axes, image, truth, colors))
    for who, found in (("Teacher", view.teacher), ("Student", view.student)):
        yield detections(f"{who} detects", image, found, colors)
    for term in view.terms:
        if term.levels is not None:
            yield term_panel(term, image)
    if view.weights is not None:
        yield weight_panel(view.weights, image)
    if view.example is not None:
        yield difference_panel(view.example, image)
        yield adversarial_panel(view.example, image, colors)
    if view.frequencies is not None:
        yield frequency_panel(view.frequencies)


def detections(title: str, image: LabeledImage, found: Boxes, colors: dict[str, str]) -> Panel:
    """An image with boxes and scores."""
    lines = (f"{len(found.names)} with a score of at least {CONFIDENCE:g}",)
    return Panel(title, lines, lambda axes: boxes(axes, image, found, colors))


def term_panel(term: Term, image: LabeledImage) -> Panel:
    """The loss map of one term."""
    levels: Any = term.levels
    whole = over_image(levels, image.square.shape[-1])
    parts = {level: values.sum() for level, values in levels.items()}
    total = sum(parts.values()) or 1.0
    shares = " · ".join(f"{level} {part / total:.0%}" for level, part in parts.items() if part)
    about = term.about if term.trained else f"{term.about} Untrained adapter: see the foot."
    x1, y1, x2, y2 = image.area
    seen = whole[y1:y2, x1:x2]
    low = float(seen.min()) if seen.min() > 0.3 * seen.max() else min(0.0, float(seen.min()))
    scale = (f"colors start at {low:.3g}, not at 0",) if low > 0 else ()
    lines = (amount(term), f"by level: {shares or 'nothing'}{padding(levels, image)}", *scale, about)
    return Panel(f"kd_{term.name}", lines, lambda axes: heat(axes, image, whole, low=low))


def weight_panel(weights: InstanceWeights, image: LabeledImage) -> Panel:
    """AID's weights, the mean of the levels over each other."""
    mean = over_image(weights.levels, image.square.shape[-1]) / len(weights.levels)
    each = weights.instances
    what = {"instance": "objects", "image": "image", "level": "levels"}[weights.scope]
    shown = ", ".join(f"{weight:.2f}" for weight in sorted(each)[:6]) + (", …" if len(each) > 6 else "")
    lines = (
        f"weights of the {what}, least first: {shown}" if each else "no objects: only the background is weighed",
        f"multiplies every map here; exp(−{weights.alpha:g} · the teacher's own loss)",
        "dark: the teacher itself is wrong there, and is trusted less",
    )
    x1, y1, x2, y2 = image.area
    low = float(mean[y1:y2, x1:x2].min())
    return Panel(
        "AID: trust in the teacher",
        lines,
        lambda axes: heat(axes, image, mean, low=min(low, 0.95), high=1.0, cmap="viridis"),
    )


def difference_panel(example: AdversarialView, image: LabeledImage) -> Panel:
    """What the attack changed, magnified around gray."""
    factor = 127 / example.eps
    pixels = (127.5 + factor * example.difference).clip(0, 255).astype(np.uint8)
    lines = (
        f"{factor:.0f} × magnified; no value changes by more than eps = {example.eps:g} of 255",
        "added to the image so that the teacher's classification loss grows",
    )
    return Panel("IKD: adversarial difference", lines, lambda axes: square(axes, image, pixels))


def adversarial_panel(example: AdversarialView, image: LabeledImage, colors: dict[str, str]) -> Panel:
    """The adversarial example, and what the teacher detects in it."""
    before, after = example.loss

    def paint(axes: Any) -> None:
        square(axes, image, example.image)
        frames(axes, example.detections, colors)

    lines = (
        f"the teacher's classification loss: {before:.3g} → {after:.3g}",
        f"{len(example.detections.names)} detections with a score of at least {CONFIDENCE:g}",
    )
    return Panel("IKD: the teacher on the adversarial example", lines, paint)


def frequency_panel(heat_map: HeatMap) -> Panel:
    """The Fourier heat map."""
    reach = heat_map.rise.shape[0] // 2
    edge = (reach + 0.5) * heat_map.spacing

    def paint(axes: Any) -> None:
        drawn = axes.imshow(heat_map.rise, cmap="inferno", extent=(-edge, edge, edge, -edge), interpolation="nearest")
        bar(axes, drawn)
        axes.set_ylabel("vertical, cycles per pixel", fontsize=7.5)
        axes.tick_params(labelsize=7)

    lines = (
        "horizontal, cycles per pixel; middle: coarse, rim: fine detail",
        f"how far the teacher's scores move (KL divergence) when a gray wave of this frequency, "
        f"{heat_map.strength * 255:.2g} of 255 strong (RMS), is added to the image",
    )
    return Panel("Teacher's sensitivity to frequencies", lines, paint, shape=1.0, indent=0.5)


def foot_lines(view: Inspection) -> Iterator[str]:
    """Sentences about the image: terms without a place, and what a reader could take amiss."""
    for term in view.terms:
        if term.levels is None:
            yield f"kd_{term.name} has no place in the image: {amount(term)}. {term.about}"
    if view.truth is None:
        yield "There is no label file beside the image: terms and weights that look at objects see none."
    raw = [f"kd_{term.name}" for term in view.terms if not term.trained]
    if raw:
        yield (
            f"Untrained adapter ({', '.join(raw)}): features are compared through adapters or generators, which a "
            "finished student no longer has. Here they are random, so these maps say little; the last.pt of a run "
            "that is still going on has trained ones."
        )
    yield (
        "Color: the loss of the cells that cover a place, p3, p4 and p5 added up. Totals are those of this one "
        "image, each term at full strength whatever its schedule."
    )


def amount(term: Term) -> str:
    """The value of a term, its gain, and what comes of it."""
    if term.gain == "auto":
        return f"total {term.value:.3g}, before its gain, which is auto"
    return f"total {term.value:.3g} × gain {term.gain:.3g} = {term.value * term.gain:.3g}"


def padding(levels: Levels, image: LabeledImage) -> str:
    """How much of a term lies outside of the image, if that is worth a word."""
    side = image.square.shape[-1]
    even = over_image({level: values * values.size / side**2 for level, values in levels.items()}, side)
    x1, y1, x2, y2 = image.area
    total = even.sum()
    share = 1 - even[y1:y2, x1:x2].sum() / total if total else 0.0
    return f"; {share:.0%} of it in the padding" if share >= 0.01 else ""


def colors_of(view: Inspection) -> dict[str, str]:
    """Give each class that occurs a color."""
    every = [view.truth, view.teacher, view.student, None if view.example is None else view.example.detections]
    names = sorted({name for found in every if found is not None for name in found.names})
    return {name: COLORS[index % len(COLORS)] for index, name in enumerate(names)}


def boxes(axes: Any, image: LabeledImage, found: Boxes | None, colors: dict[str, str]) -> None:
    """Draw the image in color with boxes on it."""
    background(axes, image, image.shown)
    if found is not None:
        frames(axes, found, colors)


def frames(axes: Any, found: Boxes, colors: dict[str, str]) -> None:
    """Draw boxes, with scores where there are any."""
    from matplotlib.patches import Rectangle

    every = list(enumerate(zip(found.xyxy_px.tolist(), found.names, strict=True)))
    ceiling = min(axes.get_ylim()) + 0.05 * abs(np.ptp(axes.get_ylim()))
    for index, ((x1, y1, x2, y2), name) in reversed(every):  # the best last, so that its score is on top
        axes.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor="black", linewidth=2.2))
        axes.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=colors[name], linewidth=1.4))
        if found.scores:
            label = {"facecolor": colors[name], "edgecolor": "none", "pad": 0.8}
            where = "bottom" if y1 > ceiling else "top"
            axes.text(x1, y1, f"{found.scores[index]:.2f}", fontsize=6.5, bbox=label, va=where, clip_on=True)


def heat(
    axes: Any, image: LabeledImage, values: Any, *, low: float, high: float | None = None, cmap: str = "inferno"
) -> None:
    """Draw a map over the gray image, more opaque where it is larger, with a color bar."""
    gray = cv2.cvtColor(image.shown, cv2.COLOR_RGB2GRAY)
    background(axes, image, np.repeat((0.5 * gray + 50)[..., None], 3, 2).astype(np.uint8))
    values = np.nan_to_num(values)
    x1, y1, x2, y2 = image.area
    top = float(values[y1:y2, x1:x2].max()) if high is None else high
    top = top if top > low else low + 1.0
    opaque = 0.25 + 0.5 * ((values - low) / (top - low)).clip(0, 1) ** 0.5
    side = len(values)
    drawn = axes.imshow(
        values, extent=(0, side, side, 0), cmap=cmap, vmin=low, vmax=top, alpha=opaque, interpolation="nearest"
    )
    limits(axes, image)
    bar(axes, drawn)


def square(axes: Any, image: LabeledImage, pixels: Any) -> None:
    """Draw an image of the input size, without its padding."""
    side = len(pixels)
    axes.imshow(pixels, extent=(0, side, side, 0), interpolation="nearest")
    limits(axes, image)


def background(axes: Any, image: LabeledImage, pixels: Any) -> None:
    """Draw an image where the image lies in the square input."""
    x1, y1, x2, y2 = image.area
    axes.imshow(pixels, extent=(x1, x2, y2, y1))
    limits(axes, image)


def limits(axes: Any, image: LabeledImage) -> None:
    """Show the image's part of the square, without ticks."""
    x1, y1, x2, y2 = image.area
    axes.set_xlim(x1, x2)
    axes.set_ylim(y2, y1)
    axes.set_xticks([])
    axes.set_yticks([])


def bar(axes: Any, drawn: Any) -> None:
    """Put a color bar beside a map."""
    scale = axes.figure.colorbar(drawn, cax=axes.inset_axes((1.02, 0, 0.04, 1)))
    scale.ax.tick_params(labelsize=7)
    scale.ax.yaxis.get_offset_text().set_fontsize(7)  # the power of ten above large or small values
