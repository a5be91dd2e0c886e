from __future__ import annotations

import importlib.util

import pytest
import torch

from yolokd.backend.formats import Precision, check_precision, known_format, require_packages
from yolokd.errors import UserError


def test_known_format__whatever_the_case() -> None:
    assert known_format("OpenVINO") == "openvino"


def test_known_format__unknown_lists_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"no export format 'onx'\. Did you mean 'onnx'\?.*torchscript, onnx, openvino"):
        known_format("onx")
    with pytest.raises(UserError, match="no export format '-'"):
        known_format("-")  # Ultralytics' own name of no format


@pytest.mark.parametrize(
    ("format", "precision"), [("onnx", "int8"), ("openvino", "float16"), ("pb", "float32"), ("qnn", "float32")]
)
def test_check_precision__possible(format: str, precision: Precision) -> None:
    assert check_precision(format, precision) is None  # type: ignore[func-returns-value]


@pytest.mark.parametrize(
    ("format", "precision", "message"),
    [
        ("pb", "float16", r"cannot export pb in float16, only in float32\. In float16 it can: .*onnx, openvino"),
        ("torchscript", "int8", "cannot export torchscript in int8, only in float32 or float16"),
        ("imx", "float32", "cannot export imx in float32, only in int8"),
        ("engine", "float32", "TensorRT engines are exported on an NVIDIA GPU"),
        ("torchscript", "float16", "TorchScript in float16 is exported on an NVIDIA GPU"),
    ],
)
def test_check_precision__impossible(
    monkeypatch: pytest.MonkeyPatch, format: str, precision: Precision, message: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=message):
        check_precision(format, precision)


@pytest.mark.parametrize(
    ("format", "precision", "absent", "message"),
    [
        ("onnx", "float32", {"onnxruntime", "onnxslim"}, r"onnx needs onnxruntime, onnxslim: .*'yolokd\[onnx\]'"),
        ("openvino", "float16", {"openvino", "nncf"}, r"openvino needs openvino: pip install 'yolokd\[export\]'"),
        ("openvino", "int8", {"nncf"}, r"openvino in int8 needs nncf: pip install 'yolokd\[export\]'"),
    ],
)
def test_require_packages__names_the_extra(
    monkeypatch: pytest.MonkeyPatch, format: str, precision: Precision, absent: set[str], message: str
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in absent else object())
    with pytest.raises(UserError, match=message):
        require_packages(format, precision)


def test_require_packages__ranges_of_a_training_need_onnx_and_no_calibration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "nncf" else object())
    assert require_packages("openvino", "int8", own_ranges=True) is None  # type: ignore[func-returns-value]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnx" else object())
    with pytest.raises(UserError, match=r"openvino in int8 needs onnx: pip install 'yolokd\[onnx\]'"):
        require_packages("openvino", "int8", own_ranges=True)


def test_require_packages__other_formats_need_nothing_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert require_packages("torchscript", "float32") is None  # type: ignore[func-returns-value]
