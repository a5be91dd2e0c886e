from __future__ import annotations

import logging
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ultralytics.utils import LOGGER

from tests.helpers import tiny
from yolokd.backend.opening import image_size, open_checkpoint, quiet, short_names, without_lines
from yolokd.errors import WeightsError


def _yolo(trained: Any, stride: float = 32.0) -> Any:
    overrides = {} if trained is None else {"imgsz": trained}
    return SimpleNamespace(overrides=overrides, model=SimpleNamespace(stride=torch.tensor([8.0, 16.0, stride])))


@pytest.mark.parametrize(
    ("trained", "asked", "size"),
    [(320, None, 320), (None, None, 640), ([384, 640], None, 640), (320, 512, 512), (320, 500, 512), (320, 1, 32)],
)
def test_image_size__asked_or_trained_rounded_up(trained: Any, asked: int | None, size: int) -> None:
    assert image_size(_yolo(trained), asked)[0] == size


def test_image_size__tells_only_when_it_rounds() -> None:
    assert image_size(_yolo(320), 512)[1] == ()
    assert image_size(_yolo(320, stride=64.0), 96) == (128, ("imgsz 96 is no multiple of 64: 128 was used",))


def test_short_names__shortest_ends_that_differ() -> None:
    runs = [Path("runs/kd/weights/best.pt"), Path("runs/base/weights/best.pt")]
    assert short_names([runs[0]]) == ["best.pt"]
    assert short_names([runs[0], Path("teacher.pt")]) == ["best.pt", "teacher.pt"]
    assert short_names(runs) == ["kd/weights/best.pt", "base/weights/best.pt"]
    assert short_names([runs[0], runs[0]]) == ["best.pt", "best.pt"]
    assert short_names([Path("best.pt"), Path("kd/best.pt")]) == ["best.pt", "kd/best.pt"]


def test_quiet__silences_logs_and_warnings_and_restores_them(capfd: pytest.CaptureFixture[str]) -> None:
    before = LOGGER.level
    with quiet():
        assert not LOGGER.isEnabledFor(logging.CRITICAL)
        warnings.warn("unheard", UserWarning, stacklevel=1)
    assert LOGGER.level == before
    assert capfd.readouterr() == ("", "")


def test_open_checkpoint__loads_names_and_size(tmp_path: Path) -> None:
    yolo = open_checkpoint(tiny.checkpoint(tmp_path / "a.pt", imgsz=96), tmp_path)
    assert yolo.names == dict(enumerate(tiny.NAMES))
    assert image_size(yolo, None) == (96, ())


def test_open_checkpoint__refuses_what_is_no_detector(tmp_path: Path) -> None:
    torch.save({"weights": torch.zeros(3)}, tmp_path / "a.pt")
    with pytest.raises(WeightsError, match=r"a\.pt"):
        open_checkpoint(tmp_path / "a.pt", tmp_path)


def test_without_lines__holds_back_those_alone_and_for_a_while(caplog: pytest.LogCaptureFixture) -> None:
    LOGGER.addHandler(caplog.handler)
    try:
        with without_lines("layer 'teacher."):
            LOGGER.error("Freezing layer 'teacher.0'")
            LOGGER.error("Freezing layer 'student.0'")
        LOGGER.error("Freezing layer 'teacher.1'")
    finally:
        LOGGER.removeHandler(caplog.handler)
    lines = [message[message.index("Freezing") :] for message in caplog.messages]  # Ultralytics puts signs before them
    assert lines == ["Freezing layer 'student.0'", "Freezing layer 'teacher.1'"]
