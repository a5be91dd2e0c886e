from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.helpers.pairs import LEVELS, build, check_maps, check_optimum, config, equal_step, identity_generators
from tests.helpers.steps import GRID, TEACHER_CHANNELS, make_step
from yolokd.errors import RunError, ShapeError
from yolokd.losses.base import Requirements
from yolokd.losses.bckd import score_gap
from yolokd.losses.mgd import MGD
from yolokd.losses.samkd import (
    SAMKD,
    bernoulli_kl_map,
    cell_energy,
    channel_attention,
    divergence_where,
    gap_weight,
    spatial_attention,
    spread_pooled,
    top_mask,
)

EXAMPLE = torch.tensor([[1, 2, 0, 0], [3, 4, 0, 0], [0, 0, 5, 6], [0, 0, 7, 8]], dtype=torch.float64).view(1, 1, 4, 4)


def samkd(**changes: Any) -> SAMKD:
    values: dict[str, Any] = {
        "ratio": 0.65,
        "spatial": "attention",
        "hide": "important",
        "channel": True,
        "scales": (1, 2, 4),
        "generator": "conv",
        "seed": 0,
        "logits": 1.0,
        "logits_weight": "hard",
        "logits_ratio": 0.1,
        "logits_tau": 0.1,
    }
    return SAMKD(config(**values | changes))


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# Attention


def test_spatial_attention__closed_form() -> None:
    values = spatial_attention(torch.tensor([0, 0.5 * math.log(3)], dtype=torch.float64).view(1, 1, 1, 2))
    torch.testing.assert_close(values, torch.tensor([[[0.5, 1.5]]], dtype=torch.float64))


def test_spatial_attention__example_at_three_scales() -> None:
    one = spatial_attention(EXAMPLE)
    assert one.max().item() == pytest.approx(13.8346, abs=1e-4)
    two = spatial_attention(F.max_pool2d(EXAMPLE, 2, ceil_mode=True))
    torch.testing.assert_close(two.flatten(), torch.tensor([0.0013, 0, 0, 3.9987]).double(), atol=1e-4, rtol=0)
    assert spatial_attention(F.max_pool2d(EXAMPLE, 4)).item() == 1


def test_attention__sums_to_its_places_and_ignores_signs() -> None:
    feature = random(3, 5, 4, 6)
    torch.testing.assert_close(spatial_attention(feature).sum((1, 2)), torch.full((3,), 24.0).double())
    torch.testing.assert_close(channel_attention(feature).sum(1), torch.full((3,), 5.0).double())
    assert torch.equal(spatial_attention(-feature), spatial_attention(feature))
    assert torch.equal(channel_attention(-feature), channel_attention(feature))


def test_attention__equals_a_slow_loop() -> None:
    feature = random(1, 3, 2, 2)
    cells = [[feature[0, :, y, x].abs().sum().item() / 3 for x in range(2)] for y in range(2)]
    powers = [[math.exp(value / 0.8) for value in row] for row in cells]
    expected = torch.tensor(powers, dtype=torch.float64) * 4 / sum(map(sum, powers))
    torch.testing.assert_close(spatial_attention(feature, tau=0.8)[0], expected)
    channels = [math.exp(feature[0, c].abs().sum().item() / 4 / 0.8) for c in range(3)]
    expected = torch.tensor(channels, dtype=torch.float64) * 3 / sum(channels)
    torch.testing.assert_close(channel_attention(feature, tau=0.8)[0], expected)


@pytest.mark.parametrize("attention", [spatial_attention, channel_attention])
def test_attention__gradient_half_precision_and_errors(attention: Any) -> None:
    assert torch.autograd.gradcheck(attention, random(1, 2, 2, 2).requires_grad_())
    half = random(2, 4, 3, 3).half()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        values = attention(half)
    assert values.dtype == torch.float32
    torch.testing.assert_close(values, attention(half.double()).float(), atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match=r"tau must be above 0, got 0\.0"):
        attention(half, tau=0.0)
    with pytest.raises(ShapeError, match=r"\(B, C, H, W\), got \(4, 3, 3\)"):
        attention(half[0])


# Masks


def test_top_mask__hides_the_largest_cell_of_the_example() -> None:
    mask = top_mask(spatial_attention(F.max_pool2d(EXAMPLE, 2)), 0.25)
    assert mask.tolist() == [[[1, 1], [1, 0]]]


@pytest.mark.parametrize("ratio", [0.0, 0.1, 0.25, 0.3, 0.65, 0.9999, 1.0])
@pytest.mark.parametrize("shape", [(2, 4, 5), (2, 10), (2, 3, 3)])
def test_top_mask__hides_the_right_number_of_the_largest(shape: tuple[int, ...], ratio: float) -> None:
    values = random(*shape)
    mask = top_mask(values, ratio)
    assert mask.shape == values.shape
    for one, hidden in zip(values.flatten(1), mask.flatten(1) == 0, strict=True):
        assert hidden.sum() == math.ceil(ratio * one.numel() - 1e-9)
        if hidden.any() and not hidden.all():
            assert one[hidden].min() > one[~hidden].max()


def test_top_mask__a_whole_product_is_not_rounded_up() -> None:
    assert 0.07 * 100 > 7  # in binary
    assert (top_mask(random(1, 10, 10), 0.07) == 0).sum() == 7


def test_top_mask__of_equal_values_the_first() -> None:
    assert top_mask(torch.tensor([[1.0, 2.0, 2.0, 2.0, 0.0]]), 0.4).tolist() == [[1, 0, 0, 1, 1]]
    assert top_mask(torch.zeros(1, 100, 100), 0.5).flatten()[:5000].eq(0).all()


def test_top_mask__carries_no_gradient_and_refuses_what_is_no_share() -> None:
    assert not top_mask(random(1, 4).requires_grad_(), 0.5).requires_grad
    with pytest.raises(ValueError, match="between 0 and 1, got 2"):
        top_mask(random(1, 4), 2)


# Scales


@pytest.mark.parametrize("size", [(4, 4), (5, 7), (2, 3), (1, 1)])
@pytest.mark.parametrize("scale", [1, 2, 4])
def test_spread_pooled__spreads_each_value_evenly_over_its_window(size: tuple[int, int], scale: int) -> None:
    height, width = size
    pooled = random(2, math.ceil(height / scale), math.ceil(width / scale))
    assert pooled.shape == F.max_pool2d(torch.zeros(2, *size), scale, ceil_mode=True).shape
    windows = torch.zeros_like(pooled)
    for y in range(height):
        for x in range(width):
            windows[:, y // scale, x // scale] += 1
    spread = spread_pooled(pooled, scale, size)
    assert spread.shape == (2, *size)
    for y in range(height):
        for x in range(width):
            at = (slice(None), y // scale, x // scale)
            torch.testing.assert_close(spread[:, y, x], pooled[at] / windows[at])
    torch.testing.assert_close(spread.sum((1, 2)), pooled.sum((1, 2)))


# Logits


def test_bernoulli_kl_map__equals_torchs_distributions() -> None:
    student, teacher = random(2, 5, 3), random(2, 5, 3, seed=1)
    expected = torch.distributions.kl_divergence(
        torch.distributions.Bernoulli(logits=teacher), torch.distributions.Bernoulli(logits=student)
    ).sum(-1)
    torch.testing.assert_close(bernoulli_kl_map(student, teacher), expected, atol=1e-12, rtol=1e-12)


def test_bernoulli_kl_map__is_the_cross_entropy_less_the_teachers_entropy() -> None:
    student, teacher = random(2, 5, 3), random(2, 5, 3, seed=1)
    cross, own = (
        F.binary_cross_entropy_with_logits(x, teacher.sigmoid(), reduction="none").sum(-1) for x in (student, teacher)
    )
    torch.testing.assert_close(bernoulli_kl_map(student, teacher), cross - own)
    assert bernoulli_kl_map(teacher, teacher).eq(0).all()


def test_bernoulli_kl_map__gradient_and_extreme_logits() -> None:
    student, teacher = random(1, 2, 2).requires_grad_(), random(1, 2, 2, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda s: bernoulli_kl_map(s, teacher), student)
    torch.autograd.backward(bernoulli_kl_map(student, teacher).sum())
    assert teacher.grad is None
    extreme = torch.tensor([[[300.0]], [[-300.0]]], requires_grad=True)
    values = bernoulli_kl_map(extreme, -extreme.detach())
    torch.autograd.backward(values.sum())
    torch.testing.assert_close(values, torch.full((2, 1), 300.0))
    assert extreme.grad is not None
    assert extreme.grad.isfinite().all()


def test_bernoulli_kl_map__half_precision_and_shapes() -> None:
    student, teacher = random(1, 5, 3).half(), random(1, 5, 3, seed=1).half()
    values = bernoulli_kl_map(student, teacher)
    assert values.dtype == torch.float32
    torch.testing.assert_close(values, bernoulli_kl_map(student.double(), teacher.double()).float())
    with pytest.raises(ShapeError, match=r"\(1, 5, 3\) and \(1, 5, 1\)"):
        bernoulli_kl_map(student, teacher[..., :1])


def test_gap_weight__hard_takes_the_largest_gaps_and_none_without_a_gap() -> None:
    gap = torch.tensor([[0.1, 0.9, 0.0, 0.5], [0.0, 0.0, 0.2, 0.0]])
    assert gap_weight(gap, ratio=0.5).tolist() == [[0, 1, 0, 1], [0, 0, 1, 0]]


def test_gap_weight__soft_sums_to_the_number_of_anchors() -> None:
    gap = torch.tensor([[0.0, 0.1 * math.log(3)]], dtype=torch.float64, requires_grad=True)
    weight = gap_weight(gap, kind="soft", tau=0.1)
    torch.testing.assert_close(weight, torch.tensor([[0.5, 1.5]], dtype=torch.float64))
    assert not weight.requires_grad


def test_divergence_where__equals_the_whole_map_where_it_counts() -> None:
    student, teacher = random(2, 9, 4).requires_grad_(), random(2, 9, 4, seed=1)
    weight = (random(2, 9, seed=2) > 0.3).double() * 2
    assert 0 < int((weight != 0).sum()) < weight.numel()
    outcomes = []
    for found in (divergence_where(weight, student, teacher), bernoulli_kl_map(student, teacher)):
        outcomes.append((found * weight, *torch.autograd.grad((found * weight).sum(), student)))
    torch.testing.assert_close(*outcomes)
    nowhere = divergence_where(torch.zeros(2, 9, dtype=torch.float64), student, teacher)
    assert not nowhere.any()
    assert not torch.autograd.grad(nowhere.sum(), student)[0].any()


def test_gap_weight__lists_the_known_kinds() -> None:
    with pytest.raises(ValueError, match="kind must be one of 'hard', 'soft', got 'odd'"):
        gap_weight(torch.zeros(1, 2), kind="odd")


# Wiring


@pytest.mark.parametrize("kind", ["conv", "separable"])
@pytest.mark.parametrize("channel", [False, True])
def test_samkd__features_follow_their_formula(kind: str, channel: bool) -> None:
    """Blend, masks, scales and sum written out, with the generators called as plain modules."""
    loss, step = samkd(generator=kind, channel=channel, scales=(1, 2)), make_step()
    parts: Any = build(loss)
    expected = 0.0
    for level in loss.levels:
        student, teacher = parts["adapter"][level](step.student[level]), step.teacher[level]
        for scale in (1, 2):
            seen, target = (F.max_pool2d(x, scale, ceil_mode=True) for x in (student, teacher))
            cells = top_mask(target.abs().mean(1), 0.65).unsqueeze(1)
            rebuilt = parts["spatial"][level](seen * cells)
            if channel:
                open_channels = top_mask(target.abs().mean((2, 3)), 0.65)[..., None, None]
                blend = parts["blend"][level].sigmoid()
                rebuilt = blend * rebuilt + (1 - blend) * parts["channel"][level](seen * open_channels)
            expected = expected + scale**2 / 2 * (rebuilt - target).square().sum()
    torch.testing.assert_close(loss.maps(step, parts, ["samkd"])["samkd"].sum(), expected)


@pytest.mark.parametrize("kind", ["conv", "separable"])
def test_samkd__first_rung_is_mgd_exactly(kind: str) -> None:
    step = make_step()
    own, other = (
        samkd(spatial="random", channel=False, scales=(1,), seed=3, generator=kind),
        MGD(config(ratio=0.65, seed=3, generator=kind)),
    )
    own_parts, other_parts = build(own), build(other)
    for _ in range(2):
        found, expected = own.maps(step, own_parts, ["samkd"])["samkd"], other.maps(step, other_parts, ["mgd"])["mgd"]
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("changes", [{}, {"hide": "unimportant"}, {"channel": False}, {"spatial": "random"}])
def test_samkd__maps(changes: dict[str, Any]) -> None:
    assert check_maps(samkd(**changes), make_step(), {"samkd": (2, GRID.anchors), "samkd_logits": (2, GRID.anchors)})


def test_samkd__hides_what_the_teacher_looks_at_most_or_least() -> None:
    step = make_step()
    level = "p3"
    open_cells: dict[str, Tensor] = {}
    for hide in ("important", "unimportant"):
        loss = samkd(hide=hide, channel=False, scales=(1,), ratio=0.25)
        parts = build(loss)
        parts.get_submodule(f"spatial.{level}").register_forward_pre_hook(
            lambda _, inputs, hide=hide: open_cells.update({hide: inputs[0].abs().sum(1) > 0})
        )
        loss.maps(step, parts, ["samkd"])
    energy = cell_energy(step.teacher[level])
    for image in range(2):
        hidden = ~open_cells["important"][image]
        assert hidden.sum() == 24
        assert energy[image][hidden].min() > energy[image][~hidden].max()
        hidden = ~open_cells["unimportant"][image]
        assert hidden.sum() == 24
        assert energy[image][hidden].max() < energy[image][~hidden].min()


def test_samkd__ratio_one_rebuilds_from_nothing() -> None:
    loss, step = samkd(ratio=1.0, channel=False, scales=(1,)), make_step()
    parts = build(loss)
    values = loss.maps(step, parts, ["samkd"])["samkd"]
    for level in LEVELS:
        teacher = step.teacher[level].detach()
        rebuilt = parts.get_submodule(f"spatial.{level}")(torch.zeros_like(teacher))
        expected = (rebuilt - teacher).square().sum(1).flatten(1)
        torch.testing.assert_close(values[:, GRID.places(level)], expected)


def test_samkd__a_constant_gap_counts_the_same_at_every_scale() -> None:
    step = make_step(grid=replace(GRID, shapes=dict.fromkeys(LEVELS, (8, 8))))
    step = replace(step, teacher={level: torch.full_like(x, 0.5) for level, x in step.teacher.items()})
    for scale in (1, 2, 4):
        loss = samkd(ratio=1.0, channel=False, scales=(scale,))
        parts = build(loss)
        for parameter in parts.parameters():
            nn.init.zeros_(parameter)
        values = loss.maps(step, parts, ["samkd"])["samkd"]
        channels = torch.tensor([float(TEACHER_CHANNELS[level]) for level in LEVELS]).double()
        torch.testing.assert_close(values, (0.25 * channels).repeat_interleave(64).expand(2, -1))


def test_samkd__the_two_branches_are_blended() -> None:
    step, loss = make_step(), samkd(scales=(1,))
    parts = build(loss)
    alone = {}
    for share in (-1e4, 0.0, 1e4):
        for level in LEVELS:
            nn.init.constant_(parts.get_parameter(f"blend.{level}"), share)
        alone[share] = loss.maps(step, parts, ["samkd"])["samkd"]
    spatial = samkd(scales=(1,), channel=False).maps(step, parts, ["samkd"])["samkd"]
    torch.testing.assert_close(alone[1e4], spatial)
    assert not torch.allclose(alone[-1e4], spatial)
    assert (alone[0.0] <= (alone[1e4] + alone[-1e4]) / 2 + 1e-9).all()  # a mean of two is no worse than both


@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_samkd__equal_models_behind_open_masks_are_the_optimum(kind: str) -> None:
    loss = samkd(ratio=0.0, logits_weight=kind)
    parts = build(loss, TEACHER_CHANNELS)
    identity_generators(parts, "spatial", "channel")
    assert check_optimum(loss, equal_step(make_step(), positive=True), parts)


@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_samkd__logits_are_averaged_by_weight(kind: str) -> None:
    step = make_step(batch=3, weights=(0.8, 0.2))
    loss = samkd(logits_weight=kind, logits_ratio=0.2)
    values = loss.maps(step, nn.ModuleDict(), ["samkd_logits"])["samkd_logits"]
    expected = torch.zeros((), dtype=torch.float64)
    for branch in step.branches:
        pair = branch.student.logits, branch.teacher.logits
        weight = gap_weight(score_gap(*pair), kind=kind, ratio=0.2, tau=0.1)
        expected += branch.weight * (weight * bernoulli_kl_map(*pair)).sum() / weight.sum()
    torch.testing.assert_close(values.sum(1).mean(0), expected)


def test_samkd__without_logits_it_needs_no_head() -> None:
    loss = samkd(logits=0.0)
    assert loss.requires == Requirements(levels=LEVELS)
    assert samkd().requires.heads
    with pytest.raises(RunError, match="no branch of the two heads was captured"):
        samkd().maps(replace(make_step(), branches=()), nn.ModuleDict(), ["samkd_logits"])


def test_samkd__parts_are_plain_modules_and_only_those_that_are_used() -> None:
    kinds = {type(module) for module in build(samkd()).modules()}
    assert kinds <= {nn.ModuleDict, nn.ParameterDict, nn.Sequential, nn.Conv2d, nn.ReLU, nn.Identity}
    assert set(build(samkd(channel=False))) == {"adapter", "spatial"}
