"""GPU acceptance: every part of the package that a GPU computes, in one command of less than nine minutes.

    python benchmarks/gpu.py --out FOLDER                         # one GPU, no network, no weights, no data sets
    python benchmarks/gpu.py --out FOLDER --parts 1,5             # some parts
    python benchmarks/gpu.py --out FOLDER --device cpu --small    # whether the script itself works

Writes `gpu.json` and `gpu.md` into the folder after every line, so that a limit of time loses nothing: ok, failed or
skipped with the reason, the time of each part, and the versions. The parts run in a process of their own, and what is
left of them in a new one after a crash or a part that takes too long. Exit code 1 if anything failed.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from gpu_results import FAILED, SKIPPED, Line, Results

TITLES = {
    1: "Every recipe, 20 steps in mixed precision",
    2: "Losses and gradients against the CPU, float32",
    3: "Teacher in half precision against float32",
    4: "Compiled teacher against the same one uncompiled",
    5: "Waits of the host for the GPU in a step",
    6: "Time and memory of a step, in alternation",
    7: "Whole runs: killed and resumed, automatic batch",
    8: "Two processes",
}
LIMITS = {1: 200, 2: 120, 3: 90, 4: 150, 5: 60, 6: 180, 7: 180, 8: 120}  # seconds, of a part
TOTAL = 520  # seconds; what has not ended by then is cut off and skipped
SLOWER = 4  # times as long may a part take on a CPU
ENVIRONMENT = {
    "YOLO_OFFLINE": "true",
    "YOLO_AUTOINSTALL": "false",
    "YOLO_VERBOSE": "false",
    "MPLBACKEND": "Agg",
    "PYTHONUNBUFFERED": "1",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for gpu.json, gpu.md and the runs")
    parser.add_argument("--parts", default=",".join(map(str, TITLES)), help="comma-separated list of numbers")
    parser.add_argument("--device", default="0", help="a GPU, or cpu")
    parser.add_argument("--small", action="store_true", help="tiny models and few steps, for a CPU")
    parser.add_argument("--recipes", default="", help="comma-separated list of recipes; all shipped ones if left out")
    parser.add_argument("--total", type=int, default=TOTAL, help="seconds after which what is left is skipped")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    try:
        parts = sorted({int(part) for part in options.parts.split(",")})
    except ValueError:
        parser.error(f"--parts takes a comma-separated list of numbers, not '{options.parts}'")
    if unknown := [part for part in parts if part not in TITLES]:
        parser.error(f"there is no part {unknown[0]}; the parts are 1 to {len(TITLES)}")
    if options.worker:
        return work(options, parts)
    return supervise(options, parts)


def supervise(options: Any, parts: list[int]) -> int:
    """Run the parts in processes of their own and return the exit code."""
    options.out.mkdir(parents=True, exist_ok=True)
    for name in ("gpu.json", "gpu.md"):
        (options.out / name).unlink(missing_ok=True)
    started, rest = time.monotonic(), parts
    while rest:
        left = options.total - (time.monotonic() - started)
        if left <= 0:
            for part in rest:
                Results(options.out).add(Line(part, TITLES[part], SKIPPED, f"the {options.total} s are over"))
            break
        rest = watch(start(options, rest), options, rest, started + options.total)
    results = Results(options.out)
    results.write(seconds=time.monotonic() - started)
    print(results.markdown())
    return 1 if any(line.state == FAILED for line in results.lines) else 0


def start(options: Any, parts: list[int]) -> subprocess.Popen[bytes]:
    root = Path(__file__).resolve().parents[1]
    paths = [str(root), *filter(None, [os.environ.get("PYTHONPATH")])]
    cache = str((options.out / "cache").resolve())
    threads = {"OMP_NUM_THREADS": "1"} if options.device == "cpu" else {}
    environment = {
        **threads,
        **os.environ,
        **ENVIRONMENT,
        "PYTHONPATH": os.pathsep.join(paths),
        "YOLO_CONFIG_DIR": cache,
        "YOLOKD_CACHE": cache,
    }
    command = [sys.executable, __file__, "--worker", "--out", str(options.out), "--device", options.device]
    command += ["--parts", ",".join(map(str, parts)), "--recipes", options.recipes, *(["--small"] * options.small)]
    return subprocess.Popen(command, env=environment, start_new_session=True)


def watch(worker: subprocess.Popen[bytes], options: Any, parts: list[int], deadline: float) -> list[int]:
    """Wait for a worker, end it if a part takes too long, and return the parts that it has not come to."""
    out, factor = options.out, SLOWER if options.device == "cpu" else 1
    try:
        while worker.poll() is None:
            time.sleep(0.5)
            part, since = Results(out).running
            if part is not None and time.time() - since > factor * LIMITS[part]:
                return lost(out, parts, f"took more than {factor * LIMITS[part]} s")
            if time.monotonic() > deadline:
                return lost(out, parts, f"cut off: the {options.total} s are over", SKIPPED)
    finally:
        if worker.poll() is None:  # with all that it has started
            os.killpg(worker.pid, signal.SIGKILL)
            worker.wait()
    return [] if worker.returncode == 0 else lost(out, parts, f"its process ended with code {worker.returncode}")


def lost(out: Path, parts: list[int], reason: str, state: str = FAILED) -> list[int]:
    results = Results(out)
    part, since = results.running
    part = parts[0] if part is None else part
    results.add(Line(part, TITLES[part], state, reason, 0.0 if not since else time.time() - since))
    results.end(part)
    return [other for other in parts if other > part]


def work(options: Any, parts: list[int]) -> int:
    """Run parts one after the other in this process."""
    results = Results(options.out)
    import gpu_parts

    names = tuple(filter(None, options.recipes.split(",")))
    size = gpu_parts.sizes(small=options.small)
    context = gpu_parts.Context(results, options.out.resolve(), options.device, size, names)
    results.write(conditions=gpu_parts.conditions(context))
    for part in parts:
        print(f"part {part}: {TITLES[part]}", flush=True)
        results.begin(part)
        gpu_parts.run(context, part, TITLES[part])
        results.end(part)
    return 0


if __name__ == "__main__":
    sys.exit(main())
