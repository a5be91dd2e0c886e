"""A process per job on this machine, one at a time on each device."""

from __future__ import annotations

from typing import TYPE_CHECKING

from yolokd.comparison.executors.processes import FORKS, Child, start
from yolokd.comparison.executors.protocol import END_WITH_STDIN, Exit, Job, Place, completed_epochs

if TYPE_CHECKING:
    from yolokd.comparison.spec import Comparison


class LocalExecutor:
    """Implements `Executor`. The processes end with this one, even if it is killed: they watch their stdin."""

    interval = 0.2
    local = True

    def __init__(self, place: Place | None = None, *, forks: bool = FORKS) -> None:
        """Use devices of this machine.

        Args:
            place: Its devices execute one job at a time each; the same device may be given twice. None: `Place()`.
            forks: Fork the processes from one that has imported what a run needs.
        """
        self._forks = forks
        self.devices = (place or Place()).devices
        self.slots = len(self.devices)
        self._free = list(self.devices)
        self._running: dict[Job, tuple[Child, str | None]] = {}

    def prepare(self, comparison: Comparison) -> Comparison:
        """Return the comparison as it is: it was planned on this machine."""
        return comparison

    def submit(self, job: Job) -> None:
        """Start the process on the device that has been free for longest."""
        device = self._free[0]
        job.log.parent.mkdir(parents=True, exist_ok=True)
        process = start([*job.command(device), END_WITH_STDIN], job.log, forks=self._forks)
        self._running[job] = process, self._free.pop(0)

    def poll(self, job: Job) -> Exit | None:
        """Return the exit code, with the name of the signal that killed the process."""
        code = self._running[job][0].poll()
        if code is None:
            return None
        self.cancel(job)
        return Exit.of(code)

    def progress(self, job: Job) -> int:
        """Return the number of completed epochs."""
        return completed_epochs(job)

    def cancel(self, job: Job) -> None:
        """Kill the process if it still runs, and release its device."""
        process, device = self._running.pop(job)
        process.end()
        self._free.append(device)
