"""Progress bars of several commands."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)


@contextmanager
def share_bar(first: str) -> Iterator[Callable[[str, float], None]]:
    """Show a bar on stderr that begins with the words `first`; yield what is called with words and a share from 0 to 1.

    Args:
        first: What is done until the first call.
    """
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(first, total=1.0)
        yield lambda words, share: bar.update(task, description=words, completed=share)


def images_told(show: Callable[[str, float], None]) -> Callable[[str, int, int], None]:
    """Return what tells a bar of `share_bar` how many images are done, of how many, and with what."""
    return lambda what, done, total: show(f"{what.capitalize()}: {done} of {total} images", done / max(total, 1))


@contextmanager
def image_bar() -> Iterator[Callable[[int, int], None]]:
    """Yield what is called with the number of images opened and to be opened; no bar where all were opened before."""
    columns = (TextColumn("Opening images"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    tasks: list[TaskID] = []

    def show(done: int, total: int) -> None:
        if not tasks:
            bar.start()
            tasks.append(bar.add_task("", total=total))
        bar.update(tasks[0], completed=done, total=total)

    try:
        yield show
    finally:
        if tasks:
            bar.stop()
