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

from yolokd.cli import bench, compare, data, demo, evaluate, export, inspect, predict, recipes, report, train
from yolokd.errors import YolokdError

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
        app(args=argv)
    except YolokdError as error:
        if argv[:1] == ["--debug"]:
            traceback.print_exc()
        errors.print("Error:", style="bold red", end=" ")
        errors.print(str(error), markup=False, highlight=False, soft_wrap=True)
        return error.exit_code
    except KeyboardInterrupt:
        errors.print("Interrupted.", style="bold")
        return 130
    return 0  # typer itself ends the process, also after wrong options


if __name__ == "__main__":
    main()
