from __future__ import annotations

import pytest

from yolokd.teachers.base import Offer


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
