"""What `gpu.py` found, line by line, in files that are complete after every line."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

OK, FAILED, SKIPPED = "ok", "failed", "skipped"


class Skip(Exception):  # noqa: N818
    """What a line needs is not there."""


@dataclass(frozen=True)
class Line:
    """One check."""

    part: int
    name: str
    state: str
    note: str = ""  # a reason, or the figures in words
    seconds: float = 0.0
    figures: dict[str, Any] = field(default_factory=dict)


class Results:
    """The lines so far, read from the folder."""

    def __init__(self, out: Path) -> None:
        self.path = out / "gpu.json"
        found = json.loads(self.path.read_text(encoding="utf-8")) if self.path.exists() else {}
        self.lines = [Line(**line) for line in found.get("lines", ())]
        self.facts: dict[str, Any] = found.get("facts", {})

    @property
    def running(self) -> tuple[int | None, float]:
        """The part in progress and the time of its start."""
        part, since = self.facts.get("running") or (None, 0.0)
        return part, since

    def begin(self, part: int) -> None:
        self.write(running=(part, time.time()))

    def end(self, part: int) -> None:
        _, since = self.running
        spent = {**self.facts.get("seconds_of_parts", {}), str(part): round(time.time() - since, 1)} if since else {}
        self.write(running=None, **({"seconds_of_parts": spent} if spent else {}))

    def add(self, line: Line) -> None:
        print(f"  {line.state:8}{line.name}{': ' if line.note else ''}{line.note}", flush=True)
        self.lines.append(line)
        self.write()

    @contextmanager
    def check(self, part: int, name: str) -> Iterator[dict[str, Any]]:
        """Record a line: ok with the figures that are put into the dict, skipped on `Skip`, failed on any error."""
        began, figures = time.monotonic(), dict[str, Any]()
        state, note = OK, ""
        try:
            yield figures
        except Skip as reason:
            state, note = SKIPPED, str(reason)
        except Exception as error:  # whatever a device may do: the next line goes on
            state, note = FAILED, f"{type(error).__name__}: {str(error).strip()}"
        words = ", ".join(f"{key} {shown(value)}" for key, value in figures.items() if not isinstance(value, dict))
        text = "; ".join(part for part in (note, words) if part)
        self.add(Line(part, name, state, text, time.monotonic() - began, figures))

    def write(self, **facts: Any) -> None:
        self.facts.update(facts)
        lines = [asdict(line) for line in self.lines]
        for path, text in (
            (self.path, json.dumps({"facts": self.facts, "lines": lines}, indent=1, default=str) + "\n"),
            (self.path.with_suffix(".md"), self.markdown()),
        ):
            beside = path.with_suffix(path.suffix + ".part")
            beside.write_text(text, encoding="utf-8")
            beside.replace(path)

    def markdown(self) -> str:
        count = {state: sum(line.state == state for line in self.lines) for state in (OK, FAILED, SKIPPED)}
        conditions = self.facts.get("conditions", {})
        lines = ["# GPU acceptance", "", ", ".join(f"{number} {state}" for state, number in count.items()) + ".", ""]
        lines += [f"- {key}: {value}" for key, value in conditions.items()]
        lines += [
            f"- seconds of part {part}: {value}" for part, value in self.facts.get("seconds_of_parts", {}).items()
        ]
        lines += ["", "| part | what | | s | |", "|---|---|---|---|---|"]
        for line in self.lines:
            note = " ".join(line.note.replace("|", "\\|").split())[:400]
            lines.append(f"| {line.part} | {line.name} | {line.state} | {line.seconds:.1f} | {note} |")
        return "\n".join([*lines, ""])


def shown(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
