from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from tests.helpers.pairs import build, check_maps, check_optimum, config, equal_step, identity_generators
from tests.helpers.steps import GRID, TEACHER_CHANNELS, make_step
from yolokd.errors import ShapeError
from yolokd.losses.mgd import MGD, MaskStream, random_mask, reconstruction_map

CPU = torch.device("cpu")


def numbers(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def mgd(ratio: float = 0.65, seed: int = 0, generator: str = "conv") -> MGD:
    return MGD(config(ratio=ratio, seed=seed, generator=generator))


def test_random_mask__hides_each_cell_on_its_own() -> None:
    mask = random_mask((50, 40, 30), 0.65, generator=numbers())
    assert mask.shape == (50, 1, 40, 30)
    assert mask.dtype == torch.float32
    assert set(mask.flatten().tolist()) == {0.0, 1.0}
    cells = mask.numel()
    assert abs((mask == 0).sum().item() - 0.65 * cells) < 5 * (0.65 * 0.35 * cells) ** 0.5
    right = (mask[..., 1:] * mask[..., :-1]).mean().item()  # independent neighbors are both visible at 0.35²
    assert abs(right - 0.35**2) < 0.005


def test_random_mask__follows_the_uniform_numbers_of_its_generator() -> None:
    uniform = torch.rand((2, 1, 5, 7), generator=numbers(3))
    hidden = uniform > 1 - 0.65
    assert torch.equal(random_mask((2, 5, 7), 0.65, generator=numbers(3)) == 0, hidden)


@pytest.mark.parametrize("ratio", [0.0, 1.0])
def test_random_mask__is_certain_at_the_ends(ratio: float) -> None:
    assert random_mask((4, 50, 50), ratio, generator=numbers()).eq(1 - ratio).all()


@pytest.mark.parametrize("ratio", [-0.1, 1.1])
def test_random_mask__refuses_what_is_no_share(ratio: float) -> None:
    with pytest.raises(ValueError, match=f"ratio must lie between 0 and 1, got {ratio}"):
        random_mask((1, 2, 2), ratio, generator=numbers())


def test_random_mask__leaves_the_global_stream_alone() -> None:
    before = torch.random.get_rng_state()
    random_mask((1, 9, 9), 0.5, generator=numbers())
    assert torch.equal(torch.random.get_rng_state(), before)


def test_reconstruction_map__is_the_sum_of_squares_over_channels() -> None:
    student, teacher = torch.randn(2, 2, 3, 4, 5, dtype=torch.float64).unbind(0)
    expected = torch.zeros(2, 4, 5, dtype=torch.float64)
    for b in range(2):
        for c in range(3):
            for y in range(4):
                for x in range(5):
                    expected[b, y, x] += (student[b, c, y, x] - teacher[b, c, y, x]) ** 2
    torch.testing.assert_close(reconstruction_map(student, teacher), expected, atol=1e-12, rtol=0)


def test_reconstruction_map__constant_gap() -> None:
    gap = reconstruction_map(torch.full((1, 2, 2, 2), 0.5), torch.zeros(1, 2, 2, 2))
    assert 1e-5 * gap.sum().item() == pytest.approx(2e-5)


def test_reconstruction_map__gradient_reaches_the_student_only() -> None:
    student = torch.randn(2, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(2, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda s: reconstruction_map(s, teacher), student)
    torch.autograd.backward(reconstruction_map(student, teacher).sum())
    assert student.grad is not None
    assert teacher.grad is None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_reconstruction_map__half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    student, teacher = 200 * torch.ones(1, 4, 2, 2, dtype=dtype), torch.zeros(1, 4, 2, 2, dtype=dtype)
    values = reconstruction_map(student, teacher)  # 160 000 is beyond float16
    assert values.dtype == torch.float32
    assert values.eq(160_000).all()


def test_reconstruction_map__names_both_shapes() -> None:
    with pytest.raises(ShapeError, match=r"\(1, 2, 3, 3\) and \(1, 1, 3, 3\)"):
        reconstruction_map(torch.zeros(1, 2, 3, 3), torch.zeros(1, 1, 3, 3))


def test_mask_stream__depends_on_seed_and_step_only() -> None:
    def draw(stream: MaskStream, number: int) -> list[float]:
        values: list[float] = torch.rand(4, generator=stream.go_to(number, CPU)).tolist()
        return values

    stream = MaskStream(7)
    first, second, third = (draw(stream, number) for number in (1, 2, 3))
    assert len({tuple(x) for x in (first, second, third, draw(MaskStream(8), 1))}) == 4
    assert draw(MaskStream(7), 3) == third


def test_mgd__value_is_the_papers_sum_over_the_batch_size() -> None:
    step, loss = make_step(batch=3), mgd()
    parts = build(loss)
    values = loss.maps(step, parts, ["mgd"])["mgd"]
    stream = MaskStream(0).go_to(1, CPU)
    total = torch.zeros((), dtype=torch.float64)
    for level, (height, width) in GRID.shapes.items():
        hidden = random_mask((3, height, width), 0.65, generator=stream)
        student = parts.get_submodule(f"adapter.{level}")(step.student[level])
        rebuilt = parts.get_submodule(f"generator.{level}")(student * hidden)
        total += nn.functional.mse_loss(rebuilt, step.teacher[level], reduction="sum") / 3
    torch.testing.assert_close(values.sum(1).mean(0), total)


def test_mgd__maps() -> None:
    assert check_maps(mgd(), make_step(), {"mgd": (2, GRID.anchors)})


def test_mgd__equal_features_behind_open_masks_are_the_optimum() -> None:
    loss = mgd(ratio=0.0)
    parts = build(loss, TEACHER_CHANNELS)
    identity_generators(parts, "generator")
    assert check_optimum(loss, equal_step(make_step(), positive=True), parts)


def test_mgd__masks_change_from_step_to_step_and_follow_the_seed() -> None:
    step = make_step()

    def values(loss: MGD) -> list[float]:
        steps = [replace(step, number=number) for number in (1, 2)]
        return [loss.maps(one, parts, ["mgd"])["mgd"].sum().item() for one in steps]

    parts = build(mgd())
    first = values(mgd())
    assert first[0] != first[1]
    assert values(mgd()) == first
    assert values(mgd(seed=1)) != first


def test_mgd__parts_are_plain_modules() -> None:
    kinds = {type(module) for module in build(mgd()).modules()}
    assert kinds <= {nn.ModuleDict, nn.Sequential, nn.Conv2d, nn.ReLU, nn.Identity}
