"""Quantizers come, go and come back without a change of the network; checkpoints need no class of ModelOpt."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from ultralytics.nn.distill_model import DistillationModel

from tests.helpers.eight_bits import images, needs_modelopt, quantized, quantizers, save_quantized
from tests.helpers.models import detector, save
from yolokd.backend import quantization
from yolokd.backend.checkpoints import is_quantized as holds_quantizers
from yolokd.backend.checkpoints import load, load_detector
from yolokd.backend.opening import open_checkpoint
from yolokd.backend.quantization import (
    STATE,
    insert_quantizers,
    is_quantized,
    remove_quantizers,
    require_modelopt,
    restore_quantizers,
)
from yolokd.errors import UserError, WeightsError


def output(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return torch.as_tensor(model.eval()(images())[0])


@pytest.fixture
def without_modelopt(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("modelopt", "modelopt.torch", "modelopt.torch.opt", "modelopt.torch.quantization"):
        monkeypatch.setitem(sys.modules, name, None)


@pytest.mark.usefixtures("without_modelopt")
def test_require_modelopt__names_the_extra() -> None:
    with pytest.raises(UserError, match=r"quantize=8 needs nvidia-modelopt.*: pip install 'yolokd\[qat\]'"):
        require_modelopt()


@pytest.mark.usefixtures("without_modelopt")
def test_load__a_checkpoint_in_8_bits_without_modelopt_names_the_extra(tmp_path: Path) -> None:
    path = save(detector("v8"), tmp_path / "eight.pt", **{STATE: {"modelopt": {}, "ranges": {}}})
    with pytest.raises(WeightsError, match=r"eight.pt' was trained in 8 bits.*nvidia-modelopt: pip install"):
        load(path)


def test_remove_quantizers__a_plain_network_has_none_and_stays() -> None:
    model = detector("v8")
    before = output(model)
    assert not is_quantized(model)
    assert remove_quantizers(model) is None
    assert torch.equal(output(model), before)


@needs_modelopt
@pytest.mark.parametrize("family", ["v8", "26"])
def test_insert_quantizers__rounds_to_8_bits_and_keeps_mode_and_weights(family: str) -> None:
    plain, model = detector(family), detector(family)
    model.train()
    insert_quantizers(model, [images(seed=1)], lambda batch: batch)
    assert is_quantized(model)
    assert model.training
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in plain.state_dict().items())
    difference = (output(model) - output(plain)).abs()
    assert 1e-3 < difference.max() < 0.2 * output(plain).abs().max()


@needs_modelopt
def test_insert_quantizers__a_convolution_by_hand() -> None:
    model = quantized()
    layer, x = model.model[0].conv, images()
    top = layer.input_quantizer.amax
    rounded = (x * 127 / top).round().clamp(-128, 127) * top / 127
    scale = layer.weight_quantizer.amax / 127
    weight = (layer.weight / scale).round().clamp(-128, 127) * scale
    expected = nn.functional.conv2d(rounded, weight, None, layer.stride, layer.padding)
    torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-5)
    assert layer.weight_quantizer.amax.numel() == layer.out_channels
    torch.testing.assert_close(top, torch.stack([images(seed=1), images(seed=2)]).max())


@needs_modelopt
def test_remove_and_restore_quantizers__give_both_networks_back() -> None:
    model, plain = quantized(), detector("v8")
    before = output(model)
    state = remove_quantizers(model)
    assert state is not None
    assert not quantizers(model)
    assert model.state_dict().keys() == plain.state_dict().keys()
    assert torch.equal(output(model), output(plain))
    restore_quantizers(model, state)
    assert torch.equal(output(model), before)


@needs_modelopt
def test_is_quantized__of_a_pair_is_that_of_its_student() -> None:
    pair = DistillationModel.__new__(DistillationModel)
    nn.Module.__init__(pair)
    pair.student_model, pair.teacher_model = detector("v8"), quantized()
    assert not is_quantized(pair)
    pair.student_model = pair.teacher_model
    assert is_quantized(pair)


@needs_modelopt
def test_load__restores_quantizers_quietly_through_the_restricted_loader(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = quantized()
    before, names = output(model), quantizers(model)
    path = save_quantized(tmp_path / "eight.pt", model)
    capsys.readouterr()
    loaded, _ = load(path)
    assert quantizers(loaded) == names
    difference = (output(loaded) - before).abs().max()  # the file has half-precision weights
    assert difference < 0.05 * before.abs().max()
    opened = open_checkpoint(path, tmp_path)
    assert quantizers(opened.model) == names
    assert capsys.readouterr().out == ""
    foreign = [name for name in torch.serialization.get_unsafe_globals_in_checkpoint(path) if "modelopt" in name]
    assert not foreign


@needs_modelopt
def test_load_detector__is_the_network_in_full_precision(tmp_path: Path) -> None:
    path = save_quantized(tmp_path / "eight.pt", quantized())
    plain = save(detector("v8"), tmp_path / "plain.pt")
    assert holds_quantizers(path)
    assert not holds_quantizers(plain)
    assert torch.equal(output(load_detector(path)), output(load_detector(plain)))


def test_silenced__prints_and_warns_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with quantization.silenced():
        print("Inserted 308 quantizers")  # noqa: T201
        import warnings

        warnings.warn("no device", stacklevel=1)
    assert capsys.readouterr().out == ""
