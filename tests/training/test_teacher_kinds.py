"""Whole runs under several teachers, and under one that sees the images at twice the size."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.helpers.fixtures import Pair, write_description
from tests.helpers.models import detector, save
from tests.helpers.runs import rows, stop_after
from tests.helpers.unlabeled import make_images
from yolokd.backend.checkpoints import load, load_detector
from yolokd.distillation.model import TeacherStudent
from yolokd.errors import UserError
from yolokd.files import sha256
from yolokd.loaders.batch import TrainingBatch
from yolokd.training.run import resume, start
from yolokd.training.settings import KEY
from yolokd.training.trainer import DistillTrainer

pytestmark = pytest.mark.slow  # whole runs


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """A second teacher, which knows two of the data's classes and one of its own."""
    model = detector("26", seed=4)
    model.names = {0: "class2", 1: "Class0", 2: "tree"}
    return save(model, tmp_path / "other.pt")


@dataclass
class Seen:
    """What the models of a run were given."""

    batches: list[TrainingBatch] = field(default_factory=list)
    teacher: list[Tensor] = field(default_factory=list)
    sizes: set[int] = field(default_factory=set)  # of validation images


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    found = Seen()
    teach = TeacherStudent.teach

    def watched(self: TeacherStudent, batch: TrainingBatch, active: Any, **how: Any) -> Any:
        found.batches.append(batch)
        hook = self.teacher_model.register_forward_pre_hook(lambda _, inputs: found.teacher.append(inputs[0]))
        try:
            return teach(self, batch, active, **how)
        finally:
            hook.remove()

    build = DistillTrainer.build_dataset

    def built(self: DistillTrainer, img_path: str, mode: str = "train", batch: int | None = None) -> Any:
        dataset = build(self, img_path, mode, batch)
        if mode == "val":
            found.sizes.add(dataset.imgsz)
        return dataset

    monkeypatch.setattr(TeacherStudent, "teach", watched)
    monkeypatch.setattr(DistillTrainer, "build_dataset", built)
    return found


def assert_distilled(run: Path, *terms: str) -> None:
    for row in rows(run):
        assert all(float(row[f"train/kd_{term}"]) > 0 for term in terms), row
    model, checkpoint = load(run / "weights" / "last.pt")
    assert not [key for key in model.state_dict() if "teacher" in key]
    assert checkpoint["train_args"]["imgsz"] == 64


def test_several__train_and_leave_their_digests(tiny_pair: Pair, other: Path) -> None:
    run = start(tiny_pair.plan("bckd_ssim", [f"teacher.models=['{other}']"], epochs=1))
    assert_distilled(run, "bckd_cls", "bckd_box", "ssim")
    provenance = json.loads((run / "provenance.json").read_text())
    assert provenance["teacher_sha256"] == sha256(tiny_pair.teacher)
    assert provenance["teacher_models"] == [{"path": str(other), "sha256": sha256(other)}]


def test_several__resume_checks_each(
    tiny_pair: Pair, other: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = tiny_pair.plan("bckd", [f"teacher.models=['{other}']"], epochs=2)
    with monkeypatch.context() as patch:
        stop_after(patch, 1)
        with pytest.raises(KeyboardInterrupt):
            start(plan)
    moved = other.rename(tmp_path / "moved.pt")
    with pytest.raises(UserError, match=r"under the teacher '.*other.pt', which is not there any more"):
        resume(str(plan.folder))
    with pytest.raises(UserError, match="under another teacher than"):
        resume(str(plan.folder), teacher=[tiny_pair.teacher, tiny_pair.teacher])
    with pytest.raises(UserError, match="under 2 teachers, not 3"):
        resume(str(plan.folder), teacher=[tiny_pair.teacher, moved, moved])
    run = resume(str(plan.folder), teacher=[tiny_pair.teacher, moved])
    assert [row["epoch"] for row in rows(run)] == ["1", "2"]
    assert load(run / "weights" / "last.pt")[1][KEY]["recipe"]["teacher"]["models"] == [str(moved)]


def test_several__pseudo_labels_and_stored_answers_ask_all(tiny_pair: Pair, other: Path, tmp_path: Path) -> None:
    free = make_images(tmp_path / "free", 8)
    common = [f"teacher.models=['{other}']", "train.pseudo_labels=0.01"]
    live = start(tiny_pair.plan("bckd", common, epochs=1, unlabeled=str(free), name="live"))
    assert_distilled(live, "bckd_cls")
    both = [*common, "teacher.answers=stored", "teacher.flip=false"]
    stored = start(tiny_pair.plan("baseline", both, epochs=1, unlabeled=str(free), name="stored"))
    assert len(rows(stored)) == 1


def test_scale__the_student_sees_the_average(tiny_pair: Pair, seen: Seen, tmp_path: Path) -> None:
    free = make_images(tmp_path / "free", 8)
    overrides = ["teacher.scale=2", "losses.ssim.levels=[p3, p4]", "weighting.aid={}", "train.pseudo_labels=true"]
    run = start(tiny_pair.plan("bckd_ssim", overrides, epochs=1, unlabeled=str(free)))
    assert_distilled(run, "bckd_cls", "bckd_box", "ssim")
    assert seen.sizes == {64}
    assert len(seen.teacher) == len(seen.batches) == 2
    for batch, given in zip(seen.batches, seen.teacher, strict=True):
        assert batch.unlabeled is not None
        assert given.shape[-2:] == (128, 128)
        assert len(given) == len(batch.images)
        assert torch.equal(batch.images, F.avg_pool2d(given, 2))
        assert len(batch.without_unlabeled().teacher_images) == len(batch)


def test_scale__order_and_random_numbers_are_those_of_a_plain_run(tiny_pair: Pair, seen: Seen) -> None:
    for scale in (1, 2):
        plan = tiny_pair.plan("bckd", [f"teacher.scale={scale}"], epochs=1, name=f"scale{scale}")
        start(plan, paired=True)
    plain, scaled = seen.batches[:2], seen.batches[2:]
    for one, other in zip(plain, scaled, strict=True):
        assert one.files == other.files
        assert torch.equal(one.labeled["cls"], other.labeled["cls"])
        torch.testing.assert_close(one.labeled["bboxes"], other.labeled["bboxes"], atol=0.04, rtol=0)
        difference = (one.images - other.images).abs().mean()
        assert 0 < difference < 0.1 < (one.images - one.images.flip(0)).abs().mean()


def test_scale__resumes(tiny_pair: Pair, seen: Seen, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = tiny_pair.plan("bckd", ["teacher.scale=2"], epochs=2)
    with monkeypatch.context() as patch:
        stop_after(patch, 1)
        with pytest.raises(KeyboardInterrupt):
            start(plan)
    run = resume(str(plan.folder))
    assert_distilled(run, "bckd_cls")
    assert {given.shape[-1] for given in seen.teacher} == {128}


def test_scale__plain_training_ignores_it(tiny_pair: Pair) -> None:
    losses = []
    for scale in (1, 2):
        run = start(tiny_pair.plan("baseline", [f"teacher.scale={scale}"], epochs=1, name=f"plain{scale}"))
        losses.append({key: value for key, value in rows(run)[0].items() if key != "time"})
    assert losses[0] == losses[1]


def with_levels(pair: Pair, folder: Path, student: str, teacher: str) -> Pair:
    """The pair with a student and a teacher of other levels."""
    model = save(detector(teacher, width=0.25, seed=1), folder / "teacher.pt")
    return replace(pair, teacher=model, student=write_description(folder / "student.yaml", student))


@pytest.mark.parametrize(
    ("student", "teacher", "recipe", "changes", "terms"),
    [
        ("v8-p2", "v8-p2", "bckd_ssim", ["weighting.aid={}"], ("bckd_cls", "bckd_box", "ssim")),
        ("v8", "v8-p2", "everything", [], ("bckd_cls", "bckd_box", "samkd_logits", "samkd", "ikd")),
        ("v8-p2", "v8", "cwd", ["teacher.scale=2", "losses.bckd={}"], ("cwd", "bckd_cls", "bckd_box")),
        ("v8-p2", "26", "bckd", ["losses.pkd={}"], ("bckd_cls", "pkd")),
    ],
)
def test_levels__train_whatever_each_side_has(
    tiny_pair: Pair, tmp_path: Path, student: str, teacher: str, recipe: str, changes: list[str], terms: tuple[str, ...]
) -> None:
    pair = with_levels(tiny_pair, tmp_path, student, teacher)
    run = start(pair.plan(recipe, changes, epochs=1))
    assert_distilled(run, *terms)
    plain = load_detector(run / "weights" / "best.pt")
    assert len(plain.stride) == (4 if student == "v8-p2" else 3)


def test_levels__a_stored_teacher_and_pseudo_labels_know_no_levels(tiny_pair: Pair, tmp_path: Path) -> None:
    pair = with_levels(tiny_pair, tmp_path, "v8-p3p4", "v8-p6")
    overrides = ["train.pseudo_labels=0.01", "teacher.flip=false"]
    free = str(make_images(tmp_path / "free", 8))
    for name in ("soft", "baseline"):
        stored = [*overrides, *(["teacher.answers=stored"] if name == "soft" else [])]
        run = start(pair.plan(name, stored, epochs=1, unlabeled=free, name=name))
        assert len(rows(run)) == 1


def test_levels__continue_after_an_interruption(
    tiny_pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = with_levels(tiny_pair, tmp_path, "v8-p2", "v8-p6")
    plan = pair.plan("mgd", epochs=2)
    with monkeypatch.context() as patch:
        stop_after(patch, 1)
        with pytest.raises(KeyboardInterrupt):
            start(plan)
    saved: Any = load(plan.folder / "weights" / "last.pt")[0]
    assert sorted(saved.projector["mgd"]["generator"]) == ["p3", "p4", "p5"]
    run = resume(str(plan.folder))
    assert [row["epoch"] for row in rows(run)] == ["1", "2"]
    assert_distilled(run, "mgd")
