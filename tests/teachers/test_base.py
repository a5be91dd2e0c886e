from __future__ import annotations

import pytest
import torch

from yolokd.teachers.base import Offer, Teacher, TeacherOutput


class Silent(Teacher):
    """A teacher that has nothing to say."""

    def forward(self, images: torch.Tensor, *, head: bool = True, levels: tuple[str, ...] = ()) -> TeacherOutput:
        return TeacherOutput({}, None)


@pytest.mark.parametrize(
    ("offer", "text"),
    [
        (Offer({}, (), 1), "stored answers only"),
        (Offer({"p3": 8}, ("one2many",), 1), "neck features of p3, class scores and boxes"),
        (Offer({}, ("one2many",), 16), "class scores and boxes, box distributions of 16 bins"),
    ],
)
def test_offer__says_what_it_gives(offer: Offer, text: str) -> None:
    assert str(offer) == text


def test_run__a_teacher_without_gradients_cannot_be_attacked() -> None:
    with pytest.raises(NotImplementedError, match="Silent cannot be attacked"):
        Silent().run(torch.zeros(1, 3, 32, 32))
