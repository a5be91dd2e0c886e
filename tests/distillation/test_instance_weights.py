"""Adaptive instance distillation: closed forms, a slow reference, and what the weights must not depend on."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.helpers.models import FAMILIES, class_names, detector
from tests.helpers.models import batch as image_batch
from tests.helpers.rotated import crowded_rotated, taught_rotated
from tests.helpers.slow_weights import reference
from tests.helpers.taught import GRID, SIZE, boxes_of, crowded, encode, labeled, only, options, stock, taught
from yolokd.backend.classes import match_classes
from yolokd.backend.heads import grid_of, neck_features
from yolokd.distillation.instance_weights import SCOPES, InstanceWeighting, Weights, owners
from yolokd.distillation.teacher_loss import Objects
from yolokd.errors import PairError
from yolokd.losses.rotated import upright
from yolokd.teachers.detector import DetectorTeacher

CLASSES = {0: "car", 1: "van", 2: "person"}


def weigh(
    raw: dict[str, Any],
    batch: dict[str, Any],
    *,
    teacher: dict[int, str] | None = None,
    mapping: dict[str, str] | None = None,
    **config: Any,
) -> Weights:
    match = match_classes(CLASSES, teacher or CLASSES, mapping or {})
    return InstanceWeighting(options(**config), match)(raw, batch, GRID)


def tensors(weights: Weights) -> list[Tensor]:
    return [weights.head, weights.features, weights.image, weights.instances.weight, weights.instances.loss]


def with_loss(batch: dict[str, Any], *losses: float) -> dict[str, Any]:
    """A teacher of one class with exact boxes whose D is `losses[b]` on every object of image b.

    With exact boxes the assigned soft labels are 1, so that D is the cross-entropy softplus(−z) alone.
    """
    boxes = torch.stack([b[0].expand(GRID.anchors, 4) for b in boxes_of(batch)])
    logits = torch.tensor([-math.log(math.expm1(d)) for d in losses])
    return {"scores": logits.view(-1, 1, 1).expand(-1, 1, GRID.anchors), "boxes": encode(boxes, 1)}


@pytest.mark.parametrize(("loss", "weight"), [(1e-9, 1.0), (1, 0.904837), (2, 0.818731), (5, 0.606531), (10, 0.367879)])
def test_instance__closed_form(loss: float, weight: float) -> None:
    batch = labeled([(0, 16, 16, 48, 48)])
    raw = with_loss(batch, loss)
    weights = InstanceWeighting(options(), match_classes({0: "car"}, {0: "car"}, {}))(raw, batch, GRID)
    points, _ = GRID.centers(torch.device("cpu"))
    inside = ((points > 16) & (points < 48)).all(1)
    assert inside.sum() == 16 + 4 + 0  # the four cells of p5 have their centers on the corners
    background = (1 - math.exp(-loss)) ** 0.1  # exp(−α · softplus(z))
    expected = torch.where(inside, torch.tensor(weight), torch.tensor(background))
    torch.testing.assert_close(weights.head[0], expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(weights.features, weights.head)
    assert weights.image.item() == pytest.approx(weight, abs=1e-5)
    assert weights.instances.loss.item() == pytest.approx(loss, abs=1e-5)
    assert weights.instances.weight.item() == pytest.approx(weight, abs=1e-5)


def test_of__two_images_closed_form() -> None:
    batch = labeled([(0, 16, 16, 48, 48)], [(0, 16, 16, 48, 48)])
    weighting = InstanceWeighting(options(), match_classes({0: "car"}, {0: "car"}, {}))
    weights = weighting(with_loss(batch, 1e-9, 10), batch, GRID)
    loss = torch.tensor([2.0, 2.0])
    assert (weights.of(loss.ndim, head=False) * loss).mean().item() == pytest.approx(1.367879, abs=1e-5)


@pytest.mark.parametrize("normalize", ["raw", "mean"])
@pytest.mark.parametrize("scope", SCOPES)
def test_unlabeled__rows_beyond_the_batch_weigh_as_background(scope: str, normalize: str) -> None:
    batch = crowded(2)
    more = {**batch, "img": torch.zeros(4, 3, SIZE, SIZE)}
    raw = taught(more)
    alone = weigh({key: value[:2] for key, value in raw.items()}, batch, scope=scope, normalize=normalize)
    weights = weigh(raw, batch, scope=scope, normalize=normalize)
    for own, expected in zip(tensors(weights), tensors(alone), strict=True):
        torch.testing.assert_close(own[:2], expected)
    counted = alone.instances.counted
    scale = alone.instances.loss[counted].mean() if normalize == "mean" else torch.tensor(1.0)
    against = F.softplus(raw["scores"][2:]).sum(1)  # (2, A), cross-entropy against "no object"
    if scope == "image":
        against = against.mean(1, keepdim=True).expand_as(against)
    elif scope == "level":
        parts = [against[:, GRID.places(level)] for level in GRID.shapes]
        against = torch.cat([part.mean(1, keepdim=True).expand_as(part) for part in parts], 1)
    for own in (weights.head, weights.features):
        torch.testing.assert_close(own[2:], torch.exp(-0.1 * against / scale))
    assert torch.equal(weights.instances.counted[:2], counted)
    assert not weights.instances.counted[2:].any()


def test_of__head_and_feature_losses_have_their_own_weights() -> None:
    batch = crowded()
    weights = weigh(taught(batch, classes=1), batch, teacher={0: "car"})
    assert weights.of(2, head=True) is weights.head
    assert weights.of(2, head=False) is weights.features
    assert weights.of(1, head=True) is weights.of(1, head=False) is weights.image
    assert not torch.equal(weights.head, weights.features)


@pytest.mark.parametrize("bins", [16, 1])
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(
    ("names", "teacher_of"),
    [
        (("car", "van", "person"), {0: 0, 1: 1, 2: 2}),
        (("person", "car", "van"), {0: 1, 1: 2, 2: 0}),
    ],
)
def test_instance__equals_slow_loops(bins: int, seed: int, names: tuple[str, ...], teacher_of: dict[int, int]) -> None:
    batch = crowded(seed=seed)
    raw = taught(batch, bins=bins, seed=seed)
    weights = weigh(raw, batch, teacher=dict(enumerate(names)))
    head, features, image = reference(raw, batch, teacher_of, bins)
    torch.testing.assert_close(weights.head, head, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(weights.features, features, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(weights.image, image, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("bins", [16, 1])
def test_instance__unknown_classes_weigh_nothing_in_the_head_and_fully_in_features(bins: int) -> None:
    batch = crowded(objects=6, seed=3)
    raw = taught(batch, bins=bins)
    # the teacher's classes without partner must not matter: the reference sees the common ones only
    weights = weigh(raw, batch, teacher={0: "boat", 1: "person", 2: "car"})
    common = {**raw, "scores": torch.cat((raw["scores"][:, 1:], torch.full_like(raw["scores"][:, :1], -80)), 1)}
    head, features, image = reference(common, batch, {0: 1, 2: 0}, bins)
    torch.testing.assert_close(weights.head, head, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(weights.features, features, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(weights.image, image, rtol=1e-5, atol=1e-6)
    unknown = weights.features != weights.head
    assert unknown.any()
    assert (weights.head[unknown] == 0).all()
    assert (weights.features[unknown] == 1).all()
    assert weights.instances.counted.sum() == (batch["cls"] != 1).sum()


def test_instance__a_class_whose_namesake_is_mapped_elsewhere_is_unknown() -> None:
    batch = labeled([(0, 0, 0, 30, 30), (1, 32, 32, 62, 62)])
    raw = taught(batch, classes=1)
    weights = weigh(raw, batch, teacher={0: "car"}, mapping={"car": "van"})
    assert sorted(weights.instances.counted[0].tolist()) == [False, True]
    where = GRID.centers(torch.device("cpu"))[0]
    assert not weights.head[0, (where < 20).all(1)].any()
    assert weights.head[0, (where > 40).all(1) & (where < 56).all(1)].all()


def test_instance__an_object_inside_another_keeps_its_own_weight() -> None:
    batch = labeled([(0, 0, 0, 64, 64), (1, 20, 20, 44, 44)])
    raw = taught(batch, noise=1)
    raw["scores"][:] = -30.0
    raw["scores"][:, 0] = 30.0  # sure of the large one's class, sure that the small one's is absent
    weights = weigh(raw, batch)
    small, large = weights.instances.weight[0].tolist()
    assert small < large
    where = (GRID.centers(torch.device("cpu"))[0] - 32).abs().amax(1) < 12
    assert where.sum() == 8
    assert (weights.head[0, where] == small).all()
    assert (weights.head[0, ~where] == large).all()


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("bins", [16, 1])
def test_corrupt_boxes__lower_the_weights_of_their_image_only(scope: str, bins: int) -> None:
    batch = crowded(images=3, seed=2)
    good = taught(batch, bins=bins, noise=0.5)
    bad = taught(batch, bins=bins, noise=8.0)
    mixed = {**good, "boxes": torch.cat((good["boxes"][:2], bad["boxes"][2:]))}
    before, after = weigh(good, batch, scope=scope), weigh(mixed, batch, scope=scope)
    for x, y in zip(tensors(before), tensors(after), strict=True):
        assert torch.equal(x[:2], y[:2])
    assert after.image[2] < before.image[2]
    assert after.instances.weight[2].mean() < before.instances.weight[2].mean()
    if scope != "level":  # an object may move to another level when its boxes do
        assert (after.instances.weight[2] < before.instances.weight[2]).all()


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("normalize", ["raw", "mean"])
def test_alpha_zero__every_weight_is_exactly_one(scope: str, normalize: str) -> None:
    batch = crowded()
    weights = weigh(taught(batch), batch, alpha=0.0, scope=scope, normalize=normalize)
    loss_map = torch.rand(3, GRID.anchors)
    assert torch.equal(weights.of(2, head=True) * loss_map, loss_map)
    assert torch.equal(weights.of(2, head=False) * loss_map, loss_map)
    assert torch.equal(weights.of(1, head=True), torch.ones(3))


@pytest.mark.parametrize("scope", SCOPES)
def test_weights__are_constants_in_the_unit_interval(scope: str) -> None:
    batch = crowded()
    raw = {key: value.requires_grad_() for key, value in taught(batch).items()}
    weights = weigh(raw, batch, scope=scope)
    for tensor in tensors(weights):
        assert not tensor.requires_grad
        assert torch.isfinite(tensor).all()
    for tensor in (weights.head, weights.features, weights.image):
        assert ((tensor > 0) & (tensor <= 1)).all()
    assert weights.head.shape == weights.features.shape == (3, GRID.anchors)


@pytest.mark.parametrize("normalize", ["raw", "mean"])
def test_instance__images_without_objects(normalize: str) -> None:
    batch = labeled([], [])
    raw = taught(batch)
    weights = weigh(raw, batch, normalize=normalize)
    loss = F.softplus(raw["scores"]).sum(1)
    torch.testing.assert_close(weights.head, (-0.1 * loss).exp())
    torch.testing.assert_close(weights.features, (-0.1 * loss).exp())
    torch.testing.assert_close(weights.image, (-0.1 * loss.mean(1)).exp())
    assert not weights.instances.counted.any()


def test_instance__an_image_of_unknown_objects_only() -> None:
    batch = labeled([(1, 0, 0, 40, 40)], [(1, 0, 0, 64, 64)])
    raw = taught(batch, classes=1)
    weights = weigh(raw, batch, teacher={0: "car"})
    points, _ = GRID.centers(torch.device("cpu"))
    inside = (points < 40).all(1)
    loss = F.softplus(raw["scores"][0, 0])
    assert (weights.head[0, inside] == 0).all()
    assert (weights.features[0, inside] == 1).all()
    torch.testing.assert_close(weights.head[0, ~inside], (-0.1 * loss[~inside]).exp())
    torch.testing.assert_close(weights.image[0], (-0.1 * loss[~inside].mean()).exp())
    assert weights.image[1] == 1  # nothing of this image can be judged


@pytest.mark.parametrize("scope", ["image", "level"])
def test_image_and_level__equal_the_criterion_of_each_image(scope: str) -> None:
    batch = crowded(images=4)
    raw = taught(batch)
    weights = weigh(raw, batch, scope=scope)
    for image in range(4):
        part, said = only(batch, raw, image)
        loss = stock(said, part)[0].sum()
        torch.testing.assert_close(weights.instances.loss[image].sum(), loss)
        share = 1 if scope == "image" else 3  # a loss without a place belongs to all levels alike
        torch.testing.assert_close(weights.image[image], (-0.1 * loss / share).exp())
        for column, level in enumerate(GRID.shapes):
            own = weights.instances.weight[image, 0 if scope == "image" else column]
            assert (weights.head[image, GRID.places(level)] == own).all()
    assert torch.equal(weights.head, weights.features)


@pytest.mark.parametrize("scope", SCOPES)
def test_normalize__mean_is_raw_with_alpha_over_the_mean_loss(scope: str) -> None:
    batch = crowded()
    raw = taught(batch)
    weights = weigh(raw, batch, alpha=0.3, scope=scope, normalize="mean")
    mean = float(weights.instances.loss[weights.instances.counted].mean())
    expected = weigh(raw, batch, alpha=0.3 / mean, scope=scope)
    for x, y in zip(tensors(weights), tensors(expected), strict=True):
        torch.testing.assert_close(x, y)


@pytest.mark.parametrize("scope", SCOPES)
def test_objects__their_order_does_not_matter(scope: str) -> None:
    batch = crowded(objects=6)
    raw = taught(batch)
    order = torch.randperm(len(batch["cls"]), generator=torch.Generator().manual_seed(0))
    mixed = {**batch, **{key: batch[key][order] for key in ("batch_idx", "cls", "bboxes")}}
    for x, y in zip(tensors(weigh(raw, batch, scope=scope)), tensors(weigh(raw, mixed, scope=scope)), strict=True):
        assert torch.equal(x, y)


@pytest.mark.parametrize("scope", SCOPES)
def test_classes__of_several_of_the_teacher_s_the_largest_score_is_judged(scope: str) -> None:
    batch = crowded()
    raw = taught(batch, classes=5)
    names = {0: "bus", 1: "van", 2: "person", 3: "car", 4: "lorry"}
    weights = weigh(raw, batch, teacher=names, mapping={"bus": "car", "lorry": "car"}, scope=scope)
    scores = raw["scores"]
    joined = torch.stack([scores[:, [0, 3, 4]].max(1).values, scores[:, 1], scores[:, 2]], 1)
    expected = weigh({**raw, "scores": joined}, batch, scope=scope)
    for x, y in zip(tensors(weights), tensors(expected), strict=True):
        torch.testing.assert_close(x, y)
    unjoined = weigh(raw, batch, teacher=names, scope=scope)
    assert not torch.allclose(weights.head, unjoined.head)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half__is_widened_and_autocast_changes_nothing(dtype: torch.dtype) -> None:
    batch = crowded()
    half = {key: value.to(dtype) for key, value in taught(batch).items()}
    expected = weigh({key: value.float() for key, value in half.items()}, batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        weights = weigh(half, batch)
    for x, y in zip(tensors(weights), tensors(expected), strict=True):
        assert x.dtype == torch.float32
        assert torch.equal(x, y)


def test_dual_head__the_one_to_many_branch_is_judged() -> None:
    batch = crowded()
    many, one = taught(batch, bins=1), taught(batch, bins=1, seed=5)
    weights = weigh({"one2many": many, "one2one": one}, batch)
    assert torch.equal(weights.head, weigh(many, batch).head)


@pytest.mark.parametrize("family", FAMILIES)
def test_families__real_heads_are_judged(family: str) -> None:
    teacher = DetectorTeacher(detector(family, width=0.25, classes=3).eval())
    batch = image_batch(3)
    raw = teacher(batch["img"]).raw
    assert raw is not None
    weighting = InstanceWeighting(options(), match_classes({0: "class0", 1: "x", 2: "class2"}, class_names(3), {}))
    weights = weighting(raw, batch, grid_of(neck_features(raw, batch["img"])))
    assert weights.head.shape == (3, GRID.anchors)
    assert all(((tensor >= 0) & (tensor <= 1)).all() for tensor in (weights.head, weights.features, weights.image))
    assert weights.instances.counted.sum() == (batch["cls"] != 1).sum()


def test_init__refuses_a_teacher_that_knows_no_class_and_unknown_words() -> None:
    with pytest.raises(PairError, match=r"knows none of the data's classes by name:\n  car     - missing -"):
        InstanceWeighting(options(), match_classes(CLASSES, {0: "boat"}, {}))
    match = match_classes(CLASSES, CLASSES, {})
    with pytest.raises(ValueError, match="scope must be one of 'instance', 'image', 'level', got 'anchor'"):
        InstanceWeighting(options(scope="anchor"), match)
    with pytest.raises(ValueError, match="normalize must be one of 'raw', 'mean', got 'max'"):
        InstanceWeighting(options(normalize="max"), match)


def test_owners__a_place_belongs_to_the_rotated_box_around_it() -> None:
    bar = torch.tensor([[[32.0, 32.0, 60.0, 10.0, math.pi / 4]]])
    objects = Objects(upright(bar), torch.zeros(1, 1).long(), torch.ones(1, 1).bool(), torch.ones(1, 1).bool(), bar)
    found = owners(objects, torch.full((1, GRID.anchors), -1), GRID)[0, GRID.places("p3")].view(8, 8)
    diagonal = [abs(row - column) * 8 / math.sqrt(2) < 5 for row in range(8) for column in range(8)]
    ends = [abs(row + column - 7) * 8 / math.sqrt(2) < 30 for row in range(8) for column in range(8)]
    expected = torch.tensor([0 if a and b else -1 for a, b in zip(diagonal, ends, strict=True)]).view(8, 8)
    assert torch.equal(found, expected)
    assert (found == 0).sum() == 6  # of the 64 cells, where the rectangle around the bar holds 36


@pytest.mark.parametrize("scope", SCOPES)
def test_weighting__judges_rotated_boxes(scope: str) -> None:
    batch = crowded_rotated()
    raw = taught_rotated(batch)
    weights = weigh(raw, batch, scope=scope)
    for tensor in tensors(weights)[:4]:
        assert torch.isfinite(tensor).all()
        assert bool((tensor > 0).any())
        assert bool((tensor <= 1).all())
    turned = weigh({**raw, "angle": raw["angle"] + 0.5}, batch, scope=scope)
    assert not torch.equal(turned.head, weights.head)
