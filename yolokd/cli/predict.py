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
    is_url = "://" in source
    if not is_url and not Path(source).expanduser().exists():
        raise UserError(f"There is no image, video or folder '{source}'.")
    os.environ.setdefault("YOLO_VERBOSE", "false")
    from yolokd.data.layout import printable
    from yolokd.deploy.sources import list_sources
    from yolokd.engine import weights as checkpoints
    from yolokd.engine.plan import check_device
    from yolokd.evaluation.checkpoints import image_size, open_checkpoint, quiet

    console = Console()
    check_device(device)
    path, folder = checkpoints.find(weights), out.expanduser().absolute()
    if folder.exists() and not folder.is_dir():
        raise UserError(f"The images cannot be written to '{out}': it is a file. Give a folder with --out.")
    if printable(folder) != str(folder):
        raise UserError(f"The images cannot be written to '{printable(folder)}', a name that is not UTF-8: give --out.")
    with tempfile.TemporaryDirectory(prefix="yolokd-") as temporary, quiet():
        yolo = open_checkpoint(path, Path(temporary))
        size, notes = image_size(yolo, imgsz)
        place, passed = (source, []) if is_url else list_sources(Path(source).expanduser(), Path(temporary))
        for note in (*notes, *passed):
            console.print(Text(note, style="yellow"), soft_wrap=True)
        try:
            results = yolo.predict(
                str(place),
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
        except (FileNotFoundError, UnicodeDecodeError) as error:  # of a list of files, or a video
            reason = str(error).partition("\n")[0].partition(". Supported formats")[0]
            raise UserError(f"There is nothing in '{source}' to detect objects in: {reason}.") from error
        except Exception as error:  # whatever a device, a driver or a stream may do to Ultralytics
            raise RunError(f"Detection in '{source}' failed: {str(error).strip() or type(error).__name__}") from error
    console.print(Text(f"The pictures are in {folder}"), soft_wrap=True)


def describe(result: Any) -> str:
    """One line for one picture: its name and how many objects of each class."""
    from yolokd.data.layout import printable

    counts = Counter(result.names[int(index)] for index in result.boxes.cls.tolist())
    found = ", ".join(f"{count} {name}" for name, count in counts.most_common())
    return f"{printable(Path(result.path).name)}: {found or 'nothing'}"
