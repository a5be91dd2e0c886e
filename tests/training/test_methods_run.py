"""Runs with the methods that keep state or files of their own: automatic gains, AID's records, IKD."""

from __future__ import annotations

import json
import logging

import pytest

from tests.helpers.fixtures import Pair
from tests.helpers.runs import rows, stop_after
from yolokd.backend.checkpoints import load
from yolokd.training.run import resume, start
from yolokd.training.settings import KEY
from yolokd.training.trainer import DistillTrainer

pytestmark = pytest.mark.slow  # whole runs

TERMS = ("bckd_cls", "bckd_box", "ssim", "samkd", "samkd_logits", "ikd")


def test_everything__runs_and_leaves_its_records(tiny_pair: Pair) -> None:
    run = start(tiny_pair.plan("everything", epochs=2))
    last = rows(run)[-1]
    assert all(f"train/kd_{term}" in last for term in TERMS)
    assert float(rows(run)[0]["train/kd_ikd"]) > 0
    assert float(last["train/kd_ikd"]) == 0  # off after 0.67 of two epochs
    lines = [json.loads(line) for line in (run / "aid.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2]


def test_log__gains_shares_and_pulls_stand_in_the_csv(tiny_pair: Pair) -> None:
    run = start(tiny_pair.plan("bckd_ssim", ["balance.log=true", "balance.every=1"], epochs=1))
    row = rows(run)[0]
    assert float(row["gain/kd_bckd_box"]) == 32.0
    terms = ("bckd_cls", "bckd_box", "ssim")
    assert all(0 < float(row[f"share/kd_{term}"]) < 1 for term in terms)
    assert all(float(row[f"gradient/kd_{term}"]) > 0 for term in terms)


def test_log__the_adversarial_term_has_no_gradient_at_the_neck(tiny_pair: Pair) -> None:
    run = start(tiny_pair.plan("everything", ["balance.log=true", "balance.every=1"], epochs=1))
    row = rows(run)[0]
    assert float(row["gradient/kd_ikd"]) == 0
    assert float(row["gradient/kd_ssim"]) > 0


def test_auto__its_state_survives_a_resume(tiny_pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = tiny_pair.plan("ssim", ["losses.ssim.gain=auto", "balance.every=1"], epochs=3)
    with monkeypatch.context() as patch:
        stop_after(patch, 2)
        with pytest.raises(KeyboardInterrupt):
            start(plan)
    saved = load(plan.folder / "weights" / "last.pt")[1]["train_args"][KEY]["state"]["gradient_ratio"]["ssim"]
    seen: list[float] = []
    original = DistillTrainer._model_train

    def peek(self: DistillTrainer) -> None:
        seen.append(self.model.distillation.balance.ratios["ssim"])
        original(self)

    with monkeypatch.context() as patch:
        patch.setattr(DistillTrainer, "_model_train", peek)
        resume(str(plan.folder))
    assert seen == [saved]
    assert [row["epoch"] for row in rows(plan.folder)] == ["1", "2", "3"]
    assert all(float(row["gain/kd_ssim"]) > 0 for row in rows(plan.folder))


def test_gain_zero__runs_no_teacher(tiny_pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    from yolokd.teachers.detector import DetectorTeacher

    calls: list[int] = []
    original = DetectorTeacher.run
    monkeypatch.setattr(DetectorTeacher, "run", lambda self, *a, **k: calls.append(1) or original(self, *a, **k))  # type: ignore[func-returns-value]
    run = start(tiny_pair.plan("bckd", ["losses.bckd.cls=0", "losses.bckd.box=0"], epochs=1))
    assert not calls
    assert float(rows(run)[0]["train/kd_bckd_cls"]) == 0


@pytest.mark.parametrize(("gain", "expected"), [("1.0e-3", 0), ("1.0e+5", 1)])
def test_log__a_term_of_too_large_a_gradient_is_warned_of_once(tiny_pair: Pair, gain: str, expected: int) -> None:
    messages: list[str] = []

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno >= logging.WARNING:
                messages.append(record.getMessage())

    handler = Collect()
    logger = logging.getLogger("ultralytics")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.WARNING)
    try:
        run = start(tiny_pair.plan("ssim", [f"losses.ssim.gain={gain}", "balance.log=true", "balance.every=1"]))
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)
    ratios = [float(row["gradient/kd_ssim"]) for row in rows(run)]
    assert len(ratios) == 3
    assert all((ratio > 10) == bool(expected) for ratio in ratios)
    found = [message for message in messages if "kd_ssim" in message]
    assert len(found) == expected
    assert all("lower its gain" in message and f" {ratios[0]:.0f} times" in message for message in found)
