"""Where an export is made, and where it goes: beside its checkpoint, complete or not at all."""

from __future__ import annotations

import contextlib
import io
import logging
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from yolokd.errors import RunError, UserError
from yolokd.outputs import OutputFolder


def check_writable(folder: Path) -> None:
    """Raise `UserError` if nothing can be written to a folder."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(
            f"The export belongs beside its checkpoint, but '{folder}' cannot be written: {error.strerror or error}. "
            f"Copy the checkpoint to a folder of yours."
        ) from error


def copy_beside(source: Path, folder: Path) -> Path:
    """Return a copy of the checkpoint, for Ultralytics to export beside it, under a name that it leaves as it is."""
    from yolokd.backend.paths import altered

    plain = altered(folder / source.name) is None
    return Path(shutil.copyfile(source, folder / (source.name if plain else "checkpoint.pt")))


@contextlib.contextmanager
def hushed() -> Iterator[None]:
    """Keep converters off stdout and out of the log, and OpenVINO's from reporting use to its makers."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # both then take their own stubs
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(before)


def place(written: Path, copy: Path, source: Path) -> tuple[Path, tuple[str, ...]]:
    """Move a complete export beside its checkpoint, over an earlier one of yolokd's; return its path and what to say.

    Args:
        written: The export of `copy`.
        copy: The copy of the checkpoint that was exported.
        source: The checkpoint.
    """
    rest = written.name.removeprefix(copy.stem)
    try:
        target = OutputFolder(source.parent, [source]).take(written, source.stem, rest)
    except OSError as error:
        raise RunError(f"The export cannot be written to '{source.parent}': {error.strerror or error}.") from error
    if target.name == source.stem + rest:
        return target, ()
    return target, (f"'{source.stem}{rest}' was there and is not an export of yolokd, so it was left as it is",)
