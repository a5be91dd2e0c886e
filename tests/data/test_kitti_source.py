from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from tests.helpers import kitti
from yolokd.data.kitti_source import LISTS, choose, scan
from yolokd.errors import DataError, UserError

FRAMES = {f"{n:06}": kitti.CAR for n in range(10)}


@pytest.fixture
def src(tmp_path: Path) -> Path:
    return kitti.source(tmp_path / "src", FRAMES)


def test_lists__are_the_published_ones(shared: Path) -> None:
    lists = {split: (LISTS / f"{split}.txt").read_text().split() for split in ("train", "val")}
    assert {split: len(ids) for split, ids in lists.items()} == {"train": 3712, "val": 3769}
    assert sorted(lists["train"] + lists["val"]) == [f"{n:06}" for n in range(7481)]
    for split in lists:
        published = shared / "kitti_split" / f"{split}.txt"
        assert (LISTS / f"{split}.txt").read_bytes() == published.read_bytes()


def test_scan__the_root_or_the_training_folder(src: Path) -> None:
    whole, training = scan(src), scan(src / "training")
    assert whole.ids == training.ids == list(FRAMES)
    assert whole.training == training.training == src / "training"
    assert whole.images["000003"] == src / "training" / "image_2" / "000003.png"
    assert whole.labels["000003"] == src / "training" / "label_2" / "000003.txt"


def test_scan__passes_over_what_is_neither_image_nor_label(src: Path) -> None:
    (src / "training" / "image_2" / "notes.md").write_text("")
    (src / "training" / "image_2" / ".000003.png").write_text("")
    (src / "training" / "image_2" / "000099.png").mkdir()
    found = scan(src)
    assert (found.ids, found.problems) == (list(FRAMES), [])


def test_scan__a_folder_that_is_missing(tmp_path: Path, src: Path) -> None:
    with pytest.raises(DataError, match=r"no folder '.*empty.image_2'\. Give the folder that holds KITTI's training"):
        scan(tmp_path / "empty")
    (src / "training" / "label_2").rename(src / "labels")
    with pytest.raises(DataError, match=r"no folder '.*training.label_2'"):
        scan(src)


def test_scan__a_source_without_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"neither images in .* nor labels in"):
        scan(kitti.source(tmp_path, {}))


def test_scan__a_link_to_the_source_itself_is_fine(src: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(src)
    assert scan(tmp_path / "link").ids == list(FRAMES)


def test_scan__links_within_the_source_are_followed(src: Path) -> None:
    (src / "store").mkdir()
    (src / "training" / "label_2").rename(src / "store" / "label_2")
    (src / "training" / "label_2").symlink_to(src / "store" / "label_2")
    (src / "training" / "image_2" / "000010.png").symlink_to("000003.png")
    found = scan(src)
    assert len(found.labels) == 10
    assert "000010" in found.images
    assert found.problems == []


def test_scan__links_that_lead_out_are_named_and_not_followed(src: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text(kitti.CAR)
    for place in ("label_2/000003.txt", "label_2/000010.txt"):
        (src / "training" / place).unlink(missing_ok=True)
        (src / "training" / place).symlink_to(os.path.relpath(secret, src / "training" / "label_2"))
    found = scan(src)
    assert "000003" not in found.labels
    assert [Path(problem.file).name for problem in found.problems] == ["000003.txt", "000010.txt"]
    assert "a link that leads out of" in found.problems[0].what
    assert found.problems[0].value == str(secret)


def test_scan__a_folder_that_leads_out(src: Path, tmp_path: Path) -> None:
    (src / "training" / "image_2").rename(tmp_path / "elsewhere")
    (src / "training" / "image_2").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match=r"image_2' leads out of '.*src', to '.*elsewhere', and is not followed"):
        scan(src)


def test_scan__links_to_nothing_and_in_circles(src: Path) -> None:
    (src / "training" / "image_2" / "000010.png").symlink_to("gone.png")
    (src / "training" / "image_2" / "000011.png").symlink_to("000011.png")
    assert [problem.what for problem in scan(src).problems] == ["neither a file nor a link to one"] * 2


def test_scan__two_images_of_one_frame(src: Path) -> None:
    (src / "training" / "image_2" / "000003.jpg").write_bytes(b"")
    (problem,) = scan(src).problems
    assert str(problem).endswith("000003.png: a second file of the frame beside 000003.jpg")


def test_choose__published(src: Path) -> None:
    frames = choose(scan(src), "published")
    published = (LISTS / "train.txt").read_text().split()
    assert frames.ids["train"] == [frame for frame in FRAMES if frame in published]
    assert frames.ids["val"] == [frame for frame in FRAMES if frame not in published]
    train, val = len(frames.ids["train"]), len(frames.ids["val"])
    assert min(train, val) > 0
    assert frames.notes == (
        f"The published lists name 3712 + 3769 frames (train + val), of which {3712 - train} + {3769 - val} are not "
        "here; the others were used.",
    )


def test_choose__published_frames_of_ones_own(tmp_path: Path) -> None:
    own = scan(kitti.source(tmp_path / "own", {"a": kitti.CAR, "b": kitti.CAR}))
    with pytest.raises(DataError, match=r"holds none of the 3712 frames of the published train list.*--split random"):
        choose(own, "published")
    mixed = scan(kitti.source(tmp_path / "mixed", {**FRAMES, "a": kitti.CAR}))
    assert choose(mixed, "published").notes[-1] == "Frames in neither split, left out: 1."


def test_choose__random_is_eight_to_two_and_depends_on_the_seed_alone(src: Path) -> None:
    first, again, other = (choose(scan(src), "random", seed) for seed in (None, 0, 1))
    assert first.ids == again.ids != other.ids
    assert [len(first.ids[split]) for split in ("train", "val")] == [8, 2]
    assert sorted(first.ids["train"] + first.ids["val"]) == list(FRAMES)
    ranked = sorted(FRAMES, key=lambda frame: hashlib.sha256(f"0:{frame}".encode()).hexdigest())
    assert first.ids["val"] == sorted(ranked[8:])
    assert "frames of one drive on both sides" in first.notes[0]


def test_choose__random_leaves_no_split_empty(tmp_path: Path) -> None:
    two = scan(kitti.source(tmp_path / "two", {"a": kitti.CAR, "b": kitti.CAR}))
    assert [len(ids) for ids in choose(two, "random").ids.values()] == [1, 1]
    one = scan(kitti.source(tmp_path / "one", {"a": kitti.CAR}))
    with pytest.raises(DataError, match="a single frame, which cannot be split"):
        choose(one, "random")


def test_choose__lists_of_ids(src: Path, tmp_path: Path) -> None:
    train = kitti.ids(tmp_path / "t.txt", "000005", "", " 000001 ")
    val = kitti.ids(tmp_path / "v.txt", "000002")
    source = scan(src)
    frames = choose(source, f"{train}, {val}")
    assert frames.ids == {"train": ["000001", "000005"], "val": ["000002"]}
    assert frames.notes == ("Frames in neither split, left out: 7.",)
    assert source.problems == []


def test_choose__lists_with_mistakes(src: Path, tmp_path: Path) -> None:
    train = kitti.ids(tmp_path / "t.txt", "000005", "000011", "000005", "../../label_2/000001")
    val = kitti.ids(tmp_path / "v.txt", "000002", "000005")
    source = scan(src)
    choose(source, f"{train},{val}")
    assert [str(problem).replace(str(tmp_path), "") for problem in source.problems] == [
        "/t.txt:2: names a frame that '/src' lacks, got 000011",
        "/t.txt:3: names a frame that stands in /t.txt:1 too, got 000005",
        "/t.txt:4: names a frame that '/src' lacks, got ../../label_2/000001",
        "/v.txt:2: names a frame that stands in /t.txt:1 too, got 000005",
    ]


def test_choose__an_empty_list(src: Path, tmp_path: Path) -> None:
    train, val = kitti.ids(tmp_path / "t.txt", "000005"), kitti.ids(tmp_path / "v.txt")
    source = scan(src)
    choose(source, f"{train},{val}")
    assert [problem.what for problem in source.problems] == ["names no frame"]


@pytest.mark.parametrize("split", ["even", "a,b,c", "a.txt,", ","])
def test_choose__an_unknown_split(src: Path, split: str) -> None:
    with pytest.raises(UserError, match=r"--split expects published, random, or two files of ids.*got '"):
        choose(scan(src), split)


def test_choose__a_list_that_cannot_be_read(src: Path, tmp_path: Path) -> None:
    train = kitti.ids(tmp_path / "t.txt", "000005")
    with pytest.raises(DataError, match=r"list of ids '.*gone\.txt' cannot be read: No such file"):
        choose(scan(src), f"{train},{tmp_path / 'gone.txt'}")


def test_choose__a_seed_without_a_draw(src: Path) -> None:
    with pytest.raises(UserError, match="--seed belongs to --split random; the split 'published' draws nothing"):
        choose(scan(src), "published", 0)


def test_scan__links_that_lead_out_are_followed_where_the_user_says_so(src: Path, tmp_path: Path) -> None:
    before = scan(src)
    (src / "training" / "image_2").rename(tmp_path / "elsewhere")
    (src / "training" / "image_2").symlink_to(tmp_path / "elsewhere")
    label = src / "training" / "label_2" / "000003.txt"
    label.rename(tmp_path / "label.txt")
    label.symlink_to(tmp_path / "label.txt")
    found = scan(src, follow_links=True)
    assert (found.images, found.labels, found.problems) == (before.images, before.labels, [])
