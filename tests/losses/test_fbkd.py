from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tests.helpers.pairs import LEVELS, build, check_maps, check_optimum, config, equal_step
from tests.helpers.steps import GRID, TEACHER_CHANNELS, make_step
from yolokd.errors import ShapeError
from yolokd.losses.fbkd import FBKD, attended_norm_map, non_local, non_local_block, norm_map
from yolokd.losses.samkd import spatial_attention

PLACES = (2, GRID.anchors)


def fbkd(tau: float = 0.5) -> FBKD:
    return FBKD(config(tau=tau))


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def shaken(block: nn.ModuleDict) -> nn.ModuleDict:
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.5)
    return block.double()


def test_norm_map__sums_to_the_norm_of_each_image_and_has_its_gradient() -> None:
    one = random(3, 4, 5).requires_grad_()
    values = norm_map(one.square())
    norms = one.flatten(1).norm(dim=1)
    torch.testing.assert_close(values.sum((1, 2)), norms)
    (ours,) = torch.autograd.grad(values.sum(), one)
    (torchs,) = torch.autograd.grad(norms.sum(), one)
    torch.testing.assert_close(ours, torchs)
    assert values.min() >= 0


def test_norm_map__weights_never_push_a_cell_away_from_the_teacher() -> None:
    error = random(2, 3, 3).requires_grad_()
    weight = torch.rand(2, 3, 3, dtype=torch.float64)
    (gradient,) = torch.autograd.grad((weight * norm_map(error.square())).sum(), error)
    norms = error.detach().flatten(1).norm(dim=1).view(2, 1, 1)
    torch.testing.assert_close(gradient, weight * error.detach() / norms)  # w · ∂e / 2√Σe: towards 0 everywhere


@pytest.mark.parametrize("size", [0.0, 1e-30, 1e-20])
def test_norm_map__stays_finite_at_and_near_zero(size: float) -> None:
    error = torch.tensor([[[0.0, size], [size, 0.0]], [[0.0, 0.0], [0.0, 0.0]]], requires_grad=True)
    values = norm_map(error.square())
    torch.autograd.backward((values * torch.rand(2, 2, 2)).sum())
    assert error.grad is not None
    assert values.isfinite().all()
    assert error.grad.isfinite().all()
    assert values[1].eq(0).all()
    assert error.grad[1].eq(0).all()


@pytest.mark.parametrize("pooling", [1, 2, 4])
def test_non_local__equals_a_slow_loop(pooling: int) -> None:
    block = shaken(non_local_block(3, 2))
    feature = random(1, 3, 4, 5)
    query = block["query"](feature)[0]
    key, value = (nn.functional.max_pool2d(block[name](feature), pooling)[0] for name in ("key", "value"))
    expected = torch.zeros_like(query)
    rows, columns = key.shape[-2:]
    for y in range(4):
        for x in range(5):
            for i in range(rows):
                for j in range(columns):
                    similarity = (query[:, y, x] * key[:, i, j]).sum() / (rows * columns)
                    expected[:, y, x] += similarity * value[:, i, j]
    torch.testing.assert_close(non_local(feature, block, pooling)[0], feature[0] + block["out"](expected))


def test_non_local__starts_as_the_identity_and_fits_small_maps() -> None:
    feature = random(2, 4, 2, 2)
    assert torch.equal(non_local(feature, non_local_block(4, 2).double(), 4), feature)
    assert non_local(feature, shaken(non_local_block(4, 8)), 4).shape == feature.shape


def test_non_local__stays_in_float32_under_autocast() -> None:
    block, feature = shaken(non_local_block(4, 2)).float(), random(1, 4, 6, 6).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        values = non_local(feature, block, 2)
    assert values.dtype == torch.float32
    torch.testing.assert_close(values, non_local(feature, block, 2), atol=0, rtol=0)


def test_attended_norm_map__is_the_norm_under_the_mean_attention() -> None:
    student, adapted, teacher = random(2, 2, 3, 4), random(2, 5, 3, 4, seed=1), random(2, 5, 3, 4, seed=2)
    mask = (spatial_attention(teacher, tau=0.7) + spatial_attention(student, tau=0.7)) / 2
    expected = [((adapted[b] - teacher[b]) ** 2 * mask[b]).sum().sqrt() for b in range(2)]
    values = attended_norm_map(student, adapted, teacher, tau=0.7)
    torch.testing.assert_close(values.sum((1, 2)), torch.stack(expected))


def test_attended_norm_map__gradient_flows_through_the_adapted_feature_only() -> None:
    student, adapted, teacher = (random(1, 2, 2, 2, seed=i).requires_grad_() for i in range(3))
    assert torch.autograd.gradcheck(lambda a: attended_norm_map(student, a, teacher).sum((1, 2)), adapted)
    torch.autograd.backward(attended_norm_map(student, adapted, teacher).sum())
    assert student.grad is None
    assert teacher.grad is None


def test_attended_norm_map__half_precision_and_shapes() -> None:
    student, adapted, teacher = (random(1, 4, 3, 3, seed=i).half() for i in range(3))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        values = attended_norm_map(student, adapted, teacher)
    assert values.dtype == torch.float32
    expected = attended_norm_map(student.double(), adapted.double(), teacher.double())
    torch.testing.assert_close(values, expected.float())
    with pytest.raises(ShapeError, match=r"\(1, 2, 3, 3\) and \(1, 4, 3, 3\)"):
        attended_norm_map(student, adapted[:, :2], teacher)


def test_fbkd__values_are_the_norms_per_image_averaged() -> None:
    step, loss = make_step(batch=3), fbkd()
    parts = shaken(build(loss))
    maps = loss.maps(step, parts, loss.terms)
    expected = {term: torch.zeros(3, dtype=torch.float64) for term in loss.terms}
    for level, pooling in zip(LEVELS, (4, 2, 2), strict=True):
        student, teacher = step.student[level], step.teacher[level]
        own = {name: parts.get_submodule(f"{name}.{level}") for name in parts}
        mask = (spatial_attention(teacher) + spatial_attention(student)) / 2
        blocks = [parts.get_submodule(f"{who}.{level}") for who in ("student", "teacher")]
        relations = [
            non_local(x, block, pooling)
            for x, block in zip((student, teacher), blocks, strict=True)
            if isinstance(block, nn.ModuleDict)
        ]
        errors = {
            "fbkd_feature": (own["feature"](student) - teacher) * mask.unsqueeze(1).sqrt(),
            "fbkd_spatial": own["spatial"](student.mean(1, keepdim=True)) - teacher.mean(1, keepdim=True),
            "fbkd_relation": own["relation"](relations[0]) - relations[1],
            "fbkd_channel": own["channel"](student.mean((2, 3))) - teacher.mean((2, 3)),
        }
        for term, error in errors.items():
            expected[term] += error.flatten(1).norm(dim=1)
    for term, values in maps.items():
        torch.testing.assert_close(values.sum(1) if values.ndim == 2 else values, expected[term])


def test_fbkd__maps() -> None:
    expected = {"fbkd_feature": PLACES, "fbkd_spatial": PLACES, "fbkd_relation": PLACES, "fbkd_channel": (2,)}
    assert check_maps(fbkd(), make_step(), expected)


def test_fbkd__equal_features_behind_identity_adapters_are_the_optimum() -> None:
    loss = fbkd()
    parts = build(loss, TEACHER_CHANNELS)
    for level in LEVELS:
        for name, start in (("channel", nn.init.eye_), ("spatial", nn.init.dirac_), ("relation", nn.init.dirac_)):
            start(parts.get_parameter(f"{name}.{level}.weight"))
            nn.init.zeros_(parts.get_parameter(f"{name}.{level}.bias"))
    assert check_optimum(loss, equal_step(make_step()), parts)


def test_fbkd__every_part_is_trained() -> None:
    loss = fbkd()
    parts = shaken(build(loss))
    maps = loss.maps(make_step(), parts, loss.terms)
    torch.autograd.backward(torch.stack([values.sum() for values in maps.values()]).sum())
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in parts.parameters())


def test_fbkd__parts_are_plain_modules() -> None:
    kinds = {type(module) for module in build(fbkd()).modules()}
    assert kinds <= {nn.ModuleDict, nn.Conv2d, nn.Linear, nn.Identity}
