"""`yolokd bench` as a user meets it: a table, JSON, an image; and every wrong input as one short error."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import pytest
import yaml

from tests.helpers.benching import report
from tests.helpers.calling import Result, Run, call, fails, filled
from tests.helpers.models import config, detector, save
from yolokd.cli import bench


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a trained teacher and the description of a student."""
    folder = tmp_path_factory.mktemp("files")
    save(detector("v8", width=0.25, seed=1), folder / "teacher.pt")
    (folder / "student.yaml").write_text(yaml.safe_dump(config("v8")))
    return folder


@pytest.fixture
def run(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `yolokd bench` in an empty folder, tiny wherever an option is not given."""
    monkeypatch.chdir(tmp_path)

    def run_with(*options: str, without: str = "") -> tuple[int, str, str]:
        standard = {
            "--teacher": str(files / "teacher.pt"),
            "--student": str(files / "student.yaml"),
            "--recipe": "bckd",
            "--imgsz": "64",
            "--batch": "2",
            "--device": "cpu",
            "--rounds": "1",
        }
        return call(capsys, "bench", *filled(options, standard, [without]))

    return run_with


def refuses(result: Result, *words: str) -> bool:
    """One short error with these words, and nothing written."""
    assert fails(result, *words)
    assert result[1] == ""
    assert not list(Path().iterdir())
    return True


@pytest.mark.slow
def test_bench__says_which_regime_of_a_recipe_was_timed(run: Run, files: Path) -> None:
    note = "best for a student from scratch: BCKD, and first weights from the teacher"
    code, out, error = run("--recipe", "best")
    assert code == 0, error
    assert note in out
    assert "bckd forward" in out
    code, out, error = run("--recipe", "best", "--student", str(files / "teacher.pt"))
    assert code == 0, error
    assert note not in out
    assert "there it has no losses, so these are its losses for a student from scratch" in out


@pytest.mark.slow
def test_bench__table_json_and_image(run: Run) -> None:
    code, out, error = run("--recipe", "bckd,ssim", "--json", "cost.json", "--plot", "cost.png")
    assert code == 0, error
    assert "teacher.pt" in out
    assert "random weights: student" in out
    rows = [line.strip() for line in out.splitlines()]
    for name in ("plain training", "built-in distiller", "bckd forward", "ssim backward", "everything else", "floor"):
        assert any(row.startswith(f"{name} ") for row in rows), name
    found = json.loads(Path("cost.json").read_text())
    assert list(found["recipes"]) == ["bckd", "ssim"]
    bckd = found["recipes"]["bckd"]
    medians = [found["plain"]["wall_ms"]["median"], bckd["teacher"]["wall_ms"]["median"]]
    assert bckd["floor"]["wall_ms"] == pytest.approx(sum(medians))
    assert bckd["step_to_floor"]["wall"] == pytest.approx(bckd["step"]["wall_ms"]["median"] / sum(medians))
    assert found["conditions"]["imgsz"] == 64
    assert cv2.imread("cost.png") is not None
    assert sorted(path.name for path in Path().iterdir()) == ["cost.json", "cost.png"]


def test_bench__json_on_stdout_stands_alone(run: Run) -> None:
    code, out, error = run("--recipe", "ssim", "--json", "-")
    assert code == 0, error
    assert json.loads(out)["recipes"]["ssim"]["parts"]["ssim"]["share_of_steps"] == 1


@pytest.mark.parametrize("option", ["--teacher", "--student", "--recipe"])
def test_bench__says_what_is_missing(run: Run, option: str) -> None:
    assert refuses(run(without=option), f"Give {option}")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--recipe", "baseline"), ("'baseline' has no losses", "nothing to measure")),
        (("--recipe", "bckd,,ssim"), ("--recipe expects words with commas between", "bckd,,ssim")),
        (("--recipe", "bckd,bckd"), ("need different names; given twice: bckd",)),
        (("--recipe", "bkcd"), ("bkcd", "bckd")),
        (
            ("--recipe", "bckd,ssim", "--set", "losses.ssim.gain=4"),
            ("takes train.* and teacher.* only, got 'losses.ssim.gain=4'",),
        ),
        (("--set", "losses.bckd.clss=4"), ("clss",)),
        (("--teacher", "missing.pt"), ("There is no file 'missing.pt'",)),
        (("--teacher", "yolov8n"), ("cannot be downloaded", "yolov8n.yaml")),
        (("--device", "9"), ("The device '9' cannot be used",)),
        (("--json", "nowhere/cost.json"), ("--json 'nowhere/cost.json' cannot be written", "does not exist")),
        (("--plot", "nowhere/cost.png"), ("--plot 'nowhere/cost.png' cannot be written",)),
        (("--plot", "cost.pdf"), ("must end in .png", "cost.pdf")),
    ],
)
def test_bench__refuses_before_anything_is_timed(run: Run, options: tuple[str, ...], words: tuple[str, ...]) -> None:
    assert refuses(run(*options), *words)


@pytest.mark.parametrize(("option", "value"), [("--rounds", "0"), ("--batch", "0"), ("--imgsz", "16")])
def test_bench__numbers_have_a_least_value(run: Run, option: str, value: str) -> None:
    code, out, error = run(option, value)
    assert code == 2
    assert option in error
    assert out == ""


def test_bench__an_image_that_cannot_be_written(run: Run) -> None:
    Path("cost.png").mkdir()
    code, _, error = run("--plot", "cost.png")
    assert code == 2
    assert "--plot 'cost.png' cannot be written: it is a folder" in " ".join(error.split())


def test_show__ratios_are_those_of_the_medians(capsys: pytest.CaptureFixture[str]) -> None:
    from rich.console import Console

    bench.show(Console(width=80), report(scratch=("teacher",)))
    lines = capsys.readouterr().out.splitlines()
    assert all(len(line) <= 80 for line in lines[2:14])
    cells = {line[:22].strip(): line[22:].split() for line in lines}
    assert cells["mine"][-4:] == ["1.80", "1.20", "0.90", "30"]
    assert cells["built-in distiller"][-3:] == ["2.00", "1.00", "20"]
    assert cells["ikd forward (1 in 4)"][0] == "30.0"
    assert cells["floor"] == ["150.0", "75.0", "1.50", "1.00"]
    assert any("mine 1.20 × floor, 0.90 × built-in" in line for line in lines)


def test_bench__takes_one_teacher_at_the_students_size(run: Run, files: Path) -> None:
    teacher = str(files / "teacher.pt")
    assert refuses(run("--teacher", teacher, "--teacher", teacher), "takes one teacher: give --teacher once")
    assert refuses(run("--set", f"teacher.models=['{teacher}']"), "takes one teacher: leave teacher.models out")
    assert refuses(run("--set", "teacher.scale=2"), "leave teacher.scale out")
