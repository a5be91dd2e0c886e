from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, distributed, multiprocessing

from tests.helpers.steps import gradient
from yolokd.errors import ShapeError
from yolokd.losses.tensors import (
    as_pair,
    known,
    mean_over_ranks,
    portions,
    rank_and_ranks,
    same_shape,
    widen,
    without_autocast,
)


@pytest.mark.parametrize(
    "given, wanted",
    [
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.int64, torch.float32),
        (torch.bool, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_widen__half_and_integers_become_float32(given: torch.dtype, wanted: torch.dtype) -> None:
    assert widen(torch.ones(2, dtype=given)).dtype == wanted


def test_widen__gradient_returns_in_half() -> None:
    x = torch.ones(2, dtype=torch.float16, requires_grad=True)
    slope = gradient(3 * widen(x), x)
    assert slope.dtype == torch.float16
    assert slope.tolist() == [3, 3]


def test_as_pair__shares_the_wider_dtype_and_detaches_the_teacher() -> None:
    student, teacher = as_pair(
        torch.ones(2, dtype=torch.float16, requires_grad=True), torch.ones(2, dtype=torch.float64, requires_grad=True)
    )
    assert (student.dtype, teacher.dtype) == (torch.float64, torch.float64)
    assert student.requires_grad
    assert not teacher.requires_grad


def test_same_shape__broadcastable_is_not_equal() -> None:
    message = r"student and teacher must have the same shape, got \(2, 1\) and \(2, 3\)"
    with pytest.raises(ShapeError, match=message):
        same_shape(torch.ones(2, 1), torch.ones(2, 3))
    assert issubclass(ShapeError, ValueError)


def test_same_shape__wrong_rank_is_named() -> None:
    with pytest.raises(ShapeError, match=r"boxes and gap must have 3 dimensions, got \(2, 3\) and \(2, 3\)"):
        same_shape(torch.ones(2, 3), torch.ones(2, 3), rank=3, what="boxes and gap")


def test_known__lists_the_options() -> None:
    known(None, ("a", None), "word")
    with pytest.raises(ValueError, match="word must be one of 'a', None, got 'c'"):
        known("c", ("a", None), "word")


def test_without_autocast__computes_as_outside_and_restores_the_region() -> None:
    @without_autocast
    def product(a: Tensor, *, b: Tensor) -> Tensor:
        """Doc."""
        return a @ b

    a, b = torch.randn(4, 4), torch.randn(4, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = product(a, b=b)
        assert (a @ b).dtype == torch.bfloat16
    assert torch.equal(inside, a @ b)
    assert product.__doc__ == "Doc."


def test_mean_over_ranks__identity_without_a_process_group() -> None:
    x = torch.tensor(3.0)
    assert mean_over_ranks(x) is x


def _rank(rank: int, folder: str) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    own = torch.tensor([3.0, 8.0][rank], requires_grad=True)
    mean = mean_over_ranks(own)
    torch.save((mean, own.detach(), mean.requires_grad), f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


def test_mean_over_ranks__two_processes_agree_on_the_mean(tmp_path: Path) -> None:
    processes: Any = multiprocessing
    processes.spawn(_rank, args=(str(tmp_path),), nprocs=2)
    for rank, own in enumerate((3.0, 8.0)):
        assert torch.load(tmp_path / f"{rank}.pt") == (torch.tensor(5.5), torch.tensor(own), False)


@pytest.mark.parametrize(
    "images, values, sizes", [(5, 2**18, [1] * 5), (5, 2**17, [2, 2, 1]), (3, 2**18 + 1, [1, 1, 1]), (2, 0, [2])]
)
def test_portions__cover_each_image_once(images: int, values: int, sizes: list[int]) -> None:
    x = torch.empty(images, values, device="cpu") if values else torch.empty(images, 0)
    rows = torch.arange(images)
    assert [len(rows[part]) for part in portions(x)] == sizes
    assert torch.equal(torch.cat([rows[part] for part in portions(x)]), rows)


def test_portions__are_larger_off_the_processor() -> None:
    assert portions(torch.empty(6, 2**19, device="meta")) == [slice(0, 64)]
    assert portions(torch.empty(6, 2**23, device="meta")) == [slice(0, 4), slice(4, 8)]


def test_rank_and_ranks__one_process_is_the_first_of_one() -> None:
    assert rank_and_ranks() == (0, 1)
