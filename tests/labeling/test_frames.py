from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

from tests.helpers.unlabeled import make_images
from yolokd.errors import DataError, UserError
from yolokd.labeling.frames import (
    BORDER,
    SCENE,
    Frame,
    check_share,
    clip_of,
    digest_of,
    find_frames,
    split_scenes,
    unique_names,
)


def frames(clips: int, length: int) -> dict[str, str]:
    places = [f"clip{clip}_{number:06d}.000s.jpg" for clip in range(clips) for number in range(length)]
    return {f"/data/{place}": place for place in places}


@pytest.mark.parametrize(
    ("place", "clip", "number"),
    [
        ("a_000001.500s.jpg", "a", 1.5),
        ("day/0000000042.png", "day/", 42.0),
        ("cam-17.jpeg", "cam", 17.0),
        ("tree.jpg", "tree", 0.0),
        ("x/frame 3.jpg", "x/frame", 3.0),
    ],
)
def test_clip_of__a_number_at_the_end_is_the_place_in_the_clip(place: str, clip: str, number: float) -> None:
    assert clip_of(place) == (clip, number)


def test_split_scenes__frames_of_a_scene_stay_together() -> None:
    places = frames(3, 400)
    splits = split_scenes(places, 0.3)
    for clip in range(3):
        for scene in range(0, 400, SCENE):
            members = [f"/data/clip{clip}_{n:06d}.000s.jpg" for n in range(scene, min(scene + SCENE, 400))]
            assert len({splits[m] for m in members if m in splits}) == 1
    assert 0.1 < Counter(splits.values())["val"] / len(splits) < 0.5


def test_split_scenes__no_validation_frame_is_next_to_a_training_frame_of_its_clip() -> None:
    places = frames(2, 500)
    splits = split_scenes(places, 0.3)
    for clip in range(2):
        row = [splits.get(f"/data/clip{clip}_{n:06d}.000s.jpg") for n in range(500)]
        assert {("val", "train"), ("train", "val")}.isdisjoint(pairwise(row))
        assert row.count(None) < 0.1 * 500
    assert 500 // SCENE > BORDER


def test_split_scenes__numbers_count_not_letters() -> None:
    """Frame 10 comes after frame 9."""
    places = {str(n): f"cam_{n}.jpg" for n in range(40)}
    splits = split_scenes(places, 0.5)
    row = [splits[str(n)] for n in range(40)]
    changes = sum(a != b for a, b in pairwise(row))
    assert changes <= 40 // 4  # scenes of four frames, so at most so many borders


@pytest.mark.parametrize("count", [2, 3, 5, 11])
@pytest.mark.parametrize("share", [0.001, 0.5, 0.999])
def test_split_scenes__both_splits_get_something(count: int, share: float) -> None:
    splits = split_scenes(frames(1, count), share)
    assert set(splits.values()) == {"train", "val"}
    assert len(splits) == count


def test_split_scenes__depends_neither_on_order_nor_on_place() -> None:
    places = frames(8, 64)
    found = split_scenes(places, 0.3)
    turned = dict(reversed(places.items()))
    assert split_scenes(turned, 0.3) == found
    moved = split_scenes({f"/elsewhere{file}": place for file, place in places.items()}, 0.3)
    assert moved == {f"/elsewhere{file}": split for file, split in found.items()}
    assert 0.3 - 0.05 < sum(split == "val" for split in found.values()) / len(places) < 0.3 + SCENE / len(places)


def test_unique_names__equal_stems_are_told_apart() -> None:
    places = {"1": "a/x.jpg", "2": "a/x.png", "3": "a__x.jpg", "4": "A/x.JPG", "5": "y.jpg"}
    names = unique_names(places)
    stems = [name.rpartition(".")[0].lower() for name in names.values()]
    assert len(set(stems)) == len(stems)
    assert names["5"] == "y.jpg"
    assert not any("/" in name for name in names.values())


def test_find_frames__folder_with_a_damaged_image(tmp_path: Path) -> None:
    folder = make_images(tmp_path / "frames", 10)
    (folder / "bad.jpg").write_text("no image")
    found = find_frames(folder, 0.2)
    assert len(found.frames) == 10
    assert "bad.jpg" in found.left_out
    assert {frame.split for frame in found.frames} == {"train", "val"}


def test_find_frames__a_list_of_images(tmp_path: Path) -> None:
    folder = make_images(tmp_path / "frames", 6)
    listed = tmp_path / "some.txt"
    listed.write_text("\n".join(map(str, sorted(folder.rglob("*.png"))[:4])))
    assert len(find_frames(listed, 0.2).frames) == 4


@pytest.mark.parametrize(
    ("count", "words"), [(None, "no such folder or list"), (0, "holds no images"), (1, "two images")]
)
def test_find_frames__too_few(tmp_path: Path, count: int | None, words: str) -> None:
    folder = tmp_path / "frames"
    if count is not None:
        make_images(folder, count)
    with pytest.raises(DataError, match=words):
        find_frames(folder, 0.1)


def test_find_frames__a_video(tmp_path: Path) -> None:
    video = tmp_path / "clip.mp4"
    video.write_bytes(b"\x00\x00\x00\x18ftypmp42\xb3\xff")
    with pytest.raises(DataError, match="yolokd data frames"):
        find_frames(video, 0.1)


@pytest.mark.parametrize("share", [0.0, 1.0, -1.0, 2.0, float("nan")])
def test_check_share__refuses(share: float) -> None:
    with pytest.raises(UserError, match="--val"):
        check_share(share)


def test_digest_of__changes_with_split_name_and_size(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("a.jpg", "b.jpg")]
    for number, file in enumerate(files):
        file.write_bytes(b"x" * number)
    whole = {
        digest_of([Frame(str(file), name, split)])
        for file in files
        for name in ("a.jpg", "c.jpg")
        for split in ("train", "val")
    }
    assert len(whole) == 8
