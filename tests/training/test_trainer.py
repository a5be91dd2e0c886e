"""Whole runs on a tiny data set: what they leave behind, interruptions, and that `baseline` is plain training."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from ultralytics import YOLO
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.nn.tasks import DetectionModel

from tests.helpers.fixtures import Pair
from tests.helpers.models import detector, save
from tests.helpers.runs import rows, stop_after
from yolokd.backend.checkpoints import load, load_detector, plain_copy
from yolokd.errors import RunError, UserError
from yolokd.files import sha256
from yolokd.locks import locked
from yolokd.training.events import Event, read_events, write_event
from yolokd.training.run import resolve_recipe, resume, start
from yolokd.training.settings import KEY
from yolokd.training.trainer import LOCK, DistillTrainer

pytestmark = pytest.mark.slow  # whole runs

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def interrupted(tiny_pair: Pair, monkeypatch: pytest.MonkeyPatch) -> Path:
    plan = tiny_pair.plan()
    with monkeypatch.context() as patch:
        stop_after(patch, 2)
        with pytest.raises(KeyboardInterrupt):
            start(plan)
    return Path(plan.folder)


def test_start__leaves_a_plain_student_with_recipe_and_provenance(tiny_pair: Pair) -> None:
    before = sha256(tiny_pair.teacher)
    run = start(tiny_pair.plan(overrides=["train.plots=true"], epochs=2, seed=7))
    assert [row["epoch"] for row in rows(run)] == ["1", "2"]
    assert all(float(rows(run)[-1][f"train/kd_{term}"]) > 0 for term in ("bckd_cls", "bckd_box", "ssim"))
    provenance = json.loads((run / "provenance.json").read_text())
    assert provenance["teacher_sha256"] == before == sha256(tiny_pair.teacher)
    assert provenance["seed"] == 7
    assert provenance["student_initialisation"] == "from scratch"
    assert {"command", "versions", "data_fingerprint"} <= provenance.keys()
    assert resolve_recipe(run / "recipe.yaml").losses == resolve_recipe("bckd_ssim").losses
    assert (run / "results.png").stat().st_size > 10_000
    assert not list(run.rglob("*.part"))
    for name in ("best.pt", "last.pt"):
        model, checkpoint = load(run / "weights" / name)
        assert type(model) is DetectionModel
        assert checkpoint[KEY]["recipe"]["losses"]["ssim"]["gain"] == 2.0
        assert checkpoint[KEY]["teacher_sha256"] == before
        assert not [k for k in model.state_dict() if "teacher" in k or "projector" in k]
        assert checkpoint["epoch"] == -1


def test_start__the_final_checkpoint_loads_without_yolokd(tiny_pair: Pair) -> None:
    run = start(tiny_pair.plan(epochs=1))
    code = (
        "import sys; sys.modules['yolokd'] = None\n"
        "from ultralytics import YOLO\n"
        f"model = YOLO({str(run / 'weights' / 'best.pt')!r})\n"
        "assert type(model.model).__name__ == 'DetectionModel', type(model.model)\n"
        "print(len(model.ckpt['yolokd']['recipe']['losses']))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("2")


def test_start__baseline_trains_exactly_like_ultralytics(tiny_pair: Pair, tmp_path: Path) -> None:
    run = start(tiny_pair.plan("baseline", epochs=2, seed=3))
    stock = YOLO(str(tiny_pair.student))
    stock.train(
        data=str(tiny_pair.data), epochs=2, imgsz=64, batch=8, device="cpu", seed=3, plots=False,
        project=str(tmp_path / "stock"), name="run", verbose=False,
    )  # fmt: skip
    ours, theirs = rows(run), rows(tmp_path / "stock" / "run")
    for row in [*ours, *theirs]:
        row.pop("time")
    assert ours == theirs
    own, other = load(run / "weights" / "last.pt")[0], load(tmp_path / "stock" / "run" / "weights" / "last.pt")[0]
    assert all(torch.equal(v, other.state_dict()[k]) for k, v in own.state_dict().items())


def test_start__every_arm_begins_from_the_same_student(tiny_pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, dict[str, Any]] = {}

    def peek(self: DistillTrainer) -> None:
        student = getattr(self.model, "student_model", self.model)
        seen[self.recipe.name] = {k: v.clone() for k, v in student.state_dict().items()}
        raise KeyboardInterrupt

    monkeypatch.setattr(DistillTrainer, "progress_string", peek)
    for recipe in ("baseline", "bckd_ssim", "ultralytics"):
        with pytest.raises(KeyboardInterrupt):
            start(tiny_pair.plan(recipe))
    first = seen["baseline"]
    for other in (seen["bckd_ssim"], seen["ultralytics"]):
        assert first.keys() == other.keys()
        weights = [k for k in first if "running" not in k and "num_batches" not in k]  # one forward pass has been made
        assert all(torch.equal(first[k], other[k]) for k in weights)


def test_resume__continues_from_the_last_saved_epoch(interrupted: Path) -> None:
    wrapper: Any = load(interrupted / "weights" / "last.pt")[0]
    assert wrapper.teacher_model is None
    assert resume(str(interrupted)) == interrupted
    assert [row["epoch"] for row in rows(interrupted)] == ["1", "2", "3"]
    assert type(load(interrupted / "weights" / "best.pt")[0]) is DetectionModel


def test_resume__projector_and_schedule_come_back(interrupted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrapper: Any = load(interrupted / "weights" / "last.pt")[0]
    saved = wrapper.projector.state_dict()
    seen: dict[str, Any] = {}

    def peek(self: DistillTrainer) -> None:
        seen["projector"] = {k: v.clone() for k, v in self.model.projector.state_dict().items()}
        seen["gains"] = self.model.distillation.gains
        seen["epoch"] = self.start_epoch
        raise KeyboardInterrupt

    monkeypatch.setattr(DistillTrainer, "_model_train", peek)
    with pytest.raises(KeyboardInterrupt):
        resume(str(interrupted))
    assert saved
    assert all(torch.equal(v, seen["projector"][k]) for k, v in saved.items())
    assert seen["gains"] == {"bckd_cls": 8.0, "bckd_box": 32.0, "ssim": 2.0}
    assert seen["epoch"] == 2


def test_resume__a_row_without_its_checkpoint_is_not_doubled(tiny_pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = tiny_pair.plan("baseline")
    with monkeypatch.context() as patch:
        stop_after(patch, 2, before_saving=True)
        with pytest.raises(KeyboardInterrupt):
            start(plan)
    with (plan.folder / "results.csv").open("a") as file:
        file.write("3,0.1")  # and half a line of the next
    resume(str(plan.folder))
    assert [row["epoch"] for row in rows(plan.folder)] == ["1", "2", "3"]


def test_resume__a_run_killed_while_finishing_is_finished(tiny_pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = tiny_pair.plan()
    with monkeypatch.context() as patch:
        stop_after(patch, 3)
        with pytest.raises(KeyboardInterrupt):
            start(plan)
    notes = list[str]()
    resume(str(plan.folder), changes=["train.batch=4"], tell=notes.append)
    assert notes == ["all epochs are completed, so nothing changes by train.batch=4"]
    for name in ("best.pt", "last.pt"):
        assert type(load(plan.folder / "weights" / name)[0]) is DetectionModel
    with pytest.raises(UserError, match="is finished"):
        resume(str(plan.folder))


def test_resume__another_teacher_or_recipe_is_refused_by_name(
    interrupted: Path, tiny_pair: Pair, tmp_path: Path
) -> None:
    other = save(detector("v8", width=0.25, seed=5), tmp_path / "other.pt")
    with pytest.raises(UserError, match=r"another teacher than '.*other\.pt'"):
        resume(str(interrupted), teacher=other)
    with pytest.raises(UserError, match=r"losses\.ssim\.gain"):
        resume(str(interrupted), recipe=resolve_recipe("bckd_ssim", ["losses.ssim.gain=4"]))
    with pytest.raises(UserError, match=r"train\.epochs"):
        resume(str(interrupted), recipe=resolve_recipe("bckd_ssim", ["train.epochs=9"]), named=["epochs"])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"changes": ["train.epochs=3"]}, r"leave out train\.epochs .*laid out for the run's length"),
        ({"changes": ["train.batch=4", "losses.ssim.gain=4"]}, r"leave out losses\.ssim\.gain "),
        ({"named": ["imgsz"]}, r"leave out train\.imgsz "),
    ],
)
def test_resume__changes_that_would_make_another_run_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        resume("anywhere", **options)


def test_resume__the_teachers_file_has_changed(
    tiny_pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = Path(shutil.copy(tiny_pair.teacher, tmp_path / "teacher.pt"))
    plan = Pair(teacher, tiny_pair.student, tiny_pair.data, tiny_pair.runs).plan()
    with monkeypatch.context() as patch:
        stop_after(patch, 1)
        with pytest.raises(KeyboardInterrupt):
            start(plan)
    save(detector("v8", width=0.25, seed=9), teacher)
    with pytest.raises(UserError, match="another teacher"):
        resume(str(plan.folder))


def test_resume__what_is_no_interrupted_run_is_refused(tmp_path: Path, teacher_pt: Path) -> None:
    with pytest.raises(UserError, match="There is no run"):
        resume(str(tmp_path / "missing"))
    early = tmp_path / "early"
    (early / "weights").mkdir(parents=True)
    (early / "args.yaml").write_text("epochs: 3\n")
    with pytest.raises(UserError, match="before its first epoch was saved"):
        resume(str(early))
    with pytest.raises(UserError, match="not an interrupted yolokd run"):
        resume(str(teacher_pt))


def test_save_model__a_full_disk_leaves_the_previous_checkpoint(
    tiny_pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = tiny_pair.plan(epochs=2)
    write = Path.write_bytes
    written: list[str] = []

    def full(self: Path, content: Any) -> int:
        written.append(self.name)
        if len([w for w in written if w.startswith("last")]) == 2:
            write(self, content[:100])
            raise OSError(28, "No space left on device")
        return write(self, content)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(RunError, match="No space left on device"):
            start(plan)
    assert not list(plan.folder.rglob("*.part"))
    assert load(plan.folder / "weights" / "last.pt")[1]["epoch"] == 0
    resume(str(plan.folder))
    assert [row["epoch"] for row in rows(plan.folder)] == ["1", "2"]


def test_checkpoint__in_mid_run_gives_the_student_and_holds_no_teacher(interrupted: Path, tmp_path: Path) -> None:
    last = interrupted / "weights" / "last.pt"
    wrapper, checkpoint = load(last)
    assert not [k for k in wrapper.state_dict() if "teacher" in k]
    moments = len(checkpoint["optimizer"]["state"])
    trainable = sum(p.dtype.is_floating_point for p in wrapper.parameters())
    assert moments <= trainable
    student = load_detector(last)
    assert type(student) is DetectionModel
    plain = plain_copy(last, tmp_path)
    assert type(YOLO(str(plain)).model) is DetectionModel
    assert plain_copy(plain, tmp_path) == plain


def test_distributed__workers_rebuild_recipe_and_teacher(tiny_pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    from ultralytics.utils.dist import ddp_cleanup, generate_ddp_file

    made: list[DistillTrainer] = []
    monkeypatch.setattr(DistillTrainer, "train", lambda self: made.append(self))
    start(tiny_pair.plan("bckd_ssim", ["losses.ssim.gain=3"]))
    script = generate_ddp_file(made[0])
    worker = (
        Path(script)
        .read_text()
        .replace(
            "trainer.train()",
            "trainer._setup_train(); m = trainer.model; "
            "print(type(m).__name__, m.distillation.gains, len(m.projector), m.teacher_model is not None, "
            "trainer.settings.teacher_sha256)",
        )
    )
    try:
        done = subprocess.run([sys.executable, "-c", worker], capture_output=True, text=True, check=False)
    finally:
        ddp_cleanup(made[0], script)
    assert done.returncode == 0, done.stderr
    expected = f"TeacherStudent {{'bckd_cls': 8.0, 'bckd_box': 32.0, 'ssim': 3.0}} 2 True {sha256(tiny_pair.teacher)}"
    assert expected in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("moment", [0.0, 0.4])
def test_resume__after_sigkill(tiny_pair: Pair, moment: float) -> None:
    command = [
        sys.executable, "-m", "yolokd", "train", "--teacher", str(tiny_pair.teacher),
        "--student", str(tiny_pair.student), "--recipe", "bckd_ssim", "--data", str(tiny_pair.data), "--epochs", "6",
        "--imgsz", "64", "--batch", "8", "--device", "cpu", "--set", "train.plots=false", "--name", "killed",
    ]  # fmt: skip
    tiny_pair.runs.mkdir()
    run = tiny_pair.runs / "runs" / "killed"
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    process = subprocess.Popen(
        command, cwd=tiny_pair.runs, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while not (run / "weights" / "last.pt").exists():
        assert process.poll() is None
        time.sleep(0.02)
    time.sleep(moment)
    process.send_signal(signal.SIGKILL)
    process.wait()
    resume(str(run))
    assert [row["epoch"] for row in rows(run)] == [str(i) for i in range(1, 7)]
    assert type(load(run / "weights" / "best.pt")[0]) is DetectionModel


def test_resume__a_multi_gpu_worker_can_read_the_checkpoint(interrupted: Path) -> None:
    code = (
        "from yolokd.training.trainer import DistillTrainer\n"
        f"last = {str(interrupted / 'weights' / 'last.pt')!r}\n"
        f"overrides = {{'model': last, 'resume': last, 'save_dir': {str(interrupted)!r}, 'device': 'cpu'}}\n"
        "trainer = DistillTrainer(overrides=overrides)\n"
        "trainer._setup_train()\n"
        "print(type(trainer.model).__name__, trainer.start_epoch)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("TeacherStudent 2")


def test_nan__in_the_student_is_left_to_ultralytics_recovery(tiny_pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = tiny_pair.plan(epochs=3)
    original = DistillTrainer._model_train
    broken: list[int] = []

    def spoil(self: DistillTrainer) -> None:
        original(self)
        if self.epoch == 1 and not broken:
            broken.append(1)
            next(self.model.student_model.parameters()).data.fill_(float("nan"))

    with monkeypatch.context() as patch:
        patch.setattr(DistillTrainer, "_model_train", spoil)
        run = start(plan)
    assert broken
    assert [row["epoch"] for row in rows(run)] == ["1", "2", "3"]


@pytest.mark.skipif(sys.platform == "win32", reason="no such locks")
def test_start__looks_through_the_images_while_no_other_run_does(
    tiny_pair: Pair, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = []
    monkeypatch.setenv("YOLOKD_CACHE", str(tmp_path))  # other tests run at the same time

    def build(trainer: DetectionTrainer, *_: Any) -> None:
        with pytest.raises(BlockingIOError), locked(tmp_path / LOCK, wait=False):
            pass
        found.append(type(trainer))
        raise KeyboardInterrupt

    monkeypatch.setattr(DetectionTrainer, "get_dataloader", build)
    with pytest.raises(KeyboardInterrupt):
        start(tiny_pair.plan())
    assert found == [DistillTrainer]
    with locked(tmp_path / LOCK, wait=False):
        pass


def test_start__a_frozen_neck_and_numbered_checkpoints(tiny_pair: Pair) -> None:
    run = start(tiny_pair.plan("bckd", ["train.freeze=22", "train.save_period=1"], epochs=1))
    assert type(load(run / "weights" / "epoch0.pt")[0]) is DetectionModel
    with pytest.raises(RunError, match="all layers up to it are frozen"):
        start(tiny_pair.plan("ssim", ["train.freeze=22", "losses.ssim.gain=auto"], epochs=1, name="auto"))


def test_start__over_an_earlier_run_takes_none_of_its_records(tiny_pair: Pair) -> None:
    run = start(tiny_pair.plan("bckd", ["train.save_period=1"], epochs=2, name="same"))
    write_event(run, Event("gradient_ratio", "bckd_cls", 1, 31.5))
    (run / "aid.jsonl").write_text('{"epoch": 1}\n')
    assert start(tiny_pair.plan("ssim", ["train.exist_ok=true"], epochs=1, name="same")) == run
    assert not (run / "aid.jsonl").exists()
    assert read_events(run) == []
    found = {path.stem: load(path)[1][KEY]["recipe_name"] for path in (run / "weights").glob("*.pt")}
    assert found == {"epoch0": "bckd", "epoch1": "bckd", "best": "ssim", "last": "ssim"}


def test_start__single_class(tiny_pair: Pair) -> None:
    teacher = save(detector("v8", width=0.25, classes=1, seed=1), tiny_pair.runs.parent / "one.pt")
    pair = Pair(teacher, tiny_pair.student, tiny_pair.data, tiny_pair.runs)
    overrides = ["train.single_cls=true", "teacher.classes={class0: item}"]
    assert len(rows(start(pair.plan("bckd", overrides, epochs=1)))) == 1
