"""`yolokd predict`: draw detections into pictures."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from yolokd.errors import RunError, UserError


def predict(
    weights: Annotated[str, typer.Argument(help="Checkpoint: a .pt file or an Ultralytics name.")],
    source: Annotated[str, typer.Argument(help="A picture, a video, a folder of them, or a URL.")],
    imgsz: Annotated[int | None, typer.Option(min=1, help="Longer side in pixels; default: as trained.")] = None,
    conf: Annotated[float, typer.Option(min=0.0, max=1.0, help="Least score of a detection.")] = 0.25,
    device: Annotated[str | None, typer.Option(help="cpu, mps or a GPU (0).")] = None,
    out: Annotated[Path, typer.Option(help="Folder for the drawn pictures.")] = Path("runs/predict"),
    trust_checkpoint: Annotated[
        bool, typer.Option("--trust-checkpoint", help="Load checkpoints that may run code. Only for files you trust.")
    ] = False,
) -> None:
    """Detect objects in pictures and save the pictures with boxes drawn in."""
    place = source if "://" in source else str(Path(source).expanduser())
    if "://" not in source and not Path(place).exists():
        raise UserError(f"There is no picture, video or folder '{source}'.")
    os.environ.setdefault("YOLO_VERBOSE", "false")
    from yolokd.engine import weights as checkpoints
    from yolokd.engine.plan import check_device
    from yolokd.evaluation.checkpoints import image_size, open_checkpoint, quiet

    console = Console()
    check_device(device)
    path, folder = checkpoints.find(weights), out.expanduser().absolute()
    if folder.exists() and not folder.is_dir():
        raise UserError(f"The pictures cannot be written to '{out}': it is a file. Give a folder with --out.")
    with tempfile.TemporaryDirectory(prefix="yolokd-") as temporary, quiet():
        yolo = open_checkpoint(path, Path(temporary))
        size, notes = image_size(yolo, imgsz)
        for note in notes:
            console.print(Text(note, style="yellow"))
        try:
            results = yolo.predict(
                place,
                stream=True,
                save=True,
                imgsz=size,
                conf=conf,
                device=device,
                project=str(folder.parent),
                name=folder.name,
                exist_ok=True,
                verbose=False,
            )
            for result in results:
                console.print(Text(describe(result)), soft_wrap=True)
        except FileNotFoundError as error:
            raise UserError(f"There are no pictures or videos in '{source}'.") from error
        except Exception as error:  # whatever a device, a driver or a stream may do to Ultralytics
            raise RunError(f"Detection in '{source}' failed: {str(error).strip() or type(error).__name__}") from error
    console.print(Text(f"The pictures are in {folder}"), soft_wrap=True)


def describe(result: Any) -> str:
    """One line for one picture: its name and how many objects of each class."""
    counts = Counter(result.names[int(index)] for index in result.boxes.cls.tolist())
    found = ", ".join(f"{count} {name}" for name, count in counts.most_common())
    return f"{Path(result.path).name}: {found or 'nothing'}"
