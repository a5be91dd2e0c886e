"""One page that shows what runs have found: HTML that needs no network, and the same as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

__all__ = ["write"]


def write(
    runs: str | Path | Sequence[str | Path],
    out: str | Path | None = None,
    *,
    data: str | None = None,
    teacher: str | Path | None = None,
    device: str | None = None,
    progress: Callable[[str, float], None] | None = None,
) -> Path:
    """Report on runs, or on one comparison, and return the path of the HTML page; the Markdown lies beside it.

    Models are scored on the data's validation images; what was found is kept in the folder `…_files` beside the page,
    so that a second report is quick.

    Args:
        runs: Folders of runs, or the folder of one comparison.
        out: The page, ending in .html; None is `report.html` in the folder that was given, or in the current one where
            several were.
        data: Where the data lie now, if they were moved: what `yolokd train` takes.
        teacher: Where the teacher's checkpoint lies now, if it was moved.
        device: As Ultralytics takes it: "cpu", "0"; None picks one.
        progress: Called with a model's name and the share of its images that are done.

    Raises:
        yolokd.errors.UserError: Folders that cannot be reported on together, or a place that cannot be written to.
    """
    from yolokd.backend.devices import check_device
    from yolokd.errors import UserError
    from yolokd.report.page import make_page
    from yolokd.report.render import check_place, folder_of, write_page
    from yolokd.report.study import open_study

    check_device(device)
    folders = [runs] if isinstance(runs, (str, Path)) else list(runs)
    study = open_study(folders)
    default = Path(folders[0]) / "report.html" if len(folders) == 1 else Path("report.html")
    html = check_place(Path(out) if out is not None else default)
    heard = progress or (lambda name, share: None)
    try:
        page = make_page(study, folder_of(html) / "cache", data=data, teacher=teacher, device=device, progress=heard)
        write_page(page, html)
    except OSError as error:
        raise UserError(f"The report cannot be written to '{html}': {error.strerror or error}.") from error
    return html
