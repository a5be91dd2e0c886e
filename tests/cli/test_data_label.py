"""`yolokd data label` as a user meets it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from ultralytics.nn.tasks import ClassificationModel

from tests.helpers.calling import Result, call, fails, flat
from tests.helpers.models import save
from tests.helpers.panels import seeing
from tests.helpers.unlabeled import make_images, state_of

Label = Callable[..., Result]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    make_images(folder / "frames", 10)
    save(seeing("v8", 1), folder / "teacher.pt")
    return folder


@pytest.fixture
def label(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Label:
    monkeypatch.chdir(tmp_path)

    def run(*options: str, source: str | Path = files / "frames", out: str = "out", teacher: bool = True) -> Result:
        line = ["data", "label", str(source), out, "--imgsz", "64", "--device", "cpu", "--no-flip"]
        line += ["--teacher", str(files / "teacher.pt")] if teacher else []
        return call(capsys, *line, *options)

    return run


def test_label__shows_counts_thresholds_and_where_to_go_on(label: Label, files: Path, tmp_path: Path) -> None:
    before = state_of(files / "frames")
    code, out, error = label("--conf", "0.1", "--page")
    assert code == 0, error
    assert "class1 0.10" in flat(out)
    assert "agreement with the teacher, no AP" in flat(out)
    assert state_of(files / "frames") == before
    page = (tmp_path / "out" / "page.html").read_text()
    assert page.count("<figure>") == 10
    assert "data:image/jpeg" in page
    code, out, error = label("--conf", "0.1")
    assert code == 0, error
    assert "This very set was there already" in flat(out)


def test_label__data_check_and_eval_take_the_set(label: Label, files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert label("--conf", "0.1")[0] == 0
    code, out, error = call(capsys, "data", "check", "out/data.yaml")
    assert code == 0, error
    line = ["eval", str(files / "teacher.pt"), "--data", "out/data.yaml", "--imgsz", "64", "--device", "cpu"]
    code, out, error = call(capsys, *line, "--json", "found.json")
    assert code == 0, error
    assert "agreement at 50 at 75 small" in flat(out)
    assert "AP" not in out.replace("mAP", "")
    assert json.loads(Path("found.json").read_text())[0]["AP"] >= 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--classes", "clas1"], ["'clas1'", "did you mean 'class1'"]),
        (["--conf", "1.5"], ["--conf takes scores from 0.03 to below 1"]),
        (["--conf", "0"], ["--conf takes scores"]),
        (["--conf", "tree=0.5"], ["'tree'", "none of the classes that the set has"]),
        (["--conf", "auto"], ["--like"]),
        (["--val", "1"], ["--val is the share"]),
        (["--like", "nothing.yaml"], ["no data YAML 'nothing.yaml'"]),
        (["--device", "7"], ["7"]),
    ],
)
def test_label__bad_options_leave_nothing(label: Label, options: list[str], words: list[str]) -> None:
    assert fails(label(*options), *words)
    assert not Path("out").exists()


def test_label__bad_sources(label: Label, files: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert fails(label(source="nothing"), "no such folder or list")
    assert fails(label(source="empty"), "holds no images")
    assert fails(label(out=str(files / "frames" / "out")), "inside its own source")
    assert fails(label(teacher=False), "--teacher")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine.txt").write_text("mine")
    assert fails(label("--conf", "0.1", out="taken"), "holds something else already")
    assert [path.name for path in (tmp_path / "taken").iterdir()] == ["mine.txt"]
    assert not (tmp_path / "out").exists()


def test_label__teachers_without_boxes(label: Label, files: Path, tmp_path: Path) -> None:
    description = {"nc": 3, "backbone": [[-1, 1, "Conv", [8, 3, 2]]], "head": [[-1, 1, "Classify", ["nc"]]]}
    model = ClassificationModel(description, ch=3, nc=3, verbose=False)
    torch.save({"model": model.half(), "epoch": -1}, tmp_path / "classify.pt")
    assert fails(label("--teacher", str(tmp_path / "classify.pt"), teacher=False), "classify.pt", "boxes")
    assert fails(label("--teacher", str(tmp_path / "gone.pt"), teacher=False), "gone.pt")
    (tmp_path / "junk.pt").write_bytes(b"junk")
    assert fails(label("--teacher", str(tmp_path / "junk.pt"), teacher=False), "junk.pt")
    assert not (tmp_path / "out").exists()
