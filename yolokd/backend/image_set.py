"""Images without labels as a data set of Ultralytics."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np


class WithoutLabels:
    """Makes a `YOLODataset` take the files that it is given, without objects; it stands before it among the bases.

    Neither labels nor Ultralytics' cache of them are read, and nothing is written.

    Attributes:
        shapes: File → height and width in pixels, where they are known.
    """

    im_files: list[str]
    shapes: Mapping[str, tuple[int, int]] = {}

    def get_img_files(self, img_path: Any) -> list[str]:
        """Return the files as they were given."""
        return list(img_path)

    def get_labels(self) -> list[dict[str, Any]]:
        """Return empty labels, made in memory."""
        return [
            {
                "im_file": file,
                **({"shape": self.shapes[file]} if file in self.shapes else {}),
                "cls": np.zeros((0, 1), np.float32),
                "bboxes": np.zeros((0, 4), np.float32),
                "segments": [],
                "keypoints": None,
                "normalized": True,
                "bbox_format": "xywh",
            }
            for file in self.im_files
        ]

    @property
    def npy_files(self) -> list[Path]:
        """Where Ultralytics would read, renew and delete decoded images: places that cannot exist."""
        return self._nowhere

    @npy_files.setter
    def npy_files(self, files: list[Path]) -> None:
        self._nowhere = [file / "unused" for file in files]
