"""What holds for every loss at the teacher's instances, such as `mask` and `keypoint`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from tests.helpers.steps import make_step
from yolokd.losses.base import Loss, Step

Slow = Callable[..., Mapping[str, Tensor]]  # of a branch, and the options of the instances


def with_teacher(step: Step, **changes: Any) -> Step:
    """Return a step whose teacher's heads are changed."""
    return replace(step, branches=tuple(replace(b, teacher=replace(b.teacher, **changes)) for b in step.branches))


def check_equals_loop(make: Callable[..., Loss], slow: Slow) -> bool:
    """Check a loss of two branches against a loop over images and instances; return True.

    Args:
        make: The loss with some options.
        slow: The loop.
    """
    options = {"confidence": 0.6, "iou": 0.5, "instances": 6}
    step, loss = make_step(batch=2, weights=(0.8, 0.2)), make(**options)
    found = loss.maps(step, nn.ModuleDict(), loss.terms)
    first, second = (slow(branch, **options) for branch in step.branches)
    for term in loss.terms:
        expected = 0.8 * first[term] + 0.2 * second[term]
        torch.testing.assert_close(found[term], expected.detach(), atol=1e-10, rtol=1e-8)
        assert found[term].gt(0).sum() > 4
    return True


def check_unsure_image(loss: Loss) -> bool:
    """Check that an image without confident instances has value 0 and changes no other; return True."""
    step = make_step()
    logits = step.branches[0].teacher.logits.detach().clone()
    logits[1] = -5.0
    whole, half = (loss.maps(one, nn.ModuleDict(), loss.terms) for one in (step, with_teacher(step, logits=logits)))
    for term in loss.terms:
        assert half[term][1].eq(0).all()
        torch.testing.assert_close(half[term][0], whole[term][0])
    return True
