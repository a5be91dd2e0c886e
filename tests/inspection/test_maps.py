"""What an inspection says, against the loss that is trained, Ultralytics' own detections, and values known by hand."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from ultralytics import YOLO

from tests.helpers.lively import lively
from tests.helpers.models import detector, save
from yolokd.distillation.adversarial import frozen_statistics
from yolokd.errors import PairError, UserError, WeightsError
from yolokd.inspection.images import LabeledImage, read_labeled_image
from yolokd.inspection.maps import Inspector, over_image
from yolokd.inspection.setup import open_pair
from yolokd.training.run import resolve_recipe

FIXED = ("losses.samkd.gain=2e-5", "augment.ikd.adversarial.steps=1", "train.device=cpu")


@pytest.fixture(scope="module")
def teacher_pt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(lively(width=0.25, seed=1), tmp_path_factory.mktemp("teacher") / "teacher.pt")


@pytest.fixture(scope="module")
def student_pt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(lively(), tmp_path_factory.mktemp("student") / "student.pt")


@pytest.fixture(scope="module")
def image_file(tiny_data: Path) -> Path:
    return tiny_data.parent / "images" / "val" / "000.png"


@pytest.fixture(scope="module")
def image(image_file: Path) -> LabeledImage:
    return read_labeled_image(image_file, 64, 3)


@pytest.fixture(scope="module")
def everything(teacher_pt: Path, student_pt: Path) -> Inspector:
    return opened(teacher_pt, student_pt, "everything", FIXED)


def opened(
    teacher: Path, student: Path, recipe: str, overrides: Sequence[str] = ("train.device=cpu",), **options: Any
) -> Inspector:
    return open_pair(teacher, student, resolve_recipe(recipe, overrides), **options)


def test_inspect__maps_add_up_to_what_training_logs(everything: Inspector, image: LabeledImage) -> None:
    view = everything.inspect(image)
    pair = everything.pair
    pair.train()
    with frozen_statistics(pair.student_model):
        _, items = pair.loss(image.batch(torch.device("cpu")))
    assert pair.distillation is not None
    assert [term.name for term in view.terms] == list(everything.recipe.terms())
    for term in view.terms:
        assert term.levels is not None
        assert term.gain != "auto"
        assert sum(float(values.sum()) for values in term.levels.values()) == pytest.approx(term.value, rel=1e-5)
        strength = term.gain * everything.recipe.schedule_of(term.name).factor(0, epochs=1)
        assert term.value * strength == pytest.approx(float(items[f"kd_{term.name}"]), rel=1e-4)
        assert {level: values.shape for level, values in term.levels.items()} == {
            "p3": (8, 8),
            "p4": (4, 4),
            "p5": (2, 2),
        }


def test_inspect__changes_nothing_and_repeats(everything: Inspector, image: LabeledImage) -> None:
    before = copy.deepcopy(everything.pair.state_dict())
    first, second = everything.inspect(image), everything.inspect(image)
    assert all(torch.equal(value, before[name]) for name, value in everything.pair.state_dict().items())
    assert [term.value for term in first.terms] == pytest.approx([term.value for term in second.terms], rel=1e-6)


def test_inspect__weights_of_aid(everything: Inspector, image: LabeledImage) -> None:
    view = everything.inspect(image)
    assert view.weights is not None
    assert image.labels is not None
    assert len(view.weights.instances) == len(image.labels) == 2
    everywhere = np.concatenate([values.ravel() for values in view.weights.levels.values()])
    assert 0 <= everywhere.min() <= everywhere.max() <= 1
    for weight in view.weights.instances:
        assert 0 < weight < 1
        assert np.isclose(everywhere, weight).any()


def test_inspect__twin_stays_within_eps_and_raises_the_loss(everything: Inspector, image: LabeledImage) -> None:
    example = everything.inspect(image).example
    assert example is not None
    assert 0 < np.abs(example.difference).max() <= example.eps + 1e-4
    assert example.loss[1] > example.loss[0]
    clean = (image.square[0].permute(1, 2, 0) * 255).numpy()
    np.testing.assert_allclose(example.image, clean + example.difference, atol=0.51)


def test_inspect__detections_are_those_of_ultralytics(
    everything: Inspector, student_pt: Path, image_file: Path
) -> None:
    view = everything.inspect(read_labeled_image(image_file, 64, 3))
    result = YOLO(str(student_pt)).predict(str(image_file), imgsz=64, conf=0.25, iou=0.7, device="cpu", verbose=False)[
        0
    ]
    assert len(result.boxes) > 3
    np.testing.assert_allclose(view.student.xyxy_px.clip(0, 64), result.boxes.xyxy.numpy(), atol=0.05)
    np.testing.assert_allclose(view.student.scores, result.boxes.conf.numpy(), atol=1e-4)
    assert view.student.names == tuple(result.names[int(label)] for label in result.boxes.cls)


def test_inspect__without_labels(everything: Inspector, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "bare.png"), np.full((40, 64, 3), 90, np.uint8))
    view = everything.inspect(read_labeled_image(tmp_path / "bare.png", 64, 3))
    assert view.truth is None
    assert view.weights is not None
    assert view.weights.instances == ()
    assert all(0 < term.value < np.inf for term in view.terms)


def test_inspect__a_term_without_a_place_is_a_number(teacher_pt: Path, student_pt: Path, image: LabeledImage) -> None:
    terms = {term.name: term for term in opened(teacher_pt, student_pt, "fgd").inspect(image).terms}
    assert terms["fgd"].levels is not None
    assert terms["fgd_channel"].levels is None
    assert terms["fgd_channel"].value > 0


def test_inspect__automatic_gains_stay_auto_and_zero_gains_are_left_out(
    teacher_pt: Path, student_pt: Path, image: LabeledImage
) -> None:
    changes = ("losses.ssim.gain=auto", "losses.bckd.box=0", "train.device=cpu")
    view = opened(teacher_pt, student_pt, "bckd_ssim", changes).inspect(image)
    assert {term.name: term.gain for term in view.terms} == {"bckd_cls": 8.0, "ssim": "auto"}
    assert view.weights is None
    assert view.example is None
    assert view.frequencies is None


def test_inspect__frequencies_are_zero_where_nothing_is_added(everything: Inspector, image: LabeledImage) -> None:
    frequencies = everything.inspect(image, fourier=True).frequencies
    assert frequencies is not None
    assert frequencies.rise.shape == (15, 15)
    assert frequencies.rise.min() > -1e-6
    assert frequencies.rise.max() > 0
    np.testing.assert_array_equal(frequencies.rise, frequencies.rise[::-1, ::-1])


@pytest.mark.parametrize(("student", "teacher"), [("26", "v8"), ("v10", "v10")])
def test_inspect__families_with_two_heads(student: str, teacher: str, tmp_path: Path, image: LabeledImage) -> None:
    one = save(detector(teacher, width=0.25, seed=1), tmp_path / "teacher.pt")
    other = save(detector(student), tmp_path / "student.pt")
    view = opened(one, other, "everything", FIXED).inspect(image)
    assert all(term.value > 0 for term in view.terms)


def test_over_image__cells_cover_their_pixels_and_levels_add_up() -> None:
    levels = {"p3": np.array([[1.0, 2], [3, 4]]), "p4": np.array([[10.0]])}
    expected = [[11, 11, 12, 12], [11, 11, 12, 12], [13, 13, 14, 14], [13, 13, 14, 14]]
    assert over_image(levels, 4).tolist() == expected


def test_trained__parts_come_from_an_unfinished_run_and_only_those_that_fit(
    teacher_pt: Path, student_pt: Path, tmp_path: Path, image: LabeledImage
) -> None:
    running = opened(teacher_pt, student_pt, "everything", FIXED)
    with torch.no_grad():
        for parameter in running.pair.projector.parameters():
            parameter.mul_(2)
    path = tmp_path / "last.pt"
    torch.save({"model": None, "ema": copy.deepcopy(running.pair), "train_args": {"imgsz": 64}, "epoch": 3}, path)
    inspector = opened(teacher_pt, path, "everything", FIXED)
    assert {"ssim", "samkd", "ikd"} <= inspector.trained
    expected = {term.name: term.value for term in running.inspect(image).terms}
    found = inspector.inspect(image).terms
    assert {term.name: term.value for term in found} == pytest.approx(expected, rel=1e-4)
    assert all(term.trained for term in found)
    wider = save(detector("v8", width=0.375, seed=1), tmp_path / "wider.pt")
    assert opened(wider, path, "everything", FIXED).trained.isdisjoint({"ssim", "samkd", "ikd"})


def test_trained__adapters_of_a_finished_student_are_not(everything: Inspector, image: LabeledImage) -> None:
    untrained = [term.name for term in everything.inspect(image).terms if not term.trained]
    assert untrained == ["ssim", "samkd", "ikd"]


def test_open_pair__size_is_the_students_unless_asked(teacher_pt: Path, student_pt: Path) -> None:
    assert opened(teacher_pt, student_pt, "ssim").imgsz == 64
    asked = opened(teacher_pt, student_pt, "ssim", imgsz=70)
    assert asked.imgsz == 96
    assert asked.notes == ("imgsz 70 is rounded to 96, a multiple of the largest stride 32",)


def test_open_pair__a_student_from_scratch_takes_names_from_the_data(
    teacher_pt: Path, student_yaml: Path, tiny_data: Path
) -> None:
    inspector = opened(teacher_pt, student_yaml, "bckd", data=str(tiny_data), imgsz=64)
    assert inspector.names == {0: "class0", 1: "class1", 2: "class2"}
    with pytest.raises(UserError, match="give --data"):
        opened(teacher_pt, student_yaml, "bckd")


def test_open_pair__names_of_the_data_show_in_the_teachers_detections(
    tmp_path: Path, student_pt: Path, image: LabeledImage
) -> None:
    model = detector("v8", width=0.25, classes=4, seed=1)
    model.names = {0: "other", 1: "Class0", 2: "class1", 3: "class2"}
    for branch in model.model[-1].cv3:
        branch[-1].bias.data += torch.tensor([0.0, 8, 0, 0])
    view = opened(save(model, tmp_path / "teacher.pt"), student_pt, "bckd").inspect(image)
    assert set(view.teacher.names) == {"class0"}


def test_open_pair__mistakes(teacher_pt: Path, student_pt: Path, tmp_path: Path, tiny_data: Path) -> None:
    with pytest.raises(UserError, match="'baseline' has no losses: there is nothing to inspect"):
        opened(teacher_pt, student_pt, "baseline", ())
    with pytest.raises(UserError, match="nothing to inspect"):
        opened(teacher_pt, student_pt, "ssim", ("losses.ssim.gain=0",))
    with pytest.raises(WeightsError, match="description without weights"):
        opened(Path("yolov8n.yaml"), student_pt, "ssim")
    with pytest.raises(UserError, match="device 'gpu7'"):
        opened(teacher_pt, student_pt, "ssim", ("train.device=gpu7",))
    stranger = detector("v8", seed=2)
    stranger.names = {0: "class0", 1: "b", 2: "c"}
    path = save(stranger, tmp_path / "stranger.pt")
    with pytest.raises(PairError, match="1 of the data's 3 classes"):
        opened(path, student_pt, "bckd")
    assert opened(path, student_pt, "bckd", allow_partial=True).match.student == (0,)
    with pytest.raises(UserError, match=r"knows the classes class0, b, c; the data .* have class0, class1, class2"):
        opened(teacher_pt, path, "ssim", data=str(tiny_data))
    single = save(detector("26", seed=2), tmp_path / "single.pt")
    with pytest.raises(PairError, match="reg_max"):
        opened(teacher_pt, single, "ld")
    gray = detector("v8", seed=2)
    gray.yaml["channels"] = 1
    with pytest.raises(PairError, match="student takes images of 1 channels"):
        opened(teacher_pt, save(gray, tmp_path / "gray.pt"), "ssim")
