"""Sample-specific augmentation through Ultralytics' own data set and loader."""

from __future__ import annotations

import hashlib
import pickle
import random
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from ultralytics.data.build import build_dataloader, build_yolo_dataset

from tests.helpers.augmented import PLAIN, changed, flat, load, plain, write
from tests.helpers.models import training_args
from tests.helpers.rotated import corners
from yolokd.augment.ikd import random_crop
from yolokd.loaders import augmentation
from yolokd.loaders.answers import Answer, AnswerTable
from yolokd.loaders.augmentation import SampleSpecific, augment_loader, epochs_on, fit, random_window
from yolokd.loaders.epoch_sampler import EpochBatches, Key


@pytest.fixture
def objects(tmp_path: Path) -> Path:
    """Six images of different shapes: a small rectangle in a corner and a large one anywhere, one channel each."""
    rng = np.random.default_rng(3)
    images = []
    for _ in range(6):
        height, width = (int(v) for v in rng.integers(90, 160, 2))
        pixels, boxes = flat(height, width, 0), []
        for channel, (side, part) in enumerate(((10, 10), (40, 1))):
            x, y = (int(rng.integers((length - side) // part)) for length in (width, height))
            pixels[y : y + side, x : x + side, channel] = 255
            boxes.append((x, y, side, side))
        images.append((pixels, boxes))
    return write(tmp_path / "objects", images)


# The rule


@pytest.mark.parametrize(("height", "width"), [(64, 64), (200, 170), (48, 40)])
@pytest.mark.parametrize(
    ("sizes", "rule"),
    [
        ([(10, 10), (31, 33)], "noise"),  # areas 100 and 1023
        ([(10, 10), (32, 32)], "crop"),  # 1024 is not small
        ([(31, 33)], "noise"),
        ([(32, 32)], "crop"),
        ([], "noise"),
    ],
)
def test_rule__by_sizes_in_the_file_whatever_the_training_size(
    tmp_path: Path, sizes: list[tuple[int, int]], rule: str, height: int, width: int
) -> None:
    boxes = [(2.0, 3.0, float(w), float(h)) for w, h in sizes]
    filler = (flat(height, width), [(2.0, 3.0, 36.0, 36.0)])  # Ultralytics refuses a set without any label
    dataset = load(write(tmp_path / "data", [(flat(height, width), boxes), filler]), noise=1.0).dataset
    clean = changed(dataset, 0, epoch=-1)
    for epoch in range(5):
        label = changed(dataset, 0, epoch)
        if rule == "noise":
            assert label["img"].std() > 5
            assert label["img"].shape == clean["img"].shape
            assert np.array_equal(label["instances"].bboxes, clean["instances"].bboxes)
        else:
            assert label["img"].std() == 0
            assert not np.array_equal(label["instances"].bboxes, clean["instances"].bboxes)


def test_rule__noise_comes_at_its_rate(tmp_path: Path) -> None:
    boxes = [(4.0, 4.0, 20.0, 20.0)]
    dataset = load(write(tmp_path / "data", [(flat(32, 32), boxes)] * 4), imgsz=32, batch=4).dataset
    hits = [changed(dataset, index, epoch)["img"].std() > 0 for epoch in range(2500) for index in range(4)]
    assert np.mean(hits) == pytest.approx(0.3, abs=0.015)
    rates = np.reshape(hits, (2500, 4)).mean(0)
    assert rates == pytest.approx([0.3] * 4, abs=0.04)


# Noise


@pytest.mark.parametrize(("height", "width"), [(64, 50), (150, 111), (33, 40)])
def test_noise__goes_onto_the_file_and_the_result_is_resized_as_the_loader_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, height: int, width: int
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    images = write(tmp_path / "data", [(pixels, [(5.0, 5.0, 9.0, 9.0)])] * 2)
    seen = []

    def unchanged(image: Any, rng: Any) -> Any:
        seen.append(image.copy())
        return image.copy()

    monkeypatch.setattr(augmentation, "noisy", unchanged)
    dataset = load(images, noise=1.0).dataset
    clean, label = changed(dataset, 0, epoch=-1), changed(dataset, 0)
    assert np.array_equal(seen[0], pixels)
    assert np.array_equal(label["img"], clean["img"])


def test_noise__a_file_that_has_gone_is_named(tmp_path: Path) -> None:
    images = write(tmp_path / "data", [(flat(64, 64), [(5.0, 5.0, 9.0, 9.0)])] * 2)
    dataset = load(images, noise=1.0, cache="ram").dataset
    (images / "01.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"01\.png' cannot be read any more"):
        changed(dataset, 1)


def test_fit__keeps_one_channel_as_an_axis() -> None:
    assert fit(np.zeros((30, 40, 1), np.uint8), 64).shape == (48, 64, 1)
    assert fit(np.zeros((48, 64, 1), np.uint8), 64).shape == (48, 64, 1)


# Crops


def test_crop__ratios_are_independent_uniform_shares(tmp_path: Path) -> None:
    box = (80.0, 60.0, 40.0, 40.0)  # never cut
    dataset = load(write(tmp_path / "data", [(flat(160, 200), [box])] * 2), imgsz=200).dataset
    sizes = np.array([changed(dataset, 0, epoch)["instances"].bboxes[0, 2:] for epoch in range(800)])
    ratios = np.array((40 / 200, 40 / 160)) / sizes
    assert ratios.min() >= 0.8 - 1e-5
    assert ratios.max() <= 1 + 1e-5
    assert ratios.mean(0) == pytest.approx([0.9, 0.9], abs=0.01)
    assert ratios.std(0) == pytest.approx([0.2 / 12**0.5] * 2, abs=0.005)
    assert abs(np.corrcoef(ratios.T)[0, 1]) < 0.1


def test_crop__labels_are_where_the_pixels_are(objects: Path) -> None:
    dataset = load(objects).dataset
    lost = cut = 0
    for index in range(6):
        for epoch in range(40):
            label = changed(dataset, index, epoch)
            image, instances = label["img"], label["instances"]
            height, width = image.shape[:2]
            assert max(height, width) == 64
            assert label["resized_shape"] == (height, width)
            assert len(instances) == len(label["cls"])
            instances.convert_bbox("xyxy")
            instances.denormalize(width, height)
            for channel, box in zip(label["cls"][:, 0].astype(int), instances.bboxes, strict=True):
                visible = extent(image[..., channel])
                if visible is None:  # a sliver that resizing has dimmed
                    assert (box[2:] - box[:2]).min() < 1
                else:
                    assert np.abs(box - visible).max() <= 1.2, (index, epoch)
            for channel in {0, 1} - set(label["cls"][:, 0].astype(int)):
                assert image[..., channel].max() < 64  # at most what interpolation leaves at the edge
                lost += 1
            cut += bool((instances.bboxes == 0).any())
    assert lost
    assert cut


def extent(channel: Any) -> Any:
    """Left, top, right, bottom of what is bright."""
    rows, columns = np.nonzero(channel > 127)
    return None if len(rows) == 0 else np.array((columns.min(), rows.min(), columns.max() + 1, rows.max() + 1))


def test_crop__equals_a_slow_cut_of_the_loaders_image(objects: Path) -> None:
    dataset = load(objects, imgsz=96).dataset
    for index in range(6):
        clean = changed(dataset, index, epoch=-1)
        height, width = clean["img"].shape[:2]
        boxes = clean["instances"].bboxes * np.array([width, height] * 2)
        corners = np.concatenate((boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2), 1)
        rng = np.random.default_rng((0, 4, index))
        (x1, y1, x2, y2), kept = random_window((height, width), corners, rng, low=0.8)
        label = changed(dataset, index, epoch=3)
        assert np.array_equal(label["img"], fit(clean["img"][y1:y2, x1:x2], 96))
        inside = np.clip(corners[kept], (x1, y1) * 2, (x2, y2) * 2) - (x1, y1, x1, y1)
        expected = np.concatenate(((inside[:, :2] + inside[:, 2:]) / 2, inside[:, 2:] - inside[:, :2]), 1)
        expected /= np.array([x2 - x1, y2 - y1] * 2)
        assert label["instances"].bboxes == pytest.approx(expected, abs=1e-5)
        assert np.array_equal(label["cls"], clean["cls"][kept])


def test_random_window__is_the_one_that_random_crop_takes() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    boxes = np.array([[3.0, 4.0, 20.0, 30.0], [60.0, 40.0, 70.0, 50.0]])
    for seed in range(20):
        (x1, y1, x2, y2), kept = random_window((50, 70), boxes, np.random.default_rng(seed), low=0.5)
        expected, _, indices = random_crop(pixels, boxes, np.random.default_rng(seed), low=0.5)
        assert np.array_equal(pixels[y1:y2, x1:x2], expected)
        assert np.array_equal(kept, indices)


@pytest.mark.parametrize("large", [False, True])  # whether the objects are
def test_rule__stored_answers_decide_nothing_and_are_cut_with_the_image(tmp_path: Path, large: bool) -> None:
    box = (80.0, 4.0, 40.0, 40.0) if large else (80.0, 4.0, 20.0, 20.0)
    images = write(tmp_path / "data", [(flat(100, 160), [box])] * 2)
    boxes = np.array([[0.5, 0.5, 0.9, 0.9], [0.01, 0.9, 0.02, 0.2]], np.float32)  # a large one, and one that crops cut
    answer = Answer(boxes, np.array([[0.5, 0.1], [0.2, 0.6]], np.float32))
    plain, answered = load(images).dataset, load(images).dataset
    answered.answers = AnswerTable.of(dict.fromkeys(answered.im_files, answer), [(0, [0]), (1, [1])], 2)
    counts = set()
    for epoch in range(20):
        expected, found = changed(plain, 0, epoch), changed(answered, 0, epoch)
        assert np.array_equal(found["img"], expected["img"])
        own = found["cls"].flatten() < 2
        assert np.array_equal(found["instances"].bboxes[own], expected["instances"].bboxes)
        counts.add(len(own) - 1)
        rows = found["cls"].flatten()[~own].astype(int) - 2
        assert rows.tolist() in ([0, 1], [0])
    assert counts == ({1, 2} if large else {2})


def test_crop__polygons_follow_their_boxes(tmp_path: Path) -> None:
    images = write(tmp_path / "data", [(flat(64, 64), [])] * 2)
    polygons = ["0 0.1 0.1 0.9 0.2 0.7 0.9", "0 0.0 0.0 0.1 0.0 0.05 0.1"]
    for file in (tmp_path / "data" / "labels").iterdir():
        file.write_text("\n".join(polygons))
    dataset = load(images).dataset
    counts = set()
    for epoch in range(60):
        instances = changed(dataset, 0, epoch)["instances"]
        counts.add(len(instances))
        assert len(instances.segments) == len(instances)
        instances.convert_bbox("xyxy")
        hull = np.concatenate((instances.segments.min(1), instances.segments.max(1)), 1)
        assert hull == pytest.approx(instances.bboxes, abs=2e-3)
    assert counts == {1, 2}


def test_crop__a_rotated_box_that_is_cut_off_stays_a_rectangle(tmp_path: Path) -> None:
    images = write(tmp_path / "data", [(flat(64, 64), [])] * 2)
    for file in (tmp_path / "data" / "labels").iterdir():
        file.write_text(" ".join(["0", *(f"{v / 64:.6f}" for point in corners(32, 32, 62, 14, 0.6) for v in point)]))
    loader = build_dataloader(
        build_yolo_dataset(
            training_args(imgsz=64, task="obb", **PLAIN),
            str(images),
            2,
            {"names": {0: "a"}, "channels": 3, "nc": 1},
            mode="train",
        ),
        2,
        0,
    )
    loader.epoch = 0
    augment_loader(
        loader, SimpleNamespace(noise=0.0, crop=0.8, until=1.0), seed=0, current_epoch=lambda: (loader.epoch, 9)
    )
    cut = 0
    for epoch in range(20):
        label = changed(loader.dataset, 0, epoch)
        height, width = label["img"].shape[:2]
        (segment,) = (label["instances"].segments * (width, height)).astype(np.float32)
        _, (long, short), _ = cv2.minAreaRect(segment)
        cut += bool((segment.max(0) > (width, height)).any() or (segment.min(0) < 0).any())
        assert cv2.contourArea(cv2.convexHull(segment)) == pytest.approx(long * short, rel=0.02)
    assert cut


# The loader


def samples(loader: Any, epochs: int, *, first: int = 0) -> Iterator[tuple[int, str, str]]:
    """Epoch, file name and digest of every sample, the epoch set as the trainer does."""
    for epoch in range(first, epochs):
        loader.epoch = epoch
        for batch in loader:
            for number, file in enumerate(batch["im_file"]):
                boxes = batch["bboxes"][batch["batch_idx"] == number]
                content = batch["img"][number].numpy().tobytes() + boxes.numpy().tobytes()
                yield epoch, Path(file).name, hashlib.sha256(content).hexdigest()


def test_loader__draws_by_seed_epoch_and_image_with_any_number_of_workers(objects: Path) -> None:
    digests = {}
    for name, workers, seed in (("alone", 0, 0), ("again", 0, 0), ("workers", 2, 0), ("seed", 0, 1)):
        loader = load(objects, workers=workers, seed=seed)
        assert loader.num_workers == workers
        digests[name] = {(epoch, file): digest for epoch, file, digest in samples(loader, 3)}
        loader.close()
    assert len(digests["alone"]) == 18
    assert len(set(digests["alone"].values())) == 18  # no two epochs alike
    assert digests["again"] == digests["alone"]
    assert digests["workers"] == digests["alone"]
    assert not set(digests["seed"].values()) & set(digests["alone"].values())


@pytest.mark.parametrize("workers", [0, 2])
def test_loader__is_off_after_its_share_of_the_epochs(objects: Path, workers: int) -> None:
    reference = {file: digest for _, file, digest in samples(plain(objects), 1)}
    loader = load(objects, until=0.67, epochs=3, workers=workers)
    seen = list(samples(loader, 3))
    loader.close()
    untouched = [epoch for epoch, file, digest in seen if digest == reference[file]]
    assert untouched == [2] * 6


@pytest.mark.parametrize("workers", [0, 2])
def test_loader__goes_on_from_the_current_epoch_after_a_reset(objects: Path, workers: int) -> None:
    expected = {(epoch, file): digest for epoch, file, digest in samples(load(objects, epochs=9), 5)}
    loader = load(objects, epochs=9, workers=workers)
    list(samples(loader, 2))
    loader.reset()  # as the trainer does to close mosaic; a resumed run, too, begins in a later epoch
    later = {(epoch, file): digest for epoch, file, digest in samples(loader, 5, first=4)}
    loader.close()
    assert later == {key: digest for key, digest in expected.items() if key[0] == 4}


def test_loader__keeps_order_length_and_everybodys_random_streams(objects: Path) -> None:
    changes: dict[str, Any] = {"mosaic": 1.0, "fliplr": 0.5, "scale": 0.5, "hsv_v": 0.4}
    streams, orders = [], []
    for loader in (plain(objects, **changes), load(objects, until=0.0, **changes), load(objects, **changes)):
        loader.generator.manual_seed(1)
        for set_seed in (torch.manual_seed, random.seed, np.random.seed):
            set_seed(5)
        assert len(loader) == 3
        orders.append(list(samples(loader, 2)))
        streams.append((random.random(), float(np.random.rand()), float(torch.rand(()))))
    assert streams[0] == streams[1] == streams[2]
    assert orders[0] == orders[1]  # off is exactly Ultralytics
    assert [s[:2] for s in orders[2]] == [s[:2] for s in orders[0]]
    assert not {s[2] for s in orders[2]} & {s[2] for s in orders[0]}


def test_loader__mosaic_partners_are_changed_as_well(tmp_path: Path) -> None:
    images = write(tmp_path / "data", [(flat(64, 64), [(5.0, 5.0, 20.0, 20.0)])] * 8)
    loader = load(images, noise=1.0, mosaic=1.0)
    for batch in loader:
        for pixels in batch["img"].float():
            inside = pixels[pixels != 114]  # the mosaic's padding
            assert float((inside == 100).float().mean()) < 0.1
    off = load(images, noise=1.0, until=0.0, mosaic=1.0)
    assert set(next(iter(off))["img"].unique().tolist()) <= {*range(100, 115)}


@pytest.mark.parametrize("crop", [0.8, 1.0])
def test_cached_images__stay_as_they_are_and_give_the_same(objects: Path, crop: float) -> None:
    cached, read = (load(objects, cache=cache, crop=crop).dataset for cache in ("ram", None))
    before = [cached.ims[index].copy() for index in range(6)]
    for epoch in range(3):
        for index in range(6):
            label = changed(cached, index, epoch)
            label["img"][:] = 0  # what later transforms may do
            assert not np.shares_memory(label["img"], cached.ims[index])
            assert np.array_equal(changed(cached, index, epoch)["img"], changed(read, index, epoch)["img"])
    assert all(np.array_equal(cached.ims[index], pixels) for index, pixels in enumerate(before))


def test_pickle__a_worker_that_is_spawned_draws_the_same(objects: Path) -> None:
    dataset = load(objects).dataset
    copy = pickle.loads(pickle.dumps(dataset))
    assert type(copy) is SampleSpecific
    assert copy.transforms[0] is not dataset.transforms[0]
    for index in range(6):
        assert np.array_equal(changed(copy, index, 1)["img"], changed(dataset, index, 1)["img"])


def test_samples__after_the_share_of_the_epochs_the_image_is_as_it_is(objects: Path) -> None:
    dataset, reference = load(objects, until=0.5).dataset, plain(objects).dataset
    assert torch.equal(dataset[Key(2, epoch=2, epochs=4)]["img"], reference[2]["img"])
    assert not torch.equal(dataset[Key(2, epoch=1, epochs=4)]["img"], reference[2]["img"])
    assert not torch.equal(dataset[Key(2, epoch=2, epochs=6)]["img"], reference[2]["img"])


def test_epoch_batches__carry_the_epoch_in_the_key() -> None:
    epochs = 4
    batches = EpochBatches([[0, 2], [1]], lambda: (1, epochs))
    keys = iter(batches)
    assert [next(keys) for _ in range(2)] == [[Key(0, 1, 4), Key(2, 1, 4)], [Key(1, 1, 4)]]
    epochs = 8  # a run by hours corrects its number of epochs
    assert [next(keys) for _ in range(2)] == [[Key(0, 2, 8), Key(2, 2, 8)], [Key(1, 2, 8)]]


@pytest.mark.parametrize(("until", "epochs", "on"), [(0.67, 24, 16), (1.0, 7, 7), (0.0, 7, 0), (0.67, 1, 1)])
def test_epochs_on__the_share_in_whole_epochs(until: float, epochs: int, on: int) -> None:
    assert epochs_on(until, epochs) == on
