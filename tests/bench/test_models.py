from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from ultralytics.nn.tasks import DetectionModel

from tests.helpers.benching import CPU, recipe
from tests.helpers.eight_bits import needs_modelopt, quantizers
from tests.helpers.models import config, detector, save, training_args
from yolokd.bench import models as bench_models
from yolokd.bench.models import Models, make_batch, make_pair, make_student, open_models, read_setting
from yolokd.errors import PairError, UserError, WeightsError
from yolokd.training.run import resolve_recipe


def description(folder: Path, name: str, **changes: Any) -> str:
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({**config("v8"), **changes}))
    return str(path)


def models(teacher: int = 3, student: int = 3) -> Models:
    pair = detector("v8", width=0.25, classes=teacher, seed=1), detector("v8", classes=student)
    return Models(*pair, specs=("large", "small"), scratch=())


def test_read_setting__what_the_recipes_share() -> None:
    setting = read_setting([recipe(imgsz=70, batch=3), recipe("ssim", imgsz=70, batch=3)])
    assert (setting.imgsz, setting.batch, setting.device.type, setting.amp) == (96, 3, "cpu", False)
    assert setting.precision == "float32"
    assert setting.machine


def test_read_setting__defaults_are_ultralytics_own() -> None:
    setting = read_setting([recipe("baseline")])
    assert (setting.imgsz, setting.batch) == (640, 16)


@pytest.mark.parametrize(
    ("recipes", "words"),
    [
        (lambda: [recipe(imgsz=64), recipe("ssim", imgsz=96)], "differ in train.imgsz (bckd 64, ssim 96)"),
        (lambda: [recipe(batch=2), recipe("ssim", batch=4)], "differ in train.batch"),
        (lambda: [recipe(batch=-1)], "not -1: give --batch"),
        (lambda: [recipe(), recipe("qad", imgsz=64)], "Some recipes train in 8 bits, some do not"),
        (lambda: [recipe("bckd", "train.batch=0.7")], "not 0.7"),
        (lambda: [resolve_recipe("bckd", device="7")], "The device '7' cannot be used"),
    ],
)
def test_read_setting__refuses(recipes: Any, words: str) -> None:
    with pytest.raises(UserError) as caught:
        read_setting(recipes())
    assert words in str(caught.value)


def test_open_models__a_description_takes_its_partners_classes(tmp_path: Path) -> None:
    trained = save(detector("v8", classes=4), tmp_path / "small.pt")
    found = open_models(description(tmp_path, "large"), trained)
    assert found.scratch == ("teacher",)
    assert found.specs == (str(tmp_path / "large.yaml"), str(trained))
    assert found.teacher.names == found.student.names == {i: f"class{i}" for i in range(4)}
    assert found.teacher.model[-1].nc == 4


def test_open_models__two_descriptions_keep_their_own_and_the_seed(tmp_path: Path) -> None:
    spec = description(tmp_path, "model")
    before = torch.random.get_rng_state()
    one, two, other = open_models(spec, spec), open_models(spec, spec), open_models(spec, spec, seed=1)
    assert torch.equal(before, torch.random.get_rng_state())
    assert one.scratch == ("teacher", "student")
    first, second, third = (next(m.teacher.parameters()) for m in (one, two, other))
    assert torch.equal(first, second)
    assert not torch.equal(first, third)


def test_open_models__random_weights_give_activations_of_an_ordinary_size(tmp_path: Path) -> None:
    deep = config("v8") | {"scales": {"n": [1.0, 0.125, 1024]}}
    spec = description(tmp_path, "deep", scales=deep["scales"])
    found = open_models(spec, spec)
    with torch.no_grad():
        features = found.teacher.eval()(torch.rand(2, 3, 256, 256))[1]["feats"]
    assert all(0.05 < feature.std().item() < 20 for feature in features)
    norms = [m for m in found.teacher.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert {m.momentum for m in norms} == {0.03}  # Ultralytics'


@pytest.mark.parametrize(
    ("teacher", "error", "words"),
    [
        ("missing.pt", WeightsError, "There is no file 'missing.pt'"),
        ("missing.yaml", WeightsError, "There is no model description 'missing.yaml'"),
        ("yolov8-p2.yaml", PairError, "the student has p3, p4, p5, the teacher has p2, p3, p4, p5"),
    ],
)
def test_open_models__refuses(tmp_path: Path, teacher: str, error: type[Exception], words: str) -> None:
    with pytest.raises(error) as caught:
        open_models(teacher, description(tmp_path, "small"))
    assert words in str(caught.value)


def test_open_models__refuses_a_pair_that_sees_other_images(tmp_path: Path) -> None:
    gray = DetectionModel(config("v8"), ch=1, nc=3, verbose=False)
    gray.args = training_args()
    with pytest.raises(PairError, match="different channels: 1 and 3"):
        open_models(save(gray, tmp_path / "gray.pt"), description(tmp_path, "small"))


def test_make_batch__boxes_of_every_image_inside_it() -> None:
    batch = make_batch(models(), CPU)
    assert batch["img"].shape == (3, 3, 64, 64)
    assert 0 <= batch["img"].min() < batch["img"].max() <= 1
    assert batch["batch_idx"].long().bincount().tolist() == [8] * 3
    centers, sizes = batch["bboxes"].chunk(2, 1)
    assert (centers - sizes / 2).min() >= 0
    assert (centers + sizes / 2).max() <= 1
    assert set(batch["cls"].flatten().tolist()) == {0.0, 1.0, 2.0}
    assert torch.equal(batch["img"], make_batch(models(), CPU)["img"])


def test_make_student__is_a_copy_with_ultralytics_arguments() -> None:
    pair = models()
    student = make_student(pair, CPU)
    assert student is not pair.student
    assert student.training
    assert (student.args.imgsz, student.args.dis) == (64, 6.0)


@needs_modelopt
def test_make_student__computes_in_8_bits_under_recipes_that_train_so() -> None:
    chosen = recipe("qad")
    setting = read_setting([recipe("qad", imgsz=64, batch=3)])
    assert (setting.quantizes, setting.precision) == (True, "float32, student in 8 bits")
    pair, plain = models(), make_student(models(), setting)
    assert len(quantizers(plain)) > 100
    assert not quantizers(pair.student)  # a copy
    trained = make_pair(pair, setting, chosen)
    assert quantizers(trained.student_model) == quantizers(plain)
    assert not quantizers(trained.teacher_model)


def test_make_pair__is_what_a_run_trains() -> None:
    pair = make_pair(models(), CPU, recipe("bckd_ssim"))
    assert pair.training
    assert pair.terms == ("bckd_cls", "bckd_box", "ssim")
    assert not any(p.requires_grad for p in pair.teacher_model.parameters())
    assert all(p.requires_grad for p in pair.student_model.model[0].parameters())


def test_make_pair__refuses_recipes_that_do_not_fit() -> None:
    with pytest.raises(UserError, match="has no losses"):
        make_pair(models(), CPU, recipe("baseline"))
    strangers = models()
    strangers.student.names = {i: f"other{i}" for i in range(3)}
    with pytest.raises(PairError, match="share no class by name"):
        make_pair(strangers, CPU, recipe("bckd"))
    assert make_pair(strangers, CPU, recipe("ssim")).terms == ("ssim",)


def test_settle__changes_statistics_only() -> None:
    model = detector("v8")
    before = deepcopy(model.state_dict())
    bench_models.settle(model)
    changed = {name.rsplit(".", 1)[-1] for name, v in model.state_dict().items() if not torch.equal(v, before[name])}
    assert changed <= {"running_mean", "running_var", "num_batches_tracked"}
    assert "running_var" in changed
