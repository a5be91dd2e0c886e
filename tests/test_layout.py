"""The layout of the tests: they mirror the package, and what several of them need is in tests/helpers."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent
PACKAGE = TESTS.parent / "yolokd"
MODULES = {path.relative_to(TESTS).with_suffix("").as_posix(): path for path in TESTS.rglob("*.py")}
BESIDE = {  # tests of no single module → why
    "benchmarks/test_gpu": "benchmarks/gpu.py, a script that needs tests where there is no GPU",
    "benchmarks/test_scripts": "the other scripts of benchmarks, where something is missing or was interrupted",
    "cli/test_train_teachers": "the command train with teachers of other kinds",
    "deploy/test_parts": "exports in 8 bits with parts in full precision",
    "deploy/test_segment": "exports of segment, pose and OBB students as a whole",
    "evaluation/test_odd_data": "evaluation as a whole, on data sets with unreadable files",
    "initialization/test_first_weights": "student.init in whole runs",
    "losses/test_bckd_wired": "BCKD in a step, beside its maps",
    "losses/test_ranks": "every loss in two processes",
    "recipe/test_schema": "the JSON schema of recipes",
    "report/test_report": "the report as a whole, read as a reader does",
    "test_docs": "README and docs",
    "test_doctests": "the examples of the public functions",
    "test_layout": "this file",
    "test_mutated_files": "every reader of files, on mutated ones",
    "training/test_eight_bits": "whole runs in 8 bits, with ModelOpt",
    "training/test_earlier_version": "runs that version 0.1.0 wrote",
    "training/test_obb": "whole runs of students of rotated boxes",
    "training/test_methods_run": "whole runs of the methods with a state of their own",
    "training/test_pose": "whole runs of pose students",
    "training/test_segment": "whole runs of segment students",
    "training/test_teacher_kinds": "whole runs under each kind of live teacher",
}


def is_test(module: str) -> bool:
    return module.rpartition("/")[2].startswith("test_")


def mirrored(module: str) -> bool:
    """Whether the package has the module that a test module is called after; a private one counts too."""
    folder, _, name = module.rpartition("/")
    name = name.removeprefix("test_")
    return any((PACKAGE / folder / f"{mark}{name}.py").is_file() for mark in ("", "_"))


def imported(text: str, here: tuple[str, ...]) -> set[str]:
    """Names of all modules that a file imports, relative ones resolved, with the names that come from them."""
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            start = here[: len(here) - node.level] if node.level else ()
            base = ".".join([*start, *([node.module] if node.module else [])])
            found |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
    return found


def functions(text: str) -> dict[str, int]:
    """Return the lines of every function of a file, methods and inner functions included, by name."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    found: dict[str, int] = {}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, kinds):  # of several of one name the longest
            found[node.name] = max(found.get(node.name, 0), (node.end_lineno or 0) - node.lineno + 1)
    return found


def test_functions__have_fewer_than_60_lines() -> None:
    found = {
        f"{path.relative_to(PACKAGE).as_posix()}:{name}": lines
        for path in PACKAGE.rglob("*.py")
        for name, lines in functions(path.read_text(encoding="utf-8")).items()
    }
    assert not {name for name, lines in found.items() if lines >= 60}


def test_functions__are_counted_from_def_to_the_last_line() -> None:
    text = "def a(\n    b,\n):\n    return b\n\nclass C:\n    def a(self): ...\n    async def d(self): ...\n"
    assert functions(text) == {"a": 4, "d": 1}


def test_modules__mirror_the_package_or_say_why_not() -> None:
    alone = {module for module in MODULES if is_test(module) and not mirrored(module)}
    assert alone == set(BESIDE)


def test_modules__import_no_test_module() -> None:
    tests = {f"tests.{module.replace('/', '.')}" for module in MODULES if is_test(module)}
    for module, path in MODULES.items():
        found = imported(path.read_text(encoding="utf-8"), ("tests", *module.split("/")))
        assert not found & tests, module


@pytest.mark.parametrize(
    ("text", "module"),
    [
        ("import tests.losses.test_mgd", "tests.losses.test_mgd"),
        ("from tests.losses import test_mgd", "tests.losses.test_mgd"),
        ("def f():\n    from .test_mgd import numbers", "tests.losses.test_mgd"),
        ("from ..bench.test_models import CPU", "tests.bench.test_models"),
        ("from ..bench import test_models", "tests.bench.test_models"),
    ],
)
def test_imported__finds_every_way_to_import(text: str, module: str) -> None:
    assert module in imported(text, ("tests", "losses", "test_ssim"))
