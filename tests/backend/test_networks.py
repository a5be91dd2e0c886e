from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.helpers import exports, segments, tiny
from yolokd.backend.networks import find, identify, is_export, open_network
from yolokd.errors import UserError, WeightsError
from yolokd.evaluation.masks import area
from yolokd.evaluation.models import Examined, evaluate, examine


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.checkpoint(tmp_path_factory.mktemp("weights") / "best.pt")


@pytest.fixture(scope="module")
def onnx(checkpoint: Path) -> Path:
    return exports.export(checkpoint, "onnx")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.data_set(tmp_path_factory.mktemp("data"))


def _scores(examined: Examined) -> list[tuple[int, float]]:
    """Image and score of each detection, in one order; untrained heads put every box around the whole image."""
    return sorted((d["image_id"], d["score"]) for d in examined.detections)


def test_is_export__by_name_and_presence(tmp_path: Path, onnx: Path, checkpoint: Path) -> None:
    (tmp_path / "best_int8_openvino_model").mkdir()
    assert is_export(tmp_path / "best_int8_openvino_model")
    assert is_export(onnx)
    assert not is_export(checkpoint)
    assert not is_export(tmp_path / "absent.onnx")
    assert not is_export(tmp_path)
    assert find(onnx) == onnx
    assert find(checkpoint) == checkpoint
    with pytest.raises(WeightsError, match=r"no file 'absent\.onnx'"):
        find("absent.onnx")


def test_identify__names_of_an_export_are_the_checkpoints(onnx: Path, checkpoint: Path) -> None:
    assert identify(onnx).names == identify(checkpoint).names == dict(enumerate(tiny.NAMES))


def test_open_network__size_of_an_export_is_its_own(onnx: Path, checkpoint: Path, tmp_path: Path) -> None:
    opened = open_network(onnx, tmp_path, None)
    assert (opened.imgsz, opened.parameters, opened.notes) == (64, 0, ())
    assert open_network(onnx, tmp_path, 64).notes == ()
    assert open_network(onnx, tmp_path, 96).imgsz == 64
    assert open_network(onnx, tmp_path, 96).notes == ("its input has 64 px, so imgsz 96 does not apply",)
    plain = open_network(checkpoint, tmp_path, 96)
    assert plain.imgsz == 96
    assert plain.parameters > 0


def test_examine__an_export_and_its_checkpoint_see_the_same_square_images(
    onnx: Path, checkpoint: Path, data: Path
) -> None:
    together, export = examine([checkpoint, onnx], data, device="cpu")
    (square,) = examine([checkpoint], data, device="cpu", square=True)
    (rectangular,) = examine([checkpoint], data, device="cpu")
    assert len(square.detections) > 50
    assert _scores(together) == _scores(square)
    np.testing.assert_allclose(_scores(export), _scores(square), atol=2e-5)  # Ultralytics rounds to five digits
    assert _scores(rectangular) != _scores(square)  # its images are 64 by 48 and 56 by 64


@pytest.mark.slow
def test_examine__nms_free_head(tmp_path: Path, data: Path) -> None:
    path = tiny.checkpoint(tmp_path / "best.pt", family="26")
    export = exports.export(path, "onnx", nms=False)
    (one_to_many,) = examine([path], data, device="cpu", square=True)
    (one_to_one,) = examine([path], data, device="cpu", square=True, nms_free=True)
    (exported,) = examine([export], data, device="cpu", nms_free=True)
    assert _scores(one_to_many) != _scores(one_to_one)
    np.testing.assert_allclose(_scores(exported), _scores(one_to_one), atol=2e-5)


def test_evaluate__export_that_cannot_be_loaded(tmp_path: Path, data: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"nothing")
    with pytest.raises(WeightsError, match=r"bad\.onnx' cannot be loaded: "):
        evaluate([tmp_path / "bad.onnx"], data)


def test_evaluate__runtime_that_is_not_installed(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*_: object, **__: object) -> None:
        raise ModuleNotFoundError("No module named 'onnxruntime'", name="onnxruntime")

    monkeypatch.setattr("ultralytics.nn.autobackend.AutoBackend", absent)
    (tmp_path / "a.onnx").touch()
    with pytest.raises(UserError, match=r"needs the package 'onnxruntime'.*pip install 'yolokd\[export\]'"):
        evaluate([tmp_path / "a.onnx"], data)


def test_evaluate__export_of_a_task_that_is_not_scored(onnx: Path, tmp_path: Path, data: Path) -> None:
    import onnx as library

    path = Path(shutil.copy(onnx, tmp_path / "best.onnx"))
    network = library.load(path)
    (entry,) = [e for e in network.metadata_props if e.key == "task"]
    entry.value = "classify"
    library.save(network, path)
    with pytest.raises(WeightsError, match=r"best\.onnx' is not one of the tasks detect, .*obb \(task classify\)"):
        evaluate([path], data)
    with pytest.raises(WeightsError, match=r"is not a YOLO detector \(task classify\)"):
        examine([path], data)


@pytest.mark.slow
@pytest.mark.parametrize("nms_free", [False, True])
def test_examine__a_segment_export_gives_the_masks_of_its_checkpoint(tmp_path: Path, nms_free: bool) -> None:
    polygons = segments.make_polygons(tmp_path / "data", train=1, val=2)
    checkpoint = segments.save(segments.model_of("26-seg" if nms_free else "v8-seg"), tmp_path / "best.pt")
    onnx = exports.export(checkpoint, "onnx", nms=False if nms_free else None)
    assert identify(onnx, ("segment",)).task == identify(checkpoint, ("segment",)).task == "segment"
    assert open_network(onnx, tmp_path, None, ("segment",)).yolo.task == "segment"
    options: dict[str, Any] = {"device": "cpu", "tasks": ("segment",), "nms_free": nms_free, "timed": False}
    ours, theirs = examine([checkpoint, onnx], polygons, **options)
    assert ours.further is not None
    assert theirs.further is not None
    assert len(ours.further.detections) > 50
    np.testing.assert_allclose(_scores(theirs), _scores(ours), atol=1e-4)
    pixels, exported = (
        sum(area(one["segmentation"]) for one in found.detections) for found in (ours.further, theirs.further)
    )
    assert pixels > 0
    assert exported == pytest.approx(pixels, rel=0.01)
