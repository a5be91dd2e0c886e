"""From numbers to a verdict: closed cases, and each threshold from both sides."""

from __future__ import annotations

import doctest
from dataclasses import replace

import pytest

from yolokd.report import diagnosis
from yolokd.report.diagnosis import (
    FALL,
    FEW_LABELS,
    LARGE_GAP,
    LARGE_GAP_SHARE,
    LOW_AP,
    RISE,
    TEACHER_LEAD,
    Curve,
    Evidence,
    describe_curve,
    describe_labels,
    diagnose,
)

EPS = 1e-6
RISING, FLAT = Curve(60, rise=0.03, fall=0.05), Curve(60, rise=0.0, fall=0.05)
UNDERFITTED = Evidence(0.240, 0.235, labeled=912, curve=FLAT)
OVERFITTED = Evidence(0.626, 0.248, labeled=68, curve=FLAT)


@pytest.mark.parametrize(
    ("evidence", "lacks", "certain"),
    [
        (replace(UNDERFITTED, curve=RISING), ("steps",), True),
        (UNDERFITTED, ("capacity",), True),
        (replace(UNDERFITTED, curve=None), ("steps", "capacity"), False),
        (replace(UNDERFITTED, curve=Curve(60, None, None)), ("steps", "capacity"), False),
        (replace(UNDERFITTED, curve=Curve(60, None, 0.05)), ("steps",), True),
        (replace(UNDERFITTED, curve=Curve(60, None, 0.0)), ("capacity",), True),
        (OVERFITTED, ("knowledge",), True),
        (replace(OVERFITTED, curve=None), ("knowledge",), True),
        (replace(OVERFITTED, curve=RISING), ("knowledge",), True),
        (Evidence(0.40, 0.20, 68, curve=RISING), ("steps", "knowledge"), True),
        (Evidence(0.40, 0.20, 68, curve=FLAT), ("knowledge",), True),
        (Evidence(0.40, 0.20, 68, curve=Curve(60, None, 0.05)), ("knowledge",), True),  # overfits: losses fall too
        (Evidence(0.70, 0.65, 912, curve=FLAT), (), True),
        (Evidence(0.70, 0.65, 912, curve=RISING), (), True),
        (Evidence(0.30, 0.35, 912, curve=FLAT), ("capacity",), True),  # better on validation images
    ],
)
def test_diagnose__closed_cases(evidence: Evidence, lacks: tuple[str, ...], certain: bool) -> None:
    found = diagnose(evidence)
    assert (found.lacks, found.certain) == (lacks, certain)
    assert len(found.sentences) == (len(lacks) if certain and lacks else 1)


def test_thresholds__from_both_sides() -> None:
    assert not Evidence(LOW_AP, 0.5, 1).is_low
    assert Evidence(LOW_AP - EPS, 0.5, 1).is_low
    wide = LARGE_GAP / LARGE_GAP_SHARE  # from this AP on the share decides
    assert Evidence(wide / 2, wide / 2 - LARGE_GAP - EPS, 1).has_large_gap
    assert not Evidence(wide / 2, wide / 2 - LARGE_GAP + EPS, 1).has_large_gap
    assert Evidence(2 * wide, 2 * wide * (1 - LARGE_GAP_SHARE) - EPS, 1).has_large_gap
    assert not Evidence(2 * wide, 2 * wide * (1 - LARGE_GAP_SHARE) + EPS, 1).has_large_gap
    assert (Curve(60, RISE, None).ap_rises, Curve(60, RISE - EPS, None).ap_rises) == (True, False)
    assert (Curve(60, None, FALL).losses_fall, Curve(60, None, FALL - EPS).losses_fall) == (True, False)
    assert Evidence(0.5, 0.25, 1, teacher_val_ap=0.25 + TEACHER_LEAD + EPS).teacher_leads is True
    assert Evidence(0.5, 0.25, 1, teacher_val_ap=0.25 + TEACHER_LEAD - EPS).teacher_leads is False
    assert Evidence(0.5, 0.25, 1).teacher_leads is None


@pytest.mark.parametrize(
    ("evidence", "has", "lacks"),
    [
        (
            OVERFITTED,
            ["--recipe pseudo --unlabeled", "give --teacher", "no recipe has shown a gain"],
            ["--recipe best"],
        ),
        (replace(OVERFITTED, teacher_val_ap=0.59), ["--recipe pseudo --unlabeled"], ["give --teacher", "cannot help"]),
        (
            replace(OVERFITTED, teacher_val_ap=0.25),
            [
                "label more images",
                "This teacher cannot help: its AP on validation images, 25.0,",
                "the student's, 24.8",
            ],
            ["--recipe", "pseudo"],
        ),
        (replace(OVERFITTED, from_scratch=True), ["--recipe pseudo", "--recipe best"], ["no recipe has shown"]),
        (replace(OVERFITTED, unlabeled=612), ["More footage"], []),
        (replace(OVERFITTED, labeled=FEW_LABELS), [], ["yolokd compare"]),
        (replace(OVERFITTED, labeled=FEW_LABELS + 1), [f"up to {FEW_LABELS} labeled images, not for 231"], []),
        (UNDERFITTED, ["larger student", "a teacher has little to add"], ["--recipe", "train longer"]),
        (replace(UNDERFITTED, curve=RISING), ["train longer"], ["--recipe", "larger student"]),
        (replace(UNDERFITTED, curve=RISING, from_scratch=True), ["train longer", "--recipe best"], []),
        (replace(UNDERFITTED, curve=RISING, from_scratch=True, teacher_val_ap=0.2), ["train longer"], ["--recipe"]),
        (replace(UNDERFITTED, curve=None), ["train longer", "larger student"], []),
        (Evidence(0.70, 0.65, 912), ["Change nothing"], ["--recipe"]),
    ],
)
def test_diagnose__advice(evidence: Evidence, has: list[str], lacks: list[str]) -> None:
    text = " ".join(diagnose(evidence).advice)
    assert [words for words in has if words not in text] == []
    assert [words for words in lacks if words in text] == []


def test_diagnose__sentences_give_the_numbers() -> None:
    assert diagnose(OVERFITTED).sentences == (
        "The student lacks knowledge: AP on its training images is 62.6, +37.8 against validation images (large: at "
        "least 5 points and 20 % of it).",
    )
    assert diagnose(UNDERFITTED).sentences == (
        "The student lacks capacity: AP on its training images is 24.0 (low: below 50), +0.5 against validation images "
        "(small: below 5 points or 20 % of it), and the curve has flattened.",
    )
    (steps,) = diagnose(replace(UNDERFITTED, curve=RISING)).sentences
    assert steps.endswith("24.0 (low: below 50), and AP on validation images still rises.")
    (steps,) = diagnose(replace(UNDERFITTED, curve=Curve(60, None, 0.05))).sentences
    assert steps.endswith("and the training losses still fall.")
    (either,) = diagnose(replace(UNDERFITTED, curve=None)).sentences
    assert either.startswith("The student lacks steps or capacity: ")
    assert either.endswith("whether the curve still rises, which would decide, is not known.")
    (nothing,) = diagnose(Evidence(0.70, 0.65, 912)).sentences
    assert nothing.startswith("The student lacks nothing that these numbers show: AP on its training images is 70.0")


def test_describe_labels__with_and_without_footage() -> None:
    assert describe_labels(1, 0) == "1 labeled image, no unlabeled ones"
    assert describe_labels(68, 612) == "68 labeled images and 612 unlabeled ones (10 % labeled)"


def test_describe_curve__what_is_known() -> None:
    assert describe_curve(None) == "not known"
    assert describe_curve(Curve(3, None, None)) == "not known, since 3 epochs are too few (at least 10)"
    assert describe_curve(Curve(60, 0.0123, -0.004)) == (
        "last 12 of 60 epochs against the 12 before: AP +1.2 (still rises), training losses rose by 0.4 % (no longer "
        "falling)"
    )
    assert describe_curve(Curve(62, None, 0.031)) == (
        "last 12 of 62 epochs against the 12 before: AP not measured in every epoch, training losses fell by 3.1 % "
        "(still falling)"
    )


def test_examples__hold() -> None:
    result = doctest.testmod(diagnosis)
    assert (result.failed, result.attempted > 3) == (0, True)
