"""Whole runs in 8 bits: `qad` under a teacher, interrupted and resumed, scored and exported."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from ultralytics.nn.tasks import DetectionModel

from tests.helpers.calling import call
from tests.helpers.eight_bits import images, needs_modelopt, quantizers
from tests.helpers.fixtures import Pair
from tests.helpers.lively import lively
from tests.helpers.models import save
from tests.helpers.runs import rows
from yolokd.backend.checkpoints import is_quantized, load, load_detector, plain_copy
from yolokd.backend.quantization import STATE
from yolokd.deploy.export import export
from yolokd.deploy.report import ExportReport
from yolokd.deploy.request import make_request
from yolokd.errors import UserError
from yolokd.evaluation.models import examine
from yolokd.teachers.base import TeacherOutput
from yolokd.teachers.detector import DetectorTeacher
from yolokd.training import argument_checks
from yolokd.training.run import resume, start
from yolokd.training.settings import KEY
from yolokd.training.trainer import DistillTrainer

pytestmark = [pytest.mark.slow, needs_modelopt]

REPOSITORY = Path(__file__).resolve().parents[2]
EARLY = 6  # convolutions, after which values on the edge of two steps of 8 bits may fall to either side
QUICK = ["train.workers=0", "losses.bckd.cls=1", "losses.bckd.box=1"]


@dataclass(frozen=True)
class Finished:
    """A run of one epoch of `qad`, and what it held when it began to train."""

    run: Path
    pair: Pair
    student: list[str]  # quantizers
    others: list[str]  # those of teacher and adapters
    taught: TeacherOutput  # the teacher's answer to random images


@pytest.fixture(scope="module")
def student_pt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(lively(seed=4), tmp_path_factory.mktemp("student") / "student.pt")


@pytest.fixture(scope="module")
def finished(student_pt: Path, teacher_pt: Path, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    seen: dict[str, Any] = {}
    pair = Pair(teacher_pt, student_pt, tiny_data, tmp_path_factory.mktemp("qad") / "runs")

    def peek(self: DistillTrainer) -> str:
        model = self.model
        seen["student"] = quantizers(model.student_model)
        seen["others"] = quantizers(model.teacher_model) + quantizers(model.projector)
        seen["taught"] = model.teacher_model(images(), head=True, levels=("p3", "p5"))
        return original(self)

    original = DistillTrainer.progress_string
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DistillTrainer, "progress_string", peek)
        run = start(pair.plan("qad", QUICK, epochs=1), paired=True)
    return Finished(run, pair, seen["student"], seen["others"], seen["taught"])


@pytest.fixture(scope="module")
def exported(finished: Finished) -> ExportReport:
    for package in ("onnx", "onnxruntime", "onnxslim"):
        pytest.importorskip(package, reason=f"{package} is not installed")
    return export(finished.run / "weights" / "best.pt")


def flat(output: TeacherOutput) -> list[Tensor]:
    assert output.raw is not None
    raw: Any = output.raw
    return [*output.features.values(), raw["scores"], raw["boxes"]]


def ranges(checkpoint: Path) -> dict[str, Tensor]:
    found: dict[str, Tensor] = load(checkpoint)[1][STATE]["ranges"]
    return found


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[key]) for key, value in one.items())


def output(model: nn.Module) -> Tensor:
    with torch.no_grad():
        return torch.as_tensor(model.eval()(images())[0])


def close(one: Tensor, other: Tensor) -> bool:
    return one.numel() == other.numel() and torch.allclose(one.flatten(), other.flatten(), rtol=1e-5)


def convolved(model: Any, x: Tensor) -> list[Tensor]:
    """Outputs of the first folded convolutions."""
    found: list[Tensor] = []
    folded = model.fuse(verbose=False).eval()
    for module in folded.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda module, inputs, output: found.append(output.clone()))
    with torch.no_grad():
        folded(x)
    return found[:EARLY]


def test_start__the_student_alone_has_quantizers(finished: Finished) -> None:
    assert len(finished.student) > 100
    assert finished.others == []
    assert float(rows(finished.run)[-1]["train/kd_bckd_cls"]) > 0


def test_start__the_teacher_answers_in_full_precision(finished: Finished) -> None:
    plain = DetectorTeacher(load_detector(finished.pair.teacher))
    expected = plain(images(), head=True, levels=("p3", "p5"))
    assert all(torch.equal(a, b) for a, b in zip(flat(finished.taught), flat(expected), strict=True))


def test_start__the_final_checkpoint_is_a_plain_student_beside_its_ranges(finished: Finished) -> None:
    for name in ("best.pt", "last.pt"):
        path = finished.run / "weights" / name
        model, checkpoint = load(path)
        assert type(model) is DetectionModel
        assert quantizers(model) == finished.student
        assert checkpoint[KEY]["recipe"]["losses"]["bckd"]["cls"] == 1.0
        assert checkpoint["train_args"]["quantize"] == 8
        assert not [k for k in load_detector(path).state_dict() if "quantizer" in k or "teacher" in k]
        content = torch.serialization.get_unsafe_globals_in_checkpoint(path)
        assert not [name for name in content if name.startswith(("modelopt", "yolokd"))]


def test_start__a_run_without_losses_begins_with_the_same_ranges(finished: Finished) -> None:
    baseline = start(finished.pair.plan("baseline", ["train.quantize=8", "train.workers=0"], epochs=1), paired=True)
    assert equal(ranges(finished.run / "weights" / "last.pt"), ranges(baseline / "weights" / "last.pt"))


def test_export__is_written_with_the_ranges_of_the_training(finished: Finished, exported: ExportReport) -> None:
    import onnx

    checkpoint = finished.run / "weights" / "best.pt"
    assert exported.precision == "int8"
    assert any("ranges of its training" in note for note in exported.notes)
    graph = onnx.load(exported.path).graph
    values = {value.name: torch.tensor(onnx.numpy_helper.to_array(value)) for value in graph.initializer}
    written = [values[node.input[1]] for node in graph.node if node.op_type == "QuantizeLinear"]
    network: Any = load(checkpoint)[0]
    folded = network.fuse(verbose=False)
    trained = [m.amax.flatten() / 127 for n, m in folded.named_modules() if n in finished.student and m.is_enabled]
    assert len(trained) > 100
    assert all(any(close(scale, other) for other in written) for scale in trained)
    assert all(any(close(scale, other) for other in trained) for scale in written)


def test_export__computes_what_the_checkpoint_computes(finished: Finished, exported: ExportReport) -> None:
    import onnx
    import onnxruntime as runtime

    checkpoint = finished.run / "weights" / "best.pt"
    network = onnx.load(exported.path)
    layers = [node.output[0] for node in network.graph.node if node.op_type == "Conv"][:EARLY]
    network.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in layers)
    session = runtime.InferenceSession(network.SerializeToString(), providers=["CPUExecutionProvider"])
    outputs = [torch.tensor(value) for value in session.run(layers, {"images": images(1, seed=9).numpy()})]
    quantized = convolved(load(checkpoint)[0], images(1, seed=9))
    plain = convolved(load_detector(checkpoint), images(1, seed=9))
    for own, expected, unrounded in zip(outputs, quantized, plain, strict=True):
        torch.testing.assert_close(own, expected, rtol=0, atol=1e-4)
        assert (unrounded - expected).abs().max() > 1e-2


def test_export__openvino_beside_calibration_of_the_same_weights(finished: Finished) -> None:
    for package in ("onnx", "onnxruntime", "onnxslim", "openvino", "nncf"):
        pytest.importorskip(package, reason=f"{package} is not installed")
    checkpoint = finished.run / "weights" / "best.pt"
    report = export(checkpoint, format="openvino", precision="int8", check=finished.pair.data)
    assert report.path == str(checkpoint.with_name("best_int8_openvino_model"))
    assert report.own_ranges
    assert report.parity is not None
    assert report.before.AP is not None
    assert report.after.bytes < report.before.bytes
    found = report.calibrated
    assert found is not None
    assert (found.before.path, found.after.path) == (str(checkpoint), "best_int8_openvino_model")
    assert None not in (found.before.AP, found.before.latency_ms, found.after.AP, found.after.latency_ms)
    assert report.after.AP is not None
    assert found.after.AP is not None
    assert found.gain == pytest.approx(report.after.AP - found.after.AP)
    assert found.gain_interval[0] <= found.gain <= found.gain_interval[1]
    assert pytest.approx(_plain_ap(checkpoint, finished)) == found.before.AP


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_make_request__weights_are_calibrated_where_int8_was_asked_for(finished: Finished, precision: Any) -> None:
    pytest.importorskip("nncf", reason="nncf is not installed")
    request = make_request(
        finished.run / "weights" / "best.pt",
        "openvino",
        precision,
        check=finished.pair.data,
        nms_free=False,
        keep_float=(),
        sensitivity=False,
        options={},
        say=lambda _: None,
    )
    assert request.precision == "int8"
    assert request.calibrated_on == (finished.pair.data if precision == "int8" else None)


def _plain_ap(checkpoint: Path, finished: Finished) -> float:
    """AP of the weights in full precision."""
    model = load_detector(checkpoint)
    copy = save(model, finished.pair.runs.parent / "plain.pt", train_args={"imgsz": 64, "task": "detect"})
    (found,) = examine([copy], finished.pair.data, imgsz=64, device="cpu", square=True)
    return found.score.AP


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"precision": "float16"}, "exported in them: leave float16"),
        ({"format": "torchscript"}, "onnx, openvino, engine only, not to torchscript"),
    ],
)
def test_export__what_has_no_place_for_the_ranges_is_refused(
    finished: Finished, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        export(finished.run / "weights" / "best.pt", **options)


def test_eval__scores_the_checkpoint(finished: Finished, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = str(finished.run / "weights" / "best.pt")
    code, out, error = call(
        capsys, "eval", checkpoint, "--data", str(finished.pair.data), "--imgsz", "64", "--device", "cpu", "--json", "-"
    )
    assert code == 0, error
    (score,) = json.loads(out)  # ModelOpt has printed nothing
    assert 0 <= score["AP"] <= 1
    assert score["parameters"] > 0


def test_resume__after_sigkill_goes_on_with_the_same_ranges(
    student_pt: Path, teacher_pt: Path, tiny_data: Path, tmp_path: Path
) -> None:
    command = [
        sys.executable, "-m", "yolokd", "train", "--teacher", str(teacher_pt), "--student", str(student_pt),
        "--recipe", "qad", "--data", str(tiny_data), "--epochs", "4", "--imgsz", "64", "--batch", "8",
        "--device", "cpu", "--set", "train.plots=false", "--name", "killed",
    ]  # fmt: skip
    run = tmp_path / "runs" / "killed"
    last = run / "weights" / "last.pt"
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while not last.exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    begun = ranges(last)
    assert is_quantized(last)
    assert quantizers(load(plain_copy(last, tmp_path))[0])
    assert resume(str(run)) == run
    assert [row["epoch"] for row in rows(run)] == [str(epoch) for epoch in range(1, 5)]
    model, checkpoint = load(run / "weights" / "last.pt")
    assert type(model) is DetectionModel
    assert checkpoint["epoch"] == -1
    assert equal(begun, checkpoint[STATE]["ranges"])


def test_nan__ultralytics_recovery_keeps_the_quantizers(finished: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    original, broken = DistillTrainer._model_train, list[int]()

    def spoil(self: DistillTrainer) -> None:
        original(self)
        if self.epoch == 1 and not broken:
            broken.append(1)
            next(self.model.student_model.parameters()).data.fill_(float("nan"))

    monkeypatch.setattr(DistillTrainer, "_model_train", spoil)
    run = start(finished.pair.plan("qad", QUICK, epochs=3))
    assert broken
    assert [row["epoch"] for row in rows(run)] == ["1", "2", "3"]
    model, checkpoint = load(run / "weights" / "last.pt")
    assert quantizers(model) == finished.student
    assert all(torch.isfinite(value).all() for value in (output(model), *checkpoint[STATE]["ranges"].values()))


def test_plan__refuses_what_would_lose_its_ranges_without_a_word(finished: Finished) -> None:
    best, pair = finished.run / "weights" / "best.pt", finished.pair
    with pytest.raises(UserError, match=r"The teacher '.*best\.pt' was trained in 8 bits, and a teacher answers"):
        replace(pair, teacher=best).plan("qad", QUICK)
    words = r"The student '.*best\.pt' was trained in 8 bits, and the recipe 'baseline' .*--set train\.quantize=8"
    with pytest.raises(UserError, match=words):
        replace(pair, student=best).plan("baseline")
    with pytest.raises(UserError, match=words):
        pair.plan("baseline", [f"train.pretrained={best}"])
    assert replace(pair, student=best).plan("baseline", ["train.quantize=8"]).recipe.quantizes


def test_plan__names_what_is_missing(finished: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise UserError("train.quantize=8 needs nvidia-modelopt: pip install 'yolokd[qat]'")

    monkeypatch.setattr(argument_checks, "require_modelopt", missing)
    with pytest.raises(UserError, match=r"yolokd\[qat\]"):
        finished.pair.plan("qad", QUICK)
