"""Ultralytics' caches of label scans, kept in its settings folder instead of beside the user's labels."""

from __future__ import annotations

import hashlib
import os
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from ultralytics.data import build
from ultralytics.data.dataset import YOLODataset
from ultralytics.utils import USER_CONFIG_DIR

FOLDER = "yolokd-labels"  # in Ultralytics' settings folder


class KeptApart(YOLODataset):
    """Ultralytics' data set but for where the cache of its labels is."""

    def _load_or_scan_cache(self, cache_path: Path, cache_hash: str) -> Any:
        folder = Path(USER_CONFIG_DIR) / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        place = hashlib.sha256(os.fsencode(cache_path.absolute())).hexdigest()[:16]
        return super()._load_or_scan_cache(folder / f"{cache_path.stem}-{place}.cache", cache_hash)


def kept_apart() -> AbstractContextManager[object]:
    """Have `build_yolo_dataset` of Ultralytics build such data sets, within a `with` statement."""
    return patch.object(build, "YOLODataset", KeptApart)
