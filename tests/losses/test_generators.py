from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from yolokd.losses.generators import channels_last, generator_block, mix, without_hidden


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_generator_block__separable_is_depthwise_then_pointwise() -> None:
    block = generator_block(5, "separable").double()
    first: Any = block[0]
    depthwise, pointwise = first
    feature = torch.randn(1, 5, 3, 3, dtype=torch.float64)
    found = block[0](feature)[0, :, 1, 1]
    by_channel = (depthwise.weight[:, 0] * feature[0]).sum((1, 2))  # the middle cell sees all nine
    torch.testing.assert_close(found, pointwise.weight[:, :, 0, 0] @ by_channel + pointwise.bias)
    assert block(feature).shape == feature.shape
    # The middle cell reaches two cells away, as through two 3x3 convolutions.
    wide = torch.randn(1, 5, 7, 7, dtype=torch.float64, requires_grad=True)
    block(wide)[0, :, 3, 3].sum().backward()
    assert wide.grad is not None
    assert wide.grad[0].abs().sum(0).nonzero().aminmax()[0].item() == 1


def test_generator_block__lists_the_known_kinds() -> None:
    with pytest.raises(ValueError, match="kind must be one of 'conv', 'separable', got 'odd'"):
        generator_block(4, "odd")


@pytest.mark.parametrize("kind", ["conv", "separable"])
@pytest.mark.parametrize("size", [(2, 2), (5, 4)])  # fewer and more cells than channels
@pytest.mark.parametrize("hidden", [0, 4, 6])
def test_without_hidden__equals_the_block_on_zeroed_channels(size: tuple[int, int], hidden: int, kind: str) -> None:
    block = generator_block(6, kind).double()[0]
    feature = torch.randn(3, 6, *size, dtype=torch.float64, requires_grad=True)
    channels = torch.stack([(torch.randperm(6) >= hidden).double() for _ in range(3)])
    outcomes = []
    for found in (without_hidden(block, feature, channels), block(feature * channels[..., None, None])):
        leaves = [feature, *block.parameters()]
        outcomes.append((found, *torch.autograd.grad((found**2).sum(), leaves)))
    torch.testing.assert_close(*outcomes)


@pytest.mark.parametrize("kind", ["conv", "separable"])
def test_mix__equals_the_block_times_the_factor(kind: str) -> None:
    block = generator_block(6, kind).double()[0]
    feature, factor = random(2, 6, 5, 4).requires_grad_(), torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    outcomes = []
    for found in (mix(block, feature, factor=factor), factor * block(feature)):
        outcomes.append((found, *torch.autograd.grad((found**2).sum(), [feature, factor, *block.parameters()])))
    torch.testing.assert_close(*outcomes)


def test_channels_last__hands_back_the_gradient_as_the_feature_lies() -> None:
    feature = random(2, 3, 4, 5).requires_grad_()
    laid = channels_last(feature)
    assert laid.is_contiguous(memory_format=torch.channels_last)
    factors = random(2, 3, 4, 5, seed=1).to(memory_format=torch.channels_last)
    (gradient,) = torch.autograd.grad((laid * factors).sum(), feature)
    assert gradient.is_contiguous()
    assert torch.equal(gradient, factors)
