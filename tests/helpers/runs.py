"""What a run left behind, and ways to interrupt one."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from yolokd.training.trainer import DistillTrainer


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def stop_after(monkeypatch: pytest.MonkeyPatch, epoch: int, *, before_saving: bool = False) -> None:
    """Break a run off in the given epoch: after its checkpoint, or between its csv row and its checkpoint."""
    original = DistillTrainer.save_model

    def save_model(self: DistillTrainer) -> bool:
        if before_saving and self.epoch + 1 == epoch:
            raise KeyboardInterrupt
        saved = original(self)
        if self.epoch + 1 == epoch:
            raise KeyboardInterrupt
        return saved

    monkeypatch.setattr(DistillTrainer, "save_model", save_model)
