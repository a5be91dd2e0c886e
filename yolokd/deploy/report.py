"""What an export is worth: checkpoint and exported file measured in the same way, and the limits of what passes.

Limits by precision: float32 must agree in raw outputs, detections and AP; float16 in detections and AP (in raw outputs
where there is no detection); int8 is lossy by nature, so its outputs are reported, and it must keep 90 % of the AP.
A better AP never fails, and a worse one only where it is certain: the 95 % interval of the difference over the images
must lie below 0 (see `yolokd.evaluation.bootstrap`). The fewer images, the less their AP can tell. Of a task with a
metric beside the AP of boxes, such as the AP of masks, both are judged alike.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from yolokd.backend.formats import Precision
from yolokd.deploy.change import Change, change
from yolokd.deploy.parity import LEAST_AGREEMENT, MOST_BOX_PX, MOST_SCORE, Parity
from yolokd.deploy.sensitivity import Sensitivity


@dataclass(frozen=True)
class Side:
    """The checkpoint or its export. AP is COCO's over IoU 0.50:0.95, in [0, 1]; None: not measured."""

    path: str
    bytes: int
    latency_ms: float | None = None  # median forward pass at batch 1
    AP: float | None = None
    AP50: float | None = None
    per_class: dict[str, float] | None = None  # AP; −1: no such object in the data


@dataclass(frozen=True)
class Calibrated:
    """The weights of a network that was trained in 8 bits, without its ranges: measured, not kept."""

    before: Side  # in full precision
    after: Side  # exported in 8 bits with calibrated ranges
    ap_interval: tuple[float, float]  # of the change between the two, 95 %, over the images
    gain: float  # AP of the export with the ranges of the training less that of this one, in [−1, 1]
    gain_interval: tuple[float, float]  # of `gain`

    @property
    def ap_change(self) -> float | None:
        """AP of the calibrated export less that in full precision; None where it says nothing."""
        return change(self.before.AP, self.after.AP)


@dataclass(frozen=True)
class ExportReport:
    """What was written and how it compares with its checkpoint."""

    format: str
    precision: Precision
    imgsz: int
    before: Side  # the checkpoint
    after: Side  # the exported file or folder
    parity: Parity | None = None  # None: not compared
    notes: tuple[str, ...] = ()
    ap_interval: tuple[float, float] | None = None  # of `ap_change`, 95 %, over the images; None: not known
    keep_float: tuple[str, ...] = ()  # parts that an int8 export has in full precision
    own_ranges: bool = False  # the checkpoint was trained in 8 bits, and `before` is what it computes in them
    sensitivity: Sensitivity | None = None  # to 8 bits, part by part; None: not measured
    calibrated: Calibrated | None = None  # the same weights without their own ranges; None: not measured
    further: tuple[Change, ...] = ()  # by the metric beside the AP of boxes, if the task has one

    @property
    def source(self) -> str:
        """Path of the checkpoint."""
        return self.before.path

    @property
    def path(self) -> str:
        """Path of the export."""
        return self.after.path

    @property
    def changes(self) -> tuple[Change, ...]:
        """The AP of boxes before and after, then that of each further metric."""
        what = "box AP" if self.further else "AP"
        return (Change(what, self.before.AP, self.after.AP, self.ap_interval), *self.further)

    @property
    def ap_change(self) -> float | None:
        """AP of the export less that of the checkpoint, in [−1, 1]; None where it says nothing."""
        return self.changes[0].value

    @property
    def passed(self) -> bool | None:
        """Whether the export is within the limits of its precision; None where nothing could be compared."""
        judged = self.ap_change is not None or (self.parity is not None and self.precision != "int8")
        return not self.failures if judged else None

    @property
    def failures(self) -> tuple[str, ...]:
        """Each limit that was missed, with the numbers."""
        lost = [change.failure(self.precision) for change in self.changes]
        return (*self._parity_failures(), *(words for words in lost if words is not None))

    def _parity_failures(self) -> tuple[str, ...]:
        found = []
        parity = self.parity
        if parity is not None and self.precision != "int8":
            if not parity.raw_agrees and (self.precision == "float32" or not parity.detections):
                apart = [gap for gap in parity.further if not gap.agrees]
                if not parity.boxes_agree:
                    found.append(
                        f"raw outputs differ by {parity.box_px:.2g} px and {parity.score:.2g} in score "
                        f"(limits {MOST_BOX_PX:g} and {MOST_SCORE:g})"
                    )
                found += [f"{gap.name} differ by {gap.most:.2g} (limit {gap.limit:g})" for gap in apart]
            if not parity.detections_agree:
                found.append(f"{parity.paired} of {parity.detections} detections agree (limit {LEAST_AGREEMENT:.0%})")
        return tuple(found)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, verdict included."""
        agreement = None if self.parity is None else self.parity.agreement
        plain = asdict(self)
        if plain["parity"] is not None:  # under the name that readers of the file know
            plain["parity"] = {"pictures": plain["parity"].pop("images"), **plain["parity"]}
            if not plain["parity"]["further"]:
                del plain["parity"]["further"]
        plain["keep_float"], plain["further"] = list(self.keep_float), list(plain["further"])
        return {
            **plain,
            "agreement": agreement,
            "ap_change": self.ap_change,
            "ap_interval": None if self.ap_interval is None else list(self.ap_interval),
            "passed": self.passed,
            "failures": list(self.failures),
        }


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files of a folder."""
    return sum(p.stat().st_size for p in ([path] if path.is_file() else path.rglob("*")) if p.is_file())
