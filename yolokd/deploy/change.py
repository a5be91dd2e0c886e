"""A score before and after an export, and how much of it each precision may lose."""

from __future__ import annotations

from dataclasses import dataclass

from yolokd.backend.formats import Precision

MOST_AP_LOSS = 0.005  # float32 and float16
LEAST_AP_KEPT = 0.9  # int8: share of the checkpoint's AP


@dataclass(frozen=True)
class Change:
    """An AP of the checkpoint and of its export, in [0, 1]; None: not measured."""

    what: str  # "AP", or "mask AP"
    before: float | None
    after: float | None
    interval: tuple[float, float] | None = None  # of the change, 95 %, over the images; None: not known

    @property
    def value(self) -> float | None:
        """AP of the export less that of the checkpoint, in [−1, 1]; None where it says nothing."""
        return change(self.before, self.after)

    def limit(self, precision: Precision) -> float:
        """Return the least change that a precision allows, at most 0."""
        if precision == "int8":
            return (LEAST_AP_KEPT - 1) * (self.before or 0.0)
        return -MOST_AP_LOSS

    def is_low(self, precision: Precision) -> bool:
        """Return whether AP fell by more than a precision allows."""
        return self.value is not None and self.value < self.limit(precision)

    @property
    def is_certain(self) -> bool:
        """Whether the images are enough to tell the change from none."""
        return self.interval is None or not self.interval[0] <= 0 <= self.interval[1]

    def failure(self, precision: Precision) -> str | None:
        """Return what to say of a change that a precision does not allow; None of any other."""
        if self.before is None or self.after is None or self.value is None:
            return None
        if not (self.is_low(precision) and self.is_certain):
            return None
        if precision == "int8":
            return (
                f"{self.what} fell from {100 * self.before:.1f} to {100 * self.after:.1f}, below {LEAST_AP_KEPT:.0%} "
                f"of it"
            )
        return f"{self.what} changed by {100 * self.value:+.2f} points (limit {100 * self.limit(precision):g})"


def change(before: float | None, after: float | None) -> float | None:
    """Return the change in AP, in [−1, 1]; None where it was not measured or the checkpoint finds nothing."""
    if before is None or after is None or before <= 0:
        return None
    return after - before
