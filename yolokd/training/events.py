"""Events of a run that a reader should know of: `events.jsonl` in the run directory, one JSON object per line.

Console and report render the same events; nobody reads the console's text.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from yolokd.inputs import FormatError, parse_json, read_text

FILE = "events.jsonl"
LARGEST = 2**20  # bytes that are read
TYPES: dict[str, Any] = {
    "kind": str,
    "term": str,
    "epoch": int,
    "value": (int, float),
}  # of an event's fields in the file
RATIO_LIMIT = 10  # gradient ratio at the neck above which a term is warned of


@dataclass(frozen=True)
class Event:
    """Something that happened in training.

    Attributes:
        kind: "gradient_ratio": a term's gradient at the neck is many times the detection loss's.
        term: The distillation term, without `kd_`.
        epoch: From 1.
        value: What was measured, without a unit.
    """

    kind: str
    term: str
    epoch: int
    value: float

    def __str__(self) -> str:
        """A sentence for the user."""
        if self.kind == "gradient_ratio":
            return (
                f"kd_{self.term} has {self.value:.0f} times the detection loss's gradient at the neck (epoch "
                f"{self.epoch}): lower its gain, or set it to auto"
            )
        return f"{self.kind} of kd_{self.term} in epoch {self.epoch}: {self.value:g}"


def write_event(folder: Path, event: Event) -> None:
    """Append an event to the file of a run directory."""
    with (folder / FILE).open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(event)) + "\n")


def read_events(folder: Path) -> list[Event]:
    """Return the events of a run directory in their order; lines of another form are left out."""
    try:
        lines = read_text(folder / FILE, limit=LARGEST).splitlines()
    except (OSError, ValueError):
        return []
    return list(_parsed(lines))


def _parsed(lines: list[str]) -> Iterator[Event]:
    for line in lines:
        try:
            found: Any = parse_json(line)
        except FormatError:
            continue
        if not isinstance(found, dict):
            continue
        if all(isinstance(found.get(key), kind) for key, kind in TYPES.items()):
            event = Event(**{key: found[key] for key in TYPES})
            if math.isfinite(event.value):
                yield event
