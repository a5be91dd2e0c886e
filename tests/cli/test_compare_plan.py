"""Options of `yolokd compare` for stopping, and how times are written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.helpers.calling import Run, flat
from tests.helpers.comparing import APS, FakeExecutor
from yolokd.cli.compare_plan import check_precision, duration, parse_budget, parse_seeds
from yolokd.comparison.spec import read
from yolokd.errors import UserError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("8h", 28800), ("90m", 5400), ("30s", 30), ("1h30m", 5400), ("0.5h", 1800), ("1h1m1s", 3661), (" 2m ", 120)],
)
def test_parse_budget__reads_hours_minutes_and_seconds(text: str, seconds: float) -> None:
    assert parse_budget(text) == seconds


@pytest.mark.parametrize("text", ["0", "0h", "", "8", "h", "-1h", "1d", "30m1h", "1e3s", "٣h", "9" * 40 + "h", "inf"])
def test_parse_budget__refuses_other_words(text: str) -> None:
    with pytest.raises(UserError, match="--budget expects a time above 0"):
        parse_budget(text)


def test_parse_budget__none_is_no_limit() -> None:
    assert parse_budget(None) is None


def test_parse_seeds__more_to_choose_from_where_it_stops_by_itself() -> None:
    assert parse_seeds(None, until_decided=False) == [0, 1, 2]
    assert parse_seeds(None, until_decided=True) == [*range(10)]
    assert parse_seeds("4, 7", until_decided=True) == [4, 7]


def test_check_precision__points_become_a_share() -> None:
    assert check_precision(0.5, until_decided=True) == pytest.approx(0.005)
    assert check_precision(None, until_decided=False) is None
    with pytest.raises(UserError, match="above 0"):
        check_precision(float("inf"), until_decided=True)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (99, "99 s"), (100, "2 min"), (5940, "99 min"), (5999, "1 h 40 min"), (7500, "2 h 05 min")],
)
def test_duration__in_the_unit_that_fits(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seeds": "3"}, "--until-decided adds seeds one by one and needs at least two that it may use, got --seeds 3"),
        ({"precision": "0"}, "--precision expects AP points above 0, such as 0.5, got 0"),
        ({"precision": "-1"}, "AP points above 0"),
        ({"precision": "nan"}, "AP points above 0"),
    ],
)
def test_compare__until_decided_refuses_what_decides_nothing(
    run: Run, fake: FakeExecutor, changes: dict[str, str | None], words: str
) -> None:
    code, _, error = run("--until-decided", **changes)
    assert code == 2, error
    assert words in flat(error)
    assert not Path("runs").exists()


def test_compare__dry_run_says_what_there_is_to_do_and_writes_nothing(run: Run, fake: FakeExecutor) -> None:
    code, out, error = run("--dry-run", device="cpu,cpu")
    assert code == 0, error
    assert "plan 4 runs: 2 recipes × 2 seeds × 1 student; 0 finished before, and the teacher is to be scored" in flat(
        out
    )
    assert "baseline: about 60 min a run (measured, 12 steps)" in flat(out)
    assert "bckd: about 60 min a run (measured, 12 steps)" in flat(out)
    assert "total about 2 h 00 min, 2 runs at a time" in flat(out)
    assert "disk about 16 MiB for the runs to do;" in flat(out)
    assert fake.submitted == []
    assert not Path("runs").exists()
    code, _, error = run("--dry-run", json="out.json")
    assert code == 2
    assert "--json writes results, and --dry-run has none" in flat(error)


def test_compare__the_plan_knows_finished_runs(run: Run, fake: FakeExecutor) -> None:
    _, _, notified = run(seeds="0")
    assert "plan 2 runs" in flat(notified)
    _, out, _ = run("--dry-run")
    assert "plan 4 runs: 2 recipes × 2 seeds × 1 student; 2 finished before " in flat(out)
    assert "bckd: about 7 s a run (from 1 finished run)" in flat(out)  # as its results.csv says
    assert "total about 14 s, 1 run at a time" in flat(out)
    run()
    _, out, _ = run("--dry-run")
    assert "4 finished before" in out
    assert "total" not in out
    code, _, error = run("--dry-run", epochs="2")
    assert code == 2
    assert "was started with another budget" in flat(error)


def test_compare__a_budget_starts_no_run_that_would_not_end_in_it(run: Run, fake: FakeExecutor) -> None:
    code, out, error = run(budget="50m")
    assert code == 0, error
    assert fake.submitted == ["teacher"]
    assert "The time of --budget 50m is over. Without a pair, by seed: baseline 0, 1; bckd 0, 1." in flat(out)
    assert "The same command goes on from here." in out
    code, out, _ = run(budget="2h")
    assert code == 0
    assert sorted(fake.submitted) == sorted(APS)
    assert "is over" not in out


def add_seeds(monkeypatch: pytest.MonkeyPatch, *gains: float) -> None:
    """Give baseline and bckd an AP for each seed, whose difference is the gain."""
    for seed, gain in enumerate(gains):
        monkeypatch.setitem(APS, f"student/baseline-{seed}", 0.2 + 0.01 * seed)
        monkeypatch.setitem(APS, f"student/bckd-{seed}", 0.2 + 0.01 * seed + gain)


def test_compare__until_decided_adds_seeds_until_the_sequence_excludes_0(
    run: Run, fake: FakeExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_seeds(monkeypatch, 0.020, 0.021, 0.0205, 0.0205)
    code, out, notified = run("--until-decided", "--json", "out.json", seeds=None)
    assert code == 0, notified
    assert "plan 20 runs at most: 2 recipes × 10 seeds × 1 student" in flat(notified)
    assert fake.submitted == [
        "teacher",
        *(f"student/{name}-{seed}" for seed in range(3) for name in ("baseline", "bckd")),
    ]
    assert "95 % sequence," in out
    assert "[+1.7, +2.4]" in flat(out)  # 2.05 ± 10.4 · 0.05 / √3
    assert "The intervals over seeds hold at every number of seeds at once" in flat(out)
    assert "Decided after 3 of 10 seeds: each interval over the seeds excludes 0." in flat(out)
    assert notified.count("student/bckd-0: AP") == 1
    plain = json.loads(Path("out.json").read_text())
    assert plain["sequential"] is True
    low, high = (plain["arms"][1]["difference"]["AP"][end] for end in ("low", "high"))
    assert (high - low) / 2 == pytest.approx(10.41 * 0.0005 / 3**0.5, rel=2e-3)
    count = len(fake.submitted)
    _, again, _ = run("--until-decided", seeds=None)
    assert (again, len(fake.submitted)) == (out, count)
    _, out, _ = run(seeds="0,1,2")  # without the option the intervals stay those of a sequence
    assert "hold at every number of seeds at once" in flat(out)
    assert read(Path("runs/small")).seeds == (0, 1, 2)


def test_compare__until_decided_ends_with_the_last_seed_or_with_the_precision(
    run: Run, fake: FakeExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_seeds(monkeypatch, 0.001, -0.001, 0.001, -0.001)
    code, out, _ = run("--until-decided", seeds="0,1,2")
    assert code == 0
    assert "Not decided after 3 of 3 seeds: bckd." in flat(out)
    code, out, _ = run("--until-decided", "--precision", "0.5", seeds="0,1,2,3")
    assert code == 0
    assert "Decided after 4 of 4 seeds: each interval over the seeds excludes 0 or is within ± 0.5." in flat(out)


def test_compare__until_decided_stops_after_a_failure(run: Run, fake: FakeExecutor) -> None:
    fake.codes["student/bckd-0"] = 1
    code, _, error = run("--until-decided", seeds="0,1,2,3")
    assert code == 1
    assert "1 of the comparison's runs failed" in flat(error)
    assert not any("-2" in name for name in fake.submitted)
