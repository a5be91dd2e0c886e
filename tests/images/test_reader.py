"""Images as Ultralytics reads them: size, pixels, and which of them it trains on."""

from __future__ import annotations

import errno
import json
import os
import struct
import threading
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
from PIL import Image
from ultralytics.data.utils import verify_image_label
from ultralytics.utils.patches import imread

from yolokd.errors import DataError
from yolokd.images import reader
from yolokd.images import store as store_module
from yolokd.images.reader import ImageCheck, check_image, check_images, left_out, read_image, shown_size
from yolokd.images.store import ImageStore


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def save(path: Path, orientation: int | None = None, size: tuple[int, int] = (48, 30), mode: str = "RGB") -> Path:
    exif = Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    pixels = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).convert(mode).save(path, exif=exif)
    return path


def late_exif(path: Path, orientation: int) -> Path:
    """A PNG whose metadata stand behind the pixels."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = save(path).read_bytes()
    end = data.rindex(b"IEND") - 4
    path.write_bytes(data[:end] + chunk(b"eXIf", exif.tobytes()[6:]) + data[end:])
    return path


@pytest.mark.parametrize("orientation", [None, 1, 3, 6, 8])
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp", "avif", "mpo"])
def test_image_size__is_that_of_ultralytics_pixels(tmp_path: Path, suffix: str, orientation: int | None) -> None:
    path = save(tmp_path / f"a.{suffix}", orientation)
    pixels = imread(path)
    assert pixels is not None
    assert shown_size(path) == (pixels.shape[1], pixels.shape[0])
    assert (shown_size(path) == (30, 48)) == (orientation in {6, 8})
    np.testing.assert_array_equal(read_image(path), pixels)


def test_image_size__of_a_png_with_late_metadata(tmp_path: Path) -> None:
    assert shown_size(late_exif(tmp_path / "a.png", 6)) == (30, 48)


@pytest.mark.parametrize(
    "suffix, mode", [("png", "1"), ("png", "P"), ("png", "RGBA"), ("png", "I;16"), ("jpg", "CMYK")]
)
def test_check_image__odd_modes_are_read(tmp_path: Path, suffix: str, mode: str) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.new(mode, (40, 20)).save(path)
    assert check_image(str(path))[:2] == (40, 20)
    assert check_image(str(path)).usable
    assert read_image(path).shape == (20, 40, 3)


def html(path: Path) -> None:
    path.write_text("<html>")


def cut(path: Path) -> None:
    path.write_bytes(save(path, size=(200, 200)).read_bytes()[:3000])


def gif(path: Path) -> None:
    Image.new("RGB", (40, 40)).save(path, format="GIF")


def huge(path: Path) -> None:
    """A PNG that says it has 30000 × 30000 pixels."""
    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(b"\0" * 1000))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b""))


def small(path: Path) -> None:
    save(path, size=(9, 30))


def lost(path: Path) -> None:
    path.symlink_to("nowhere")


def loop(path: Path) -> None:
    path.symlink_to(path.name)


def empty(path: Path) -> None:
    path.touch()


def tail(path: Path) -> None:
    path.write_bytes(save(path).read_bytes() + b"\0\0")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Ultralytics leaves the file open
@pytest.mark.parametrize("suffix", ["jpg", "png"])
@pytest.mark.parametrize("spoil", [html, cut, gif, huge, small, lost, loop, empty, save, tail])
def test_check_image__agrees_with_ultralytics(tmp_path: Path, spoil: Callable[[Path], object], suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    spoil(path)
    before = path.read_bytes() if path.is_file() else b""
    found = check_image(str(path))
    assert (path.read_bytes() if path.is_file() else b"") == before
    assert not found.fatal
    theirs = verify_image_label((str(path), "none", "", False, 1, 0, 0, False))
    assert found.usable == (theirs[0] is not None), (found, theirs[-1])
    assert found.usable == (spoil in {save, tail})
    if found.usable:
        assert (found.height, found.width) == theirs[2]
        assert check_image(str(path))[:3] == found[:3]  # after Ultralytics has written it anew


def test_check_image__what_ultralytics_would_fail_on_is_fatal(tmp_path: Path) -> None:
    data = save(tmp_path / "a.jpg").read_bytes()
    # A kind of frame that Pillow opens and that the decoders do not have: lossless.
    (tmp_path / "a.jpg").write_bytes(data.replace(b"\xff\xc0", b"\xff\xc3", 1))
    assert imread(tmp_path / "a.jpg") is None
    assert check_image(str(tmp_path / "a.jpg")).fatal
    os.mkfifo(tmp_path / "b.jpg")
    assert check_image(str(tmp_path / "b.jpg")).problem == "not a file"
    assert check_image(str(tmp_path / "b.jpg")).fatal


def test_check_image__any_damage_is_survived_and_changes_nothing(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for suffix in ("jpg", "png", "tif", "webp", "bmp"):
        whole = save(tmp_path / f"a.{suffix}").read_bytes()
        path = tmp_path / f"b.{suffix}"
        for _ in range(40):
            data = np.frombuffer(whole, np.uint8).copy()
            data[rng.integers(0, min(len(data), 400), 4)] = rng.integers(0, 256, 4)
            path.write_bytes(data[: rng.integers(1, len(data) + 1)].tobytes())
            before = path.read_bytes()
            found = check_image(str(path))
            assert path.read_bytes() == before
            if found.usable:
                assert read_image(path).shape == (found.height, found.width, 3)
            else:
                assert found.problem.isprintable()


def test_read_image__names_what_is_none(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9.jpg")
    path.write_bytes(b"no image")
    for read in (read_image, shown_size):
        with pytest.raises(DataError, match=r"caf\\xe9\.jpg' cannot be read as an image"):
            read(path)
    save(path)
    assert read_image(path).shape == (30, 48, 3)


def test_check_images__unchanged_files_are_not_opened_again(tmp_path: Path) -> None:
    paths = [str(save(tmp_path / f"{n}.png")) for n in range(3)]
    opened: list[int] = []

    def check(again: bool = False) -> dict[str, ImageCheck]:
        opened.clear()
        return check_images(paths, again=again, progress=lambda done, total: opened.append(total))

    first = check()
    assert opened[-1] == 3
    assert check() == first
    assert opened == []
    save(tmp_path / "1.png", size=(20, 20))
    assert check()[paths[1]][:2] == (20, 20)
    assert opened == [1]
    check(again=True)
    assert opened[-1] == 3


def test_image_store__what_cannot_be_used_is_opened_again_by_the_next_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reason may be a disk, rights or memory, which the file's size and time of change do not tell."""
    path = str(save(tmp_path / "a.png"))

    def fail(name: str) -> NoReturn:
        raise OSError(errno.EMFILE, "Too many open files", name)

    with monkeypatch.context() as patch:
        patch.setattr(reader, "_open", fail)
        assert check_images([path])[path].problem == "cannot be read: Too many open files"
    assert check_images([path])[path].problem  # all that one process does agrees
    monkeypatch.setattr(store_module, "_known", {})
    assert check_images([path])[path].usable


def test_left_out__names_the_first_few() -> None:
    checks = {f"{n}.jpg": ImageCheck(0, 0, "", "empty") for n in range(8)} | {"ok.jpg": ImageCheck(9, 9, "PNG")}
    assert left_out({"ok.jpg": checks["ok.jpg"]}) == ""
    text = left_out(checks)
    assert text.startswith("8 images are left out, as Ultralytics does: 0.jpg (empty), 1.jpg (empty), ")
    assert text.endswith("4.jpg (empty) and 3 more")


CHECK = ImageCheck(40, 30, "PNG")


def entries(store: ImageStore, folder: Path) -> dict[str, ImageCheck]:
    """What is on disk, read by a store that knows nothing."""
    return {path: check for path, (_, check) in store._read(str(folder)).items()}


def test_image_store__keeps_entries_of_odd_names(tmp_path: Path) -> None:
    store, path = ImageStore(tmp_path / "store"), str(tmp_path / os.fsdecode(b"\xe9\n'*.png"))
    store.put({path: ((1, 2), CHECK)})
    assert entries(store, tmp_path) == {path: CHECK}


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "{}", "null", '{"images": 3}', "[" * 100_000, json.dumps({"images": {"a": [1, 2, "x"]}})],
)
def test_image_store__damage_means_nothing_is_known(tmp_path: Path, content: str) -> None:
    store, path = ImageStore(tmp_path / "store"), str(tmp_path / "a.png")
    store.put({path: ((1, 2), CHECK)})
    (file,) = store.folder.iterdir()
    file.write_text(content)
    assert entries(store, tmp_path) == {}
    store.put({path: ((1, 2), CHECK)})
    assert entries(store, tmp_path) == {path: CHECK}


@pytest.mark.parametrize("row", [3, [], [1, 2, 40, 30, "PNG"], [1, 2, 40, 30.5, "PNG", "", False, False]])
def test_image_store__a_damaged_entry_is_passed_over(tmp_path: Path, row: object) -> None:
    store = ImageStore(tmp_path / "store")
    store.put({str(tmp_path / "a.png"): ((1, 2), CHECK)})
    (file,) = store.folder.iterdir()
    plain = json.loads(file.read_text())
    plain["images"]["b.png"] = row
    file.write_text(json.dumps(plain))
    assert entries(store, tmp_path) == {str(tmp_path / "a.png"): CHECK}


def test_image_store__other_versions_of_the_decoders_are_not_believed(tmp_path: Path) -> None:
    store = ImageStore(tmp_path / "store")
    store.put({str(tmp_path / "a.png"): ((1, 2), CHECK)})
    store.header = {**store.header, "versions": ["another"]}
    assert entries(store, tmp_path) == {}


def test_image_store__writers_at_the_same_time_leave_a_whole_file(tmp_path: Path) -> None:
    store = ImageStore(tmp_path / "store")

    def write(first: int) -> None:
        for number in range(first, first + 20):
            store.put({str(tmp_path / f"{number}.png"): ((1, 2), CHECK)})

    threads = [threading.Thread(target=write, args=(first,)) for first in (0, 100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (file,) = store.folder.iterdir()
    assert json.loads(file.read_text())["images"]


def test_image_store__a_place_that_cannot_be_written_costs_time_only(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("in the way")
    ImageStore(tmp_path / "store").put({str(tmp_path / "a.png"): ((1, 2), CHECK)})
    assert (tmp_path / "store").read_text() == "in the way"
