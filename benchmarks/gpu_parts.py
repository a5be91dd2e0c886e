"""The parts of `gpu.py`; what each demands is in its function's first lines."""

from __future__ import annotations

import gc
import os
import platform
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gpu_runs
import torch
import ultralytics
import yaml
from gpu_results import FAILED, Line, Results, Skip
from gpu_steps import Prepared, first_values, flat, prepare, relative, train_steps, values_and_gradients
from gpu_waits import KNOWN, waits

from yolokd.bench.measure import bench
from yolokd.bench.models import Models, Setting, open_models
from yolokd.bench.timer import Timer, in_turn
from yolokd.errors import PairError, UserError
from yolokd.recipe.load import list_recipes
from yolokd.teachers.detector import DetectorTeacher, require_compiler
from yolokd.training.run import resolve_recipe
from yolokd.training.run_files import versions

VALUE = 1e-3  # GPU against CPU: relative error of a value
GRADIENT = 2e-2  # and L2 norm of the difference of gradients, as a share of that of the CPU's
ATTACKED = 2e-2  # of values after an attack, whose signs of gradients near 0 differ
HALF = {"fp16": 2e-2, "bf16": 0.25}  # teacher in half precision against float32: relative error of a term
COMPILED = 2e-2  # compiled teacher in float16: relative L2 norm of the outputs' difference
TIMED = ("ultralytics", "bckd", "bckd_ssim", "everything")


@dataclass(frozen=True)
class Size:
    """How large everything is."""

    small: bool
    imgsz: int = 640
    batch: int = 16
    steps: int = 20
    compared: tuple[int, int] = (320, 2)  # pixels, images
    timed: tuple[int, int, int] = (640, 64, 7)  # pixels, images, rounds
    run: tuple[int, int, int] = (320, 16, 6)  # pixels, images per step, epochs
    drawn: tuple[int, int] = (96, 16)  # images to train on and to score on


def sizes(*, small: bool) -> Size:
    if not small:
        return Size(small=False)
    return Size(True, 64, 2, 4, compared=(64, 2), timed=(64, 2, 2), run=(64, 4, 4), drawn=(8, 4))


@dataclass
class Context:
    """What the parts share."""

    results: Results
    out: Path
    asked: str  # --device
    size: Size
    names: tuple[str, ...] = ()  # --recipes; () for all

    def __post_init__(self) -> None:
        self.device = torch.device("cpu" if self.asked == "cpu" else f"cuda:{self.asked}")
        if self.device.type == "cuda" and not torch.cuda.is_available():
            raise SystemExit("torch finds no GPU: give --device cpu --small to try the script itself.")
        self._models: dict[tuple[str, str], Models] = {}

    @property
    def recipes(self) -> list[str]:
        return sorted(self.names or list_recipes())

    def need_gpu(self) -> None:
        if self.device.type != "cuda":
            raise Skip("needs CUDA")

    def setting(self, imgsz: int, batch: int, *, amp: bool = True, device: torch.device | None = None) -> Setting:
        device = device or self.device
        return Setting(imgsz, batch, device, amp and device.type == "cuda")

    def spec(self, family: str, letter: str) -> str:
        """Return Ultralytics' description of a model, or with --small the path of a thinner one."""
        if not self.size.small:
            return f"yolo{'v8' if family == 'v8' else family}{letter}.yaml"
        path = self.out / "models" / f"{family}-{letter}.yaml"
        source = Path(ultralytics.__file__).parent / "cfg/models" / family / f"yolo{path.stem.partition('-')[0]}.yaml"
        description = yaml.safe_load(source.read_text(encoding="utf-8"))
        del description["scales"]
        description.update(depth_multiple=0.33, width_multiple=0.125 if letter == "n" else 0.25)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(description, sort_keys=False), encoding="utf-8")
        return str(path)

    def models(self, family: str, teacher: str = "s") -> Models:
        """Return a pair with random weights, on the CPU; the student is the nano model."""
        if (family, teacher) not in self._models:
            self._models[family, teacher] = open_models(self.spec(family, teacher), self.spec(family, "n"))
        return self._models[family, teacher]


def conditions(context: Context) -> dict[str, Any]:
    found: dict[str, Any] = {
        **versions(),
        "cpu": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
    }
    if context.device.type != "cuda":
        return found
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        found["driver"] = subprocess.run(query, capture_output=True, text=True, timeout=20).stdout.split()[0]
    except (OSError, IndexError, subprocess.SubprocessError) as error:
        found["driver"] = f"unknown ({type(error).__name__})"
    gpu = torch.cuda.get_device_properties(context.device)
    found["gpu"] = f"{gpu.name}, {gpu.total_memory / 2**30:.0f} GiB, {torch.cuda.device_count()} here"
    return {**found, "cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}


def run(context: Context, part: int, title: str) -> None:
    """Run one part; an error outside its lines is a line of its own."""
    functions: dict[int, Callable[[Context], None]] = {
        1: every_recipe,
        2: against_the_cpu,
        3: half_precision,
        4: compiled,
        5: host_waits,
        6: timing,
        7: gpu_runs.whole_runs,
        8: gpu_runs.two_processes,
    }
    try:
        functions[part](context)
    except Exception as error:  # whatever a device may do
        context.results.add(Line(part, title, FAILED, f"{type(error).__name__}: {error}"))
    free()


def free() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


@contextmanager
def unfit_heads(family: str) -> Iterator[None]:
    """Skip what does not fit the heads of YOLO26, which have no box distributions."""
    try:
        yield
    except PairError as error:
        if family == "v8":
            raise
        raise Skip(str(error)) from error


def every_recipe(context: Context) -> None:
    """Every term finite and not 0 on some step, gradients into the whole student, none into the teacher."""
    setting = context.setting(context.size.imgsz, context.size.batch)
    for family in ("v8", "26"):
        models = context.models(family)
        for name in context.recipes:
            with context.results.check(1, f"{family}n <- {family}s, {name}") as figures, unfit_heads(family):
                prepared = prepare(models, setting, resolve_recipe(name))
                figures.update(train_steps(prepared, setting, context.size.steps))
            prepared = None
            free()


@contextmanager
def full_precision() -> Iterator[None]:
    """Convolutions and products in float32 proper, by algorithms that do not change from run to run."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = (cudnn.allow_tf32, cudnn.deterministic, matmul.allow_tf32)
    cudnn.allow_tf32, cudnn.deterministic, matmul.allow_tf32 = False, True, False
    try:
        yield
    finally:
        cudnn.allow_tf32, cudnn.deterministic, matmul.allow_tf32 = before


def against_the_cpu(context: Context) -> None:
    """Each logged value within `VALUE`, gradients of the student and of the trained parts within `GRADIENT`.

    On a CPU its own convolutions are compared with those of oneDNN instead.
    """
    imgsz, batch = context.size.compared
    for family in ("v8", "26"):
        models = context.models(family)
        for name in context.recipes:
            with (
                context.results.check(2, f"{family}, {name}") as figures,
                unfit_heads(family),
                full_precision(),
            ):
                recipe = resolve_recipe(name)
                cpu = context.setting(imgsz, batch, device=torch.device("cpu"))
                expected = values_and_gradients(prepare(models, cpu, recipe))
                with torch.backends.mkldnn.flags(enabled=context.device.type == "cuda"):
                    here = context.setting(imgsz, batch, amp=False)
                    found = values_and_gradients(prepare(models, here, recipe))
                figures.update(differences(expected, found, attacked=recipe.augment.adversarial is not None))
            free()


def differences(expected: Any, found: Any, *, attacked: bool) -> dict[str, Any]:
    """Return the largest differences; raise if one is beyond its tolerance."""
    values = {key: abs(found.values[key] - value) / max(abs(value), 1e-6) for key, value in expected.values.items()}
    gradients = {key: relative(found.gradients[key], value) for key, value in expected.gradients.items()}
    limit = ATTACKED if attacked else VALUE
    wrong = [f"{key} differs by {error:.2g}" for key, error in values.items() if not error <= limit]
    wrong += [f"gradient of {key} differs by {error:.2g}" for key, error in gradients.items() if not error <= GRADIENT]
    if wrong:
        raise AssertionError("; ".join(wrong))
    return {"value": max(values.values()), "gradient": max(gradients.values())}


def half_precision(context: Context) -> None:
    """Each term within `HALF` of what it is under the same teacher in float32; the student in float32."""
    models, setting = context.models("v8"), context.setting(context.size.imgsz, context.size.batch, amp=False)
    for name in context.recipes:
        recipe = resolve_recipe(name)
        if not recipe.terms() or recipe.teacher.answers == "stored":
            continue  # the teacher does not run
        off = ["augment.ikd.adversarial=null"] if recipe.augment.adversarial is not None else []
        reference: dict[str, float] = {}
        for precision, limit in HALF.items():
            with context.results.check(3, f"{name}, {precision}") as figures, full_precision():
                for which in (precision,) if reference else ("fp32", precision):
                    changed = resolve_recipe(name, [*off, f"teacher.precision={which}"])
                    found = first_values(prepare(models, setting, changed))
                    reference = reference or found
                errors = {key: abs(found[key] - value) / max(abs(value), 1e-12) for key, value in reference.items()}
                figures.update(errors)
                wrong = [key for key, error in errors.items() if not error <= limit]
                if wrong:
                    raise AssertionError(f"{', '.join(wrong)} differ by more than {limit:g}")
        free()


def compiled(context: Context) -> None:
    """The compiled teacher gives the same features and scores within `COMPILED`, and a step under it runs."""
    models, setting = context.models("v8"), context.setting(context.size.imgsz, context.size.batch)
    images = torch.rand(setting.batch, 3, setting.imgsz, setting.imgsz).to(setting.device)
    with context.results.check(4, "teacher alone, float16") as figures:
        context.need_gpu()
        can_compile(setting.device)
        pair = [
            setting.place(DetectorTeacher(deepcopy(models.teacher), dtype=torch.float16, compiled=on))
            for on in (False, True)
        ]
        timer, levels = Timer(setting.device), pair[0].info.levels
        with timer("first"):
            found = pair[1](images, levels=levels)
        error = relative(flat(found), flat(pair[0](images, levels=levels)))
        names = ("plain", "compiled")
        passes = [lambda one=one: one(images, levels=levels) for one in pair]
        arms = [arm(name, one) for name, one in zip(names, passes, strict=True)]
        times = in_turn(arms, setting.device, rounds=10, warm_up=3).times
        figures.update({"difference": error, "first s": timer.times["first"][0].wall / 1e3})
        figures.update({f"{name} ms": sorted(t.wall for t in times[name])[5] for name in names})
        if not error <= COMPILED:
            raise AssertionError(f"outputs differ by more than {COMPILED:g}")
    with context.results.check(4, "a recipe with teacher.compile: true") as figures:
        context.need_gpu()
        can_compile(setting.device)
        prepared = prepare(models, setting, resolve_recipe("bckd_ssim", ["teacher.compile=true"]))
        figures.update(train_steps(prepared, setting, 3))


def can_compile(device: torch.device) -> None:
    try:
        require_compiler(device)
    except UserError as error:
        raise Skip(str(error)) from error


def arm(name: str, function: Callable[[], Any]) -> Callable[[Timer], None]:
    def timed(timer: Timer) -> None:
        with timer(name):
            function()

    return timed


def host_waits(context: Context) -> None:
    """Count the waits by the file that causes them: from files of the package no more than `gpu_waits.KNOWN`."""
    models, setting = context.models("v8"), context.setting(context.size.imgsz, context.size.batch)
    plain: int | None = None
    for name in ["baseline", *(name for name in context.recipes if name not in {"baseline", "init"})]:
        with context.results.check(5, name) as figures:
            context.need_gpu()
            recipe = resolve_recipe(name)
            prepared: Prepared = prepare(models, setting, recipe)
            found = waits(prepared, setting)
            plain = found.total if plain is None else plain
            figures.update({"all": found.total, "beyond plain training": found.total - plain, "own": found.own})
            figures["where"] = found.places
            if found.own > KNOWN.get(name, 0):
                raise AssertionError("waits in " + ", ".join(f"{place} ({n})" for place, n in found.places.items()))
        free()


def timing(context: Context) -> None:
    """Time plain training, Ultralytics' own distiller and some recipes; what a GPU should reach is not stated here."""
    imgsz, batch, rounds = context.size.timed
    letter = "s" if context.size.small else "l"
    with context.results.check(6, f"v8n <- v8{letter}, {imgsz} px, batch {batch}") as figures:
        models, setting = context.models("v8", letter), context.setting(imgsz, batch)
        report = bench(models, setting, [resolve_recipe(name) for name in TIMED], rounds=rounds, warm_up=2)
        figures["report"] = report.to_dict()
    if "report" not in figures:
        return
    rows = [("plain training", report.plain, report.memory_plain)]
    rows.append(("built-in distiller", report.built_in, report.memory_built_in))
    rows += [(one.name, one.step, one.memory) for one in report.recipes]
    for name, cost, memory in rows:
        with context.results.check(6, name) as figures:
            figures.update({"ms": cost.wall.median, "quartiles": f"{cost.wall.low:.1f}-{cost.wall.high:.1f}"})
            figures.update({"x plain": cost.wall.median / report.plain.wall.median, "MiB": round(memory / 2**20)})
