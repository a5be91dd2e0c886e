"""What the weights of adaptive instance distillation were, epoch by epoch: `aid.jsonl` in the run's folder.

One JSON object per line and epoch: `instances` (how many were weighed), `mean_weight` and `mean_loss` over them,
`mean_place_weight` over all places of the head, `histogram` (instances by weight, ten bins of [0, 1]), and `worst`:
the images that hold the instances of least weight. Under mosaic augmentation the name is that of the first of the
four images. With several processes, the share of the first one is recorded.
"""

from __future__ import annotations

import heapq
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from yolokd.distillation.instance_weights import Weights
from yolokd.files import write_whole

FILE = "aid.jsonl"
BINS = 10
WORST = 20


@dataclass
class WeightLog:
    """Gathers small tensors on the device; they are read when an epoch is written."""

    _histograms: list[Tensor] = field(default_factory=list)  # (BINS,) each
    _sums: list[Tensor] = field(default_factory=list)  # (3,) each: weights, losses, mean over places
    _lowest: list[Tensor] = field(default_factory=list)  # (B,) each
    _files: list[str] = field(default_factory=list)

    def record(self, weights: Weights, files: Sequence[str]) -> None:
        """Keep what matters of one batch; nothing is read from the device.

        Args:
            weights: The batch's weights.
            files: Names of its B images, as in `batch["im_file"]`.
        """
        instances = weights.instances
        counted = instances.counted
        bins = (instances.weight * BINS).long().clamp(0, BINS - 1)
        empty = torch.zeros(BINS, dtype=torch.long, device=bins.device)
        self._histograms.append(empty.scatter_add(0, bins.flatten(), counted.flatten().long()))
        sums = [x.masked_fill(~counted, 0).sum() for x in (instances.weight, instances.loss)]
        self._sums.append(torch.stack([*sums, weights.head.mean()]))
        self._lowest.append(instances.weight.masked_fill(~counted, torch.inf).amin(1))
        self._files.extend(str(file) for file in files)

    def write(self, folder: Path, epoch: int) -> None:
        """Add the epoch's line to `aid.jsonl` and start anew; nothing is written if nothing was recorded.

        Args:
            folder: The run's folder.
            epoch: Number of the epoch, from 1 as in results.csv. Lines of this and later epochs, left by a run that
                was interrupted, are replaced.
        """
        if not self._files:
            return
        path = folder / FILE
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        lines = [line for line in lines if json.loads(line)["epoch"] < epoch]
        write_whole(path, "\n".join([*lines, json.dumps({"epoch": epoch, **self._summary()}), ""]))
        for gathered in (self._histograms, self._sums, self._lowest, self._files):
            gathered.clear()

    def _summary(self) -> dict[str, Any]:
        histogram = torch.stack(self._histograms).sum(0).tolist()
        weight, loss, places = (math.fsum(column) for column in torch.stack(self._sums).T.tolist())
        lowest = zip(torch.cat(self._lowest).tolist(), self._files, strict=True)
        worst = heapq.nsmallest(WORST, (pair for pair in lowest if math.isfinite(pair[0])))
        count = sum(histogram)
        return {
            "instances": count,
            "mean_weight": round(weight / count, 6) if count else None,
            "mean_loss": round(loss / count, 6) if count else None,
            "mean_place_weight": round(places / len(self._sums), 6),
            "histogram": histogram,
            "worst": [{"picture": file, "weight": round(value, 6)} for value, file in worst],
        }
