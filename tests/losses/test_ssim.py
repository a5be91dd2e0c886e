from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from kornia.metrics import ssim as kornia_ssim
from torch import Tensor, nn
from torchmetrics.functional.image import structural_similarity_index_measure

from tests.helpers.steps import STRIDES, STUDENT_CHANNELS, TEACHER_CHANNELS, cast, doubled, gradient, make_step, moves
from yolokd.errors import ShapeError
from yolokd.losses.base import Grid, Step
from yolokd.losses.ssim import SSIM, _blur_matrix, _blur_of, ssim_loss_map, ssim_map
from yolokd.recipe import SSIMConfig

SCOPES = ["image", "channel", "level", None]


def constant(value: float, size: int = 12) -> Tensor:
    return torch.full((1, 1, size, size), value, dtype=torch.float64)


def checkerboard(size: int = 24) -> Tensor:
    cells = torch.arange(size)
    return ((cells[:, None] + cells) % 2).double()[None, None]


def uniform(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.rand(*shape, dtype=dtype)


def value_and_gradient(student: Tensor, teacher: Tensor, weight: Tensor, normalize: Any) -> tuple[Tensor, Tensor]:
    student = student.clone().requires_grad_()
    loss = ssim_loss_map(student, teacher, normalize=normalize)
    return loss.detach(), gradient(loss * weight, student)


# closed forms


def test_blur_matrix__taps_of_the_paper() -> None:
    rows = _blur_matrix(30, 11, 1.5, torch.empty(0, dtype=torch.float64))
    assert rows[15, 15].item() == pytest.approx(0.266012, abs=5e-7)
    assert rows[15, 10].item() == rows[15, 20].item() == pytest.approx(0.001028, abs=5e-7)
    assert rows[15].count_nonzero() == 11
    torch.testing.assert_close(rows.sum(1), torch.ones(30, dtype=torch.float64))
    # at the border the taps that fall outside are mirrored, the edge cell not repeated
    torch.testing.assert_close(rows[0, :6], torch.cat((rows[15, 15:16], 2 * rows[15, 16:21])))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("normalize", SCOPES)
def test_ssim_loss_map__identical_maps_give_exactly_zero(dtype: torch.dtype, normalize: Any) -> None:
    x = uniform(2, 3, 12, 14, dtype=dtype)
    x[:, 1], x[:, 2, :, 6:] = 0.37, 0  # a channel and an area without any structure
    loss = ssim_loss_map(x.requires_grad_(), x.detach().clone(), normalize=normalize)
    assert not loss.any()
    size = gradient(ssim_loss_map(x, uniform(2, 3, 12, 14, dtype=dtype), normalize=normalize), x).norm()
    assert gradient(loss, x).norm() <= 1e-5 * size if dtype == torch.float32 else 1e-12 * size


def test_ssim_map__constants_differ_in_luminance_only() -> None:
    luminance = (2 * 0.5 * 0.25 + 1e-4) / (0.5**2 + 0.25**2 + 1e-4)
    similarity = ssim_map(constant(0.5), constant(0.25))
    torch.testing.assert_close(similarity, torch.full_like(similarity, luminance), rtol=0, atol=1e-8)
    assert similarity[0, 0, 0, 0].item() == pytest.approx(0.800064, abs=5e-7)
    assert ssim_loss_map(constant(0.5), constant(0.25), normalize=None).mean().item() == pytest.approx(
        0.099968, abs=5e-7
    )


def test_ssim_map__inverted_checkerboard_is_all_structure() -> None:
    board = checkerboard()
    assert ssim_map(board, 1 - board).mean().item() == pytest.approx(-0.996406, abs=5e-7)
    assert ssim_loss_map(board, 1 - board).mean().item() == pytest.approx(0.998203, abs=5e-6)


def test_ssim_map__faint_checkerboard_loses_luminance_and_contrast() -> None:
    board = checkerboard()
    center = ssim_map(board, board / 2)[0, 0, 12, 12].item()
    assert center == pytest.approx(0.800064 * 0.800574, abs=1e-5)
    assert center == pytest.approx(0.640511, abs=5e-6)


@pytest.mark.parametrize("normalize", ["image", "channel", "level"])
def test_ssim_loss_map__normalized_features_are_blind_to_scale_and_offset(normalize: Any) -> None:
    x = uniform(2, 3, 16, 16)
    torch.testing.assert_close(
        ssim_loss_map(5 * x - 2, x, normalize=normalize), torch.zeros(2, 16, 16).double(), rtol=0, atol=1e-6
    )
    assert ssim_loss_map(-x, x, normalize=normalize).mean() > 0.9


# other implementations


@pytest.mark.parametrize("window", [1, 3, 7, 11])
@pytest.mark.parametrize("data_range", [1.0, 7.0])
def test_ssim_map__equals_kornia(window: int, data_range: float) -> None:
    student, teacher = data_range * uniform(2, 2, 3, 9, 14)
    ours = ssim_map(student, teacher, window=window, data_range=data_range)
    torch.testing.assert_close(ours, kornia_ssim(student, teacher, window, data_range), rtol=0, atol=1e-11)


def test_ssim_map__equals_kornia_in_the_dark_where_its_epsilon_shows() -> None:
    ours = ssim_map(constant(0), constant(0))
    torch.testing.assert_close(ours, kornia_ssim(constant(0), constant(0), 11), rtol=0, atol=1e-15)
    assert ours.max().item() == pytest.approx(1 - 1.1111e-5, abs=1e-9)


def test_ssim_map__equals_torchmetrics() -> None:
    student, teacher = uniform(2, 2, 3, 15, 14)
    _, theirs = structural_similarity_index_measure(
        student, teacher, sigma=1.2, kernel_size=9, data_range=1.0, return_full_image=True
    )
    ours = ssim_map(student, teacher, window=9, sigma=1.2)  # 9 is the size that torchmetrics takes for σ = 1.2
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-8)


def test_ssim_map__equals_a_slow_loop() -> None:
    student, teacher = uniform(2, 1, 2, 5, 4)
    weights = torch.exp(-((torch.arange(-2, 3).double()) ** 2) / (2 * 0.8**2))
    wanted = torch.empty(1, 2, 5, 4, dtype=torch.float64)
    for c, i, j in product(range(2), range(5), range(4)):
        places = [(abs(i + u), abs(j + v), u + 2, v + 2) for u in range(-2, 3) for v in range(-2, 3)]
        mirrored = [(min(r, 8 - r), min(k, 6 - k), u, v) for r, k, u, v in places]
        w = torch.stack([weights[u] * weights[v] for *_, u, v in mirrored])
        w = w / w.sum()
        s, t = (torch.stack([x[0, c, r, k] for r, k, *_ in mirrored]) for x in (student, teacher))
        mean_s, mean_t = (w * s).sum(), (w * t).sum()
        var_s, var_t = (w * (s - mean_s) ** 2).sum(), (w * (t - mean_t) ** 2).sum()
        cov = (w * (s - mean_s) * (t - mean_t)).sum()
        wanted[0, c, i, j] = (2 * mean_s * mean_t + 1e-4) * (2 * cov + 9e-4)
        wanted[0, c, i, j] /= (mean_s**2 + mean_t**2 + 1e-4) * (var_s + var_t + 9e-4)
    torch.testing.assert_close(ssim_map(student, teacher, window=5, sigma=0.8), wanted, rtol=0, atol=1e-9)


@pytest.mark.parametrize("normalize", SCOPES)
def test_ssim_loss_map__is_half_of_one_minus_ssim_over_channels(normalize: Any) -> None:
    student, teacher = torch.randn(2, 2, 3, 12, 13, dtype=torch.float64)
    dims = {"image": (1, 2, 3), "channel": (2, 3), "level": (0, 1, 2, 3), None: ()}[normalize]

    def scaled(x: Tensor) -> Tensor:
        low, high = x.amin(dims, keepdim=True), x.amax(dims, keepdim=True)
        return (x - low) / (high - low + 1e-6) if dims else x.sigmoid()

    pair = (student, teacher) if dims else (student.sigmoid(), teacher.sigmoid())
    wanted = (1 - ssim_map(scaled(student), scaled(teacher))).mean(1) / 2
    torch.testing.assert_close(ssim_loss_map(*pair, normalize=normalize), wanted, rtol=0, atol=1e-9)


# gradients and precision


def test_ssim_map__gradient_equals_finite_differences() -> None:
    student, teacher = uniform(2, 1, 2, 5, 6)
    assert torch.autograd.gradcheck(lambda s: ssim_map(s, teacher, window=5), student.requires_grad_())


def test_ssim_loss_map__gradient_equals_finite_differences() -> None:
    student, teacher = uniform(2, 1, 2, 5, 6)
    assert torch.autograd.gradcheck(
        lambda s: ssim_loss_map(s, teacher, window=5, normalize=None), student.requires_grad_()
    )


def test_ssim_loss_map__no_gradient_flows_through_the_range() -> None:
    student, teacher = 4 * uniform(2, 1, 2, 12, 12) - 1
    student.requires_grad_()
    low, high = student.min().item(), student.max().item()
    fixed = (student - low) / (high - low + 1e-6)
    wanted = ssim_loss_map(fixed, (teacher - teacher.min()) / (teacher.max() - teacher.min() + 1e-6), normalize=None)
    ours = ssim_loss_map(student, teacher)
    torch.testing.assert_close(gradient(ours, student), gradient(wanted, student), rtol=1e-9, atol=1e-12)


def test_ssim_loss_map__keeps_five_tensors_for_the_backward_pass() -> None:
    student, teacher = uniform(2, 2, 3, 12, 14)
    kept: set[int] = set()

    def pack(x: Tensor) -> Tensor:
        if x.numel() == student.numel():
            kept.add(x.data_ptr())
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        ssim_loss_map(student.requires_grad_(), teacher)
    assert len(kept) == 5


def test_ssim_loss_map__a_backward_pass_inside_autocast_changes_nothing() -> None:
    student, teacher = uniform(2, 2, 3, 12, 14, dtype=torch.float32)
    loss = ssim_loss_map(student.requires_grad_(), teacher)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = gradient(loss, student)
    assert torch.equal(inside, gradient(loss, student))


def test_ssim__the_teacher_gets_no_gradient() -> None:
    student, teacher = (uniform(1, 2, 12, 12).requires_grad_() for _ in range(2))
    for function in (ssim_map, ssim_loss_map):
        loss = function(student, teacher)
        assert [moves(loss, x) for x in (student, teacher)] == [True, False]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_ssim__half_is_computed_and_returned_in_float32(dtype: torch.dtype) -> None:
    student, teacher = uniform(2, 2, 3, 12, 12).to(dtype)
    for function in (ssim_map, ssim_loss_map):
        ours = function(student, teacher)
        assert ours.dtype == torch.float32
        assert torch.equal(ours, function(student.float(), teacher.float()))
    assert ssim_loss_map(student.double(), teacher.double()).dtype == torch.float64


def test_ssim__autocast_changes_nothing() -> None:
    student, teacher = uniform(2, 2, 3, 12, 12, dtype=torch.float32)
    outside = ssim_map(student, teacher), ssim_loss_map(student, teacher)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = ssim_map(student, teacher), ssim_loss_map(student, teacher)
    assert torch.equal(inside[0], outside[0])
    assert torch.equal(inside[1], outside[1])


@pytest.mark.parametrize("contrast", [1.0, 0.01])
def test_ssim_loss_map__float32_is_close_to_float64(contrast: float) -> None:
    student, teacher = 0.95 + 0.05 * contrast * uniform(2, 2, 8, 20, 20)
    single = ssim_loss_map(student.float(), teacher.float(), normalize=None).double()
    torch.testing.assert_close(single, ssim_loss_map(student, teacher, normalize=None), rtol=0, atol=2e-4)


def test_ssim_loss_map__stays_in_range_far_outside_of_it() -> None:
    # there rounding is far larger than the variances and their constant, yet the denominator stays positive
    student, teacher = 1000 + uniform(2, 1, 4, 12, 12, dtype=torch.float32)
    loss = ssim_loss_map(student.requires_grad_(), teacher, normalize=None)
    assert loss.min() >= 0
    assert loss.max() <= 1
    assert gradient(loss, student).isfinite().all()
    assert ssim_map(student, teacher).isfinite().all()


@pytest.mark.parametrize("normalize", SCOPES)
def test_ssim_loss_map__is_the_same_however_many_images_go_at_a_time(
    normalize: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    student, teacher, weight = uniform(5, 3, 13, 14), uniform(5, 3, 13, 14), uniform(5, 13, 14)
    whole = value_and_gradient(student, teacher, weight, normalize)
    for values in (1, 2 * student[0].numel()):
        monkeypatch.setattr("yolokd.losses.tensors.CACHED", values)
        torch.testing.assert_close(value_and_gradient(student, teacher, weight, normalize), whole)


@pytest.mark.parametrize("size", [(6, 7), (12, 12), (8, 18)])
def test_ssim_loss_map__one_matrix_for_all_cells_does_what_one_per_axis_does(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    student, teacher, weight = uniform(2, 3, *size), uniform(2, 3, *size), uniform(2, *size)
    assert _blur_of(student, 11, 1.5).cells is not None
    by_cells = value_and_gradient(student, teacher, weight, "image")
    monkeypatch.setattr("yolokd.losses.ssim.SMALL", 0)
    assert _blur_of(student, 11, 1.5).cells is None
    torch.testing.assert_close(value_and_gradient(student, teacher, weight, "image"), by_cells)


def test_ssim_loss_map__takes_channels_last_and_permuted_maps() -> None:
    student, teacher = uniform(2, 2, 3, 12, 14)
    wanted = ssim_loss_map(student, teacher)
    last = ssim_loss_map(*(x.contiguous(memory_format=torch.channels_last) for x in (student, teacher)))
    torch.testing.assert_close(last, wanted)
    torch.testing.assert_close(ssim_loss_map(student.mT, teacher.mT), wanted.mT)


# refusals


@pytest.mark.parametrize("function", [ssim_map, ssim_loss_map])
def test_ssim__refuses_what_it_cannot_compute(function: Any) -> None:
    x = uniform(1, 2, 6, 9)
    with pytest.raises(ShapeError, match=r"\(1, 2, 6, 9\) and \(1, 1, 6, 9\)"):
        function(x, x[:, :1])
    with pytest.raises(ShapeError, match=r"4 dimensions, got \(2, 6, 9\)"):
        function(x[0], x[0])
    with pytest.raises(ValueError, match="window must be odd and at least 1, got 4"):
        function(x, x, window=4)
    with pytest.raises(ValueError, match="a window of 13 needs maps of at least 7×7 cells, got 6×9"):
        function(x, x, window=13)
    with pytest.raises(ValueError, match="sigma must be above 0, got 0"):
        function(x, x, sigma=0)
    assert function(x, x, window=11).shape[-2:] == (6, 9)


def test_ssim_map__a_range_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="data_range must be above 0, got 0"):
        ssim_map(constant(1), constant(1), data_range=0)


def test_ssim_loss_map__unknown_scope_lists_the_known() -> None:
    x = uniform(1, 2, 12, 12)
    with pytest.raises(ValueError, match="normalize must be one of 'image', 'channel', 'level', None, got 'batch'"):
        ssim_loss_map(x, x, normalize="batch")  # type: ignore[arg-type]


# the wired loss


def parts_of(loss: SSIM) -> nn.ModuleDict:
    return loss.build(STUDENT_CHANNELS, TEACHER_CHANNELS).double()


def value(loss: SSIM, step: Step, parts: nn.ModuleDict) -> float:
    return loss.maps(step, parts, ["ssim"])["ssim"].sum(1).mean(0).item()


def test_ssim_wired__is_the_mean_over_cells_summed_over_levels() -> None:
    options: Any = {"window": 5, "sigma": 0.8, "normalize": "channel"}
    loss, step = SSIM(SSIMConfig(levels=("p3", "p4"), **options)), make_step()
    parts = parts_of(loss)
    assert list(parts) == list(loss.levels)
    wanted = sum(
        ssim_loss_map(parts[level](step.student[level]), step.teacher[level], **options).mean().item()
        for level in ("p3", "p4")
    )
    loss_map = loss.maps(step, parts, ["ssim"])["ssim"]
    assert loss_map.shape == (2, step.grid.anchors)
    assert not loss_map[:, step.grid.places("p5")].any()
    assert value(loss, step, parts) == pytest.approx(wanted, rel=1e-12)
    assert value(loss, doubled(step), parts) == pytest.approx(wanted, rel=1e-12)


def test_ssim_wired__small_levels_shrink_the_window() -> None:
    grid = Grid(shapes={"p3": (6, 7), "p4": (3, 9), "p5": (1, 2)}, strides=STRIDES)
    loss, step = SSIM(SSIMConfig(levels=("p3", "p4", "p5"))), make_step(grid=grid)
    parts = parts_of(loss)
    loss_map = loss.maps(step, parts, ["ssim"])["ssim"]
    for level, window in (("p3", 11), ("p4", 5), ("p5", 1)):
        wanted = ssim_loss_map(parts[level](step.student[level]), step.teacher[level], window=window)
        h, w = grid.shapes[level]
        torch.testing.assert_close(loss_map[:, grid.places(level)], wanted.flatten(1) / (h * w))


def test_ssim_wired__equal_models_agree() -> None:
    step = make_step()
    same = Step(student=step.teacher, teacher=step.teacher, grid=step.grid)
    loss = SSIM(SSIMConfig(levels=("p3", "p4", "p5")))
    parts = loss.build(TEACHER_CHANNELS, TEACHER_CHANNELS)
    assert not list(parts.parameters())
    assert value(loss, same, parts) == 0


def test_ssim_wired__trains_student_and_adapters_only() -> None:
    loss, step = SSIM(SSIMConfig(levels=("p3", "p4", "p5"))), make_step()
    parts = parts_of(loss)
    loss_map = loss.maps(step, parts, ["ssim"])["ssim"]
    assert all(moves(loss_map, x) for x in (*step.student.values(), next(parts["p3"].parameters())))
    assert not any(moves(loss_map, x) for x in step.teacher.values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_ssim_wired__autocast_and_half_features_change_nothing(dtype: torch.dtype) -> None:
    loss, step = SSIM(SSIMConfig(levels=("p3", "p4", "p5"))), cast(make_step(), dtype)
    parts = loss.build(STUDENT_CHANNELS, TEACHER_CHANNELS)
    outside = loss.maps(step, parts, ["ssim"])["ssim"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = loss.maps(step, parts, ["ssim"])["ssim"]
    assert inside.dtype == torch.float32
    assert torch.equal(inside, outside)
