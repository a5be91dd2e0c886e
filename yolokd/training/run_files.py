"""The files that describe a run: recipe.yaml, provenance.json, and results.csv after an interruption."""

from __future__ import annotations

import json
import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from yolokd.backend.api import ULTRALYTICS_VERSION
from yolokd.data.layout import fingerprint, images_of
from yolokd.distillation.weight_files import FILE as AID_FILE
from yolokd.files import write_whole
from yolokd.training.events import FILE as EVENTS_FILE
from yolokd.training.settings import RunSettings
from yolokd.version import __version__


def versions() -> dict[str, str]:
    """Versions that a result depends on."""
    return {
        "yolokd": __version__,
        "ultralytics": ULTRALYTICS_VERSION,
        "torch": str(torch.__version__),
        "python": platform.python_version(),
    }


def split_identities(splits: Mapping[str, Sequence[Path]]) -> dict[str, dict[str, Any]]:
    """Return the number of images and a fingerprint of each split, to say later which of them has changed.

    Args:
        splits: Split → folders of images or lists of them.
    """
    return {
        split: {
            "images": sum(len(images_of(source)) for source in sources),
            "fingerprint": fingerprint({split: sources}),
        }
        for split, sources in splits.items()
    }


def command_line() -> str:
    """The command as the user typed it."""
    program = Path(sys.argv[0]).name
    return shlex.join(["yolokd" if program == "__main__.py" else program, *sys.argv[1:]])


def remove_earlier(folder: Path) -> None:
    """Remove what a run before in the same folder (`train.exist_ok`) has recorded by epochs."""
    for name in (AID_FILE, EVENTS_FILE):
        (folder / name).unlink(missing_ok=True)


def write_run_files(folder: Path, settings: RunSettings) -> None:
    """Write the resolved recipe and the provenance into the run's folder."""
    (folder / "recipe.yaml").write_text(settings.load_recipe().to_yaml(), encoding="utf-8")
    provenance: dict[str, Any] = {
        "recipe": settings.recipe_name,
        "teacher": settings.teacher,
        "teacher_sha256": settings.teacher_sha256,
        **_further(settings),
        **settings.provenance,
    }
    (folder / "provenance.json").write_text(json.dumps(provenance, indent=2) + "\n", encoding="utf-8")


def _further(settings: RunSettings) -> dict[str, Any]:
    paths = settings.load_recipe().teacher.models if settings.models_sha256 else ()
    pairs = zip(paths, settings.models_sha256, strict=True)
    models = [{"path": path, "sha256": digest} for path, digest in pairs]
    return {"teacher_models": models} if models else {}


def cut_results(csv: Path, epochs: int) -> None:
    """Keep the header and the rows of the first `epochs` epochs, each once: what the checkpoint knows.

    A row is written before its checkpoint, so a kill in between leaves one row too many, or half of one.
    """
    if not csv.exists():
        return
    header, *rows = csv.read_text(encoding="utf-8").splitlines() or [""]
    columns = header.count(",")
    kept: dict[int, str] = {}
    for row in rows:
        first = row.split(",", 1)[0].strip()
        if row.count(",") == columns and first.isdigit() and int(first) <= epochs:
            kept[int(first)] = row
    write_whole(csv, "\n".join([header, *kept.values(), ""]))
