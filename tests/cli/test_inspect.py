"""`yolokd inspect` as a user meets it: figures, and every wrong input as one short error with nothing written."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml

from tests.helpers.calling import Result, Run, call, fails, filled
from tests.helpers.fixtures import make_data
from tests.helpers.models import CONFIGS, detector, save
from yolokd.inspection.maps import Inspector

COLUMN = 4.1 * 130  # pixels


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data, a teacher and a student."""
    folder = tmp_path_factory.mktemp("files")
    make_data(folder / "data", train=2, val=3)
    save(detector("v8", width=0.25, seed=1), folder / "teacher.pt")
    save(detector("v8"), folder / "student.pt")
    return folder


@pytest.fixture
def run(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `yolokd inspect` in an empty folder, with the good files wherever an option is not given."""
    monkeypatch.chdir(tmp_path)

    def run_with(*options: str, without: str = "") -> tuple[int, str, str]:
        standard = {
            "--teacher": str(files / "teacher.pt"),
            "--student": str(files / "student.pt"),
            "--recipe": "bckd",
            "--device": "cpu",
        }
        return call(capsys, "inspect", *filled(options, standard, [without]))

    return run_with


@pytest.fixture
def images(files: Path) -> Path:
    return files / "data" / "images" / "val"


def refuses(result: Result, *words: str, code: int = 2) -> bool:
    """One short error with these words, and nothing written."""
    assert fails(result, *words, code=code)
    assert result[1] == ""
    assert not Path("runs").exists()
    return True


def test_inspect__one_figure_per_image_and_the_values(run: Run, images: Path, tmp_path: Path) -> None:
    code, out, _ = run(str(images), "--out", "figures")
    assert code == 0
    figures = sorted(path.name for path in (tmp_path / "figures").glob("[!.]*"))
    assert figures == ["000.png", "001.png", "002.png"]
    for name, line in zip(figures, out.splitlines(), strict=True):
        assert line.startswith(f"figures/{name}: kd_bckd_cls ")
        assert "kd_bckd_box " in line
        image = cv2.imread(str(tmp_path / "figures" / name))
        assert image is not None
        assert image.shape[1] == pytest.approx(3 * COLUMN, abs=30)
        assert len(np.unique(image.reshape(-1, 3).astype(int) @ [1 << 16, 1 << 8, 1])) > 100


def test_inspect__best_shows_the_losses_that_made_a_checkpoint_from_scratch(run: Run, images: Path) -> None:
    code, out, error = run(str(images / "000.png"), "--recipe", "best")
    assert code == 0, error
    assert "best for a student that starts from trained weights, with all images labeled: plain training" in out
    assert "there it has no losses, so these are its losses for a student from scratch" in out
    assert "000.png: kd_bckd_cls " in out


def test_inspect__everything_with_frequencies(run: Run, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    inspect = Inspector.inspect

    def record(self: Inspector, *image: Any, **options: Any) -> Any:
        seen.append(inspect(self, *image, **options))
        return seen[-1]

    monkeypatch.setattr(Inspector, "inspect", record)
    steps = ("--set", "augment.ikd.adversarial.steps=1", "--set", "augment.ikd.adversarial.eps=4")
    code, out, _ = run(str(images / "000.png"), "--recipe", "everything", "--fourier", *steps)
    assert code == 0
    assert out.startswith("runs/inspect/000.png: ")
    (view,) = seen
    assert view.weights is not None
    assert view.example.eps == 4
    assert view.frequencies is not None
    assert (Path("runs/inspect") / "000.png").stat().st_size > 100_000


def test_inspect__notes_come_first(run: Run, images: Path) -> None:
    code, out, _ = run(str(images / "000.png"), "--imgsz", "40")
    assert code == 0
    assert out.splitlines()[0] == "imgsz 40 is rounded to 64, a multiple of the largest stride 32"


def test_inspect__a_student_from_scratch(run: Run, files: Path, images: Path, tmp_path: Path) -> None:
    description = yaml.safe_load((CONFIGS / "v8/yolov8.yaml").read_text())
    description.update(depth_multiple=0.33, width_multiple=0.125)
    del description["scales"]
    Path("small.yaml").write_text(yaml.safe_dump(description))
    scratch = (str(images / "000.png"), "--student", "small.yaml", "--imgsz", "64")
    assert refuses(run(*scratch), "small.yaml", "knows no class names: give --data")
    code, out, _ = run(*scratch, "--data", str(files / "data" / "data.yaml"))
    assert code == 0, out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("gone.jpg",), ("no image or folder 'gone.jpg'",)),
        (("nothing",), ("no images in the folder 'nothing'",)),
        (("broken.jpg",), ("'broken.jpg' cannot be read as an image",)),
        (("good.png", "broken.jpg"), ("'broken.jpg' cannot be read as an image",)),
        (("labeled.png",), ("labeled.txt:1", "from 0 to 2, got 7")),
        (("good.png", "--recipe", "baseline"), ("'baseline' has no losses", "nothing to inspect")),
        (("good.png", "--recipe", "bckdd"), ("bckdd", "bckd")),
        (("good.png", "--set", "losses.bckd.clss=2"), ("losses.bckd.clss", "cls")),
        (("good.png", "--set", "train.imgsz=64"), ("does not train", "--imgsz")),
        (("good.png", "--imgsz", "8"), ("imgsz",)),
        (("good.png", "--teacher", "gone.pt"), ("no file 'gone.pt'",)),
        (("good.png", "--student", "gone.pt"), ("no file 'gone.pt'",)),
        (("good.png", "--device", "gpu7"), ("device 'gpu7'",)),
        (("good.png", "--data", "gone.yaml"), ("gone.yaml",)),
        (("good.png", "--out", "good.png"), ("cannot be written to 'good.png'",)),
        (("good.png", "--out", "good.png/below"), ("cannot be written to 'good.png/below'",)),
    ],
)
def test_wrong_words__are_named(run: Run, images: Path, options: tuple[str, ...], words: tuple[str, ...]) -> None:
    Path("nothing").mkdir()
    Path("broken.jpg").write_bytes(b"no image")
    for name in ("good.png", "labeled.png"):
        shutil.copy(images / "000.png", name)
    Path("labeled.txt").write_text("7 .5 .5 .1 .1")
    assert refuses(run(*options), *words)


@pytest.mark.parametrize("option", ["--teacher", "--student", "--recipe"])
def test_missing_options__say_what_to_give(run: Run, images: Path, option: str) -> None:
    assert refuses(run(str(images), without=option), f"Give {option}")


def test_classes__that_do_not_match_are_shown_as_a_table(run: Run, images: Path, tmp_path: Path) -> None:
    teacher = detector("v8", seed=1)
    teacher.names = {0: "class0", 1: "[bold]x[/bold]", 2: "other"}
    save(teacher, tmp_path / "partial.pt")
    one = str(images / "000.png")
    assert refuses(
        run(one, "--teacher", "partial.pt"), "1 of the data's 3 classes", "class1 - missing -", "--allow-partial"
    )
    assert run(one, "--teacher", "partial.pt", "--allow-partial")[0] == 0
    mapped = "teacher.classes={'[bold]x[/bold]': class1, other: class2}"
    assert run(one, "--teacher", "partial.pt", "--set", mapped)[0] == 0


def test_inspect__what_fails_on_the_way_is_a_failed_run(
    run: Run, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Inspector, *image: Any, **options: Any) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(Inspector, "inspect", fail)
    assert refuses(run(str(images), "--out", "figures"), "000.png' failed: out of memory", code=1)
    assert not list(Path("figures").iterdir())


def test_inspect__takes_one_teacher_at_the_students_size(run: Run, files: Path) -> None:
    teacher = str(files / "teacher.pt")
    given = (str(files / "data" / "images" / "val" / "000.png"),)
    assert refuses(run(*given, "--teacher", teacher, "--teacher", teacher), "takes one teacher: give --teacher once")
    assert refuses(run(*given, "--set", f"teacher.models=['{teacher}']"), "takes one teacher: leave teacher.models out")
    assert refuses(run(*given, "--set", "teacher.scale=2"), "leave teacher.scale out")
