"""Unlabeled images: which are found, what they change in a step, and what they must not change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor
from ultralytics.utils.patches import imread

from tests.helpers.models import DUAL, batch, detector
from tests.helpers.segments import suited, with_extras
from tests.helpers.teacher_student import pair, pair_of
from tests.helpers.unlabeled import joined, make_images
from yolokd.distillation.model import TeacherStudent
from yolokd.errors import DataError, UserError
from yolokd.loaders.batch import Answers, TrainingBatch
from yolokd.loaders.unlabeled import check_unlabeled, find_unlabeled, with_absolute_paths
from yolokd.losses.bckd import bckd_cls_map
from yolokd.recipe import Recipe, list_recipes, load_recipe


def recipe(source: Path | str, **train: Any) -> Recipe:
    return Recipe.from_dict({"losses": {"bckd": {}}, "train": {"unlabeled": str(source), **train}})


# The images


def test_find_unlabeled__a_folder_with_those_below_or_a_list(tmp_path: Path) -> None:
    free = make_images(tmp_path / "free", 4)
    found = find_unlabeled(recipe(free))
    assert found is not None
    assert [Path(file).relative_to(free).as_posix() for file in found.files] == [
        "deep/free1.png", "deep/free3.png", "free0.png", "free2.png",
    ]  # fmt: skip
    (tmp_path / "list.txt").write_text("./free/free2.png\n./free/deep/free1.png\n")
    listed = find_unlabeled(recipe(tmp_path / "list.txt"))
    assert listed is not None
    assert [Path(file).name for file in listed.files] == ["free1.png", "free2.png"]
    assert find_unlabeled(load_recipe("bckd")) is None


@pytest.mark.parametrize(
    ("batch_size", "share", "extra"), [(16, 0.5, 16), (16, 0.2, 4), (8, 0.75, 24), (4, 0.01, 1), (10, 0.33, 5)]
)
def test_per_step__makes_the_share(tmp_path: Path, batch_size: int, share: float, extra: int) -> None:
    found = find_unlabeled(recipe(make_images(tmp_path / "free", 1), unlabeled_share=share))
    assert found is not None
    assert found.per_step(batch_size) == extra


def test_find_unlabeled__damaged_images_are_left_out_and_named(tmp_path: Path) -> None:
    free = make_images(tmp_path / "free", 2)
    (free / "broken.png").write_bytes((free / "free0.png").read_bytes()[:200])
    (free / "words.jpg").write_text("no image")
    image = cv2.imencode(".jpg", np.zeros((64, 64, 3), np.uint8))[1].tobytes()
    (free / "cut.jpg").write_bytes(image[:300])
    (free / "long.jpg").write_bytes(image + b"what some cameras add")
    cv2.imwrite(str(free / "tiny.png"), np.zeros((64, 9, 3), np.uint8))
    found = find_unlabeled(recipe(free))
    assert found is not None
    assert [Path(file).name for file in found.files] == ["free1.png", "free0.png", "long.jpg"]
    assert all(imread(file) is not None for file in found.files)
    (note,) = check_unlabeled(found, recipe(free), {})
    assert note.startswith("4 unlabeled images are left out, as Ultralytics does: ")
    assert all(name in note for name in ("broken.png", "words.jpg", "cut.jpg", "tiny.png"))


def test_find_unlabeled__nothing_to_find(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no unlabeled images at '.*missing': no such folder"):
        find_unlabeled(recipe(tmp_path / "missing"))
    with pytest.raises(DataError, match="holds no images"):
        find_unlabeled(recipe(tmp_path))
    (tmp_path / "words.jpg").write_text("no image")
    with pytest.raises(DataError, match=r"None of the 1 unlabeled images .*words.jpg"):
        find_unlabeled(recipe(tmp_path))
    plain = Recipe.from_dict({"losses": {}, "train": {"unlabeled": "x"}}, name="mine")
    with pytest.raises(UserError, match=r"recipe 'mine' has no losses.*'x'.*Leave --unlabeled"):
        find_unlabeled(plain)


def test_check_unlabeled__images_of_a_split_that_is_scored(tmp_path: Path) -> None:
    free = make_images(tmp_path / "free", 3)
    (tmp_path / "val").mkdir()
    (tmp_path / "val" / "other_name.png").symlink_to(free / "free2.png")
    found = find_unlabeled(recipe(free))
    assert found is not None
    for split in ("val", "test"):
        with pytest.raises(DataError, match=f"1 of the unlabeled images .* {split} split: .*free2.png"):
            check_unlabeled(found, recipe(free), {split: [tmp_path / "val"]})
    assert check_unlabeled(found, recipe(free), {"train": [free]}) == []
    with pytest.raises(UserError, match=r"train\.rect"):
        check_unlabeled(found, recipe(free, rect=True), {})


def test_with_absolute_paths__the_rest_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert with_absolute_paths(recipe("free", epochs=3)) == recipe(tmp_path / "free", epochs=3)
    assert with_absolute_paths(load_recipe("bckd")) is not None


def fixed(model: TeacherStudent) -> TeacherStudent:
    """The same with BatchNorm by its running statistics, so that images do not see each other."""
    for module in model.student_model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    return model


# A step


@pytest.mark.parametrize("family", ["v8", *DUAL])
def test_loss__detection_does_not_notice_them(family: str) -> None:
    model = fixed(pair({"bckd": {}, "ssim": {}}, student=family))
    alone, _ = model(batch())
    together, _ = model(joined(batch(), 3))
    torch.testing.assert_close(together[:3], alone[:3])


def test_loss__detections_gradient_does_not_reach_them() -> None:
    model = fixed(pair({"bckd": {}}))
    data = joined(batch(), 3)
    data["unlabeled"].requires_grad_()
    data["img"].requires_grad_()
    loss, _ = model(data)
    seen, unseen = torch.autograd.grad(loss[:3].sum(), [data["img"], data["unlabeled"]], retain_graph=True)
    assert float(seen.abs().sum()) > 0
    assert float(unseen.abs().sum()) == 0
    (taught,) = torch.autograd.grad(loss[3], data["unlabeled"])
    assert bool((taught.abs().sum((1, 2, 3)) > 0).all())


def logits(model: TeacherStudent, images: Tensor) -> tuple[Tensor, Tensor]:
    own: Any = model.student_model(images)
    other: Any = model.teacher_model(images, head=True, levels=()).raw
    return own["scores"].transpose(1, 2), other["scores"].transpose(1, 2)


@pytest.mark.parametrize("normalizer", ["positives", "target_scores"])
def test_loss__bckd_is_the_mean_over_all_images_by_the_labeled_images_count(normalizer: str) -> None:
    model = fixed(pair({"bckd": {"cls": 1.0, "box": 0.0, "normalizer": normalizer}}))
    small, data = batch(2), joined(batch(2), 3)
    _, alone = model(small)
    _, together = model(data)
    with torch.no_grad():
        sums = bckd_cls_map(*logits(model, torch.cat([data["img"], data["unlabeled"]]))).sum(1)  # (5,)
    count = float(sums[:2].sum()) / float(alone["kd_bckd_cls"])  # N of the two labeled images
    assert float(together["kd_bckd_cls"]) == pytest.approx(float(sums.mean()) / (count / 2), rel=1e-4)


def test_loss__a_copy_of_the_labeled_images_changes_nothing() -> None:
    losses: dict[str, Any] = {"bckd": {}, "ssim": {}, "ultralytics": {}, "cwd": {}, "fbkd": {}}
    model = fixed(pair(losses))
    data = batch(3)
    alone, _ = model(data)
    together, items = model({**data, "unlabeled": data["img"].clone(), "unlabeled_file": data["im_file"]})
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(together.detach(), torch.stack(list(items.values())) * 3)


def test_loss__ld_stays_with_the_objects() -> None:
    model = fixed(pair({"ld": {}}))
    _, alone = model(batch())
    _, together = model(joined(batch(), 3))
    torch.testing.assert_close(together["kd_ld"], alone["kd_ld"])


def test_loss__while_nothing_acts_they_are_not_looked_at() -> None:
    model = pair({"bckd": {}})
    assert model.distillation is not None
    model.distillation.progress = 1.0
    sizes: list[int] = []
    model.student_model.model[0].register_forward_hook(lambda module, inputs, output: sizes.append(len(output)))
    model(joined(batch(), 3))
    assert sizes == [2]


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in list_recipes() if name != "baseline"])
def test_loss__every_shipped_recipe_takes_them(name: str) -> None:
    recipe = load_recipe(name)
    model = pair_of(recipe, suited(recipe, "v8"), suited(recipe, "v8", width=0.25, seed=1))
    data = joined(with_extras(batch()), 3)
    if "soft_cls" in model.terms:
        boxes = torch.tensor([[0.5, 0.5, 0.4, 0.4]] * 2)
        data["answers"] = Answers(torch.tensor([0, 4]), boxes, torch.tensor([[0.7, 0.1, 0.0]] * 2))
    loss, items = model(data)
    loss.sum().backward()
    assert all(0 < float(items[f"kd_{term}"]) < float("inf") for term in model.terms)
    first = next(model.student_model.parameters())
    assert first.grad is not None
    assert 0 < float(first.grad.abs().sum()) < float("inf")
    assert model.distillation is not None
    model.distillation.anomaly_checks.read()


@pytest.mark.parametrize("scope", ["instance", "image", "level"])
def test_loss__aid_records_them_as_background(scope: str) -> None:
    weighted = Recipe.from_dict({"losses": {"bckd": {}, "fgd": {}}, "weighting": {"aid": {"scope": scope}}})
    model = pair_of(weighted, detector("v8"), detector("v8", width=0.25, seed=1))
    data = joined(batch(), 3)
    seen = model.look(TrainingBatch.of(data), dict.fromkeys(model.terms, 1.0))
    assert seen.weights is not None
    assert seen.weights.head.shape == (5, seen.grid.anchors)
    assert not seen.weights.instances.counted[2:].any()
    assert seen.weights.instances.counted[:2].any()
    assert all(len(values) == 5 for values in seen.maps.values())
    assert TrainingBatch.of(data).files == ("image0.jpg", "image1.jpg", "extra0.jpg", "extra1.jpg", "extra2.jpg")
