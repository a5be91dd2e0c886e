"""Anomaly checks: a distillation term that is not finite, or stays exactly zero, ends the run with its name.

Values stay on the device and are read together every `EVERY` steps, so that no step waits for them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from yolokd.errors import RunError
from yolokd.loaders.batch import TrainingBatch

EVERY = 20  # steps between two readings
ZERO_STEPS = 20  # active steps with objects on which a term may be exactly zero


@dataclass(frozen=True)
class _Record:
    step: int
    values: Mapping[str, Tensor]
    objects: bool
    detection: Tensor  # (), the detection loss
    files: tuple[str, ...]
    levels: tuple[str, ...]


@dataclass
class AnomalyChecks:
    """Collects each step's values before their gains, and judges them when read."""

    zeros: Counter[str] = field(default_factory=Counter)
    _pending: list[_Record] = field(default_factory=list)

    def record(
        self,
        number: int,
        values: Mapping[str, Tensor],
        batch: TrainingBatch,
        detection: Tensor,
        levels: tuple[str, ...],
    ) -> None:
        """Keep one step's values by level, (L,) or (1,) for a term without a place; nothing is read from the device."""
        detached = {term: value.detach() for term, value in values.items()}
        files = tuple(batch.files)
        self._pending.append(_Record(number, detached, batch.has_objects, detection.detach(), files, levels))

    @property
    def due(self) -> bool:
        """Whether enough steps have gathered to be read."""
        return len(self._pending) >= EVERY

    def read(self) -> None:
        """Judge all steps since the last reading.

        Raises:
            RunError: A term is not finite (names term, step and images), or was exactly zero for `ZERO_STEPS` active
                steps that had objects.
        """
        records, self._pending = self._pending, []
        if not records:
            return
        tensors = [v for r in records for v in (r.detection.view(1), *r.values.values())]
        numbers = iter(torch.cat([v.float() for v in tensors]).tolist())
        for record in records:
            broken = not math.isfinite(next(numbers))  # the student itself: left to Ultralytics, which recovers
            for term, parts in record.values.items():
                values = [next(numbers) for _ in parts]
                if not broken:
                    self._judge(term, values, record)

    def _judge(self, term: str, values: list[float], record: _Record) -> None:
        value = sum(values)
        if not math.isfinite(value):
            bad = [name for name, part in zip(record.levels, values, strict=False) if not math.isfinite(part)]
            where = f" at {', '.join(bad)}" if len(values) > 1 else ""
            shown = ", ".join(Path(f).name for f in record.files[:8]) or "unknown"
            raise RunError(
                f"The distillation term kd_{term} became {value}{where} in step {record.step}, on the images "
                f"{shown}. Lower its gain or the learning rate, or switch mixed precision off (train.amp=false)."
            )
        if value != 0:
            self.zeros[term] = 0
        elif record.objects:
            self.zeros[term] += 1
            if self.zeros[term] >= ZERO_STEPS:
                raise RunError(
                    f"The distillation term kd_{term} was exactly 0 on {ZERO_STEPS} steps with objects in them: it "
                    f"teaches nothing. Are teacher and student the same weights, or is the teacher sure of no object? "
                    "Else take the term out of the recipe."
                )
