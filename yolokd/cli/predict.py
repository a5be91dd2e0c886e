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

from yolokd.errors import RunError, UserError

if TYPE_CHECKING:
    from yolokd.outputs import OutputFolder


def predict(
    weights: Annotated[str, typer.Argument(help="Checkpoint: a .pt file or an Ultralytics name.")],
    source: Annotated[str, typer.Argument(help="An image, a video, a folder or a .txt list of them, or a URL.")],
    imgsz: Annotated[
        int | None, typer.Option(min=1, max=16384, help="Longer side in pixels; default: as trained.")
    ] = None,
    conf: Annotated[float, typer.Option(min=0.0, max=1.0, help="Least score of a detection.")] = 0.25,
    device: Annotated[str | None, typer.Option(help="cpu, mps or a GPU (0).")] = None,
    out: Annotated[Path, typer.Option(help="Folder for the drawn images, apart from the source.")] = Path(
        "runs/predict"
    ),
    trust_checkpoint: Annotated[
        bool, typer.Option("--trust-checkpoint", help="Load checkpoints that may run code. Only for files you trust.")
    ] = False,
) -> None:
    """Detect objects in images and save the images with boxes drawn in."""
    if conf != conf:  # not a number passes every comparison
        raise UserError("--conf expects a score from 0 to 1, got nan.")
    is_url = "://" in source
    if not is_url and not exists(Path(source).expanduser()):
        raise UserError(f"There is no picture, video or folder '{source}'.")
    os.environ.setdefault("YOLO_VERBOSE", "false")
    from yolokd.engine import weights as checkpoints
    from yolokd.engine.plan import check_device
    from yolokd.evaluation.checkpoints import image_size, open_checkpoint, quiet
    from yolokd.outputs import open_folder

    console = Console()
    check_device(device)
    path = checkpoints.find(weights)
    files = [] if is_url else list(files_of(source))
    with quiet():
        unreadable = [file for file in files if not is_readable(file)]
    if files and len(unreadable) == len(files):
        raise UserError(f"'{files[0]}' cannot be read as an image or video{others(len(files) - 1)}.")
    results = open_folder(out.expanduser().absolute(), files, what="pictures")
    with tempfile.TemporaryDirectory(prefix=".yolokd-", dir=results.folder) as temporary, quiet():
        yolo = open_checkpoint(path, Path(temporary))
        size, notes = image_size(yolo, imgsz)
        for note in notes:
            console.print(Text(note, style="yellow"))
        detector = Detector(yolo, Path(temporary), results, {"imgsz": size, "conf": conf, "device": device})
        for file in unreadable:
            console.print(Text(f"{file.name}: cannot be read, left out", style="yellow"), soft_wrap=True)
        for file in [source] if is_url else [file for file in files if file not in unreadable]:
            for line in detector.detect(file):
                console.print(Text(line), soft_wrap=True)
    console.print(Text(f"The pictures are in {results.folder}"), soft_wrap=True)


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
                yield describe(result, Path(source).name if isinstance(source, Path) else Path(result.path).name)
        except FileNotFoundError as error:
            raise UserError(f"There are no pictures or videos in '{source}'.") from error
        except Exception as error:  # whatever a device, a driver or a stream may do to Ultralytics
            if isinstance(source, str) and not seen and isinstance(error, (OSError, ConnectionError)):
                raise UserError(f"'{source}' cannot be opened: {' '.join(str(error).split())}") from error
            raise RunError(f"Detection in '{source}' failed: {str(error).strip() or type(error).__name__}") from error
        finally:  # also what an interruption leaves of a stream
            self._move(drawn, source)

    def _plain(self, file: Path) -> str:
        """The path of a file, or of a link to it where Ultralytics would take it for a pattern of names."""
        path = file.absolute()
        if "*" not in str(path):
            return str(path)
        link = Path(tempfile.mkdtemp(dir=self.temporary)) / f"source{file.suffix}"
        link.symlink_to(path)
        return str(link)

    def _move(self, drawn: Path, source: Path | str) -> None:
        for writer in getattr(self.yolo.predictor, "vid_writer", {}).values():
            writer.release()
        try:
            for written in sorted(drawn.iterdir()) if drawn.is_dir() else ():
                stem = source.stem if isinstance(source, Path) else written.stem
                self.results.take(written, stem, written.suffix)
        except OSError as error:
            reason = error.strerror or error
            raise UserError(f"The pictures cannot be written to '{self.results.folder}': {reason}.") from error


def exists(path: Path) -> bool:
    """Whether something is there; also False for names that no file system takes."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def files_of(source: str | Path) -> Iterator[Path]:
    """Yield the images and videos that a file, a folder or a .txt list of them stands for.

    Raises:
        UserError: None is there, the list names a missing file, or it cannot be read.
    """
    from ultralytics.data.utils import IMG_FORMATS, VID_FORMATS

    path, known = Path(source).expanduser(), IMG_FORMATS | VID_FORMATS
    try:
        if path.is_dir():
            names = (p for p in path.iterdir() if not p.name.startswith("."))
            found = sorted(p for p in names if p.suffix[1:].lower() in known and p.is_file())
        elif path.suffix.lower() == ".txt":
            found = [_listed(line, path) for line in path.read_text(encoding="utf-8-sig").split("\n") if line.strip()]
        else:
            found = [path] if path.suffix[1:].lower() in known else []
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"The images in '{source}' cannot be listed: {error}") from error
    if not found:
        raise UserError(f"There are no pictures or videos in '{source}'. Known suffixes: {', '.join(sorted(known))}.")
    yield from found


def _listed(line: str, file: Path) -> Path:
    for path in (Path(line.strip()), file.parent / line.strip()):
        if exists(path) and path.is_file():
            return path
    shown = line.strip()
    raise UserError(f"'{file}' names '{shown[:80]}', and there is no such image or video.")


def is_readable(file: Path) -> bool:
    """Whether the decoders give an image, or the first frame of a video, whatever they object to in the others."""
    import cv2
    from ultralytics.data.utils import VID_FORMATS
    from ultralytics.utils.patches import imread

    try:
        if file.suffix[1:].lower() not in VID_FORMATS:
            return imread(str(file)) is not None
        capture = cv2.VideoCapture(str(file))
        try:
            return bool(capture.read()[0])
        finally:
            capture.release()
    except Exception:  # decoders differ in how they give up
        return False


def others(count: int) -> str:
    """Say that so many further files are meant; nothing for none."""
    return f", nor can the {count} other files" if count > 1 else ", nor can the other file" if count else ""


def describe(result: Any, name: str) -> str:
    """One line for one image: its name and how many objects of each class."""
    counts = Counter(result.names[int(index)] for index in result.boxes.cls.tolist())
    found = ", ".join(f"{count} {name}" for name, count in counts.most_common())
    return f"{name}: {found or 'nothing'}"
