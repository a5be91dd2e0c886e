"""Kinds of executors: name, as `yolokd compare --executor` takes it, → what makes one for a list of devices."""

from __future__ import annotations

from yolokd.comparison.executors.local import LocalExecutor
from yolokd.comparison.executors.protocol import MakeExecutor

EXECUTORS: dict[str, MakeExecutor] = {
    "local": LocalExecutor,
}
