"""What commands share before they start: a bar while they open images, and options that are given once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from yolokd.errors import UserError


@contextmanager
def image_bar() -> Iterator[Callable[[int, int], None]]:
    """Yield what is called with the number of images opened and to be opened."""
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


def one_teacher(teachers: Sequence[str] | None, command: str) -> str | None:
    """Return the teacher of a command that takes one; `UserError` if several are given."""
    if teachers and len(teachers) > 1:
        raise UserError(f"{command} takes one teacher: give --teacher once, not {len(teachers)} times.")
    return teachers[0] if teachers else None
