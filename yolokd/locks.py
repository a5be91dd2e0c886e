"""Locks between processes, by a file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout


@contextmanager
def locked(file: Path, *, wait: bool) -> Iterator[None]:
    """Hold a lock that nobody else holds at the same time; where there can be none, do nothing.

    Some network folders have no locks, and a folder may not be writable.

    Args:
        file: Is made if it does not exist, and stays; a process that ends, even by a kill, releases the lock.
        wait: Wait for a lock that is taken.

    Raises:
        BlockingIOError: It is taken, and `wait` is false.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(FileLock(file).acquire(timeout=-1 if wait else 0))
        except Timeout as error:
            raise BlockingIOError(f"'{file}' is locked by another process.") from error
        except OSError:
            pass
        yield
