from __future__ import annotations

from itertools import islice
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from yolokd.data.frames_names import LONGEST, clip_names, image_names, safe_name


@given(st.text(max_size=200))
def test_safe_name__is_short_and_of_safe_characters(text: str) -> None:
    name = safe_name(text)
    assert len(name) <= LONGEST
    assert all(letter.isascii() and (letter.isalnum() or letter in ".-_") for letter in name)
    assert not name or (name[0].isalnum() and name[-1].isalnum())


def test_image_names__tell_folder_and_stem() -> None:
    assert image_names(["b/2.jpg", "b/3.x.PNG", "4.jpg"]) == ["b-2", "b-3.x", "4"]


@given(st.lists(st.text("aA/-._é日 ", min_size=1, max_size=5).map(lambda text: f"{text}.jpg"), unique=True))
def test_image_names__differ_in_any_letter_case(paths: list[str]) -> None:
    names = image_names(paths)
    assert len({name.casefold() for name in names}) == len(paths)
    assert all(names)


def test_image_names__two_formats_of_one_stem_differ() -> None:
    names = image_names(["x.jpg", "x.png", "X.jpg", "a/b.jpg", "a-b.jpg"])
    assert len({name.casefold() for name in names}) == 5


def test_image_names__do_not_depend_on_other_images() -> None:
    assert image_names(["é1.jpg"])[0] == image_names(["a.jpg", "é1.jpg"])[1]


def test_clip_names__go_on_without_end() -> None:
    names = list(islice(clip_names(Path("/日本.mp4"), is_file=True), 3))
    assert names == ["clip", "clip-2", "clip-3"]
