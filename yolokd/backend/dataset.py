"""Resolving `--data`: Streets, a YAML, a packaged Ultralytics name; and refusing what would run code."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ultralytics
from ultralytics.data.utils import check_det_dataset
from ultralytics.utils import DATASETS_DIR, ONLINE

from yolokd.data.description import keypoints_of, load_yaml, refuse_script
from yolokd.data.label_cache import refuse_code
from yolokd.data.labels import NO_KEYPOINTS, Keypoints
from yolokd.errors import DataError

PACKAGED = Path(ultralytics.__file__).parent / "cfg" / "datasets"
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Dataset:
    """A detection data set as Ultralytics reads it."""

    yaml_path: Path
    names: dict[int, str]
    splits: dict[str, list[Path]]  # split → folders of images or lists of them
    channels: int = 3
    keypoints: Keypoints = NO_KEYPOINTS  # of a row of labels; detection drops them


def resolve(data: str) -> Dataset:
    """Find and read a data set without running anything that it brings.

    Args:
        data: `streets`, the path of a data YAML (or of a folder that holds one), or a name that Ultralytics packages.

    Raises:
        DataError: Missing, malformed, without images, or it would execute a script of its own, be it for the download
            or in a label cache.
    """
    path = locate(data)
    raw = load_yaml(path)
    packaged = PACKAGED in path.resolve().parents
    if not packaged:
        refuse_script(raw, path)
    try:
        checked: dict[str, Any] = check_det_dataset(str(path), autodownload=ONLINE)
    except Exception as error:
        raise DataError(_missing(data, path, error, raw)) from error
    splits = {split: _paths(checked[split]) for split in SPLITS if checked.get(split)}
    for split in ("train", "val"):
        for source in splits.get(split, []):
            if not source.exists():
                raise DataError(
                    f"'{path}' names {split} images at '{source}', which does not exist.{_about_the_root(raw, path)}"
                )
    for sources in splits.values():
        refuse_code(sources)
    return Dataset(path, dict(checked["names"]), splits, int(checked.get("channels", 3)), keypoints_of(raw, path))


def locate(data: str) -> Path:
    """Return the path of the data YAML.

    Raises:
        DataError: There is none, or it cannot be reached.
    """
    try:
        return _locate(data)
    except OSError as error:
        raise DataError(f"The data set '{data}' cannot be read: {error.strerror or error}.") from error


def _locate(data: str) -> Path:
    if data == "streets":
        from yolokd.data.streets import ensure

        return ensure()
    path = Path(data).expanduser()
    if path.is_dir():
        inside = sorted(p for p in path.iterdir() if p.suffix in {".yaml", ".yml"})
        if len(inside) != 1:
            raise DataError(f"The folder '{data}' holds {len(inside)} YAML files; give the path of the data YAML.")
        return inside[0]
    if path.is_file():
        return path
    name = path.name if path.suffix else f"{path.name}.yaml"
    if path.parent == Path() and (PACKAGED / name).is_file():
        return PACKAGED / name
    raise DataError(
        f"There is no data YAML '{data}', and Ultralytics packages none of that name. 'streets' is the built-in one."
    )


def _paths(value: str | list[str]) -> list[Path]:
    return [Path(v) for v in ([value] if isinstance(value, str) else value)]


def _missing(data: str, path: Path, error: Exception, raw: dict[str, Any]) -> str:
    reason = str(error).split("\nNote dataset download")[0].replace("❌", "").strip()
    if raw.get("download") and not ONLINE:
        return (
            f"The images of '{data}' are not here and cannot be downloaded, as there is no network. "
            f"Try the built-in data set: --data streets"
        )
    return f"The data set '{path}' cannot be used: {reason}{_about_the_root(raw, path)}"


def _about_the_root(raw: dict[str, Any], path: Path) -> str:
    """What to do about a relative `path:`, which Ultralytics does not take from where the YAML is."""
    root = raw.get("path")
    if not root or Path(root).is_absolute():
        return ""
    taken = Path(root).absolute() if Path(root).exists() else DATASETS_DIR / root
    return (
        f" Its 'path: {root}' is relative, which Ultralytics takes from the current folder, or from '{DATASETS_DIR}' "
        f"where there is no such folder, and not from the YAML; here that is '{taken}'. Remove the key, so that train "
        f"and val are taken from the folder of the YAML ('{path.absolute().parent}'), or write the whole path."
    )
