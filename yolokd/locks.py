"""Locks between processes, by a file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path


@contextmanager
def locked(file: Path, *, wait: bool) -> Iterator[None]:
    """Hold a lock that nobody else holds at the same time; where there can be none, do nothing.

    Windows has no such locks, nor have some network folders, and a folder may not be writable.

    Args:
        file: Is made if it does not exist, and stays; a process that ends, even by a kill, lets go.
        wait: Wait for a lock that is taken.

    Raises:
        BlockingIOError: It is taken, and `wait` is false.
    """
    if os.name == "nt":
        yield
        return
    import fcntl

    with ExitStack() as stack:
        try:
            handle = stack.enter_context(file.open("a"))
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise
        except OSError:
            pass
        yield
