"""Running an exported file in its own runtime, away from Ultralytics where the runtime is a plain one.

OpenVINO computes in bfloat16 by itself on processors that have it. For the comparison of raw outputs it is told to use
float32, so that the file is judged and not the processor; scores and times are taken by Ultralytics, which has no
option for that, so with its defaults. The report then says so.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

Outputs = tuple[Tensor, ...]  # of one image: the decoded one, then those of the whole image, such as prototypes
Run = Callable[[Tensor], Outputs]

PLAIN = ("onnx", "openvino", "torchscript")  # checked here; the rest where Ultralytics can run them
WARM_UPS = 3
TIMED_PASSES = 20


def device_of(format: str) -> str:
    """Return the device on which a format is compared, scored and timed, beside its checkpoint."""
    return "cuda:0" if format == "engine" else "cpu"


def computes_in(path: Path, format: str) -> str:
    """Return the precision in which Ultralytics runs a float32 export here: OpenVINO's own choice, or "float32"."""
    if format != "openvino":
        return "float32"
    from yolokd.backend.networks import load_export

    try:
        hint = load_export(path).ov_compiled_model.get_property("INFERENCE_PRECISION_HINT")
    except RuntimeError:  # a device that does not tell
        return "float32"
    return {"bf16": "bfloat16", "f16": "float16"}.get(hint.get_type_name(), "float32")


def open_run(path: Path, format: str) -> Run:
    """Return the exported network as a function of an image (1, C, H, W), float32 in [0, 1], to its outputs.

    The function returns float32 tensors on the CPU without the axis of the batch. The first is (4 + K + E, A), or
    (N, 6 + E) without need of NMS, where a detect model has no further E columns; see `yolokd.deploy.outputs`.

    Raises:
        ImportError: The runtime is not installed.
        Exception: Whatever else a runtime objects to in the file.
    """
    open_plain = {"onnx": _onnx, "openvino": _openvino, "torchscript": _torchscript}.get(format)
    return open_plain(path) if open_plain else _by_ultralytics(path, format)


def outputs_of(output: Any) -> Outputs:
    """Return the decoded outputs of the first image, from what a network returns in evaluation mode or in a runtime.

    Args:
        output: A tensor, a sequence of them, or a pair of any of the two and of raw outputs.
    """
    if isinstance(output, Tensor):
        return (output[0].float().cpu(),)
    if isinstance(output[0], (list, tuple)):  # beside it the raw outputs
        return outputs_of(output[0])
    return tuple(tensor[0].float().cpu() for tensor in output if isinstance(tensor, Tensor))


def medians(
    runs: Sequence[Callable[[], object]], *, warm_ups: int = WARM_UPS, passes: int = TIMED_PASSES
) -> list[float]:
    """Return the median time of each function in milliseconds.

    They take turns, so that whatever else the machine does hits all alike.
    """
    times: list[list[float]] = [[] for _ in runs]
    for turn in range(warm_ups + passes):
        for run, own in zip(runs, times, strict=True):
            start = time.perf_counter()
            run()
            if turn >= warm_ups:
                own.append(1000 * (time.perf_counter() - start))
    return [statistics.median(own) for own in times]


def latencies(paths: Sequence[Path], imgsz: int, device: str, *, nms_free: bool, channels: int = 3) -> list[float]:
    """Return the median time of a forward pass at batch 1 in milliseconds, of checkpoints and exports by turns.

    Each runs as Ultralytics deploys it: checkpoints fused, every runtime with its default number of threads; from a
    float32 image (channels, imgsz, imgsz) to decoded boxes, without reading, scaling and NMS.
    """
    from ultralytics.nn.autobackend import AutoBackend

    from yolokd.backend.quantization import silenced

    target = torch.device(device)
    with silenced():
        networks = [AutoBackend(str(p), device=target, verbose=False, end2end=nms_free).eval() for p in paths]
    image = torch.rand(1, channels, imgsz, imgsz, device=target)

    def run(network: Any) -> None:
        network(image)
        if target.type == "cuda":
            torch.cuda.synchronize(target)

    with torch.inference_mode():
        return medians([lambda n=network: run(n) for network in networks])  # type: ignore[misc]


def _onnx(path: Path) -> Run:
    import onnxruntime

    onnxruntime.set_default_logger_severity(3)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (entry,) = session.get_inputs()
    half = entry.type == "tensor(float16)"

    def run(x: Tensor) -> Outputs:
        outputs = session.run(None, {entry.name: (x.half() if half else x).numpy()})
        return outputs_of([torch.from_numpy(output) for output in outputs])

    return run


def _openvino(path: Path) -> Run:
    import openvino

    (xml,) = path.glob("*.xml")
    network = openvino.Core().compile_model(str(xml), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def run(x: Tensor) -> Outputs:
        found = network(x.numpy())
        return outputs_of([torch.from_numpy(found[place].copy()) for place in range(len(network.outputs))])

    return run


def _torchscript(path: Path) -> Run:
    network = torch.jit.load(str(path), map_location="cpu")
    return lambda x: outputs_of(network(x))


def _by_ultralytics(path: Path, format: str) -> Run:
    from ultralytics.nn.autobackend import AutoBackend

    device = torch.device(device_of(format))
    network = AutoBackend(str(path), device=device, verbose=False)
    return lambda x: outputs_of(network(x.to(device)))
