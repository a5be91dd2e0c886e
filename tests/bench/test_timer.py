from __future__ import annotations

import time
from typing import Any

import pytest
import torch
from torch import nn

from yolokd.bench.timer import Time, Timer, held_bytes, in_turn, peak_bytes

CPU = torch.device("cpu")


def test_clock__takes_both_clocks_in_milliseconds(monkeypatch: pytest.MonkeyPatch) -> None:
    wall, cpu = iter((10.0, 10.5, 11.0, 11.25)), iter((1.0, 1.125, 2.0, 2.0))
    monkeypatch.setattr(time, "perf_counter", lambda: next(wall))
    monkeypatch.setattr(time, "process_time", lambda: next(cpu))
    timer = Timer(CPU)
    for _ in range(2):
        with timer("work"):
            pass
    assert timer.times == {"work": [Time(500.0, 125.0), Time(250.0, 0.0)]}


def test_clock__an_error_inside_is_no_measurement() -> None:
    timer = Timer(CPU)
    with pytest.raises(KeyError), timer("work"):
        raise KeyError
    assert timer.times == {}


def test_in_turn__every_arm_once_per_round_and_the_warm_up_does_not_count() -> None:
    ran: list[str] = []

    def arm(name: str) -> Any:
        def run(timer: Timer) -> None:
            ran.append(name)
            with timer(name):
                pass

        return run

    shares: list[float] = []
    timer = in_turn([arm(n) for n in "abcd"], CPU, rounds=6, warm_up=2, report=shares.append)
    rounds = [ran[i : i + 4] for i in range(0, len(ran), 4)]
    assert len(rounds) == 8
    assert all(sorted(one) == list("abcd") for one in rounds)
    assert len({tuple(one) for one in rounds}) > 1, "the order never changes"
    assert {name: len(times) for name, times in timer.times.items()} == dict.fromkeys("abcd", 6)
    assert shares == [(i + 1) / 32 for i in range(32)]


def test_peak_bytes__counts_what_is_alive_at_once() -> None:
    old = torch.zeros(1000)

    def run() -> None:
        first = torch.zeros(100)  # 400
        second = first + 1  # 800
        del first  # 400
        third = torch.zeros(50)  # 600
        old.add_(1)
        second.view(10, 10).mul_(2)
        del second, third
        torch.zeros(150)  # 600

    assert peak_bytes(run, CPU) == 800


def test_peak_bytes__sees_what_a_backward_pass_makes() -> None:
    x = torch.ones(100, requires_grad=True)

    def run() -> None:
        torch.autograd.backward([x.exp().sum()])  # exp 400, kept; its sum 4, that one's gradient 4, that of x 400

    assert 800 <= peak_bytes(run, CPU) <= 816
    assert x.grad is not None


def test_held_bytes__each_tensor_once() -> None:
    norm = nn.BatchNorm2d(3)  # weight, bias, mean and variance of float32, a counter of int64
    assert held_bytes(norm) == 4 * 3 * 4 + 8
    assert held_bytes(norm, nn.Sequential(norm), None) == 4 * 3 * 4 + 8
    assert held_bytes(nn.Linear(2, 5).half()) == 2 * (10 + 5)
