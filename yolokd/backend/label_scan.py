"""Ultralytics' caches of label scans, kept in yolokd's cache instead of beside the user's labels."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from ultralytics.data import build
from ultralytics.data.dataset import YOLODataset

from yolokd.files import cache_folder, sha256_of

FOLDER = "labels"  # in yolokd's cache


class KeptApart(YOLODataset):
    """Ultralytics' data set but for where the cache of its labels is."""

    def _load_or_scan_cache(self, cache_path: Path, cache_hash: str) -> Any:
        place = sha256_of(str(cache_path.absolute()))[:16]
        return super()._load_or_scan_cache(cache_folder(FOLDER) / f"{cache_path.stem}-{place}.cache", cache_hash)


def kept_apart() -> AbstractContextManager[object]:
    """Have `build_yolo_dataset` of Ultralytics build such data sets, within a `with` statement."""
    return patch.object(build, "YOLODataset", KeptApart)
