"""Events of a run: written, read back, and damaged."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.fixtures import Pair
from tests.helpers.runs import stop_after
from yolokd.training import epochs
from yolokd.training.events import FILE, Event, read_events, write_event
from yolokd.training.run import resume, start

EVENTS = [Event("gradient_ratio", "ssim", 2, 31.5), Event("gradient_ratio", "bckd_cls", 3, 11.0)]


def test_read_events__are_those_written(tmp_path: Path) -> None:
    assert read_events(tmp_path) == []
    for event in EVENTS:
        write_event(tmp_path, event)
    assert read_events(tmp_path) == EVENTS


def test_read_events__lines_of_another_form_are_left_out(tmp_path: Path) -> None:
    write_event(tmp_path, EVENTS[0])
    with (tmp_path / FILE).open("a") as file:
        file.write('[]\n{"kind": 3}\n{"kind": "a", "term": "b", "epoch": 1, "value": NaN}\nbroken {\n')
    write_event(tmp_path, EVENTS[1])
    assert read_events(tmp_path) == EVENTS


def test_str__is_a_sentence_with_the_term_and_what_to_do() -> None:
    assert str(EVENTS[0]) == (
        "kd_ssim has 32 times the detection loss's gradient at the neck (epoch 2): lower its gain, or set it to auto"
    )


@pytest.mark.slow
def test_trainer__writes_one_event_per_term_above_the_limit(tiny_pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(epochs, "RATIO_LIMIT", 0)
    run = start(tiny_pair.plan("bckd_ssim", ["balance.log=true", "balance.every=1"], epochs=2))
    found = read_events(run)
    assert sorted(event.term for event in found) == ["bckd_box", "bckd_cls", "ssim"]
    assert all(event.value > 0 and event.epoch in {1, 2} for event in found)


@pytest.mark.slow
def test_trainer__a_resumed_run_does_not_warn_again(tiny_pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(epochs, "RATIO_LIMIT", 0)
    plan = tiny_pair.plan("ssim", ["balance.every=1"], epochs=2)
    with monkeypatch.context() as patch:
        stop_after(patch, 1)
        with pytest.raises(KeyboardInterrupt):
            start(plan)
    before = read_events(plan.folder)
    assert [event.term for event in before] == ["ssim"]
    resume(str(plan.folder))
    assert read_events(plan.folder) == before
