"""Scores on data sets of odd files: what cannot be read is left out for every model, and nothing is written."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.helpers import tiny
from yolokd.errors import DataError
from yolokd.evaluation.models import evaluate


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.checkpoint(tmp_path_factory.mktemp("weights") / "a.pt")


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_evaluate__leaves_out_what_cannot_be_read_and_says_so(tmp_path: Path, weights: Path) -> None:
    data = tiny.data_set(tmp_path)
    fewer = tiny.data_set(tmp_path / "fewer")
    for kind, suffix in (("images", "png"), ("labels", "txt")):
        (tmp_path / "fewer" / kind / "val" / f"000003.{suffix}").unlink()
    (tmp_path / "images" / "val" / "000003.png").write_text("<html>")
    image = tmp_path / "images" / "val" / "tail.jpg"
    from PIL import Image

    for folder in (tmp_path, tmp_path / "fewer"):
        Image.new("RGB", (64, 48)).save(folder / "images" / "val" / "tail.jpg")
    image.write_bytes(image.read_bytes() + b"\0\0")
    before = contents(tmp_path)
    other = shutil.copy(weights, tmp_path.parent / "b.pt")
    first, second = evaluate([weights, other], data)
    assert contents(tmp_path) == before  # neither a cache nor a repaired image
    note = (
        f"1 image is left out, as Ultralytics does: {tmp_path}/images/val/000003.png (not an image of a known format)"
    )
    assert note in first.notes
    assert note in second.notes
    assert (first.AP, first.AP50) == (second.AP, second.AP50)
    (clean,) = evaluate(weights, fewer)
    assert (first.AP, first.per_class) == (clean.AP, clean.per_class)
    assert clean.notes == ()


def test_evaluate__names_of_any_bytes(tmp_path: Path, weights: Path) -> None:
    plain, odd = tiny.data_set(tmp_path / "plain"), tiny.data_set(tmp_path / "odd")
    names = [b"caf\xe9", b"new\nline", b"it's", b"star*", b"what?", b"a b"]
    for number, name in enumerate(names):
        for kind, suffix in (("images", "png"), ("labels", "txt")):
            path = tmp_path / "odd" / kind / "val" / f"{number:06}.{suffix}"
            path.rename(path.with_name(f"{number}{os.fsdecode(name)}.{suffix}"))
    (first,), (second,) = evaluate(weights, plain), evaluate(weights, odd)
    assert (first.AP, first.AP50, first.per_class) == (second.AP, second.AP50, second.per_class)


def test_evaluate__what_ultralytics_would_fail_on_is_an_error(tmp_path: Path, weights: Path) -> None:
    from PIL import Image

    data = tiny.data_set(tmp_path)
    path = tmp_path / "images" / "val" / "lossless.jpg"
    Image.new("RGB", (64, 48)).save(path)
    path.write_bytes(path.read_bytes().replace(b"\xff\xc0", b"\xff\xc3", 1))
    with pytest.raises(DataError, match=r"lossless\.jpg: a JPEG that OpenCV cannot decode"):
        evaluate(weights, data)


def test_evaluate__a_set_that_cannot_be_listed(tmp_path: Path, weights: Path) -> None:
    data = tiny.data_set(tmp_path)
    (tmp_path / "images" / "val" / "again").symlink_to(tmp_path / "images" / "val")
    with pytest.raises(DataError, match="again: the images cannot be listed: a link that leads back"):
        evaluate(weights, data)


def test_evaluate__keypoints_are_dropped(tmp_path: Path, weights: Path) -> None:
    plain, posed = tiny.data_set(tmp_path / "plain"), tiny.data_set(tmp_path / "posed")
    for path in (tmp_path / "posed" / "labels").rglob("*.txt"):
        path.write_text("".join(f"{row} .1 .1 .9 .9\n" for row in path.read_text().splitlines()))
    posed.write_text(posed.read_text() + "kpt_shape: [2, 2]\n")
    (first,), (second,) = evaluate(weights, plain), evaluate(weights, posed)
    assert (first.AP, first.per_class) == (second.AP, second.per_class)
