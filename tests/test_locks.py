from __future__ import annotations

import errno
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from yolokd.locks import locked

HOLD = "import sys; from pathlib import Path; from yolokd.locks import locked\n"
HOLD += "with locked(Path(sys.argv[1]), wait=False): print('held', flush=True); input()"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "lock"


@pytest.fixture
def holder(file: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock until a line comes."""
    command = [sys.executable, "-c", HOLD, str(file)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process


def test_locked__is_refused_or_waits_while_another_process_holds_it(file: Path, holder: subprocess.Popen[str]) -> None:
    with pytest.raises(BlockingIOError), locked(file, wait=False):
        pass
    assert holder.stdin is not None
    print(file=holder.stdin, flush=True)
    with locked(file, wait=True):
        assert holder.wait() == 0


def test_locked__ends_with_a_process_that_is_killed(file: Path, holder: subprocess.Popen[str]) -> None:
    holder.kill()
    holder.wait()
    with locked(file, wait=False):
        assert file.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="no fcntl")
def test_locked__does_nothing_where_there_are_no_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    (tmp_path / "file").touch()
    for wait in (True, False):
        with locked(tmp_path / "file" / "lock", wait=wait):
            assert (tmp_path / "file").is_file()
    monkeypatch.setattr(fcntl, "flock", refuse)
    with locked(tmp_path / "lock", wait=False), pytest.raises(FileNotFoundError), locked(tmp_path / "lock", wait=False):
        (tmp_path / "nothing").read_text()  # what goes wrong inside is not taken for a missing lock
