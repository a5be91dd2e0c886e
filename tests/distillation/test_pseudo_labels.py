from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.helpers.models import batch, detector
from tests.helpers.panels import seeing
from tests.helpers.teacher_student import pair_of
from tests.helpers.unlabeled import joined
from tests.helpers.waits import Waits
from yolokd.backend.heads import grid_of, neck_features
from yolokd.distillation.model import TeacherStudent
from yolokd.distillation.pseudo_labels import DOUBT, SILENT, PseudoLabels, live_answers
from yolokd.loaders.batch import Answers, TrainingBatch
from yolokd.losses.base import Grid
from yolokd.recipe import Recipe
from yolokd.teachers.detector import DetectorTeacher

GRID = Grid({"p3": (8, 8), "p4": (4, 4), "p5": (2, 2)}, {"p3": 8, "p4": 16, "p5": 32})
SURE, DOUBTFUL, NOTHING = 0.8, 0.3, DOUBT / 2


def answers(*rows: tuple[int, list[float], list[float]]) -> Answers:
    images, boxes, chances = zip(*rows, strict=True)
    return Answers(torch.tensor(images), torch.tensor(boxes), torch.tensor(chances))


def apply(found: Answers) -> Any:
    labels, data = PseudoLabels(torch.tensor([0.5, 0.5, 0.25])), TrainingBatch.of(joined(batch(), 2))
    chosen = labels.choose(found, len(data))
    with Waits() as waits:
        applied = labels.apply(data, chosen, GRID)
    assert not waits.seen  # what waits for a GPU is in `choose`
    return applied


def test_apply__confident_boxes_of_unlabeled_images_become_labels() -> None:
    left, right = [0.25, 0.5, 0.25, 0.25], [0.75, 0.5, 0.25, 0.25]
    found = apply(
        answers(
            (0, left, [SURE, 0.0, 0.0]),  # a labeled image: its labels stand
            (2, left, [0.1, SURE, 0.0]),
            (3, right, [0.0, 0.0, 0.26]),  # its class takes less
            (3, left, [0.49, 0.0, 0.0]),
        )
    )
    own = batch()
    assert found.labels["batch_idx"].tolist() == [*own["batch_idx"].tolist(), 2, 3]
    assert found.labels["cls"].ravel().tolist() == [*own["cls"].ravel().tolist(), 1, 2]
    assert found.labels["bboxes"][-2:].tolist() == [left, right]
    assert found.labels["img"].shape[0] == 4


def test_apply__doubtful_boxes_take_their_class_out_where_no_confident_box_lies() -> None:
    whole, left = [0.5, 0.5, 1.0, 1.0], [0.25, 0.5, 0.5, 1.0]
    found = apply(
        answers(
            (2, whole, [DOUBTFUL, 0.0, NOTHING]),
            (2, left, [0.0, SURE, 0.0]),
            (3, whole, [NOTHING, 0.0, 0.0]),
        )
    ).doubtful
    points, _ = GRID.centers(torch.device("cpu"))
    assert found.shape == (4, 3, GRID.anchors)
    assert not found[[0, 1, 3]].any()
    assert not found[2, 1:].any()
    assert torch.equal(found[2, 0], points[:, 0] > 32)


def test_apply__as_a_slow_loop_does() -> None:
    generator = torch.Generator().manual_seed(0)
    middle, size = torch.rand(12, 2, generator=generator), torch.rand(12, 2, generator=generator) * 0.5
    rows = Answers(
        torch.randint(4, (12,), generator=generator),
        torch.cat((middle, size), 1),
        torch.rand(12, 3, generator=generator),
    )
    limits = torch.tensor([0.5, 0.5, 0.25])
    found = apply(rows).doubtful
    points, _ = GRID.centers(torch.device("cpu"))
    for image in range(4):
        mine = [i for i in range(12) if int(rows.images[i]) == image and image >= 2]
        sure = [i for i in mine if rows.probabilities[i].max() >= limits[rows.probabilities[i].argmax()]]
        for anchor, (x, y) in enumerate((points / 64).tolist()):

            def inside(i: int, x: float = x, y: float = y) -> bool:
                cx, cy, w, h = rows.boxes[i].tolist()
                return bool(abs(x - cx) < w / 2 and abs(y - cy) < h / 2)

            for kind in range(3):
                doubts = [i for i in mine if i not in sure and rows.probabilities[i, kind] >= DOUBT and inside(i)]
                assert bool(found[image, kind, anchor]) == (bool(doubts) and not any(map(inside, sure)))


@pytest.mark.parametrize("family", ["v8", "26"])
def test_without_doubt__no_loss_and_no_gradient_there(family: str) -> None:
    model = detector(family).train()
    data = joined(batch(), 2)
    images = TrainingBatch.of(data).images
    raw = model(images)
    whole = [0.5, 0.5, 1.0, 1.0]
    labels = PseudoLabels(torch.full((3,), 0.5))
    chosen = labels.choose(answers((2, whole, [0.3, 0.3, 0.3])), 2)
    found = labels.apply(TrainingBatch.of(data), chosen, grid_of(neck_features(raw, images)))
    quiet = found.without_doubt(raw)
    for name, branch in quiet.items() if "one2many" in quiet else [("one2many", quiet)]:
        scores = branch["scores"]
        assert bool((scores[2] == SILENT).all()), name
        before = raw[name]["scores"] if "one2many" in raw else raw["scores"]
        assert torch.equal(scores[[0, 1, 3]], before[[0, 1, 3]])
        (gradient,) = torch.autograd.grad(scores.sum(), before, retain_graph=True)
        assert not gradient[2].any()
        assert bool(gradient[[0, 1, 3]].all())


def test_live_answers__are_what_the_detector_finds() -> None:
    teacher = DetectorTeacher(seeing("v8"))
    images = torch.rand(2, 3, 64, 64)
    raw = teacher(images).raw
    assert raw is not None
    found = live_answers(raw, GRID, None, None, 3)
    assert len(found.images) == len(found.boxes) == len(found.probabilities) > 0
    assert set(found.images.tolist()) == {0, 1}
    assert float(found.boxes.min()) >= 0
    assert float(found.boxes.max()) <= 1
    some = live_answers(raw, GRID, torch.tensor([3, 1]), torch.tensor([0, 2]), 4)
    assert not some.probabilities[:, [0, 2]].any()


def model(*, stored: bool, **losses: Any) -> TeacherStudent:
    recipe = Recipe.from_dict(
        {
            "losses": losses,
            "teacher": {"answers": "stored" if stored else "live"},
            "train": {"pseudo_labels": 0.5, "unlabeled": "somewhere"},
        }
    )
    found = pair_of(recipe, detector("v8"), seeing("v8", 1))
    assert found.distillation is not None
    found.distillation.pseudo = PseudoLabels(torch.full((3,), 0.05 if not stored else 0.5))
    return found


def test_loss__pseudo_labels_alone_reach_the_student() -> None:
    data = joined(batch(), 2)
    data["answers"] = answers((2, [0.5, 0.5, 0.5, 0.5], [SURE, 0.0, 0.0]))
    one = model(stored=True)
    loss, items = one(data)
    own, _ = model(stored=True)({**data, "answers": answers((2, [0.5, 0.5, 0.5, 0.5], [NOTHING, 0.0, 0.0]))})
    assert not any(key.startswith("kd_") for key in items)
    assert not torch.equal(loss, own)
    loss.sum().backward()
    assert all(p.grad is not None for p in one.student_model.parameters() if p.requires_grad)


def test_loss__the_same_whether_chosen_before_the_step_or_in_it() -> None:
    data = joined(batch(), 2)
    data["answers"] = answers((2, [0.5, 0.5, 0.5, 0.5], [SURE, 0.0, 0.0]), (3, [0.4, 0.5, 0.5, 0.5], [0.0, 0.2, 0.3]))
    first, second = model(stored=True), model(stored=True)
    run = second.distillation
    assert run is not None
    assert run.pseudo is not None
    chosen = run.pseudo.choose(data["answers"], 2)
    assert (len(chosen.images), len(chosen.doubtful_images)) == (1, 2)
    expected, _ = first(data)
    found, _ = second({**data, "pseudo": chosen})
    assert torch.equal(found, expected)


def test_loss__is_that_of_a_labeled_batch_times_the_share() -> None:
    """Confident boxes everywhere: the same as labels, but for the number of images that the loss counts."""
    first, second = batch(seed=0), batch(seed=1)
    data = {**first, "unlabeled": second["img"], "unlabeled_file": ["c.jpg", "d.jpg"]}
    data["answers"] = Answers(
        second["batch_idx"].long() + 2,
        second["bboxes"],
        torch.nn.functional.one_hot(second["cls"].long().flatten(), 3).float(),
    )
    one = model(stored=True)
    found, items = one(data)
    whole = {key: torch.cat((first[key], second[key])) for key in ("img", "cls", "bboxes")}
    whole["batch_idx"] = torch.cat((first["batch_idx"], second["batch_idx"] + 2))
    expected, parts = model(stored=True).student_model.train().loss(whole)
    torch.testing.assert_close(found, expected / 2)
    assert all(float(items[key]) == pytest.approx(float(parts[key])) for key in parts)


def test_loss__live_answers_are_taken_where_none_are_stored() -> None:
    calls: list[int] = []
    one = model(stored=False)
    one.teacher_model.register_forward_hook(lambda *_: calls.append(1))
    loss, _ = one(joined(batch(), 2))
    assert calls == [1]
    loss.sum().backward()
    alone = model(stored=False)
    alone.teacher_model.register_forward_hook(lambda *_: calls.append(1))
    alone(batch())
    assert calls == [1]  # no unlabeled images, no question


def test_loss__soft_labels_and_pseudo_labels_together() -> None:
    data = joined(batch(), 2)
    data["answers"] = answers((0, [0.5, 0.5, 0.4, 0.4], [0.6, 0.3, 0.0]), (3, [0.4, 0.4, 0.5, 0.5], [0.0, SURE, 0.0]))
    one = model(stored=True, soft={})
    loss, items = one(data)
    assert float(items["kd_soft_cls"]) > 0
    assert float(items["kd_soft_box"]) > 0
    loss[-2:].sum().backward()
    gradients = [p.grad for p in one.student_model.parameters() if p.requires_grad and p.grad is not None]
    assert any(gradient.any() for gradient in gradients)
