"""Reading heads of every family, against what Ultralytics itself computes."""

from __future__ import annotations

import copy

import pytest
import torch
from ultralytics.utils.loss import v8DetectionLoss

from tests.helpers.models import DUAL, FAMILIES, LEVELS, OTHER_LEVELS, batch, config, detector
from yolokd.backend.heads import as_head, grid_of, neck_features, read_head, split_branches
from yolokd.errors import PairError
from yolokd.losses.levels import STRIDES


@pytest.mark.parametrize("family", [*FAMILIES, *OTHER_LEVELS])
def test_read_head__agrees_with_what_the_layers_return(family: str) -> None:
    model = detector(family)
    info = read_head(model, "The student")
    outputs: dict[int, torch.Tensor] = {}
    for level, layer in info.layers.items():
        model.model[layer].register_forward_hook(lambda m, i, o, level=level: outputs.__setitem__(level, o))
    images = torch.rand(2, 3, 64, 128)
    raw = model.train()(images)
    features = neck_features(raw, images)
    assert info.levels == tuple(features) == LEVELS[family]
    assert info.largest_stride == model.stride.max()
    for level in info.levels:
        assert features[level] is outputs[level]  # type: ignore[index]
        assert features[level].shape[1] == info.widths[level]
        assert features[level].shape[-1] == 128 // STRIDES[level]
    assert info.branches == (("one2many", "one2one") if family in DUAL else ("one2many",))
    assert tuple(split_branches(raw)) == info.branches
    assert info.bins == (1 if family == "26" else 16)


@pytest.mark.parametrize("family", [*FAMILIES, *OTHER_LEVELS])
def test_as_head__boxes_equal_the_criterions_own_decoding(family: str) -> None:
    model = detector(family).train()
    raw = model(batch()["img"])
    branch = split_branches(raw)["one2many"]
    grid = grid_of(neck_features(raw, batch()["img"]))
    head = as_head(branch, grid, None)
    criterion = v8DetectionLoss(model)
    points, strides = grid.centers(torch.device("cpu"))
    expected = criterion.bbox_decode(points / strides, branch["boxes"].permute(0, 2, 1).contiguous()) * strides
    torch.testing.assert_close(head.boxes, expected, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(head.logits, branch["scores"].transpose(1, 2))
    assert head.logits.shape[1] == grid.anchors


def test_as_head__picks_classes_in_the_order_given() -> None:
    model = detector("v8").train()
    raw = split_branches(model(batch()["img"]))["one2many"]
    head = as_head(raw, grid_of(neck_features(raw, batch()["img"])), torch.tensor([2, 0]))
    torch.testing.assert_close(head.logits, raw["scores"][:, [2, 0]].transpose(1, 2))


def test_as_head__of_several_classes_the_largest_logit_counts() -> None:
    model = detector("v8").train()
    raw = split_branches(model(batch()["img"]))["one2many"]
    head = as_head(raw, grid_of(neck_features(raw, batch()["img"])), torch.tensor([[2, 0], [1, 1]]))
    scores = raw["scores"]
    expected = torch.stack([torch.maximum(scores[:, 2], scores[:, 0]), scores[:, 1]], -1)
    assert torch.equal(head.logits, expected)
    (gradient,) = torch.autograd.grad(head.logits[..., 1].sum(), scores)
    assert (gradient[:, 1] == 1).all()  # repeated, yet counted once
    assert not gradient[:, [0, 2]].any()


@pytest.mark.parametrize("strides", [[8, 12, 32], [2, 4], [8, 8, 16], [16, 8], [8, 256]])
def test_read_head__strides_without_a_level_are_refused(strides: list[int]) -> None:
    model = detector("v8")
    model.model[-1].stride = torch.tensor(strides, dtype=torch.float)
    with pytest.raises(PairError, match=f"The teacher has detection levels of strides {', '.join(map(str, strides))}"):
        read_head(model, "The teacher")


def test_read_head__a_fused_dual_head_is_refused() -> None:
    model = detector("26").eval()
    model.end2end = True
    model.fuse(verbose=False)
    with pytest.raises(PairError, match="fused for inference"):
        read_head(model, "The teacher")


def test_config__is_not_shared_between_models() -> None:
    assert config("v8") == config("v8")
    first = config("v8")
    first["nc"] = 99
    assert copy.deepcopy(config("v8"))["nc"] == 3
