from __future__ import annotations

import torch

from tests.helpers.models import batch
from tests.helpers.unlabeled import joined
from tests.helpers.waits import Waits
from yolokd.loaders.batch import COUNTS, TrainingBatch, counts_of, first_rows, with_counts, with_larger


def test_training_batch__labeled_images_come_first() -> None:
    data = joined(batch(), 3)
    found = TrainingBatch.of(data)
    assert len(found) == 2
    assert torch.equal(found.images, torch.cat([data["img"], data["unlabeled"]]))
    assert found.files == ("image0.jpg", "image1.jpg", "extra0.jpg", "extra1.jpg", "extra2.jpg")
    assert found.has_objects
    assert "unlabeled" not in found.labeled
    alone = found.without_unlabeled()
    assert alone.images is data["img"]


def test_training_batch__without_objects_and_names() -> None:
    data = batch()
    empty = {"img": data["img"], "cls": data["cls"][:0]}
    assert not TrainingBatch.of(empty).has_objects
    assert TrainingBatch.of(empty).files == ()


def test_training_batch__the_teacher_sees_the_same_images_unless_told_otherwise() -> None:
    found = TrainingBatch.of(joined(batch(), 3))
    assert torch.equal(found.teacher_images, found.images)


def test_with_larger__the_student_sees_the_mean_of_four_pixels() -> None:
    data = joined(batch(imgsz=8), 3)
    found = TrainingBatch.of(with_larger(data, 2))
    assert torch.equal(found.teacher_images, torch.cat([data["img"], data["unlabeled"]]))
    assert found.images.shape == (5, 3, 4, 4)
    for image, large in zip(found.images, found.teacher_images, strict=True):
        for row in range(4):
            for column in range(4):
                block = large[:, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
                torch.testing.assert_close(image[:, row, column], block.mean((1, 2)))
    alone = found.without_unlabeled()
    assert torch.equal(alone.teacher_images, data["img"])
    assert set(found.labeled) == set(data) - {"unlabeled", "unlabeled_file"}
    plain = TrainingBatch.of(with_larger(batch(imgsz=8), 2))
    assert len(plain.teacher_images) == len(plain.images) == 2


def test_first_rows__of_every_tensor_inside() -> None:
    rows = torch.arange(4)
    found = first_rows({"a": rows, "b": [rows, (rows,)], "c": "word"}, 2)
    assert [found["a"].tolist(), found["b"][0].tolist(), found["b"][1][0].tolist()] == [[0, 1]] * 3
    assert found["c"] == "word"
    assert isinstance(found["b"][1], tuple)  # by which Ultralytics tells YOLO26's prototypes


def test_counts__of_each_image_and_0_for_those_without_labels() -> None:
    data = {**batch(4), "batch_idx": torch.tensor([0.0, 0, 2, 2, 2, 3])}
    found = with_counts(data)
    assert found[COUNTS] == (2, 0, 3, 1)
    with Waits() as waits:
        assert counts_of(found, 6) == [2, 0, 3, 1, 0, 0]
    assert not waits.seen
    with Waits() as waits:
        assert counts_of(data, 6) == [2, 0, 3, 1, 0, 0]
    assert waits.seen


def test_counts__labels_in_another_order_carry_none() -> None:
    data = {**batch(2), "batch_idx": torch.tensor([1.0, 0, 1, 0])}
    assert COUNTS not in with_counts(data)
    assert counts_of(data, 2) == [2, 2]
