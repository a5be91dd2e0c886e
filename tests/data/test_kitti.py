from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from tests.helpers import kitti
from yolokd.data.check import check_labels
from yolokd.data.kitti import prepare
from yolokd.errors import DataError

FRAMES = {f"{n:06}": kitti.CAR + kitti.DONT_CARE for n in range(10)}


@pytest.fixture
def src(tmp_path: Path) -> Path:
    return kitti.source(tmp_path / "src", FRAMES)


def test_prepare__a_set_that_ultralytics_reads(src: Path, tmp_path: Path) -> None:
    from yolokd.backend.dataset import resolve

    made = prepare(src, tmp_path / "out")
    found = resolve(str(made.path))
    assert made.is_new
    assert found.names == {0: "Car", 1: "Pedestrian", 2: "Cyclist"}
    report = check_labels(found.splits, found.names)
    assert (report.errors, report.notes) == ([], [])
    for split, counts in report.splits.items():
        assert counts.objects == {0: counts.images} == made.report.splits[split].objects
    assert sum(counts.images for counts in report.splits.values()) == 10


def test_prepare__links_to_images_and_original_labels(src: Path, tmp_path: Path) -> None:
    out = prepare(src, tmp_path / "out").path.parent
    images = sorted((out / "images").rglob("*.png"))
    assert len(images) == 10
    for image in images:
        assert image.is_symlink()
        assert image.resolve() == src / "training" / "image_2" / image.name
        label = out / "label_2" / f"{image.stem}.txt"
        assert label.resolve() == src / "training" / "label_2" / label.name
    assert sorted(path.name for path in out.iterdir()) == ["data.yaml", "images", "kitti.json", "label_2", "labels"]


def test_prepare__the_folder_can_be_moved(src: Path, tmp_path: Path) -> None:
    moved = prepare(src, tmp_path / "out").path.parent.rename(tmp_path / "there")
    assert "path" not in yaml.safe_load((moved / "data.yaml").read_text())
    assert next((moved / "images" / "val").iterdir()).is_file()


def test_prepare__the_same_again_does_nothing(src: Path, tmp_path: Path) -> None:
    first = prepare(src, tmp_path / "out")
    before = first.path.stat().st_mtime_ns
    again = prepare(src / "training", tmp_path / "out")
    assert not again.is_new
    assert again.path.stat().st_mtime_ns == before
    assert again.report == first.report


def test_prepare__another_request_or_a_source_that_has_changed_is_refused(src: Path, tmp_path: Path) -> None:
    out = prepare(src, tmp_path / "out").path.parent
    before = sorted(out.rglob("*"))
    with pytest.raises(DataError, match=r"prepared differently \(classes; see '.*kitti\.json'\)"):
        prepare(src, out, classes="Car=vehicle,Van=car")
    with pytest.raises(DataError, match=r"prepared differently \(split, seed, pictures, contents;"):
        prepare(src, out, split="random")
    (src / "training" / "label_2" / "000003.txt").write_text(kitti.line("Car", (20, 10, 100, 61)))
    with pytest.raises(DataError, match=r"prepared differently \(contents;"):
        prepare(src, out)
    assert sorted(out.rglob("*")) == before


def test_prepare__another_seed_is_another_set(src: Path, tmp_path: Path) -> None:
    one = prepare(src, tmp_path / "a", split="random", seed=1).path.parent
    two = prepare(src, tmp_path / "b", split="random", seed=2).path.parent
    names = [sorted(path.name for path in (out / "images" / "val").iterdir()) for out in (one, two)]
    assert names[0] != names[1]
    assert json.loads((two / "kitti.json").read_text())["seed"] == 2


def test_prepare__names_that_yaml_would_misread(src: Path, tmp_path: Path) -> None:
    made = prepare(src, tmp_path / "out", classes="Car=yes,Van=a: b # c")
    assert yaml.safe_load(made.path.read_text())["names"] == {0: "yes", 1: "a: b # c"}


def test_prepare__bad_input_leaves_nothing(src: Path, tmp_path: Path) -> None:
    (src / "training" / "label_2" / "000003.txt").write_text(f"{kitti.CAR}Car 1 2\n")
    with pytest.raises(DataError, match=r"000003\.txt:2: expected a type"):
        prepare(src, tmp_path / "out")
    train = kitti.ids(tmp_path / "t.txt", "000001", "000077")
    with pytest.raises(DataError, match=r"t\.txt:2: names a frame that '.*src' lacks, got 000077"):
        prepare(src, tmp_path / "out", split=f"{train},{kitti.ids(tmp_path / 'v.txt', '000002')}")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["src", "t.txt", "v.txt"]


def test_prepare__an_interruption_leaves_nothing(src: Path, tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        if done == 15:  # five frames are written
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(src, tmp_path / "out", progress=interrupt)
    assert [path.name for path in tmp_path.iterdir()] == ["src"]


def test_prepare__says_what_a_killed_run_left(src: Path, tmp_path: Path) -> None:
    (tmp_path / ".out-00ff.unfinished").mkdir()
    assert any(".out-00ff.unfinished' was left behind" in note for note in prepare(src, tmp_path / "out").notes)


def test_prepare__reports_every_frame_read_and_written(src: Path, tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    prepare(src, tmp_path / "out", progress=lambda done, total: calls.append((done, total)))
    assert calls == [(n, 20) for n in range(1, 21)]


def test_prepare__real_frames(shared: Path, tmp_path: Path) -> None:
    raw = shared / "data" / "kitti-raw"
    made = prepare(raw, tmp_path / "out", classes="8", split=f"{raw / 'train.txt'},{raw / 'val.txt'}")
    objects = made.report.splits["train"].objects + made.report.splits["val"].objects
    assert {made.report.names[index]: count for index, count in objects.items()} == {
        "Car": 303,
        "Van": 34,
        "Truck": 14,
        "Pedestrian": 47,
        "Person_sitting": 5,
        "Cyclist": 18,
        "Tram": 12,
        "Misc": 6,
    }
    assert not made.left_out
    rows = (made.path.parent / "labels" / "val" / "000000.txt").read_text()
    assert rows.split()[0] == "3"  # its one pedestrian, 712.40 143.00 810.73 307.92 in 1224 × 370 pixels
    expected = [761.565 / 1224, 225.46 / 370, 98.33 / 1224, 164.92 / 370]
    np.testing.assert_allclose([float(share) for share in rows.split()[1:]], expected, atol=1e-6)


def test_import__brings_in_neither_torch_nor_opencv() -> None:
    code = "import sys, yolokd.data.kitti; print([m for m in ('torch', 'ultralytics', 'cv2') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
