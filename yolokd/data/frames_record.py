"""`frames.json` of a folder of frames: the settings, and of each clip its source, counts and the names of its images.

{
  "written by": "yolokd data frames",
  "settings": {"distance": 6, "window": 16, "every (videos)": "1s"},
  "clips": {"front": {"source": "/footage/front.mp4", "identity": [size, time of change], "complete": true,
            "read": 900, "near_duplicates": 4, "notes": [], "images": ["front_000000.000s.jpg", ...]}}
}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from yolokd.data.frames_names import clip_names
from yolokd.data.frames_source import Clip, Video
from yolokd.errors import DataError, UserError, printable
from yolokd.files import write_json
from yolokd.inputs import misfits, read_json

FILE = "frames.json"
WRITER = "yolokd data frames"
KINDS = {
    "source": str,
    "identity": list,
    "complete": bool,
    "read": int,
    "near_duplicates": int,
    "notes": list,
    "images": list,
}


class FramesRecord:
    """What an output folder holds, and the names of its clips."""

    def __init__(self, out: Path, clips: Sequence[Clip], settings: Mapping[str, int]) -> None:
        """Read the record of a folder, and check that the clips can be added.

        Args:
            out: The folder; it need not exist.
            clips: What is to be added.
            settings: Those beside the clips' `every`.

        Raises:
            DataError: The folder is a file, holds something else or frames of other settings, cannot be read, or a
                video has changed since its frames were made.
        """
        self.out = out
        self._was_there = out.exists()
        plain = self._read()
        self._had_record = bool(plain)
        self.clips: dict[str, dict[str, Any]] = plain.get("clips", {})
        self._names: dict[str, str] = {row["source"]: name for name, row in self.clips.items()}
        before: dict[str, Any] = plain.get("settings", {})
        now = {**settings, **{_kind(clip): str(clip.every) for clip in clips}}
        differing = [f"{key} {before[key]}" for key in before if key in now and before[key] != now[key]]
        if differing:
            raise DataError(
                f"'{printable(out)}' holds frames that were made with other settings ({', '.join(differing)}). Give "
                "the same settings, or another folder."
            )
        self.settings = {**before, **now}
        for clip in clips:
            self._check_unchanged(clip)

    def row(self, clip: Clip) -> dict[str, Any] | None:
        """Return what is recorded of a clip."""
        name = self._names.get(real_path(clip.source))
        return self.clips.get(name) if name else None

    def is_complete(self, row: Mapping[str, Any], clip: Clip) -> bool:
        """Return whether all frames of a clip, as it is now, are there."""
        there = row["complete"] and row["identity"] == _identity(clip)
        return bool(there and all((self.out / image).exists() for image in row["images"]))

    def choose_name(self, clip: Clip) -> str:
        """Return the clip's name here; with `_` behind it, no name is the beginning of another, in any letter case."""
        real = Path(real_path(clip.source))
        if str(real) not in self._names:
            taken = [f"{name.casefold()}_" for name in self._names.values()]
            for name in clip_names(real, is_file=isinstance(clip, Video)):
                prefix = f"{name.casefold()}_"
                if not any(prefix.startswith(other) or other.startswith(prefix) for other in taken):
                    self._names[str(real)] = name
                    break
        return self._names[str(real)]

    def begin(self, clip: Clip, name: str) -> None:
        """Make the folder and record a clip of which nothing is recorded, before its first image; errors as usual."""
        self.out.mkdir(parents=True, exist_ok=True)
        if name not in self.clips:
            self._save(clip, name, {"complete": False, "read": 0, "near_duplicates": 0, "notes": [], "images": []})

    def save(self, clip: Clip, name: str, counts: Mapping[str, int], images: list[str], notes: list[str]) -> None:
        """Record a clip that is complete.

        Args:
            clip: The clip.
            name: Of `choose_name`.
            counts: `read` and `near_duplicates`.
            images: Names of its images.
            notes: What was found on the way.

        Raises:
            OSError: As usual.
        """
        self._save(clip, name, {"complete": True, **counts, "notes": notes, "images": images})

    def discard(self) -> None:
        """Remove the record, and the folder if it is new, where no image has been written."""
        with suppress(OSError):
            if not self._had_record and not any(path.name != FILE for path in self.out.iterdir()):
                (self.out / FILE).unlink(missing_ok=True)
                if not self._was_there:
                    self.out.rmdir()

    def _save(self, clip: Clip, name: str, row: Mapping[str, Any]) -> None:
        self.clips[name] = {"source": real_path(clip.source), "identity": _identity(clip), **row}
        write_json(self.out / FILE, {"written by": WRITER, "settings": self.settings, "clips": self.clips})

    def _check_unchanged(self, clip: Clip) -> None:
        row = self.row(clip)
        if isinstance(clip, Video) and row is not None and row["identity"] != _identity(clip):
            raise DataError(
                f"'{printable(clip.source)}' has changed since its frames in '{printable(self.out)}' were made. Give "
                "another folder."
            )

    def _read(self) -> dict[str, Any]:
        shown = printable(self.out)
        try:
            if self.out.exists() and not self.out.is_dir():
                raise DataError(f"'{shown}' is a file. The last argument is the folder to write images into.")
            if not self.out.exists() or not any(self.out.iterdir()):
                return {}
        except OSError as error:
            raise DataError(f"'{shown}' cannot be used: {error.strerror or error}.") from error
        try:
            plain = read_json(self.out / FILE, limit=None)
        except (OSError, ValueError):
            plain = None
        if not _is_record(plain):
            raise DataError(f"'{shown}' holds something else already; give a folder that is new or empty.")
        return dict(plain)


def real_path(path: Path) -> str:
    """Return a path with links resolved."""
    return str(path.expanduser().resolve())


def _identity(clip: Clip) -> list[Any]:
    try:
        return clip.identity()
    except OSError as error:
        raise UserError(f"'{printable(clip.source)}' cannot be read: {error.strerror}.") from error


def _kind(clip: Clip) -> str:
    """What the step between the frames of a clip is recorded under."""
    return "every (videos)" if isinstance(clip, Video) else "every (folders)"


def _is_record(plain: Any) -> bool:
    if not isinstance(plain, dict) or plain.get("written by") != WRITER:
        return False
    settings, clips = plain.get("settings"), plain.get("clips")
    return isinstance(settings, dict) and isinstance(clips, dict) and all(_is_row(row) for row in clips.values())


def _is_row(row: Any) -> bool:
    if not isinstance(row, dict) or not row.keys() >= KINDS.keys() or misfits(row, KINDS):
        return False
    return all(isinstance(text, str) for text in (*row["notes"], *row["images"]))
