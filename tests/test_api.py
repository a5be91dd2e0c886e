"""The Python API: what its functions return and refuse, and that the package imports without torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import yolokd
from tests.helpers import tiny
from tests.helpers.fixtures import Pair
from tests.helpers.runs import rows
from yolokd.backend.checkpoints import load
from yolokd.errors import RecipeError, UserError
from yolokd.evaluation.models import evaluate as evaluate_models


def test_all__holds_what_is_promised() -> None:
    promised = {"Recipe", "load_recipe", "train", "label", "evaluate", "export"}
    assert promised <= set(yolokd.__all__)
    assert all(callable(getattr(yolokd, name)) for name in promised)


def test_import__brings_neither_torch_nor_ultralytics() -> None:
    code = "import sys, yolokd; print(sorted({'torch', 'ultralytics', 'numpy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.slow
def test_train__returns_the_folder_of_a_finished_run(
    tiny_pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = yolokd.train(
        tiny_pair.teacher, tiny_pair.student, "bckd", overrides=["losses.bckd.cls=3", "train.plots=false"],
        data=tiny_pair.data, epochs=1, imgsz=64, batch=8, device="cpu", seed=4, name="mine",
    )  # fmt: skip
    assert run == tmp_path / "runs" / "mine"
    assert [row["epoch"] for row in rows(run)] == ["1"]
    settings = load(run / "weights" / "last.pt")[1]["yolokd"]
    assert settings["recipe"]["losses"]["bckd"]["cls"] == 3
    assert settings["provenance"]["seed"] == 4


def test_train__refuses_before_anything_is_written(tiny_pair: Pair, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Unknown option epoch; known are data, epochs"):
        yolokd.train(tiny_pair.teacher, tiny_pair.student, "bckd", epoch=1)
    with pytest.raises(RecipeError, match=r"losses\.bckd\.clss"):
        yolokd.train(tiny_pair.teacher, tiny_pair.student, "bckd", overrides=["losses.bckd.clss=3"])
    where = f"train.project={tmp_path / 'here'}"
    with pytest.raises(UserError, match="needs --teacher"):
        yolokd.train(None, tiny_pair.student, "bckd", overrides=[where], data=str(tiny_pair.data), device="cpu")
    assert not (tmp_path / "here").exists()


@pytest.mark.slow
def test_evaluate__scores_in_the_order_given(tmp_path: Path) -> None:
    data = tiny.data_set(tmp_path / "data", images=3)
    weights = [tiny.checkpoint(tmp_path / f"{name}.pt", family=family) for name, family in (("b", "v8"), ("a", "11"))]
    found = yolokd.evaluate(weights, data, imgsz=64, device="cpu")
    assert [score.name for score in found] == ["b.pt", "a.pt"]
    assert [score.imgsz for score in found] == [64, 64]
    again = evaluate_models(weights, data, imgsz=64, device="cpu")
    assert [(one.AP, one.AP50, one.parameters) for one in found] == [(s.AP, s.AP50, s.parameters) for s in again]
    with pytest.raises(UserError, match=r"missing\.pt"):
        yolokd.evaluate([tmp_path / "missing.pt"], data)


def test_export__writes_beside_the_checkpoint_and_compares(tmp_path: Path) -> None:
    weights = tiny.checkpoint(tmp_path / "small.pt")
    report = yolokd.export(weights, format="torchscript", imgsz=64)
    assert Path(report.path) == tmp_path / "small.torchscript"
    assert Path(report.path).stat().st_size > 10_000
    assert report.precision == "float32"
    assert report.parity is not None
    assert report.parity.box_px < 0.01
    with pytest.raises(UserError, match="'nonsense'"):
        yolokd.export(weights, format="nonsense")
