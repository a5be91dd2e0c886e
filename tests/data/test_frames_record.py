from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import clips
from yolokd.data.frames_record import FramesRecord
from yolokd.data.frames_source import Clip, Every, open_clip
from yolokd.errors import DataError

SETTINGS = {"distance": 6}


@pytest.fixture
def clip(tmp_path: Path) -> Clip:
    return open_clip(clips.write_video(tmp_path / "a.avi", [0]), None)


@pytest.fixture
def out(tmp_path: Path, clip: Clip) -> Path:
    record = FramesRecord(tmp_path / "out", [clip], SETTINGS)
    name = record.choose_name(clip)
    record.begin(clip, name)
    record.save(clip, name, {"read": 10, "near_duplicates": 0}, [], [])
    return tmp_path / "out"


def test_framesrecord__a_clip_is_complete_until_an_image_is_missing(out: Path, clip: Clip) -> None:
    record = FramesRecord(out, [clip], SETTINGS)
    row = record.row(clip)
    assert row is not None
    assert record.is_complete(row, clip)
    assert not record.is_complete({**row, "images": ["missing.jpg"]}, clip)
    assert not record.is_complete({**row, "complete": False}, clip)


def test_framesrecord__refuses_other_settings(out: Path, clip: Clip) -> None:
    with pytest.raises(DataError, match=r"other settings \(distance 6\)"):
        FramesRecord(out, [clip], {"distance": 4})
    with pytest.raises(DataError, match=r"other settings \(every \(videos\) 1s\)"):
        FramesRecord(out, [open_clip(clip.source, Every(frames=3))], SETTINGS)


def test_framesrecord__a_folder_may_have_another_step_than_videos(out: Path, tmp_path: Path) -> None:
    folder = open_clip(clips.write_images(tmp_path / "f", {"a.jpg": 0}), None)
    assert FramesRecord(out, [folder], SETTINGS).settings["every (folders)"] == "1"


def test_framesrecord__refuses_a_video_that_has_changed(out: Path, clip: Clip) -> None:
    clips.write_video(clip.source, [0, 1])
    with pytest.raises(DataError, match="has changed since its frames"):
        FramesRecord(out, [clip], SETTINGS)


@pytest.mark.parametrize(
    "plain",
    [
        [],
        {"written by": "somebody"},
        {"written by": "yolokd data frames", "settings": {}, "clips": {"a": {"source": "a"}}},
        {"written by": "yolokd data frames", "settings": {}, "clips": []},
    ],
)
def test_framesrecord__refuses_what_is_no_record(tmp_path: Path, clip: Clip, plain: Any) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "frames.json").write_text(json.dumps(plain))
    with pytest.raises(DataError, match="holds something else already"):
        FramesRecord(tmp_path / "out", [clip], SETTINGS)


def test_framesrecord__refuses_a_file_and_a_folder_of_other_things(tmp_path: Path, clip: Clip) -> None:
    with pytest.raises(DataError, match=r"is a file\. The last argument"):
        FramesRecord(clip.source, [clip], SETTINGS)
    with pytest.raises(DataError, match="holds something else already"):
        FramesRecord(tmp_path, [clip], SETTINGS)


def test_framesrecord__discard_keeps_a_record_that_was_there(out: Path, clip: Clip) -> None:
    FramesRecord(out, [clip], SETTINGS).discard()
    assert (out / "frames.json").is_file()
