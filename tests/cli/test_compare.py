"""`yolokd compare` as a user meets it: the table's words, refusals, and a real one that is killed and started again."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from tests.helpers.calling import Run, flat
from tests.helpers.comparing import APS, FakeExecutor
from tests.helpers.matching import matches_of
from tests.helpers.models import detector, save
from tests.helpers.unlabeled import make_images
from yolokd.backend.checkpoints import load
from yolokd.comparison.metrics import BOXES
from yolokd.comparison.spec import read
from yolokd.evaluation.matches import write_matches
from yolokd.files import sha256
from yolokd.training.settings import KEY


def test_compare__prints_a_table_and_goes_on_where_it_was(run: Run, fake: FakeExecutor) -> None:
    code, out, notified = run()
    assert code == 0, notified
    assert "student on" in out
    assert "1 epoch, 64 px, batch 8; last.pt on val" in flat(out)
    assert "teacher – 30.0 40.0" in flat(out)
    assert "baseline 2 21.0 ± 1.4 31.0 ± 1.4 – – –" in flat(out)
    assert "bckd 2 22.5 ± 2.1 32.5 ± 2.1 +1.5 [-4.9, +7.9] [-4.9, +7.9] undecided 17% 2.0 14" in flat(out)
    assert "undecided: an interval holds 0, so neither a gain nor a loss was shown." in out
    assert "No interval" not in out
    assert "'baseline' was added" in notified
    assert "[5/5] student/bckd-1: AP 24.0, 0:00 min" in notified
    code, again, notified = run()
    assert (code, again) == (0, out)
    assert "[5/5] student/bckd-1: AP 24.0, finished before" in notified
    assert len(fake.submitted) == 5


def test_compare__json_on_stdout_is_nothing_but_json(run: Run, fake: FakeExecutor, tmp_path: Path) -> None:
    code, out, _ = run("--json", "-")
    assert code == 0
    plain = json.loads(out)
    assert plain["comparison"] == "small"
    assert plain["budget"] == {"epochs": 1, "imgsz": 64, "batch": 8, "device": "cpu"}
    assert plain["arms"][1]["scores"]["AP"] == {"0": 0.21, "1": 0.24}
    difference = plain["arms"][1]["difference"]["AP"]
    assert difference["images_and_seeds"] == {"low": difference["low"], "high": difference["high"]}  # images all alike
    _, shown, _ = run("--json", "out.json")
    assert "recipe" in shown
    assert json.loads((tmp_path / "out.json").read_text()) == plain


def test_compare__one_seed_proves_nothing(run: Run, fake: FakeExecutor) -> None:
    _, out, _ = run(seeds="0")
    assert "bckd 1 21.0 31.0 +1.0 – images [+1.0, +1.0] one seed 10%" in flat(out)
    assert "One seed proves nothing: its interval covers other images, but no other seeds. Give at least three" in out
    _, out, _ = run(seeds="0,1")  # a seed is added
    assert "[-4.9, +7.9]" in out
    assert "proves nothing" not in out
    assert sorted(fake.submitted) == sorted(APS)


@pytest.mark.parametrize(("gain", "word"), [(0.02, "gain"), (-0.02, "loss")])
def test_compare__a_gain_is_one_only_if_both_intervals_exclude_0(
    run: Run, fake: FakeExecutor, monkeypatch: pytest.MonkeyPatch, gain: float, word: str
) -> None:
    monkeypatch.setitem(APS, "student/bckd-0", 0.2 + gain)
    monkeypatch.setitem(APS, "student/bckd-1", 0.22 + gain + 0.001)
    _, out, _ = run()
    assert f"] {word} " in flat(out)
    assert "undecided" not in out
    for seed in (0, 1):  # the same mean, but from half of the images
        folder = Path(f"runs/small/student/bckd-{seed}")
        write_matches(folder / BOXES.matches, matches_of([0.0, 1.0] * 20), sha256(folder / "weights" / "last.pt"))
    _, out, _ = run()
    assert "] undecided " in flat(out)
    assert f" {word} " not in flat(out.partition("undecided:")[0])


def test_compare__without_matches_the_second_interval_is_missing(
    run: Run, fake: FakeExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(APS, "student/bckd-1", 0.2304)  # a gain on these images
    run()
    matches = Path("runs/small/student/bckd-1/matches.npz")
    matches.unlink()
    code, out, _ = run("--json", "out.json")
    assert code == 0
    assert "+1.0 [+0.8, +1.3] – seeds only 11%" in flat(out)
    assert "seeds only: the interval over the seeds excludes 0; of new images nothing is known." in out
    assert "No interval for new images of bckd: some of the runs have no matches.npz" in out
    difference = json.loads(Path("out.json").read_text())["arms"][1]["difference"]["AP"]
    assert (difference["images"], difference["images_and_seeds"]) == (None, None)
    assert difference["verdict"] == "seeds only"
    Path("runs/small/student/bckd-1/score.json").unlink()  # as the note says
    _, out, _ = run()
    assert "] gain " in flat(out)
    assert matches.is_file()


def test_compare__a_teacher_below_the_baseline_leaves_no_gap(
    run: Run, fake: FakeExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(APS, "teacher", 0.1)
    assert "no gap to close" in run()[1]


def test_compare__failed_runs_are_named_after_the_table(run: Run, fake: FakeExecutor) -> None:
    fake.codes["student/bckd-1"] = -9
    code, out, error = run()
    assert code == 1
    assert "bckd 1 of 2 21.0" in flat(out)
    assert "[5/5] student/bckd-1: failed" in error
    assert "1 of the comparison's runs failed; the same command tries them again" in flat(error)
    assert "student/bckd-1: terminated by the fake" in error


def test_compare__continued_runs_are_told(run: Run, fake: FakeExecutor, tmp_path: Path) -> None:
    run()
    memory = tmp_path / "runs" / "small" / "student" / "bckd-1" / "memory.json"
    memory.write_text('{"bytes": null, "continued": true}')
    assert "Continued after an interruption, so not exactly paired: bckd 1." in run()[1]


def test_compare__devices_are_used_side_by_side(run: Run, fake: FakeExecutor) -> None:
    assert run(device="cpu,cpu")[0] == 0
    assert fake.most == 2


def test_compare__the_words_of_the_user_are_shown_as_they_are(run: Run, fake: FakeExecutor, tmp_path: Path) -> None:
    shutil.copytree(Path(__file__).parents[2] / "recipes", tmp_path / "mine")
    (tmp_path / "mine" / "bckd.yaml").rename(tmp_path / "mine" / "[red]bckd.yaml")
    fake.codes = {f"student/[red]bckd-{seed}": 1 for seed in (0, 1)}
    _, out, notified = run(recipes="mine/[red]bckd.yaml")
    assert "[red]bckd" in out
    assert "student/[red]bckd-0: failed" in notified


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seeds": "0,x"}, "--seeds expects whole numbers from 0 with commas between, such as 0,1,2, got 'x'"),
        ({"seeds": "0,0"}, "given twice: 0"),
        ({"seeds": "-1"}, "got '-1'"),
        ({"recipes": "bckd,,ssim"}, "--recipes expects words with commas between"),
        ({"recipes": "bckd,bckd"}, "given twice: bckd"),
        ({"recipes": "bckdd"}, "did you mean bckd"),
        ({"teacher": None}, "needs --teacher"),
        ({"teacher": "missing.pt"}, "no file 'missing.pt'"),
        ({"data": "missing.yaml"}, "no data YAML 'missing.yaml'"),
        ({"epochs": "0"}, "train.epochs"),
        ({"batch": "-1"}, "--batch 16"),
        ({"device": "gpu7"}, "device 'gpu7'"),
        ({"json": "nowhere/out.json"}, "'nowhere/out.json' cannot be written: there is no such folder"),
        ({"set": "losses.bckd.cls=2"}, "train.* and teacher.* only"),
        ({"student": None}, "--student"),
        ({"executor": "pbs"}, "--executor expects one of local, ray, slurm, got 'pbs'"),
        ({"slurm": "time=9", "ray": "auto"}, "--slurm and --ray name two places for the same runs"),
        ({"slurm": "time=9", "device": "0,1"}, "--device 0,1 names devices of this machine, and --slurm asks for"),
        ({"slurm": "time=9", "device": None, "gpus-per-run": "1"}, "--gpus-per-run and --cpus-per-run are for --ray"),
        ({"slurm": "memory=9", "device": None}, "got 'memory=9'"),
        ({"slurm": "gpus=1", "device": None}, "--slurm needs time=MINUTES"),
        ({"gpus-per-run": "1"}, "--gpus-per-run is for runs on a Ray cluster; give --ray as well"),
        ({"cpus-per-run": "2"}, "--cpus-per-run is for runs on a Ray cluster"),
        ({"ray": "auto", "device": "0,1"}, "--device 0,1 names devices of this machine, and --ray leaves them"),
        ({"ray": "auto", "gpus-per-run": "2"}, "--gpus-per-run expects 0 to 1"),
        ({"ray": "auto", "gpus-per-run": "nan"}, "--gpus-per-run expects 0 to 1"),
        ({"ray": "auto", "gpus-per-run": "1"}, "--device cpu and --gpus-per-run 1 contradict each other"),
        ({"ray": "auto", "cpus-per-run": "0"}, "--cpus-per-run expects a whole number from 1, got 0"),
        (
            {"ray": "nowhere"},
            "--ray expects auto, local, HOST:PORT" if find_spec("ray") else "pip install 'yolokd[ray]'",
        ),
        ({"budget": "0"}, "--budget expects a time above 0, such as 8h, 90m, 30s or 1h30m, got '0'"),
        ({"budget": "soon"}, "--budget expects a time above 0"),
        ({"precision": "0.5"}, "--precision says when --until-decided has seen enough"),
    ],
)
def test_compare__wrong_words_are_named_and_nothing_is_written(
    run: Run, fake: FakeExecutor, changes: dict[str, str | None], words: str
) -> None:
    code, _, error = run(**changes)
    assert code == 2, error
    assert words in flat(error)
    assert "Traceback" not in error
    assert not Path("runs").exists()
    assert fake.submitted == []


def test_compare__unlabeled_images_are_for_recipes_with_losses(run: Run, fake: FakeExecutor, tmp_path: Path) -> None:
    free = make_images(tmp_path / "free", 3)
    share = ("--set", "train.unlabeled_share=0.25")
    code, _, error = run(*share, unlabeled="free")
    assert code == 0, error
    stored = json.loads(Path("runs/small/compare.json").read_text())
    own = {name: {key for key in recipe["train"] if "unlabeled" in key} for name, recipe in stored["recipes"].items()}
    assert own == {"baseline": set(), "bckd": {"unlabeled", "unlabeled_share"}}
    assert stored["recipes"]["bckd"]["train"]["unlabeled"] == str(free)
    code, _, error = run()
    assert code == 2
    assert "another recipe 'bckd' (train.unlabeled: absent here" in flat(error)
    (free / "free0.png").unlink()
    code, _, error = run(*share, unlabeled="free")
    assert code == 2
    assert f"other unlabeled images than '{free}' holds now" in flat(error)


def test_compare__another_budget_under_the_same_name_is_refused(run: Run, fake: FakeExecutor) -> None:
    run()
    code, _, error = run(epochs="2")
    assert code == 2
    assert "was started with another budget (epochs 1, now 2)" in flat(error)
    assert run(epochs="2", name="longer")[0] == 0


def test_compare__an_interrupted_run_is_not_continued_on_a_cluster(run: Run, fake: FakeExecutor) -> None:
    code, _, error = run("--continue", ray="auto")
    assert code == 2
    assert "--continue is for runs on this machine" in flat(error)
    assert fake.submitted == []


def test_compare__imports_neither_torch_nor_ultralytics() -> None:
    heavy = ("torch", "ultralytics", "numpy", "ray")
    code = f"import sys, yolokd.cli.compare; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


SETTINGS = ("--set", "train.plots=false", "--set", "train.workers=0")


def descendants(pid: int) -> list[int]:
    children = [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return children + [one for child in children for one in descendants(child)]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_for(condition: Callable[[], object], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def kill_during(options: dict[str, str], folder: Path) -> None:
    """Kill a comparison while the run in `folder` is at work, and see that the run's process ends as well."""
    words = [word for pair in options.items() for word in pair]
    process = subprocess.Popen(
        [sys.executable, "-m", "yolokd", "compare", *words, *SETTINGS],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_for((folder / "args.yaml").exists, 300)
    workers = descendants(process.pid)
    assert workers
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    wait_for(lambda: not any(map(alive, workers)), 30)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="processes are looked up in /proc")
@pytest.mark.timeout(900)
def test_compare__killed_and_started_again_trains_the_same_students(
    run: Run, options: dict[str, str], tmp_path: Path
) -> None:
    code, _, notified = run(*SETTINGS, "--json", "first.json")
    assert code == 0, notified
    student = tmp_path / "runs" / "small" / "student"
    names = ("baseline-0", "baseline-1", "bckd-0", "bckd-1")
    first = {name: load(student / name / "weights" / "last.pt")[0].state_dict() for name in names}
    assert load(student / "bckd-1" / "weights" / "last.pt")[1][KEY]["paired"] is True
    kept = (student / "bckd-0" / "weights" / "last.pt").stat()
    shutil.rmtree(student / "bckd-1")
    kill_during(options, student / "bckd-1")
    assert not (student / "bckd-1" / "score.json").exists()
    code, _, notified = run(*SETTINGS, "--json", "second.json")
    assert code == 0, notified
    assert (student / "bckd-0" / "weights" / "last.pt").stat() == kept
    for name in names:
        state = load(student / name / "weights" / "last.pt")[0].state_dict()
        assert all(torch.equal(value, state[key]) for key, value in first[name].items()), name
    tables = [json.loads((tmp_path / name).read_text()) for name in ("first.json", "second.json")]
    for table in tables:
        for arm in table["arms"]:
            assert arm.pop("seconds_per_epoch") > 0
            assert arm.pop("peak_memory_bytes") > 2**27
        assert table["arms"][1]["difference"]["AP"]["images_and_seeds"] is not None
    assert tables[0] == tables[1]


def test_compare__several_teachers_are_kept_with_their_digests(
    run: Run, options: dict[str, str], fake: FakeExecutor, tmp_path: Path
) -> None:
    other = save(detector("26", seed=3), tmp_path / "other.pt")
    code, _, error = run("--teacher", "other.pt")
    assert code == 0, error
    kept = read(tmp_path / "runs" / "small")
    assert kept.teacher == options["--teacher"]
    assert kept.models == {str(other): sha256(other)}
    assert kept.recipes["bckd"]["teacher"]["models"] == [str(other)]
    save(detector("26", seed=4), other)
    code, _, error = run("--teacher", "other.pt")
    assert code == 2
    assert f"another teacher than '{other}' holds now" in flat(error)
    assert len(fake.submitted) == 5
