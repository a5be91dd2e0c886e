from __future__ import annotations

import pytest
import torch

from yolokd.losses.aid import aid_weight


def test_aid_weight__closed_form() -> None:
    weights = aid_weight(torch.tensor([0, 1, 2, 5, 10], dtype=torch.float64))
    assert weights.tolist() == pytest.approx([1, 0.904837, 0.818731, 0.606531, 0.367879], abs=5e-7)


def test_aid_weight__a_bad_teacher_halves_the_say_of_its_image() -> None:
    weighted = aid_weight(torch.tensor([0.0, 10.0])) * torch.tensor([2.0, 2.0])
    assert weighted.mean().item() == pytest.approx(1.367879, abs=5e-7)


def test_aid_weight__alpha_zero_leaves_the_loss_bit_for_bit() -> None:
    loss = torch.rand(2, 7)
    assert torch.equal(aid_weight(100 * torch.rand(2, 7), alpha=0) * loss, loss)


@pytest.mark.parametrize("shape", [(), (3,), (2, 7), (2, 3, 4, 5)])
def test_aid_weight__keeps_the_shape_and_falls_with_the_loss(shape: tuple[int, ...]) -> None:
    loss = torch.rand(shape)
    assert aid_weight(loss).shape == shape
    assert (aid_weight(loss + 1, alpha=0.5) < aid_weight(loss, alpha=0.5)).all()


def test_aid_weight__is_a_constant() -> None:
    loss = torch.rand(4, requires_grad=True)
    assert not aid_weight(loss).requires_grad


@pytest.mark.parametrize(
    "given, wanted",
    [(torch.float16, torch.float32), (torch.bfloat16, torch.float32), (torch.float64, torch.float64)],
)
def test_aid_weight__half_is_computed_and_returned_in_float32(given: torch.dtype, wanted: torch.dtype) -> None:
    loss = torch.rand(9).to(given)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        weights = aid_weight(loss)
    assert weights.dtype == wanted
    assert torch.equal(weights, aid_weight(loss.to(wanted)))


def test_aid_weight__negative_alpha_is_refused() -> None:
    with pytest.raises(ValueError, match=r"alpha must be at least 0, got -0\.1"):
        aid_weight(torch.rand(2), alpha=-0.1)
