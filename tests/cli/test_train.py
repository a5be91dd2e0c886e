"""`yolokd train` as a user meets it: the plan, and every wrong input as one short error."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from ultralytics.nn.tasks import ClassificationModel

from tests.helpers.attack import Attack
from tests.helpers.calling import Result, Run, flat
from tests.helpers.fixtures import make_data, write_description
from tests.helpers.models import CONFIGS, detector, save
from tests.helpers.train_cli import refuses
from tests.helpers.unlabeled import make_images, state_of


def test_dry_run__prints_the_plan_and_writes_nothing(train: Run, tmp_path: Path) -> None:
    code, out, _ = train("--epochs", "7")
    assert code == 0
    for word in ("teacher.pt", "student.yaml", "from scratch", "kd_bckd_cls", "kd_bckd_box", "kd_ssim", "layer 15"):
        assert word in out
    for word in ("64 px, 7 epochs", "the same 3 on both sides", "× plain training", "GFLOPs", "runs/bckd_ssim"):
        assert word in out
    for word in ("warm-up 0 epochs", "warm-up 65% of the run"):
        assert word in out
    assert not list(tmp_path.iterdir())


def test_imgsz__is_rounded_with_a_notice(train: Run) -> None:
    code, out, _ = train("--imgsz", "70")
    assert code == 0
    assert "imgsz 70 is rounded to 96" in out


def test_baseline__needs_no_teacher_and_says_so_if_one_is_given(train: Run) -> None:
    code, out, _ = train("--recipe", "baseline", without=("--teacher",))
    assert code == 0
    assert "about 1.00 × plain training" in out
    assert "the teacher is not used" in train("--recipe", "baseline")[1]


def test_recipe__left_out_is_best_and_needs_a_teacher(train: Run) -> None:
    code, out, _ = train(without=("--recipe",))
    assert code == 0
    assert "Plan: best" in out
    assert "of its parameters taken from the teacher" in " ".join(out.split())
    assert refuses(train(without=("--recipe", "--teacher")), "--teacher yolov8l", "--recipe baseline")


@pytest.fixture
def pretrained(tmp_path: Path) -> str:
    return str(save(detector("v8"), tmp_path / "trained.pt"))


def test_best__from_scratch_distills_with_and_without_images_without_labels(train: Run, tmp_path: Path) -> None:
    free = ("--unlabeled", str(make_images(tmp_path / "free", 3)))
    for more in ((), free):
        code, out, _ = train("--recipe", "best", *more)
        assert code == 0
        words = flat(out)
        assert "kd_bckd_cls 8" in words
        assert "kd_bckd_box 32" in words
        assert "of its parameters taken from the teacher" in words
        assert "note best for a student from scratch: BCKD, and first weights from the teacher" in words
        assert (f"unlabeled {free[1]}" in words) == bool(more)


def test_best__trained_weights_and_images_without_labels_take_pseudo_labels(
    train: Run, pretrained: str, tmp_path: Path
) -> None:
    given = ("--recipe", "best", "--student", pretrained, "--unlabeled", str(make_images(tmp_path / "free", 3)))
    code, out, _ = train(*given)
    assert code == 0
    words = flat(out)
    assert "Plan: best" in words
    assert "trained weights, with images without labels: pseudo-labels" in words
    assert "kd_" not in words
    assert "the student has trained weights and keeps them" not in words
    assert refuses(train(*given, without=("--teacher",)), "takes a teacher's pseudo-labels", "needs --teacher")


def test_best__trained_weights_and_all_images_labeled_train_plainly(train: Run, pretrained: str) -> None:
    code, out, _ = train("--recipe", "best", "--student", pretrained)
    assert code == 0
    words = flat(out)
    assert "trained weights, with all images labeled: plain training" in words
    assert "--unlabeled" in words
    assert "--recipe bckd" in words
    assert "yolokd compare" in words
    assert "the teacher is not used" in words
    assert "about 1.00 × plain training" in words
    code, out, _ = train("--student", pretrained, without=("--teacher", "--recipe"))
    assert code == 0
    assert "Plan: best" in out
    assert "the teacher is not used" not in flat(out)


def test_best__set_wins_over_the_regime(train: Run, pretrained: str) -> None:
    given = ("--recipe", "best", "--student", pretrained, "--set", "losses.bckd.cls=4")
    code, out, _ = train(*given)
    assert code == 0
    words = flat(out)
    assert "kd_bckd_cls 4" in words
    assert "changed by --set losses.bckd.cls=4" in words
    assert "the teacher is not used" not in words
    assert refuses(train(*given, without=("--teacher",)), "compares with a teacher", "needs --teacher")
    aid = ("--recipe", "best", "--set", "weighting.aid.alpha=0.1")
    assert train(*aid)[0] == 0
    assert refuses(train(*aid, "--student", pretrained), "regimes[2].weighting.aid: has nothing to weigh")


def test_regimes__of_a_recipe_of_ones_own(train: Run, tmp_path: Path) -> None:
    text = "losses: {}\nregimes: [{when: {student: scratch}, note: try this, losses: {pkd: {gain: 3}}}]\n"
    (tmp_path / "mine.yaml").write_text(text)
    code, out, _ = train("--recipe", "mine.yaml")
    assert code == 0
    assert "kd_pkd 3" in flat(out)
    assert "mine for a student from scratch: try this" in flat(out)
    (tmp_path / "mine.yaml").write_text(text.replace("gain: 3", "gain: -3").replace("scratch", "scratsh"))
    assert refuses(train("--recipe", "mine.yaml"), "regimes[0].when.student", "scratch", "regimes[0].losses.pkd.gain")


def test_options__go_through_the_recipe_and_all_problems_come_at_once(train: Run) -> None:
    assert refuses(
        train("--epochs", "0", "--batch", "0", "--imgsz", "20", "--set", "losses.ssim.windov=3"),
        "train.epochs", "train.batch", "train.imgsz", "losses.ssim.windov", "window",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--teacher", "missing.pt"), ("no file 'missing.pt'",)),
        (("--teacher", "yolov8l"), ("'yolov8l.pt' is not here", "no network")),
        (("--teacher", "yolov8q"), ("'yolov8q'", "yolov8n.pt")),
        (("--teacher", "yolov8n.yaml"), ("model description without weights",)),
        (("--student", "missing.yaml"), ("no model description 'missing.yaml'",)),
        (("--student", "missing.pt"), ("no file 'missing.pt'",)),
        (("--recipe", "bckd_sim"), ("bckd_sim", "bckd_ssim")),
        (("--recipe", "missing/recipe.yaml"), ("missing/recipe.yaml",)),
        (("--data", "missing.yaml"), ("missing.yaml", "streets")),
        (("--data", "coco8.yaml"), ("coco8.yaml", "no network", "streets")),
        (("--device", "gpu7"), ("device 'gpu7'",)),
        (("--device", "99"), ("device '99'",)),
        (("--set", "losses.ssim"), ("losses.ssim",)),
        (("--resume", "runs/missing"), ("--dry-run plans a new run",)),
        (("--epochs", "many"), ("--epochs",)),
        (("--nonsense",), ("--nonsense",)),
    ],
)
def test_wrong_words__are_named(train: Run, options: tuple[str, ...], words: tuple[str, ...]) -> None:
    assert refuses(train(*options), *words)


def test_unlabeled__stands_in_the_plan_and_nothing_is_written(train: Run, train_files: Path, tmp_path: Path) -> None:
    free = make_images(tmp_path / "free", 3)
    (free / "broken.png").write_bytes(b"no image")
    before = state_of(free)
    code, out, _ = train("--unlabeled", "free", "--set", "train.unlabeled_share=0.25")
    flat = " ".join(out.split())
    assert code == 0
    assert f"unlabeled {free}: 3 images, 25% of what a step sees" in flat
    assert "1 unlabeled image is left out" in flat
    assert "broken.png" in flat
    _, out, _ = train("--unlabeled", "free", "--recipe", "ld")
    assert "unlabeled images teach nothing" in " ".join(out.split())
    _, out, _ = train("--set", "train.unlabeled_share=0.25")
    assert "no effect without train.unlabeled" in " ".join(out.split())
    assert state_of(free) == before
    assert not Path("runs").exists()


def test_unlabeled__wrong_ones_are_named(train: Run, train_files: Path) -> None:
    assert refuses(train("--unlabeled", "missing"), "no unlabeled images", "missing")
    assert refuses(train("--unlabeled", str(train_files / "data" / "labels")), "holds no images")
    assert refuses(train("--unlabeled", str(train_files / "data")), "2 of the unlabeled images", "val split", "001.png")
    assert refuses(
        train("--unlabeled", str(train_files / "data" / "images" / "train"), "--recipe", "baseline"), "has no losses"
    )
    assert refuses(train("--unlabeled", "x", "--resume", "runs/kd", dry=False), "leave out", "--student")


def test_missing_options__say_what_to_give(train: Run) -> None:
    assert refuses(train(without=("--student",)), "--student yolov8n")
    assert refuses(train(without=("--teacher",)), "needs --teacher")


def test_teacher__of_another_task_or_unreadable(train: Run, tmp_path: Path) -> None:
    Path("broken.pt").write_bytes(b"not a checkpoint")
    result = train("--teacher", "broken.pt")
    assert refuses(result, "broken.pt", "cannot be read")
    model = ClassificationModel(str(CONFIGS / "v8/yolov8-cls.yaml"), nc=2, verbose=False)
    model.args = {"task": "classify"}
    save(model, tmp_path / "classify.pt")
    assert refuses(train("--teacher", "classify.pt"), "not a YOLO detector", "Classification", "detect, segment, pose")


def test_teacher__that_would_run_code_is_refused_before_it_does(train: Run, tmp_path: Path) -> None:
    torch.save({"model": Attack(tmp_path / "ran"), "epoch": -1}, tmp_path / "attack.pt")
    assert refuses(train("--teacher", "attack.pt"), "attack.pt", "could run code", "--trust-checkpoint")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("levels", ["p2", "p6"])
def test_levels__the_plan_shows_both_sides_and_what_is_left_out(train: Run, tmp_path: Path, levels: str) -> None:
    write_description(tmp_path / "student.yaml", f"v8-{levels}")
    save(detector(f"v8-{levels}", seed=1), tmp_path / "levels.pt")
    options = {"student": ("--student", "student.yaml"), "teacher": ("--teacher", "levels.pt")}
    alone = {who: ok(train(*words)) for who, words in options.items()}
    both = ok(train(*options["student"], *options["teacher"]))
    channels = r"layer \d+, \d+ channels"
    assert re.search(rf"{levels} +{channels} +none", alone["student"])
    assert re.search(rf"{levels} +none +{channels}", alone["teacher"])
    assert re.search(rf"{levels} +{channels} +{channels}", both)
    for who, text in alone.items():
        assert f"the {who}'s {levels} is left out of all losses" in flat(text)
    assert "left out" not in both


def ok(result: Result) -> str:
    code, out, error = result
    assert code == 0, error
    return out


def test_levels__a_pair_without_a_common_one_is_refused_with_a_table(train: Run, tmp_path: Path) -> None:
    write_description(tmp_path / "student.yaml", "v8-p3p4")
    save(detector("v8-p5"), tmp_path / "levels.pt")
    result = train("--student", "student.yaml", "--teacher", "levels.pt")
    assert refuses(result, "no level in common", "student p3 8, p4 16", "teacher p5 32")


def test_classes__that_do_not_match_are_shown_as_a_table(train: Run, tmp_path: Path) -> None:
    teacher = detector("v8", seed=1)
    teacher.names = {0: "class0", 1: "[bold]x[/bold]", 2: "other"}
    save(teacher, tmp_path / "partial.pt")
    result = train("--teacher", "partial.pt")
    assert refuses(result, "1 of the data's 3 classes", "class1 - missing -", "--recipe baseline", "--allow-partial")
    assert train("--teacher", "partial.pt", "--recipe", "ssim")[0] == 0
    code, out, _ = train("--teacher", "partial.pt", "--allow-partial")
    assert code == 0
    assert "- none -" in out
    mapped = ["--set", "teacher.classes={'[bold]x[/bold]': class1, other: class2}"]
    code, out, _ = train("--teacher", "partial.pt", *mapped)
    assert code == 0
    assert "[bold]x[/bold]" in out
    assert refuses(train("--teacher", "partial.pt", "--set", "teacher.classes.nobody=class1"), "no class 'nobody'")


def test_classes__a_shipped_map_distils_the_classes_that_it_knows(train: Run, tmp_path: Path) -> None:
    teacher = detector("v8", classes=4, seed=1)
    teacher.names = {0: "person", 1: "bicycle", 2: "car", 3: "bus"}
    save(teacher, tmp_path / "coco.pt")
    data = make_data(tmp_path / "kitti", train=2, val=2)
    data.write_text(
        data.read_text().replace("class0", "Car").replace("class1", "Pedestrian").replace("class2", "Cyclist")
    )
    given = ["--teacher", "coco.pt", "--data", str(data)]
    assert refuses(train(*given), "1 of the data's 3 classes", "--set teacher.classes=coco-to-kitti")
    code, out, _ = train(*given, "--set", "teacher.classes=coco-to-kitti")
    assert code == 0
    words = " ".join(out.split())
    assert "Car car Pedestrian person Cyclist - none -" in words
    assert "the teacher does not know Cyclist (the class map has no partner for them)" in words
    code, out, _ = train(*given, "--set", "teacher.classes={bus: Car, person: Pedestrian, bicycle: Cyclist}")
    assert code == 0
    assert "Car car + bus Pedestrian person Cyclist bicycle" in " ".join(out.split())
    assert refuses(train(*given, "--set", "teacher.classes=coco-to-kity"), "did you mean coco-to-kitti?")
    assert refuses(
        train("--set", "teacher.classes=coco-to-kitti"), "coco-to-kitti is for data with Car, Truck, Pedestrian, Tram"
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: (d / "data.yaml").write_text("train: [\n"), ("data.yaml",)),
        (lambda d: (d / "data.yaml").write_text("- a\n- b\n"), ("data.yaml",)),
        (lambda d: (d / "data.yaml").write_text("train: images/train\nval: images/val\n"), ("names",)),
        (lambda d: shutil.rmtree(d / "images" / "val"), ("val",)),
        (lambda d: [p.unlink() for p in (d / "images" / "train").iterdir()], ("train",)),
        (lambda d: (d / "labels/train/001.txt").write_text("0 .5 .5 .2 .2\n7 .5 .5 .2 .2\n"), ("001.txt:2", "7")),
        (lambda d: (d / "labels/train/001.txt").write_text("0 1.5 .5 .2 .2\n"), ("001.txt", "1.5")),
        (lambda d: (d / "labels/train/001.txt").write_text("0 -.5 .5 .2 .2\n"), ("001.txt", "-0.5")),
        (lambda d: (d / "labels/train/001.txt").write_text("0 a .5 .2 .2\n"), ("001.txt", "a")),
        (lambda d: (d / "labels/train/001.txt").write_text("0 .5 .5\n"), ("001.txt",)),
    ],
)
def test_data__wrong_in_one_way(
    train: Run, train_files: Path, tmp_path: Path, change: Callable[[Path], object], words: tuple[str, ...]
) -> None:
    shutil.copytree(train_files / "data", tmp_path / "data", ignore=shutil.ignore_patterns("*.cache"))
    change(tmp_path / "data")
    assert refuses(train("--data", "data/data.yaml"), *words)


def test_data__a_download_script_is_refused_and_does_not_run(train: Run, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    (tmp_path / "evil.yaml").write_text(
        f"path: nowhere\ntrain: a\nval: b\nnames: [x]\ndownload: |\n  open({str(marker)!r}, 'w')\n"
    )
    assert refuses(train("--data", "evil.yaml"), "evil.yaml", "download")
    assert not marker.exists()


def test_folder__that_cannot_be_written(train: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert refuses(train("--set", "train.project=file"), "cannot be written", "file")


def test_resume__of_what_is_no_run(train: Run, tmp_path: Path, train_files: Path) -> None:
    bare = ("--teacher", "--student", "--recipe", "--data", "--imgsz", "--device")
    assert refuses(train("--resume", "nowhere", dry=False, without=bare), "no run 'nowhere'")
    assert refuses(
        train("--resume", str(train_files / "teacher.pt"), dry=False, without=bare), "not an interrupted yolokd run"
    )
    assert refuses(
        train("--resume", "nowhere", "--epochs", "4", dry=False, without=bare), "leave out --epochs", "schedules"
    )


def test_debug__shows_the_traceback(train: Run) -> None:
    code, _, error = train("--teacher", "missing.pt", "--debug")
    assert code == 2
    assert "Traceback" in error
