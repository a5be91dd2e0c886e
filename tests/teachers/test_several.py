from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.helpers.models import batch, detector
from yolokd.backend.heads import as_head, read_head, split_branches
from yolokd.errors import PairError, RecipeError, UserError
from yolokd.losses.base import Grid, Head
from yolokd.teachers.detector import DetectorTeacher
from yolokd.teachers.several import SeveralTeacher, match_teachers, of_first, require_same_levels

A, B = {0: "car", 1: "bus", 2: "person"}, {0: "Person", 1: "tram", 2: "car"}
IMAGES = batch()["img"]
GRID = Grid.of_images(IMAGES, ("p3", "p4", "p5"))


def teachers(*families: str) -> list[DetectorTeacher]:
    found = [DetectorTeacher(detector(family, seed=seed)) for seed, family in enumerate(families)]
    for seed, one in enumerate(found):
        excite(one, seed)
    return found


def excite(teacher: DetectorTeacher, seed: int) -> None:
    """Give the scores of an untrained detector a spread, so that detectors differ in more than the last digits."""
    generator = torch.Generator().manual_seed(seed)
    head: Any = teacher.layers[-1]
    for branch in (head.cv3, *([head.one2one_cv3] if hasattr(head, "one2one_cv3") else [])):
        for level in branch:
            level[-1].bias.copy_(torch.randn(len(level[-1].bias), generator=generator))


def head_of(teacher: Any, branch: str = "one2many") -> Head:
    raw = teacher(IMAGES).raw
    return as_head(split_branches(raw)[branch], GRID, None)


def test_several__equal_teachers_answer_like_one() -> None:
    (one,) = teachers("v8")
    alone, together = head_of(one), head_of(SeveralTeacher([one, one], [A, A]))
    torch.testing.assert_close(together.logits.sigmoid(), alone.logits.sigmoid(), atol=1e-6, rtol=0)
    torch.testing.assert_close(together.boxes, alone.boxes, atol=1e-3, rtol=0)
    assert together.bins == 1


def test_several__equals_a_slow_loop() -> None:
    pair = teachers("v8", "26")
    found = head_of(SeveralTeacher(pair, [A, B]))
    one, other = (head_of(teacher) for teacher in pair)
    united = [(0, 2), (1, None), (2, 0), (None, 1)]  # car, bus, person, tram
    for image in range(len(IMAGES)):
        for anchor in range(GRID.anchors):
            first, second = one.logits[image, anchor].sigmoid(), other.logits[image, anchor].sigmoid()
            for k, (a, b) in enumerate(united):
                known = [float(p[i]) for p, i in ((first, a), (second, b)) if i is not None]
                assert float(found.logits[image, anchor, k].sigmoid()) == pytest.approx(
                    sum(known) / len(known), abs=1e-6
                )
            weights = float(first.max()), float(second.max())
            box = (one.boxes[image, anchor] * weights[0] + other.boxes[image, anchor] * weights[1]) / sum(weights)
            torch.testing.assert_close(found.boxes[image, anchor], box, atol=1e-3, rtol=1e-4)


def test_several__features_are_the_firsts_and_the_rest_rests_without_a_head() -> None:
    pair = teachers("v8", "11")
    ran: list[int] = []
    pair[1].layers[0].register_forward_hook(lambda *_: ran.append(1))
    output = SeveralTeacher(pair, [A, B])(IMAGES, head=False, levels=("p3",))
    assert not ran
    assert output.raw is None
    assert torch.equal(output.features["p3"], pair[0](IMAGES, head=False, levels=("p3",)).features["p3"])


def test_several__offers_one_branch_without_distributions_and_cannot_be_attacked() -> None:
    offer = SeveralTeacher(teachers("26", "26"), [A, B]).offer
    assert (offer.branches, offer.bins, offer.attackable) == (("one2many",), 1, False)
    assert set(offer.widths) == {"p3", "p4", "p5"}


def test_several__is_frozen_and_sure_answers_stay_finite() -> None:
    (one,) = teachers("v8")
    head: Any = one.layers[-1]
    for level in head.cv3:
        level[-1].bias.fill_(200.0)
    teacher = SeveralTeacher([one, one], [A, A]).train()
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert head_of(teacher).logits.isfinite().all()


def test_match_teachers__different_classes_teach_one_student() -> None:
    data = {0: "tram", 1: "car", 2: "person", 3: "bus"}
    match = match_teachers(data, [A, B], {}, joined=False)
    assert match.complete
    assert match.student == (0, 1, 2, 3)
    assert match.teacher == ((3,), (0,), (2,), (1,))
    assert match.teacher_count == 4


def test_match_teachers__a_map_may_name_a_class_of_one_of_them() -> None:
    match = match_teachers({0: "car", 1: "train"}, [A, B], {"tram": "train"}, joined=False)
    assert match.teacher == ((0,), (3,))
    with pytest.raises(RecipeError, match="the teacher has no class 'trolley'"):
        match_teachers({0: "car", 1: "train"}, [A, B], {"trolley": "train"}, joined=False)


def test_match_teachers__a_name_that_means_two_classes_is_refused() -> None:
    data = {0: "car", 1: "van"}
    with pytest.raises(UserError, match="The teachers disagree about the class 'Car'"):
        match_teachers(data, [{0: "car"}, {0: "Car", 1: "bus"}], {"car": "car", "Car": "van"}, joined=False)


def test_match_teachers__joined_classes_take_all_of_both() -> None:
    match = match_teachers({0: "car", 1: "tram"}, [A, B], {}, joined=True)
    assert match.teacher == ((0, 3),)


def test_of_first__keeps_what_the_first_knows() -> None:
    match = of_first(match_teachers({0: "tram", 1: "car"}, [A, B], {}, joined=False), len(A))
    assert (match.student, match.teacher, match.missing) == ((1,), ((0,),), ("tram",))
    assert match.teacher_count == 3


def test_require_same_levels__names_those_of_each() -> None:
    heads = {f"{family}.pt": read_head(detector(family), "The teacher") for family in ("v8", "26", "v8-p2")}
    require_same_levels({name: head for name, head in heads.items() if name != "v8-p2.pt"})
    with pytest.raises(PairError, match=r"'v8.pt' has p3, p4, p5; .*'v8-p2.pt' has p2, p3, p4, p5"):
        require_same_levels(heads)


def test_several__of_two_levels_answer_at_those() -> None:
    answer = SeveralTeacher(teachers("v8-p3p4", "v8-p3p4"), [A, B])(IMAGES).raw
    assert answer is not None
    assert answer["scores"].shape[-1] == sum((64 // stride) ** 2 for stride in (8, 16))
