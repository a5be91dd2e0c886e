"""Numbers and sentences of a report. A difference is called a gain or a loss only if both its intervals exclude 0."""

from __future__ import annotations

import math
from collections.abc import Sequence

from yolokd.comparison.results import ArmResult
from yolokd.comparison.statistics import Difference, Interval, Spread
from yolokd.report.arms import Arm
from yolokd.report.view import Statement

WHY = {
    "undecided": "intervals hold 0",
    "seeds": "of new images nothing is known",
    "open": "one seed proves nothing",
}
MANY = 3  # statements of one kind that stand by themselves
NOTHING = "–"
MINUS = "−"


def percent(value: float | None, digits: int = 1) -> str:
    """AP in points: 0.1234 is "12.3"; a dash for −1 (no such object) and None."""
    return NOTHING if value is None or not math.isfinite(value) or value < 0 else f"{100 * value:.{digits}f}"


def signed(value: float) -> str:
    """A difference of AP in points with its sign, such as "+1.5" and "−0.2"."""
    return _tidy(f"{100 * value:+.1f}")


def share(value: float) -> str:
    """A share in whole percent, such as "5 %" and "−1 %"."""
    return f"{_tidy(f'{100 * value:.0f}')} %"


def mean_and_spread(spread: Spread | None) -> str:
    """Such as "12.3 ± 0.4", without the deviation for a single run."""
    if spread is None:
        return NOTHING
    return percent(spread.mean) + ("" if spread.std is None else f" ± {100 * spread.std:.1f}")


def interval(found: Interval | None) -> str:
    """Such as "[−0.4, +2.1]"; a dash for None."""
    return NOTHING if found is None else f"[{signed(found.low)}, {signed(found.high)}]"


def second_interval(difference: Difference) -> str:
    """The interval for new images and seeds; with one seed that of the images alone, named as such."""
    if difference.seeds is None and difference.images is not None:
        return f"{interval(difference.images)} images"
    return interval(difference.images_and_seeds)


def counted(number: int, word: str, plural: str = "") -> str:
    """Such as "1 seed" and "3 seeds"."""
    return f"{number} {word if number == 1 else plural or f'{word}s'}"


def listed(words: Sequence[str]) -> str:
    """Words with commas, and "and" before the last."""
    return ", ".join(words[:-1]) + (" and " if len(words) > 1 else "") + words[-1] if words else ""


def statement(arm: Arm, student: str = "") -> Statement | None:
    """Say what the difference of an arm to plain training shows; None for plain training and without a difference.

    Args:
        arm: The arm.
        student: Name of its student, if there are several.
    """
    difference = arm.result.difference.get("AP")
    if arm.control or difference is None:
        return None
    name = f"{arm.label} on {student}" if student else arm.label
    change, reach = signed(difference.mean), _reach(difference)
    verdict = difference.verdict
    if verdict == "gain":
        text = f"{name} gains {change} AP over plain training ({reach}).{_gap(arm.result)}"
        return Statement("gain", "Gain.", text, name)
    if verdict == "loss":
        return Statement("loss", "Loss.", f"{name} loses against plain training: {change} AP ({reach}).", name)
    if verdict == "undecided":
        text = f"{name}: {change} AP against plain training, {reach}. {_zero(difference)}: no gain or loss was shown."
        return Statement("undecided", "Undecided.", text, name)
    if verdict == "seeds only":
        text = f"{name}: {change} AP against plain training on these images ({reach}); of new images nothing is known."
        return Statement("seeds", "These images only.", text, name)
    images = difference.images
    of_two = "" if images is None else f" (95 % interval {_from_to(images)} for these two networks on new images)"
    text = f"{name}: {change} AP against plain training with one seed, which proves nothing{of_two}."
    return Statement("open", "One seed.", text, name)


def _reach(difference: Difference) -> str:
    """Both intervals in words."""
    first, second = difference.seeds, difference.images_and_seeds
    words = [f"{_from_to(first)} over {counted(difference.pairs, 'paired seed')}"] if first else []
    words += [f"{_from_to(second)} over images and seeds"] if second else []
    return f"95 % interval{'s' * (len(words) > 1)} {listed(words)}"


def _zero(difference: Difference) -> str:
    """Which interval holds 0; the second one is never narrower than the first."""
    if difference.images_and_seeds is None:
        return "The interval holds 0"
    return "Both intervals hold 0" if difference.seeds and not difference.seeds.sign else "The second interval holds 0"


def _from_to(found: Interval) -> str:
    return f"{signed(found.low)} to {signed(found.high)}"


def _tidy(number: str) -> str:
    """A proper minus, and no sign before zero."""
    return number.replace("-", MINUS) if float(number) else number.lstrip("+-")


def together(said: Sequence[Statement]) -> list[Statement]:
    """Statements of one kind; many that show nothing become one."""
    if len(said) <= MANY or said[0].kind in {"gain", "loss"}:
        return list(said)
    names = listed([one.about for one in said])
    text = f"Neither a gain nor a loss was shown of {names}: {WHY[said[0].kind]}."
    return [Statement(said[0].kind, said[0].word, text)]


def _gap(result: ArmResult) -> str:
    gap = result.gap_closed.get("AP")
    return "" if gap is None else f" That closes {share(gap)} of the gap to the teacher."
