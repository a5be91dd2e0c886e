from __future__ import annotations

import errno
import importlib.util
import json
from pathlib import Path

import cv2
import imagehash
import numpy as np
import pytest
from PIL import Image

from tests.helpers import clips
from yolokd.data import frames
from yolokd.data.frames import NearDuplicates, make_frames, parse_every, perceptual_hash
from yolokd.data.frames_source import Every
from yolokd.errors import DataError, UserError
from yolokd.files import cache_folder, sha256_of, write_whole
from yolokd.locks import locked

HALF = Every(seconds=0.5)


def images(out: Path) -> list[str]:
    return sorted(path.name for path in out.iterdir() if path.name != "frames.json")


@pytest.mark.parametrize(
    ("text", "step"), [("2s", Every(seconds=2)), ("0.5s", Every(seconds=0.5)), ("10", Every(frames=10))]
)
def test_parse_every__seconds_or_frames(text: str, step: Every) -> None:
    assert parse_every(text) == step


@pytest.mark.parametrize(
    "text", ["0", "0s", "0.0s", "-1", "-1s", "s", "", "1.5", "1e3s", "inf", "nans", "2 s", "٣", "9" * 30]
)
def test_parse_every__refuses(text: str) -> None:
    with pytest.raises(UserError, match=r"--every expects seconds, such as 2s"):
        parse_every(text)


def test_perceptual_hash__differs_in_as_many_bits_as_imagehash_says() -> None:
    one, two = clips.scene(1), clips.scene(2)
    own = (perceptual_hash(one) ^ perceptual_hash(two)).bit_count()
    other = [imagehash.phash(Image.fromarray(np.ascontiguousarray(image[..., ::-1]))) for image in (one, two)]
    assert own == other[0] - other[1]
    assert own >= 16


def test_near_duplicates__compares_with_the_last_kept_ones_only() -> None:
    seen = NearDuplicates(6)
    assert seen.keep(clips.scene(0))
    assert not seen.keep(clips.scene(0))
    assert all(seen.keep(clips.scene(seed)) for seed in range(1, frames.WINDOW))
    assert not seen.keep(clips.scene(0))  # still among the last 16
    assert seen.keep(clips.scene(frames.WINDOW))
    assert seen.keep(clips.scene(0))


def test_near_duplicates__distance_0_keeps_equal_frames() -> None:
    seen = NearDuplicates(0)
    assert [seen.keep(clips.scene(0)) for _ in range(3)] == [True] * 3


def test_make_frames__drops_near_duplicates_and_names_clip_and_time(tmp_path: Path) -> None:
    video = clips.write_video(tmp_path / "my_clip.avi", [0, 1, 0, 2])
    (result,) = make_frames([video], tmp_path / "out", every=HALF)
    assert images(tmp_path / "out") == [f"my_clip_00000{second}.000s.jpg" for second in (0, 1, 3)]
    assert (result.read, result.near_duplicates, len(result.kept), result.new) == (40, 5, 3, 3)
    for name, seed in zip(images(tmp_path / "out"), (0, 1, 2), strict=True):
        pixels = cv2.imread(str(tmp_path / "out" / name))
        assert pixels is not None
        assert np.abs(pixels.astype(int) - clips.scene(seed)).mean() < 10


def test_make_frames__distance_0_keeps_all_and_needs_no_imagehash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    video = clips.write_video(tmp_path / "a.avi", [0])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    make_frames([video], tmp_path / "out", every=Every(frames=1), distance=0)
    assert len(images(tmp_path / "out")) == 10
    with pytest.raises(UserError, match=r"pip install 'yolokd\[footage\]'"):
        make_frames([video], tmp_path / "other")


def test_make_frames__links_the_images_of_a_folder(tmp_path: Path) -> None:
    folder = clips.write_images(tmp_path / "trip", {"a/1.png": 0, "b/1.JPG": 1, "b/2.jpg": 1})
    (result,) = make_frames([folder], tmp_path / "out")
    assert images(tmp_path / "out") == ["trip_a-1.png", "trip_b-1.jpg"]
    assert (tmp_path / "out" / "trip_a-1.png").resolve() == folder / "a" / "1.png"
    assert (tmp_path / "out" / "trip_a-1.png").is_symlink()
    assert (result.read, result.near_duplicates) == (3, 1)


def test_make_frames__clips_of_one_name_have_names_of_their_own(tmp_path: Path) -> None:
    sources = [
        clips.write_video(tmp_path / "x" / "front.avi", [0]),
        clips.write_video(tmp_path / "y" / "Front.avi", [0]),
        clips.write_video(tmp_path / "y" / "front_left.avi", [0]),
        clips.write_video(tmp_path / "z" / "y" / "front.avi", [0]),
    ]
    results = make_frames([*sources, sources[0]], tmp_path / "out")
    assert [result.name for result in results] == ["front", "y-Front", "y-front-left", "front-2"]
    assert images(tmp_path / "out") == sorted(f"{result.name}_000000.000s.jpg" for result in results)


def test_make_frames__a_second_run_changes_no_byte_and_writes_nothing(tmp_path: Path) -> None:
    sources = [clips.write_video(tmp_path / "a.avi", [0, 1]), clips.write_images(tmp_path / "f", {"a.jpg": 0})]
    first = make_frames(sources, tmp_path / "out")
    before = clips.content(tmp_path / "out")
    second = make_frames(sources, tmp_path / "out")
    assert clips.content(tmp_path / "out") == before
    assert [result.new for result in first] == [2, 1]
    assert [(result.new, result.kept, result.read) for result in second] == [
        (0, result.kept, result.read) for result in first
    ]


def test_make_frames__two_runs_from_scratch_give_the_same_bytes(tmp_path: Path) -> None:
    video = clips.write_video(tmp_path / "a.mp4", [0, 1])
    found = []
    for out in (tmp_path / "one", tmp_path / "two"):
        make_frames([video], out, every=HALF, distance=2)
        found.append({name: data for name, (data, _) in clips.content(out).items()})
    assert found[0] == found[1]
    assert len(found[0]) >= 3


def test_make_frames__adds_clips_and_restores_images(tmp_path: Path) -> None:
    one, two = clips.write_video(tmp_path / "a.avi", [0, 1]), clips.write_video(tmp_path / "b.avi", [0])
    make_frames([one], tmp_path / "out")
    before = clips.content(tmp_path / "out")
    (tmp_path / "out" / "a_000001.000s.jpg").unlink()
    first, second = make_frames([one, two], tmp_path / "out")
    assert (first.new, second.new) == (1, 1)
    after = clips.content(tmp_path / "out")
    assert after["a_000000.000s.jpg"] == before["a_000000.000s.jpg"]
    assert after["a_000001.000s.jpg"][0] == before["a_000001.000s.jpg"][0]


def test_make_frames__adds_the_new_images_of_a_folder(tmp_path: Path) -> None:
    folder = clips.write_images(tmp_path / "f", {"b.jpg": 0})
    make_frames([folder], tmp_path / "out")
    clips.write_images(folder, {"a.jpg": 1})
    (result,) = make_frames([folder], tmp_path / "out")
    assert (result.new, images(tmp_path / "out")) == (1, ["f_a.jpg", "f_b.jpg"])


def test_make_frames__an_interrupted_run_goes_on(tmp_path: Path) -> None:
    sources = [clips.write_video(tmp_path / f"{name}.avi", range(6)) for name in "ab"]
    make_frames(sources, tmp_path / "whole")

    def interrupt(words: str, share: float) -> None:
        if words == "b" and share > 0.7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_frames(sources, tmp_path / "out", progress=interrupt)
    before = clips.content(tmp_path / "out")
    assert 6 < len(images(tmp_path / "out")) < 12
    results = make_frames(sources, tmp_path / "out")
    after = clips.content(tmp_path / "out")
    assert [result.new for result in results] == [0, 12 - len(before) + 1]
    assert {name: data for name, (data, _) in after.items()} == {
        name: data for name, (data, _) in clips.content(tmp_path / "whole").items()
    }
    assert all(after[name] == entry for name, entry in before.items() if name != "frames.json")


def test_make_frames__names_what_is_damaged_and_goes_on(tmp_path: Path) -> None:
    whole = clips.write_video(tmp_path / "a.avi", range(6))
    damaged = clips.cut(whole, tmp_path / "b.avi", 0.5)
    (tmp_path / "c.mp4").write_text("no video\n" * 99)
    results = make_frames([tmp_path / "c.mp4", damaged, whole], tmp_path / "out")
    assert results[0].failure == "OpenCV has no decoder for it"
    assert "ends after" in results[1].notes[0]
    assert [len(result.kept) for result in results] == [0, 3, 6]
    again = make_frames([damaged], tmp_path / "out")
    assert again[0].notes == results[1].notes


def test_make_frames__nothing_is_left_where_every_source_fails(tmp_path: Path) -> None:
    (tmp_path / "c.mp4").write_text("no video\n" * 99)
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "a.jpg").write_text("no image")
    with pytest.raises(DataError, match=r"No frames: '.*c\.mp4': OpenCV .*'.*f': none of its images can be read"):
        make_frames([tmp_path / "c.mp4", tmp_path / "f"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("is_there", [False, True])
def test_make_frames__a_full_disk_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_there: bool
) -> None:
    video = clips.write_video(tmp_path / "a.avi", [0])
    if is_there:
        (tmp_path / "out").mkdir()

    def full(path: Path, content: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(frames, "write_whole", full)
    with pytest.raises(DataError, match="cannot be written: No space left on device"):
        make_frames([video], tmp_path / "out")
    assert (tmp_path / "out").exists() == is_there
    assert not is_there or not list((tmp_path / "out").iterdir())


def test_make_frames__a_disk_that_fills_up_leaves_whole_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    video = clips.write_video(tmp_path / "a.avi", [0, 1, 2])

    def filling(path: Path, content: bytes) -> None:
        if "2.000s" in path.name:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        write_whole(path, content)

    monkeypatch.setattr(frames, "write_whole", filling)
    with pytest.raises(DataError, match="No space left"):
        make_frames([video], tmp_path / "out")
    monkeypatch.undo()
    assert images(tmp_path / "out") == ["a_000000.000s.jpg", "a_000001.000s.jpg"]
    assert make_frames([video], tmp_path / "out")[0].new == 1


def test_make_frames__refuses_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    video = clips.write_video(tmp_path / "a.avi", [0])
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match=r"cannot be (written|used)"):
        make_frames([video], tmp_path / "file" / "out")


@pytest.mark.parametrize("out", ["f", "f/out", ".", "link"])
def test_make_frames__refuses_to_write_into_a_source(tmp_path: Path, out: str) -> None:
    folder = clips.write_images(tmp_path / "f", {"a.jpg": 0})
    (tmp_path / "link").symlink_to("f")
    with pytest.raises(UserError, match="are not apart"):
        make_frames([folder], tmp_path / out)
    assert [path.name for path in folder.iterdir()] == ["a.jpg"]


def test_make_frames__refuses_a_second_process(tmp_path: Path) -> None:
    video = clips.write_video(tmp_path / "a.avi", [0])
    lock = cache_folder("frames") / f"{sha256_of(str((tmp_path / 'out').resolve()))[:32]}.lock"
    with locked(lock, wait=False), pytest.raises(UserError, match="Another process"):
        make_frames([video], tmp_path / "out")


@pytest.mark.parametrize("distance", [-1, 65])
def test_make_frames__refuses_a_distance_that_no_hash_has(tmp_path: Path, distance: int) -> None:
    with pytest.raises(UserError, match="from 0 to 64"):
        make_frames([tmp_path / "a.avi"], tmp_path / "out", distance=distance)


def test_make_frames__the_record_is_plain(tmp_path: Path) -> None:
    make_frames([clips.write_video(tmp_path / "a.avi", [0])], tmp_path / "out")
    plain = json.loads((tmp_path / "out" / "frames.json").read_text())
    assert plain["settings"] == {"distance": 6, "window": 16, "every (videos)": "1s"}
    assert plain["clips"]["a"]["images"] == images(tmp_path / "out")
