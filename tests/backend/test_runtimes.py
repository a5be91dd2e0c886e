from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from ultralytics import YOLO

from tests.helpers import exports, tiny
from yolokd.backend import runtimes
from yolokd.backend.opening import quiet
from yolokd.backend.runtimes import latencies, medians, open_run, outputs_of


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.checkpoint(tmp_path_factory.mktemp("weights") / "best.pt")


@pytest.fixture(scope="module")
def exported(checkpoint: Path) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def make(format: str) -> Path:
        if format == "openvino":
            pytest.importorskip("openvino", reason="openvino is not installed")
        if format not in made:
            made[format] = exports.export(checkpoint, format)
        return made[format]

    return make


@pytest.mark.slow
@pytest.mark.parametrize("format", runtimes.PLAIN)
def test_open_run__own_runtime_ultralytics_and_the_checkpoint_agree(
    checkpoint: Path, exported: Callable[[str], Path], format: str
) -> None:
    torch.manual_seed(0)
    image = torch.rand(1, 3, 64, 64)
    model = YOLO(str(checkpoint)).model
    assert isinstance(model, torch.nn.Module)
    with torch.inference_mode():
        expected = model.float().eval()(image)[0][0]  # (4 + K, A)
    path = exported(format)
    with quiet():
        (found,) = open_run(path, format)(image)
        (by_ultralytics,) = runtimes._by_ultralytics(path, format)(image)
    assert found.shape == (7, 84)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-3)
    if format != "openvino":  # Ultralytics lets it compute in bfloat16 where the processor can
        torch.testing.assert_close(by_ultralytics, found, rtol=0, atol=1e-4)


def test_open_run__results_do_not_share_memory(exported: Callable[[str], Path]) -> None:
    run = open_run(exported("openvino"), "openvino")
    (black,), (white,) = run(torch.zeros(1, 3, 64, 64)), run(torch.ones(1, 3, 64, 64))
    assert not torch.equal(black, white)


def test_open_run__other_formats_go_through_ultralytics(tmp_path: Path) -> None:
    with pytest.raises(Exception, match=r"tensorrt|CUDA|libcuda|engine"):
        open_run(tmp_path / "best.engine", "engine")


def test_outputs_of__what_networks_return() -> None:
    output = torch.arange(24, dtype=torch.float16).view(2, 3, 4)
    prototypes = output[:, :, None] + 1
    for returned in (output, (output, {"boxes": output}), [output]):
        (found,) = outputs_of(returned)
        assert torch.equal(found, output[0].float())
    both = [output, prototypes]
    for several in (both, (both, {"boxes": output})):
        found, other = outputs_of(several)
        assert torch.equal(found, output[0].float())
        assert torch.equal(other, prototypes[0].float())


def test_medians__by_turns_and_without_the_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    timer = {"now": 0.0}
    order: list[str] = []
    costs = {"fast": iter([9.0, 1.0, 2.0, 8.0]), "slow": iter([90.0, 10.0, 30.0, 20.0])}
    monkeypatch.setattr(time, "perf_counter", lambda: timer["now"])

    def run(name: str) -> Callable[[], None]:
        def one() -> None:
            order.append(name)
            timer["now"] += next(costs[name]) / 1000

        return one

    assert medians([run("fast"), run("slow")], warm_ups=1, passes=3) == pytest.approx([2.0, 20.0])
    assert order == ["fast", "slow"] * 4


def test_latencies__of_a_checkpoint_and_its_export(
    checkpoint: Path, exported: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtimes, "TIMED_PASSES", 1)
    found = latencies([checkpoint, exported("onnx")], 64, "cpu", nms_free=False)
    assert len(found) == 2
    assert all(ms > 0 for ms in found)
