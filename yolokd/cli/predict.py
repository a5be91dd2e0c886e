"""`yolokd predict`: draw detections into images."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from yolokd.cli.options import Device, LongerSide, TrustCheckpoint
from yolokd.errors import RunError, UserError, printable
from yolokd.files import link_or_copy

if TYPE_CHECKING:
    from yolokd.outputs import OutputFolder


def predict(
    weights: Annotated[str, typer.Argument(help="Checkpoint: a .pt file or an Ultralytics name.")],
    source: Annotated[str, typer.Argument(help="An image, a video, a folder or a .txt list of them, or a URL.")],
    imgsz: LongerSide = None,
    conf: Annotated[float, typer.Option(min=0.0, max=1.0, help="Least score of a detection.")] = 0.25,
    device: Device = None,
    out: Annotated[Path, typer.Option(help="Folder for the drawn images, apart from the source.")] = Path(
        "runs/predict"
    ),
    trust_checkpoint: TrustCheckpoint = False,
) -> None:
    """Detect objects and save the images with boxes drawn in, rotated or not, and masks or keypoints if any."""
    if conf != conf:  # not a number passes every comparison
        raise UserError("--conf expects a score from 0 to 1, got nan.")
    is_url = "://" in source
    if not is_url and not exists(Path(source).expanduser()):
        raise UserError(f"There is no image, video or folder '{source}'.")
    os.environ.setdefault("YOLO_VERBOSE", "false")
    from yolokd.backend import checkpoints
    from yolokd.backend.devices import check_device
    from yolokd.backend.opening import image_size, open_checkpoint, quiet
    from yolokd.backend.tasks import ALL_TASKS
    from yolokd.deploy.sources import list_sources
    from yolokd.outputs import open_folder

    console = Console()
    check_device(device)
    path = checkpoints.find(weights)
    files, passed = ([], []) if is_url else list_sources(source)
    results = open_folder(out.expanduser().absolute(), files, what="images")
    with tempfile.TemporaryDirectory(prefix=".yolokd-", dir=results.folder) as temporary, quiet():
        yolo = open_checkpoint(path, Path(temporary), ALL_TASKS)
        size, notes = image_size(yolo, imgsz)
        for note in (*notes, *passed):
            console.print(Text(note, style="yellow"), soft_wrap=True)
        detector = Detector(yolo, Path(temporary), results, {"imgsz": size, "conf": conf, "device": device})
        for file in [source] if is_url else files:
            for line in detector.detect(file):
                console.print(Text(line), soft_wrap=True)
    console.print(Text(f"The images are in {results.folder}"), soft_wrap=True)


class Detector:
    """Draws detections, source by source: Ultralytics writes to a folder of its own, and what is whole is moved."""

    def __init__(self, yolo: Any, temporary: Path, results: OutputFolder, options: dict[str, Any]) -> None:
        self.yolo, self.temporary, self.results, self.options = yolo, temporary, results, options

    def detect(self, source: Path | str) -> Iterator[str]:
        """Yield a line for each image or frame of a file or URL.

        Raises:
            UserError: The results cannot be written, or nothing is at the URL.
            RunError: Detection failed.
        """
        drawn, seen = self.temporary / "drawn", False
        try:
            for result in self.yolo.predict(
                self._plain(source) if isinstance(source, Path) else source,
                stream=True,
                save=True,
                project=str(self.temporary),
                name=drawn.name,
                exist_ok=True,
                verbose=False,
                **self.options,
            ):
                seen = True
                yield describe(result, printable((source if isinstance(source, Path) else Path(result.path)).name))
        except FileNotFoundError as error:
            raise UserError(f"There are no images or videos in '{source}'.") from error
        except Exception as error:  # whatever a device, a driver or a stream may do to Ultralytics
            if isinstance(source, str) and not seen and isinstance(error, (OSError, ConnectionError)):
                raise UserError(f"'{source}' cannot be opened: {' '.join(str(error).split())}") from error
            raise RunError(f"Detection in '{source}' failed: {str(error).strip() or type(error).__name__}") from error
        finally:  # also what an interruption leaves of a stream
            self._move(drawn, source)

    def _plain(self, file: Path) -> str:
        """The path of a file, or of a link to it where Ultralytics would take it for a pattern, or OpenCV die of it."""
        path = file.absolute()
        if "*" not in str(path) and printable(path) == str(path):
            return str(path)
        plain = Path(tempfile.mkdtemp(dir=self.temporary)) / f"source{file.suffix}"
        link_or_copy(path, plain)
        return str(plain)

    def _move(self, drawn: Path, source: Path | str) -> None:
        for writer in getattr(self.yolo.predictor, "vid_writer", {}).values():
            writer.release()
        try:
            for written in sorted(drawn.iterdir()) if drawn.is_dir() else ():
                stem = source.stem if isinstance(source, Path) else written.stem
                self.results.take(written, stem, written.suffix)
        except OSError as error:
            reason = error.strerror or error
            raise UserError(f"The images cannot be written to '{self.results.folder}': {reason}.") from error


def exists(path: Path) -> bool:
    """Whether something is there; also False for names that no file system takes."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def describe(result: Any, name: str) -> str:
    """One line for one image: its name and how many objects of each class."""
    boxes = result.boxes if result.obb is None else result.obb
    counts = Counter(result.names[int(index)] for index in boxes.cls.tolist())
    found = ", ".join(f"{count} {name}" for name, count in counts.most_common())
    return f"{name}: {found or 'nothing'}"
