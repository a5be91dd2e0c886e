"""Numbers and sentences of a report. A difference is called a gain or a loss only if its interval excludes 0."""

from __future__ import annotations

import math
from collections.abc import Sequence

from yolokd.comparison.results import ArmResult
from yolokd.comparison.statistics import Difference, Spread
from yolokd.report.arms import Arm
from yolokd.report.view import Statement

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


def interval(difference: Difference) -> str:
    """Such as "[−0.4, +2.1]"; a dash for one seed."""
    if difference.low is None or difference.high is None:
        return NOTHING
    return f"[{signed(difference.low)}, {signed(difference.high)}]"


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
    change, reach = signed(difference.mean), ""
    if difference.low is not None and difference.high is not None:
        reach = f"95 % interval {signed(difference.low)} to {signed(difference.high)}"
    seeds = counted(difference.pairs, "paired seed")
    verdict = difference.verdict
    if verdict == "gain":
        text = f"{name} gains {change} AP over plain training ({reach}, {seeds}).{_gap(arm.result)}"
        return Statement("gain", "Gain.", text, name)
    if verdict == "loss":
        return Statement("loss", "Loss.", f"{name} loses against plain training: {change} AP ({reach}, {seeds}).", name)
    if verdict == "undecided":
        return Statement(
            "undecided",
            "Undecided.",
            f"{name}: {change} AP against plain training, {reach} ({seeds}). The interval holds 0: neither a gain nor "
            f"a loss was shown.",
            name,
        )
    text = f"{name}: {change} AP against plain training with one seed, which proves nothing."
    return Statement("open", "One seed.", text, name)


def _tidy(number: str) -> str:
    """A proper minus, and no sign before zero."""
    return number.replace("-", MINUS) if float(number) else number.lstrip("+-")


def together(said: Sequence[Statement]) -> list[Statement]:
    """Statements of one kind; many that show nothing become one."""
    if len(said) <= MANY or said[0].kind in {"gain", "loss"}:
        return list(said)
    names = listed([one.about for one in said])
    why = "their intervals hold 0" if said[0].kind == "undecided" else "one seed proves nothing"
    text = f"Neither a gain nor a loss was shown of {names}: {why}."
    return [Statement(said[0].kind, said[0].word, text)]


def _gap(result: ArmResult) -> str:
    gap = result.gap_closed.get("AP")
    return "" if gap is None else f" That closes {share(gap)} of the gap to the teacher."
