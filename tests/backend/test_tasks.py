from __future__ import annotations

from pathlib import Path

import pytest
import torch
from ultralytics.nn.modules.head import Detect, Pose
from ultralytics.nn.tasks import DetectionModel, OBBModel, PoseModel, SegmentationModel

from tests.helpers.models import detector
from tests.helpers.segments import FAMILIES, description, model_of, save, write_description
from yolokd.backend.checkpoints import load_detector, plain_copy
from yolokd.backend.descriptions import from_yaml
from yolokd.backend.heads import as_head, grid_of, neck_features, read_head, split_branches
from yolokd.backend.tasks import (
    ALL_TASKS,
    DETECT,
    TASKS,
    class_of_description,
    keep_detect_part,
    keypoints_of_head,
    task_of_head,
)
from yolokd.errors import WeightsError
from yolokd.losses.base import ANGLES, COEFFICIENTS, KEYPOINTS, MASKS, OFFSETS, PROTOTYPES, VISIBILITY


@pytest.mark.parametrize("family", FAMILIES)
def test_task_of_head__is_that_of_the_model(family: str) -> None:
    model = model_of(family)
    assert task_of_head(model.model[-1]) == model.task == read_head(model, "It").task
    given = {"segment": (MASKS,), "pose": (KEYPOINTS,), "obb": (ANGLES,)}
    assert read_head(model, "It").extras == given[model.task]


def test_task_of_head__every_other_head_has_the_detect_part() -> None:
    assert task_of_head(detector("26").model[-1]) == "detect"
    assert task_of_head(type("Other", (Pose,), {})(nc=2, ch=(16, 16, 16))) == "detect"


@pytest.mark.parametrize("family", [family for family in FAMILIES if not family.endswith("obb")])
def test_keep_detect_part__class_scores_boxes_and_inputs_stay(family: str) -> None:
    model = model_of(family)
    head = model.model[-1]
    images = torch.rand(1, 3, 64, 64)
    head.training = True
    before = model(images)
    keep_detect_part(head)
    after = model(images)
    assert type(head) is Detect
    branches = ("one2many", "one2one") if "one2many" in before else (None,)
    for branch in branches:
        old, new = (raw if branch is None else raw[branch] for raw in (before, after))
        assert set(new) == {"boxes", "scores", "feats"} < set(old)
        assert torch.equal(old["scores"], new["scores"])
        assert torch.equal(old["boxes"], new["boxes"])


@pytest.mark.parametrize("family", ["v8-obb", "26-obb"])
def test_keep_detect_part__angles_say_where_rotated_boxes_are(family: str) -> None:
    model = model_of(family)
    kind = type(model.model[-1])
    keep_detect_part(model.model[-1])
    assert type(model.model[-1]) is kind


@pytest.mark.parametrize(
    ("family", "branch"),
    [("v8-obb", "one2many"), ("11-obb", "one2many"), ("26-obb", "one2many"), ("26-obb", "one2one")],
)
def test_as_head__rotated_boxes_are_those_that_the_model_decodes(family: str, branch: str) -> None:
    model = model_of(family)
    images = torch.rand(2, 3, 64, 96)
    whole = model.train()(images)
    raw, features = split_branches(whole)[branch], neck_features(whole, images)
    model.eval()
    model.model[-1].end2end = branch == "one2one"
    decoded = model.model[-1]._inference({**raw, "feats": list(features.values())})
    found = as_head(raw, grid_of(features), None).rotated
    assert found is not None
    expected = torch.cat((decoded[:, :4], decoded[:, -1:]), 1).mT
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-4)  # pixels


def test_keep_detect_part__a_detect_head_is_left_alone() -> None:
    model = detector("v10")
    kind = type(model.model[-1])
    keep_detect_part(model.model[-1])
    assert type(model.model[-1]) is kind


@pytest.mark.parametrize("family", ["v8-seg", "26-seg"])
def test_read__coefficients_and_prototypes_make_ultralytics_own_masks(family: str) -> None:
    model = model_of(family)
    model.model[-1].end2end = False
    images = torch.rand(2, 3, 64, 64)
    (rows, prototypes), raw = model(images)
    raw = raw.get("one2many", raw)
    found = TASKS["segment"].read(raw)
    assert torch.equal(found[PROTOTYPES], prototypes)
    coefficients = rows[:, 4 + 3 :].mT  # behind box and three scores
    assert torch.equal(found[COEFFICIENTS], coefficients)
    assert found[PROTOTYPES].shape == (2, coefficients.shape[-1], 16, 16)
    model.train()
    raw = model(images)
    assert TASKS["segment"].read(raw.get("one2many", raw))[PROTOTYPES].shape == prototypes.shape


@pytest.mark.parametrize("family", ["v8-pose", "11-pose", "26-pose"])
@pytest.mark.parametrize("keypoints", [(5, 3), (4, 2)])
def test_keypoints_of_head__decode_as_ultralytics_does(family: str, keypoints: tuple[int, int]) -> None:
    model = model_of(family, keypoints=keypoints)
    model.model[-1].end2end = False
    rows, raw = model(torch.rand(2, 3, 64, 96))
    raw = raw.get("one2many", raw)
    layout = keypoints_of_head(model.model[-1])
    assert layout is not None
    assert layout.shape == keypoints
    found = layout.read(raw)
    centers, strides = grid_of(neck_features(raw, torch.zeros(2, 3, 64, 96))).centers(rows.device)
    decoded = rows[:, 4 + 3 :].mT.unflatten(2, keypoints)  # behind box and three scores
    expected = found[OFFSETS].unflatten(2, (-1, 2)) * strides[:, None] + centers[:, None]
    torch.testing.assert_close(expected, decoded[..., :2], atol=1e-4, rtol=1e-5)
    assert (VISIBILITY in found) == (keypoints[1] == 3)
    if VISIBILITY in found:
        torch.testing.assert_close(found[VISIBILITY].sigmoid(), decoded[..., 2])


def test_keypoints_of_head__none_of_other_tasks() -> None:
    assert keypoints_of_head(model_of("v8-seg").model[-1]) is None


def test_from_yaml__takes_the_keypoints_of_the_data(tmp_path: Path) -> None:
    path = write_description("v8-pose", tmp_path / "tiny.yaml")
    for keypoints, expected in (((0, 0), [17, 3]), ((4, 2), [4, 2])):
        model = from_yaml(path, 3, ALL_TASKS, keypoints)
        assert type(model) is PoseModel
        assert model.model[-1].kpt_shape == expected
    assert type(from_yaml(write_description("v8-seg", path), 3, ALL_TASKS, (4, 2))) is SegmentationModel


def test_class_of_description__by_its_last_layer_and_only_for_the_tasks_asked_for() -> None:
    assert class_of_description(description("26-seg"), ALL_TASKS) is SegmentationModel
    assert class_of_description(description("v8-pose"), ALL_TASKS) is PoseModel
    assert class_of_description(description("v8-pose"), DETECT) is DetectionModel
    assert class_of_description(description("26-obb"), ALL_TASKS) is OBBModel
    assert class_of_description({"head": "odd"}, ALL_TASKS) is DetectionModel


def test_from_yaml__builds_the_task_that_is_asked_for(tmp_path: Path) -> None:
    path = write_description("v8-seg", tmp_path / "tiny.yaml")
    assert type(from_yaml(path, 3, ALL_TASKS)) is SegmentationModel
    with pytest.raises(WeightsError, match=r"ends in the head Segment; .* \(heads Detect, v10Detect\)"):
        from_yaml(path, 3)


def test_load_detector__takes_the_tasks_that_are_asked_for(tmp_path: Path) -> None:
    segment = save(model_of("v8-seg"), tmp_path / "segment.pt")
    pose = save(model_of("v8-pose"), tmp_path / "pose.pt")
    assert type(load_detector(segment, ALL_TASKS)) is SegmentationModel
    assert type(load_detector(pose, ALL_TASKS)) is PoseModel
    assert plain_copy(segment, tmp_path, ALL_TASKS) == segment
    for path in (segment, pose):
        with pytest.raises(WeightsError, match=r"Give a detection model such as yolov8n\.pt"):
            load_detector(path)
        with pytest.raises(WeightsError, match="not a YOLO detector"):
            plain_copy(path, tmp_path)
    with pytest.raises(WeightsError, match="one of the tasks detect, segment, such as"):
        load_detector(pose, ("detect", "segment"))
