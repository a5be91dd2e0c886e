"""A SLURM of one machine, in the place of its commands: sbatch, srun, sacct, scancel. Jobs run at once."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

SCRIPT = """#!{python}
import os, signal, subprocess, sys, time
from pathlib import Path
home, name, words = Path("{home}"), Path(sys.argv[0]).name, sys.argv[1:]

def alive(pid):
    try:
        return Path(f"/proc/{{pid}}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False

if name == "sbatch":
    job = str(time.time_ns() // 1000)  # submitit remembers the state of a number
    (home / f"script-{{job}}").write_text(Path(words[-1]).read_text())
    environment = dict(os.environ, SLURM_JOB_ID=job, SLURM_NTASKS="1", SLURM_JOB_NUM_NODES="1", SLURM_NODEID="0",
                       SLURM_JOB_NODELIST="here", SLURM_PROCID="0", SLURM_LOCALID="0")
    process = subprocess.Popen(["bash", words[-1]], env=environment, start_new_session=True, stdin=subprocess.DEVNULL,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    (home / f"job-{{job}}").write_text(str(process.pid))
    print(f"Submitted batch job {{job}}")
if name == "srun":
    output = words[words.index("--output") + 1].replace("%j", os.environ["SLURM_JOB_ID"]).replace("%t", "0")
    with open(output, "ab") as file:
        sys.exit(subprocess.call(words[words.index("{python}"):], stdout=file, stderr=file))
if name == "sacct":
    print("JobID|State|NodeList")
    for word in words:
        if (home / f"job-{{word}}").exists():
            running = alive((home / f"job-{{word}}").read_text())
            state = "CANCELLED" if (home / f"canceled-{{word}}").exists() else "RUNNING" if running else "COMPLETED"
            print(f"{{word}}|{{state}}|here")
if name == "scancel":
    (home / f"canceled-{{words[0]}}").touch()
    os.killpg(int((home / f"job-{{words[0]}}").read_text()), signal.SIGKILL)
"""


def install(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put the commands first in the path; return the folder that holds `script-N`, what job N was submitted with."""
    commands = home / "bin"
    commands.mkdir(parents=True)
    for name in ("sbatch", "srun", "sacct", "scancel"):
        (commands / name).write_text(SCRIPT.format(home=home, python=sys.executable))
        (commands / name).chmod(0o755)
    monkeypatch.setenv("PATH", os.pathsep.join([str(commands), os.environ["PATH"]]))
    return home
