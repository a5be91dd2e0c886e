"""A subprocess per job on this machine, one at a time on each device."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Sequence

from yolokd.comparison.executors.protocol import Exit, Job, completed_epochs

END_WITH_STDIN = "--end-with-stdin"


class LocalExecutor:
    """Implements `Executor`. The processes end with this one, even if it is killed: they watch their stdin."""

    interval = 0.2

    def __init__(self, devices: Sequence[str | None] = (None,)) -> None:
        """Use these devices.

        Args:
            devices: One job at a time on each entry; the same device may be given twice.
        """
        self.slots = len(devices)
        self._free = list(devices)
        self._running: dict[Job, tuple[subprocess.Popen[bytes], str | None]] = {}

    def submit(self, job: Job) -> None:
        """Start the process on the device that has been free for longest."""
        device = self._free[0]
        job.log.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", *job.command(device), END_WITH_STDIN]
        with job.log.open("a", encoding="utf-8") as file:
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=file, stderr=subprocess.STDOUT)
        self._running[job] = process, self._free.pop(0)

    def poll(self, job: Job) -> Exit | None:
        """Return the exit code, with the name of the signal that killed the process."""
        code = self._running[job][0].poll()
        if code is None:
            return None
        self.cancel(job)
        return Exit(code, f"killed by {signal.Signals(-code).name}" if code < 0 else "")

    def progress(self, job: Job) -> int:
        """Return the number of completed epochs."""
        return completed_epochs(job)

    def cancel(self, job: Job) -> None:
        """Kill the process if it still runs, and release its device."""
        process, device = self._running.pop(job)
        process.kill()
        process.communicate()
        self._free.append(device)
