from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from tests.helpers import clips
from yolokd.data.frames_source import Clip, ClipError, Every, _Times, open_clip
from yolokd.errors import UserError


def names(clip: Clip) -> list[str]:
    return [frame.name for frame in clip.frames()]


@pytest.mark.parametrize("suffix", ["avi", "mp4"])
def test_video__names_give_the_time_of_each_frame(tmp_path: Path, suffix: str) -> None:
    clip = open_clip(clips.write_video(tmp_path / f"a.{suffix}", range(3)), Every(seconds=0.5))
    frames = list(clip.frames())
    assert [frame.name for frame in frames] == [f"{second:010.3f}s" for second in (0, 0.5, 1, 1.5, 2, 2.5)]
    assert (clip.read, clip.notes) == (30, [])
    for frame, seed in zip(frames, (0, 0, 1, 1, 2, 2), strict=True):
        assert frame.pixels is not None
        assert np.abs(frame.pixels.astype(int) - clips.scene(seed)).mean() < 10
    assert [frame.share for frame in frames] == pytest.approx([(5 * index + 1) / 30 for index in range(6)])


def test_video__a_step_in_frames(tmp_path: Path) -> None:
    video = clips.write_video(tmp_path / "a.avi", range(1))
    assert names(open_clip(video, Every(frames=4))) == ["000000.000s", "000000.400s", "000000.800s"]


def test_video__one_second_by_default_at_an_odd_frame_rate(tmp_path: Path) -> None:
    video = clips.write_video(tmp_path / "a.avi", range(5), fps=30000 / 1001)  # 50 frames, 1.67 s
    assert names(open_clip(video, None)) == ["000000.000s", "000001.001s"]


def test_video__a_step_below_a_frame_takes_every_frame(tmp_path: Path) -> None:
    assert len(names(open_clip(clips.write_video(tmp_path / "a.avi", [0]), Every(seconds=0.001)))) == 10


def test_video__cut_short_ends_with_a_note(tmp_path: Path) -> None:
    whole = clips.write_video(tmp_path / "a.avi", range(6))
    clip = open_clip(clips.cut(whole, tmp_path / "b.avi", 0.5), Every(frames=1))
    assert 10 < len(names(clip)) < 50
    assert clip.notes == [f"ends after {clip.read} of 60 frames; the rest cannot be decoded"]


@pytest.mark.parametrize(
    ("content", "reason"), [(b"", "an empty file"), (b"no video\n" * 99, "OpenCV has no decoder for it")]
)
def test_video__without_a_decoder(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "a.mp4").write_bytes(content)
    with pytest.raises(ClipError, match=reason):
        names(open_clip(tmp_path / "a.mp4", None))


def test_video__without_frames(tmp_path: Path) -> None:
    with pytest.raises(ClipError, match="no frame of it can be decoded"):
        names(open_clip(clips.write_video(tmp_path / "a.avi", []), None))


@pytest.mark.parametrize("name", ["%03d.avi", "a b'c.avi", "日本.avi", os.fsdecode(b"caf\xe9.avi")])
def test_video__of_any_name(tmp_path: Path, name: str) -> None:
    clips.write_video(tmp_path / "a.avi", [0]).rename(tmp_path / name)
    assert names(open_clip(tmp_path / name, None)) == ["000000.000s"]


def test_folder__images_in_order_and_one_that_cannot_be_read(tmp_path: Path) -> None:
    folder = clips.write_images(tmp_path / "f", {"b/1.png": 0, "a/2.JPG": 1, "c.jpg": 2})
    (folder / "b" / "2.jpg").write_text("no image")
    clip = open_clip(folder, None)
    frames = list(clip.frames())
    assert [frame.name for frame in frames] == ["a-2", "b-1", "b-2", "c"]
    assert [frame.pixels is None for frame in frames] == [False, False, True, False]
    assert [frame.file for frame in frames][:2] == [folder / "a" / "2.JPG", folder / "b" / "1.png"]
    assert len(clip.notes) == 1
    assert "2.jpg" in clip.notes[0]
    assert names(open_clip(folder, Every(frames=3))) == ["a-2", "c"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing.mp4", "There is no video or folder"),
        ("empty", "holds no images"),
        ("a.jpg", "is an image. Give the folder"),
        ("a.txt", "is no video"),
        ("pipe", "cannot be read: not a file"),
        ("a\0b", "cannot be read"),
    ],
)
def test_open_clip__refuses(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    clips.write_images(tmp_path, {"a.jpg": 0})
    (tmp_path / "a.txt").write_text("text that FFmpeg would render")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match=message):
        open_clip(tmp_path / name, None)


def test_open_clip__refuses_seconds_for_a_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="images have no frame rate"):
        open_clip(clips.write_images(tmp_path / "f", {"a.jpg": 0}), Every(seconds=2))


@pytest.mark.parametrize(
    ("positions", "expected"),
    [
        ([0, 40, 80], [0, 40, 80]),
        ([500, 540, 700], [0, 40, 200]),  # a start that is not 0, a variable frame rate
        ([0, 0, 0], [0, 100, 200]),  # a container without times
        ([0, 100, 5, 105, 205], [0, 100, 200, 300, 400]),  # a leap back
        ([0, float("nan"), 200], [0, 100, 200]),
        ([0, 0.1, 0.2], [0, 1, 2]),  # names stay apart
    ],
)
def test_times__increase_by_the_container_or_by_the_frame_rate(positions: list[float], expected: list[int]) -> None:
    times = _Times(10)
    assert [times.next(position) for position in positions] == expected


@pytest.mark.parametrize("fps", [0, -1, float("nan"), float("inf"), -9.2e18])
def test_times__no_frame_rate(fps: float) -> None:
    assert _Times(fps).frame_ms == 0
