from __future__ import annotations

import json
import statistics

import pytest

from tests.helpers.benching import report
from yolokd.bench.results import Spread, cost_of
from yolokd.bench.timer import Time


def test_cost_of__medians_and_quartiles() -> None:
    values = [4.0, 1.0, 9.0, 16.0, 25.0]
    found = cost_of([Time(wall=v, cpu=2 * v) for v in values])
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    assert found.wall == Spread(middle, low, high) == Spread(9.0, 4.0, 16.0)
    assert found.cpu == Spread(18.0, 8.0, 32.0)
    assert (found.median("wall"), found.median("cpu")) == (9.0, 18.0)


def test_report__floor_and_what_is_left_over() -> None:
    found = report()
    assert found.floor(found.recipes[0], "wall") == 150
    assert found.floor(found.recipes[0], "cpu") == 75
    assert found.rest(found.recipes[0], "wall") == pytest.approx(180 - 150 - (3 + 5) - 2 - 0.25 * (30 + 10))


def test_report__as_plain_data() -> None:
    plain = json.loads(json.dumps(report(scratch=("teacher",)).to_dict()))
    assert plain["conditions"]["scratch"] == ["teacher"]
    assert plain["plain"]["wall_ms"] == {"median": 100.0, "quartile_1": 99.0, "quartile_3": 101.0}
    assert plain["built_in"]["memory_mib"] == 20
    mine = plain["recipes"]["mine"]
    assert mine["step_to_floor"] == {"wall": 1.2, "cpu": 1.2}
    assert mine["step_to_plain"]["wall"] == 1.8
    assert mine["step_to_built_in"]["wall"] == 0.9
    assert (mine["memory_mib"], mine["memory_to_built_in"]) == (30, 1.5)
    assert mine["parts"]["aid"]["backward"] is None
    assert mine["parts"]["ikd"]["share_of_steps"] == 0.25
    assert mine["rest"]["wall_ms"] == 10.0
