"""Exports of models that give more than boxes: what is compared beside them, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest
import torch

from tests.helpers import segments
from tests.helpers.rotated import make_rotated
from yolokd.backend import runtimes
from yolokd.backend.networks import open_network
from yolokd.backend.tasks import ALL_TASKS
from yolokd.deploy import export as module
from yolokd.deploy.export import export
from yolokd.errors import UserError
from yolokd.evaluation.models import examine


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtimes, "TIMED_PASSES", 1)


def checkpoint(path: Path, family: str = "v8-seg", *, bias: float = 0.0) -> Path:
    """A model with random weights whose scores lie around that of the bias."""
    model = segments.model_of(family, keypoints=(4, 3))
    for name in ("cv3", "one2one_cv3"):
        for branch in getattr(model.model[-1], name, None) or ():
            torch.nn.init.constant_(branch[-1].bias, bias)
    return segments.save(model, path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "format", "nms_free", "names"),
    [
        ("v8-seg", "torchscript", False, ["mask coefficients", "prototypes"]),
        ("26-seg", "onnx", True, ["mask coefficients", "prototypes"]),
        ("v8-pose", "onnx", False, ["keypoints"]),
        ("26-pose", "torchscript", True, ["keypoints"]),
        ("v8-obb", "torchscript", False, ["angles"]),
        ("26-obb", "onnx", True, ["angles"]),
    ],
)
def test_export__what_a_task_has_beside_boxes_equals_the_checkpoints(
    tmp_path: Path, family: str, format: str, nms_free: bool, names: list[str]
) -> None:
    report = export(checkpoint(tmp_path / "best.pt", family, bias=-8.0), format=format, nms_free=nms_free)
    assert report.passed is True
    assert report.parity is not None
    assert [gap.name for gap in report.parity.further] == names
    assert all(0 < gap.most < gap.limit for gap in report.parity.further)
    assert report.notes == ("no detections to compare, so raw outputs decide",)
    opened = open_network(Path(report.path), tmp_path, None, ALL_TASKS)
    assert opened.export is not None
    assert (opened.export.rows is not None) == nms_free


@pytest.mark.slow
def test_export__masks_are_scored_before_and_after_and_an_edited_file_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = module._run_export

    def tampered(*args: Any) -> Path:
        path = run(*args)
        network = onnx.load(path)
        (weight,) = [t for t in network.graph.initializer if t.name.endswith("proto.cv3.conv.weight")]
        weight.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weight) * 2, weight.name))
        onnx.save(network, path)
        return path

    monkeypatch.setattr(module, "_run_export", tampered)
    data = segments.make_polygons(tmp_path / "data", train=1, val=2)
    report = export(checkpoint(tmp_path / "best.pt"), check=data)
    assert report.parity is not None
    assert report.parity.boxes_agree
    coefficients, prototypes = report.parity.further
    assert coefficients.agrees
    assert not prototypes.agrees
    assert report.passed is False
    assert report.failures[0].startswith("prototypes differ by ")
    assert [change.what for change in report.changes] == ["box AP", "mask AP"]
    assert all(change.before is not None and change.after is not None for change in report.changes)
    plain = report.to_dict()
    assert plain["parity"]["further"][1] == {"name": "prototypes", "most": prototypes.most, "limit": 0.01}
    assert plain["further"][0]["what"] == "mask AP"


def test_export__labels_without_polygons_leave_mask_ap_out_and_say_so(tmp_path: Path) -> None:
    data = segments.make_polygons(tmp_path / "data", train=1, val=2)
    for file in (tmp_path / "data" / "labels" / "val").iterdir():
        file.write_text("0 0.5 0.5 0.4 0.4\n")
    report = export(checkpoint(tmp_path / "best.pt"), format="torchscript", check=data)
    assert report.further == ()
    assert "masks are not scored: 2 of the 2 objects are labeled as boxes, not as polygons" in report.notes


@pytest.mark.slow
def test_export__keypoints_are_scored_before_and_after(tmp_path: Path) -> None:
    data = segments.make_poses(tmp_path / "data", train=1, val=2)
    report = export(checkpoint(tmp_path / "best.pt", "v8-pose"), format="torchscript", check=data)
    assert [change.what for change in report.changes] == ["box AP", "keypoint AP"]
    assert all(change.before == change.after for change in report.changes)


def test_export__sensitivity_is_refused(tmp_path: Path) -> None:
    data = segments.make_polygons(tmp_path / "data", train=1, val=1)
    with pytest.raises(UserError, match="measured by the AP of boxes of detect models, and this model's task is seg"):
        export(checkpoint(tmp_path / "best.pt"), precision="int8", check=data, sensitivity=True)


@pytest.mark.slow
def test_export__the_part_of_the_masks_stays_in_full_precision(tmp_path: Path) -> None:
    data = segments.make_polygons(tmp_path / "data", train=1, val=1)
    report = export(checkpoint(tmp_path / "best.pt"), precision="int8", check=data, keep_float=["head.mask"])
    network = onnx.load(report.path)
    dequantized = {out for node in network.graph.node if node.op_type == "DequantizeLinear" for out in node.output}
    rounded = {node.name: node.input[1] in dequantized for node in network.graph.node if node.op_type == "Conv"}
    masks = {name for name in rounded if "/cv4." in name or "/proto/" in name}
    assert masks
    assert not any(rounded[name] for name in masks)
    assert any(rounded.values())


@pytest.mark.slow
def test_evaluate__an_export_of_rotated_boxes_finds_what_its_checkpoint_finds(tmp_path: Path) -> None:
    data = make_rotated(tmp_path / "data", train=1, val=2)
    weights = checkpoint(tmp_path / "best.pt", "v8-obb")
    report = export(weights, format="torchscript", check=data)
    boxes, rotated = report.changes
    assert (boxes.before, rotated.what) == (None, "rotated box AP")
    assert rotated.before == rotated.after
    exported = Path(report.path)
    ours, theirs = examine([weights, exported], data, device="cpu", tasks=("obb",), timed=False, square=True)
    first, second = (
        torch.tensor(sorted([one["score"], *one["rbox"]] for one in found.detections)) for found in (ours, theirs)
    )
    assert len(first) > 20
    torch.testing.assert_close(first, second, rtol=0, atol=1e-2)
    assert ours.score.rotated == theirs.score.rotated
