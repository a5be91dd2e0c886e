"""What a student lacks, from a few numbers: training steps, capacity, or knowledge.

| lacks | AP on its training images | gap to the validation images | training curve |
|---|---|---|---|
| steps | low | any | still rises |
| capacity | low | small | has flattened |
| knowledge | any | large | any |

A low AP on images that a student was trained on says that it did not fit them; a large gap says that it fits them and
does not generalize. Thresholds are the constants below. The recommendations are those that `benchmarks/study.md`
supports, and no others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from yolokd.report.formatting import counted, percent, signed

LOW_AP = 0.5  # of a student on its training images: students of the study that had fitted theirs reached 0.54 to 0.63
LARGE_GAP = 0.05  # AP: smaller ones can come from which images were drawn for validation
LARGE_GAP_SHARE = 0.2  # of the AP on training images: 2 % for a student of the study that underfitted, 45 % else
RISE = 0.01  # AP between the last two fifths: converged runs of the study still gained 0.005, growing ones 0.03
FALL = 0.02  # share of the training losses between two fifths: less is within what augmentation changes by chance
TEACHER_LEAD = 0.02  # AP on validation images: seeds alone differ by up to 0.014 (standard deviation) in the study
FEW_LABELS = 230  # images: the largest number of labeled ones for which the study shows a gain from footage
LEAST_EPOCHS = 10  # two epochs in each fifth

Kind = Literal["steps", "capacity", "knowledge"]


@dataclass(frozen=True)
class Curve:
    """How a training ended: the last fifth of its epochs against the fifth before."""

    epochs: int
    rise: float | None  # difference of the mean AP on validation images, [0, 1]; None: not measured in every epoch
    fall: float | None  # by which share the sum of the training losses fell; None: not recorded

    @property
    def ap_rises(self) -> bool | None:
        """Whether AP on validation images still rose; None: not known."""
        return None if self.rise is None else self.rise >= RISE

    @property
    def losses_fall(self) -> bool | None:
        """Whether the training losses still fell; None: not known."""
        return None if self.fall is None else self.fall >= FALL


@dataclass(frozen=True)
class Evidence:
    """The numbers that a diagnosis is made from. AP is COCO's, in [0, 1]."""

    train_ap: float
    val_ap: float
    labeled: int  # training images with labels
    unlabeled: int = 0  # training images without
    curve: Curve | None = None  # None: not known
    from_scratch: bool = False  # the student started from random weights
    teacher_train_ap: float | None = None
    teacher_val_ap: float | None = None

    @property
    def gap(self) -> float:
        """AP on training images less that on validation images."""
        return self.train_ap - self.val_ap

    @property
    def is_low(self) -> bool:
        """Whether the student does not fit its training images."""
        return self.train_ap < LOW_AP

    @property
    def has_large_gap(self) -> bool:
        """Whether the student is far better on its training images than on others."""
        return self.gap >= LARGE_GAP and self.gap >= LARGE_GAP_SHARE * self.train_ap

    @property
    def rising(self) -> bool | None:
        """Whether more epochs would have gone on raising AP; None: not known.

        Where AP was not measured in every epoch, falling training losses stand for it, but not beside a large gap: a
        student that overfits lowers them too.
        """
        if self.curve is None:
            return None
        if self.curve.ap_rises is not None or self.has_large_gap:
            return self.curve.ap_rises
        return self.curve.losses_fall

    @property
    def teacher_leads(self) -> bool | None:
        """Whether the teacher is clearly better on validation images; None without a teacher."""
        return None if self.teacher_val_ap is None else self.teacher_val_ap - self.val_ap >= TEACHER_LEAD


@dataclass(frozen=True)
class Diagnosis:
    """What a student lacks, the first most of all; `certain` is False where the curve would have to decide."""

    lacks: tuple[Kind, ...]
    certain: bool
    sentences: tuple[str, ...]  # the verdict, with its numbers
    advice: tuple[str, ...]  # what follows


def diagnose(evidence: Evidence) -> Diagnosis:
    """Return what the numbers say that a student lacks, and what to do.

    Example:
        >>> found = diagnose(Evidence(0.24, 0.235, labeled=912, curve=Curve(40, rise=0.03, fall=0.05)))
        >>> found.lacks, found.advice[0]
        (('steps',), 'Steps: train longer, such as twice the epochs.')
    """
    lacks, certain = _lacks(evidence)
    if not lacks:
        return Diagnosis((), True, (_nothing(evidence),), (_ADVICE_NOTHING,))
    if not certain:
        return Diagnosis(lacks, False, (_undecided(evidence),), (*_steps(evidence), *_capacity()))
    sentences = tuple(_SENTENCES[kind](evidence) for kind in lacks)
    advice = {"steps": _steps(evidence), "capacity": _capacity(), "knowledge": _knowledge(evidence)}
    return Diagnosis(lacks, True, sentences, tuple(line for kind in lacks for line in advice[kind]))


def _lacks(evidence: Evidence) -> tuple[tuple[Kind, ...], bool]:
    knowledge: tuple[Kind, ...] = ("knowledge",) if evidence.has_large_gap else ()
    if not evidence.is_low:
        return knowledge, True
    if evidence.rising:
        return ("steps", *knowledge), True
    if knowledge:
        return knowledge, True
    return (("capacity",), True) if evidence.rising is False else (("steps", "capacity"), False)


def _low(evidence: Evidence) -> str:
    return f"AP on its training images is {percent(evidence.train_ap)} (low: below {percent(LOW_AP, 0)})"


def _gap(evidence: Evidence) -> str:
    points, share = percent(LARGE_GAP, 0), f"{100 * LARGE_GAP_SHARE:.0f} %"
    size = f"large: at least {points} points and {share} of it"
    if not evidence.has_large_gap:
        size = f"small: below {points} points or {share} of it"
    return f"{signed(evidence.gap)} against validation images ({size})"


def _says_steps(evidence: Evidence) -> str:
    measured = evidence.curve is not None and evidence.curve.ap_rises is not None
    sign = "AP on validation images still rises" if measured else "the training losses still fall"
    return f"The student lacks steps: {_low(evidence)}, and {sign}."


def _says_capacity(evidence: Evidence) -> str:
    return f"The student lacks capacity: {_low(evidence)}, {_gap(evidence)}, and the curve has flattened."


def _says_knowledge(evidence: Evidence) -> str:
    ap = percent(evidence.train_ap)
    return f"The student lacks knowledge: AP on its training images is {ap}, {_gap(evidence)}."


_SENTENCES = {"steps": _says_steps, "capacity": _says_capacity, "knowledge": _says_knowledge}


def _undecided(evidence: Evidence) -> str:
    return (
        f"The student lacks steps or capacity: {_low(evidence)}, {_gap(evidence)}; whether the curve still rises, "
        f"which would decide, is not known."
    )


def _nothing(evidence: Evidence) -> str:
    return (
        f"The student lacks nothing that these numbers show: AP on its training images is {percent(evidence.train_ap)} "
        f"(low: below {percent(LOW_AP, 0)}), {_gap(evidence)}."
    )


_ADVICE_NOTHING = "Change nothing on these grounds; only more demanding validation images could show what it lacks."


def _steps(evidence: Evidence) -> tuple[str, ...]:
    found = ["Steps: train longer, such as twice the epochs."]
    if evidence.from_scratch and evidence.teacher_leads is not False:
        found.append(
            "From scratch, --recipe best starts from a part of the teacher's weights, which saves steps: +8.1 AP after "
            "30 epochs in benchmarks/study.md, +5.8 after 100."
        )
    return tuple(found)


def _capacity() -> tuple[str, ...]:
    return ("Capacity: take a larger student or larger images (--imgsz); a teacher has little to add.",)


def _knowledge(evidence: Evidence) -> tuple[str, ...]:
    found = ["Knowledge: label more images."]
    if evidence.teacher_leads is False:
        found.append(
            f"This teacher cannot help: its AP on validation images, {percent(evidence.teacher_val_ap)}, is not "
            f"clearly above the student's, {percent(evidence.val_ap)} (clearly: {percent(TEACHER_LEAD, 0)} points). "
            f"Take a stronger one, or larger images for it (--teacher-imgsz)."
        )
        return tuple(found)
    teacher = "" if evidence.teacher_leads else " (only with a teacher clearly above the student: give --teacher)"
    found.append(
        f"{'More footage' if evidence.unlabeled else 'Footage'} of the same kind, without labels, with pseudo-labels: "
        f"--recipe pseudo --unlabeled FOLDER{teacher}."
    )
    if evidence.labeled > FEW_LABELS:
        found.append(
            f"Gains from footage are shown for up to {FEW_LABELS} labeled images, not for {evidence.labeled}: run "
            f"yolokd compare before you rely on it."
        )
    if evidence.from_scratch:
        found.append("On the labeled images alone, from scratch: --recipe best.")
    else:
        found.append(
            "On the labeled images alone no recipe has shown a gain for a student that started from trained weights "
            "(benchmarks/study.md)."
        )
    return tuple(found)


def describe_labels(labeled: int, unlabeled: int) -> str:
    """Return the numbers of training images in words.

    Example:
        >>> describe_labels(68, 612)
        '68 labeled images and 612 unlabeled ones (10 % labeled)'
    """
    if not unlabeled:
        return f"{counted(labeled, 'labeled image')}, no unlabeled ones"
    return (
        f"{counted(labeled, 'labeled image')} and {counted(unlabeled, 'unlabeled one')} "
        f"({100 * labeled / (labeled + unlabeled):.0f} % labeled)"
    )


def describe_curve(curve: Curve | None) -> str:
    """Return how a training ended, in words.

    Example:
        >>> describe_curve(Curve(60, rise=0.004, fall=None))
        'last 12 of 60 epochs against the 12 before: AP +0.4 (has flattened)'
    """
    if curve is None:
        return "not known"
    if curve.epochs < LEAST_EPOCHS:
        return f"not known, since {counted(curve.epochs, 'epoch')} are too few (at least {LEAST_EPOCHS})"
    fifth = curve.epochs // 5
    parts = ["AP not measured in every epoch"]
    if curve.rise is not None:
        parts = [f"AP {signed(curve.rise)} ({'still rises' if curve.ap_rises else 'has flattened'})"]
    if curve.fall is not None:
        change = "fell" if curve.fall >= 0 else "rose"
        state = "still falling" if curve.losses_fall else "no longer falling"
        parts.append(f"training losses {change} by {100 * abs(curve.fall):.1f} % ({state})")
    return f"last {fifth} of {curve.epochs} epochs against the {fifth} before: {', '.join(parts)}"
