from __future__ import annotations

from pathlib import Path

from ultralytics.data import build
from ultralytics.data.dataset import YOLODataset

from tests.helpers import tiny
from tests.helpers.models import training_args
from yolokd.backend.label_scan import kept_apart


def test_kept_apart__the_same_data_set_and_no_cache_beside_the_labels(tmp_path: Path) -> None:
    tiny.data_set(tmp_path)
    args, data = training_args(), {"names": dict(enumerate(tiny.NAMES)), "channels": 3}
    before = sorted(tmp_path.rglob("*"))

    def labels() -> list[tuple[str, list[list[float]]]]:
        dataset = build.build_yolo_dataset(args, str(tmp_path / "images" / "train"), 4, data)
        assert isinstance(dataset, YOLODataset)
        return [(label["im_file"], label["bboxes"].tolist()) for label in dataset.labels]

    for _ in range(2):  # scanned, then read from the cache
        with kept_apart():
            found = labels()
    assert sorted(tmp_path.rglob("*")) == before
    assert build.YOLODataset is YOLODataset
    assert labels() == found
