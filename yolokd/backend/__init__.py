"""What yolokd knows of Ultralytics: models, heads, checkpoints, data sets, exports; and its names, in `api`.

Importing it switches on restricted checkpoint loading and switches off installs at run time, which Ultralytics decides
when it is imported. `--trust-checkpoint` sets the variable to false before that.
"""

from __future__ import annotations

import os

os.environ.setdefault("YOLO_AUTOINSTALL", "false")
os.environ.setdefault("ULTRALYTICS_SAFE_LOAD", "true")

if os.environ["ULTRALYTICS_SAFE_LOAD"].lower() in {"1", "true", "yes", "on"}:
    from ultralytics.nn import tasks

    tasks.SAFE_LOAD = True  # also where Ultralytics was imported before us
