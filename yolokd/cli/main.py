"""The `yolokd` command: one table of commands and the one place where errors become exit codes.

Each command is a function in a file of its own and imports torch only when it runs, so that help stays fast.
"""

from __future__ import annotations

import io
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated

import typer
from rich.console import Console

from yolokd.cli import bench, compare, data, demo, diagnose, evaluate, export, inspect, predict, recipes, report, train
from yolokd.errors import RunError, UserError, YolokdError

LONGEST = 200  # letters of a name or reason that a message shows

app = typer.Typer(
    name="yolokd",
    help="Train a small YOLO under a large one, prove what it gained, export it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("train")(train.train)
app.command("eval")(evaluate.evaluate)
app.command("compare")(compare.compare)
app.command("export")(export.export)
app.command("predict")(predict.predict)
app.command("inspect")(inspect.inspect)
app.command("report")(report.report)
app.command("diagnose")(diagnose.diagnose)
app.command("bench")(bench.bench)
app.add_typer(recipes.app, name="recipes")
app.add_typer(data.app, name="data")
app.command("demo")(demo.demo)


@app.callback()
def options(
    context: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Options that hold for every command."""
    context.obj = {"debug": debug}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 fine, 2 the user's mistake, 1 a failed run, 130 interrupted."""
    argv = list(sys.argv[1:] if arguments is None else arguments)
    if "--debug" in argv:  # accepted anywhere on the line
        argv = ["--debug", *(a for a in argv if a != "--debug")]
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a file's name need not be text that can be printed
            stream.reconfigure(errors="backslashreplace")
    os.environ.setdefault("YOLO_AUTOINSTALL", "false")
    # Restricted loading is decided when Ultralytics is imported, hence here and from the raw arguments.
    os.environ["ULTRALYTICS_SAFE_LOAD"] = "false" if "--trust-checkpoint" in argv else "true"
    sys.exit(_run(argv))


def _run(argv: list[str]) -> int:
    errors = Console(stderr=True)
    try:
        _refuse_empty(argv)
        app(args=argv)
    except KeyboardInterrupt:
        errors.print("Interrupted.", style="bold")
        return 130
    except Exception as error:
        if argv[:1] == ["--debug"]:
            traceback.print_exc()
        text, code = _explained(error)
        errors.print("Error:", style="bold red", end=" ")
        errors.print(text, markup=False, highlight=False, soft_wrap=True)
        return code
    return 0  # typer itself ends the process, also after wrong options


def _refuse_empty(argv: Sequence[str]) -> None:
    """Refuse words without a letter, as an unset variable of the shell gives them: `--out` would be this folder."""
    for before, word in zip(["yolokd", *argv], argv, strict=False):
        name, equals, value = word.partition("=")
        if not word.strip() or (name.startswith("--") and equals and not value.strip()):
            where = name if equals else f"the word after '{before}'"
            raise UserError(f"There is no value: {where} is empty. Give one, or leave the option out.")


def _explained(error: Exception) -> tuple[str, int]:
    """Return what to tell about an exception, and the exit code."""
    if isinstance(error, YolokdError):
        return str(error), error.exit_code
    if isinstance(error, OSError) and isinstance(error.filename, (str, bytes, os.PathLike)):
        name = os.fsdecode(error.filename)  # a path of the user's that no command has looked at itself
        shown = name if len(name) <= LONGEST else f"{name[:LONGEST]}…"
        return f"'{shown}' cannot be used: {error.strerror}. Give another path.", UserError.exit_code
    if isinstance(error, RuntimeError) and str(error).startswith("Could not determine home directory"):
        return (
            "A path begins with ~ and the name of nobody who has a home here. Give another path.",
            UserError.exit_code,
        )
    if isinstance(error, MemoryError) or "out of memory" in str(error).lower():
        return f"Out of memory: {' '.join(str(error).split()) or 'the system gave no more'}.", RunError.exit_code
    reason = " ".join(str(error).split())
    return (
        f"yolokd failed in a way that it did not foresee ({type(error).__name__}: {reason[:LONGEST]}). Please report "
        f"the command with what --debug shows.",
        RunError.exit_code,
    )


if __name__ == "__main__":
    main()
