"""The child process of a comparison: trains and scores one run, or scores the teacher, and leaves the numbers in files.

    python -m yolokd.comparison.worker FOLDER NAME DEVICE again|continue [--end-with-stdin]

A run in a process of its own has a peak of memory and a random state of its own, and takes no other run with it when it
dies. With `--end-with-stdin` it ends at once when its stdin does, that is, when the process that started it ends: else
a comparison that is started again would meet it.
"""

from __future__ import annotations

import io
import os
import shutil
import sys
import threading
import time
from pathlib import Path

import torch

from yolokd.backend.checkpoints import load
from yolokd.comparison.executors.protocol import END_WITH_STDIN
from yolokd.comparison.metrics import metrics_of
from yolokd.comparison.results import PEAK, SCORE, TEACHER
from yolokd.comparison.spec import Comparison, Run, read
from yolokd.errors import RunError, UserError, YolokdError
from yolokd.evaluation.detections import KINDS
from yolokd.evaluation.matches import match, write_matches
from yolokd.evaluation.models import Examined, examine
from yolokd.files import sha256, write_json
from yolokd.recipe.classes import ClassMap
from yolokd.training.plan import make_plan
from yolokd.training.resume import read_interrupted
from yolokd.training.run import resume, start
from yolokd.training.run_directory import is_run
from yolokd.training.settings import KEY
from yolokd.training.task import chosen_classes


def main(folder: str, name: str, device: str, interrupted: str, *, end_with_stdin: bool = False) -> None:
    """Do one job; what fails is said in the last line of stderr, and the exit code is 1."""
    begun = time.monotonic()
    if end_with_stdin:
        watch_stdin()
    if isinstance(sys.stdout, io.TextIOWrapper):  # a file's name need not be text that can be printed
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        comparison = read(Path(folder))
        if name == TEACHER:
            score_teacher(comparison, device or None)
        else:
            run = next((run for run in comparison.runs if run.name == name), None)
            if run is None:
                raise UserError(f"'{folder}' has no run '{name}'.")
            whole = train(comparison, run, device or None, keep_epochs=interrupted == "continue")
            score(comparison, run, device or None, begun=begun if whole else None)
    except YolokdError as error:
        sys.exit(" ".join(str(error).split()))


def train(comparison: Comparison, run: Run, device: str | None, *, keep_epochs: bool = False) -> bool:
    """Bring a run to its end, and return whether it was trained from its start to its end here.

    It begins at the start or, with `keep_epochs`, at its last saved epoch.

    A continued run starts from rounded weights and without its random state, so it is not quite the run that it would
    have been; therefore an interrupted one starts again unless told otherwise. One that was killed while finishing,
    after its last epoch, is finished: nothing is lost there.
    """
    last = run.folder / "weights" / "last.pt"
    if last.is_file():
        checkpoint = load(last)[1]
        if KEY in checkpoint and checkpoint.get("epoch") == -1:
            return False
        interrupted = read_interrupted(str(run.folder))
        complete = interrupted.epoch >= interrupted.epochs
        if complete or keep_epochs:
            if not complete:
                write_json(run.folder / PEAK, {"bytes": None, "continued": True})
            resume(str(run.folder), device=device)
            if not complete:
                write_json(run.folder / PEAK, {"bytes": peak_memory(), "continued": True})
            return False
    if run.folder.exists():
        if not is_run(run.folder) and not (run.folder / "args.yaml").is_file():
            raise UserError(f"'{run.folder}' is no run of this comparison and is not removed. Move it away.")
        shutil.rmtree(run.folder)
    recipe = comparison.recipe_of(run, device)
    teacher = comparison.teacher if recipe.needs_teacher else None
    _same_teacher(comparison, teacher)
    student = comparison.students[run.student].spec
    plan = make_plan(teacher, student, recipe, allow_partial=comparison.allow_partial, runs=run.folder.parent)
    for one in plan.further:
        if sha256(one.path) != comparison.models.get(str(one.path.absolute())):
            raise UserError(f"The teacher '{one.spec}' has changed since the comparison was started.")
    start(plan, paired=True)
    write_json(run.folder / PEAK, {"bytes": peak_memory(), "continued": False})
    return True


def score(comparison: Comparison, run: Run, device: str | None, *, begun: float | None = None) -> None:
    """Score `last.pt` on val and keep the matches; `best.pt` is chosen on the very images that are scored.

    Args:
        comparison: It has the run.
        run: Trained to its end.
        device: Where it is scored.
        begun: When its training began, by `time.monotonic`; the score keeps how long both took.
    """
    last = run.folder / "weights" / "last.pt"
    digest = sha256(last)
    found = _examined(comparison, last, device, {})
    boxes, *further = metrics_of(comparison.task)
    write_matches(run.folder / boxes.matches, match(found.truth, found.detections), digest)
    for metric in further:
        if found.further is None:
            raise RunError(f"'{last}' has no {metric.what}: {'; '.join(found.score.notes) or 'it gives boxes only'}.")
        write_matches(run.folder / metric.matches, found.further.matches(found.truth), digest)
    taken = {} if begun is None else {"seconds": time.monotonic() - begun}
    write_json(run.folder / SCORE, _plain(found, digest) | taken)  # last: with it the run counts as finished


def score_teacher(comparison: Comparison, device: str | None) -> None:
    """Score the teacher at the students' image size."""
    _same_teacher(comparison, comparison.teacher)
    if comparison.teacher is not None:
        path = Path(comparison.teacher)
        digest = sha256(path)
        found = _examined(comparison, path, device, comparison.classes)
        write_json(comparison.folder / f"{TEACHER}.json", _plain(found, digest))


def peak_memory() -> int | None:
    """Return the largest memory in bytes that this process has held: on GPUs if it used any, else in main memory."""
    if torch.cuda.is_initialized() and (peak := sum(map(torch.cuda.max_memory_allocated, _gpus()))):
        return int(peak)
    status = Path("/proc/self/status")
    if status.is_file():  # unlike getrusage, it does not begin with the peak of the parent process
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
        return int(lines["VmHWM"].split()[0]) * 1024
    if os.name == "nt":
        return None
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _examined(comparison: Comparison, path: Path, device: str | None, classes: ClassMap) -> Examined:
    budget = comparison.budget
    (found,) = examine(
        path,
        comparison.data,
        imgsz=budget["imgsz"],
        device=device,
        classes=classes,
        single_cls=bool(budget.get("single_cls")),
        only=chosen_classes(budget),
        tasks=tuple(KINDS),
        timed=False,
    )
    return found


def _plain(found: Examined, digest: str) -> dict[str, str | float]:
    plain: dict[str, str | float] = {"sha256": digest, "AP": found.score.AP, "AP50": found.score.AP50}
    if (further := found.further) is not None:
        plain |= {further.metric.key("AP"): further.AP, further.metric.key("AP50"): further.AP50}
    return plain


def _gpus() -> range:
    return range(torch.cuda.device_count())


def _same_teacher(comparison: Comparison, teacher: str | None) -> None:
    if teacher is not None and sha256(Path(teacher)) != comparison.teacher_sha256:
        raise UserError(f"The teacher '{teacher}' has changed since the comparison was started.")


def watch_stdin() -> None:
    """End this process as soon as its stdin ends."""
    threading.Thread(target=_end_with_stdin, daemon=True).start()


def _end_with_stdin() -> None:
    """Wait for the end of stdin, whose other end the parent holds until it ends itself."""
    while os.read(0, 1):
        pass
    os._exit(1)


if __name__ == "__main__":
    watched = sys.argv[5:] == [END_WITH_STDIN]
    if len(sys.argv) != 5 and not watched:
        sys.exit(f"Usage: python -m yolokd.comparison.worker FOLDER NAME DEVICE again|continue [{END_WITH_STDIN}]")
    main(*sys.argv[1:5], end_with_stdin=watched)
