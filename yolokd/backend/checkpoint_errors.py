"""Why a checkpoint could not be loaded: refused objects, a newer Ultralytics, a missing module, a damaged file.

Nothing of the file runs here: which objects it names is known to torch's restricted unpickler, and the version that
made it is read from the pickle's opcodes.
"""

from __future__ import annotations

import importlib.util
import os
import pickle
import pickletools
import re
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import ultralytics

from yolokd.backend.quantization import INSTALL, PACKAGES
from yolokd.errors import WeightsError

LARGEST = 64 * 2**20  # bytes of a pickle that are searched for a version; tensors lie beside it
REFUSAL = re.compile(r"GLOBAL (\S+)|unsafe (getattr\([^)]*\))|blocked")  # in the words of the restricted unpicklers
LACKING = re.compile(r"Can't get attribute '(?P<name>\w+)' on <module '(?P<module>[\w.]+)'")
SHOWN = 5  # names that a message shows
PACKAGE = Path(ultralytics.__file__).parent


def explain(path: Path, error: Exception) -> WeightsError:
    """Return what to tell the user about a checkpoint that `load_checkpoint` failed on.

    Args:
        path: The checkpoint, as the user named it.
        error: What was raised.
    """
    refused = _refused(path, error) if is_restricted() else []
    if refused:
        lacking = [name for name in refused if _is_lacking(name)]
        known = [name for name in refused if name not in lacking]
        return WeightsError(_unsafe(path, known) if known else _not_here(path, lacking))
    missing = _missing(error)
    if missing and (package := PACKAGES.get(missing.partition(".")[0])):
        return WeightsError(f"'{path}' was trained in 8 bits, and reading it needs {package}: {INSTALL}")
    if missing:
        return WeightsError(_not_here(path, [missing]))
    reason = str(error).replace("\n", " ").replace("ERROR ❌️ ", "").split(" Recommended fixes")[0].strip()
    if not zipfile.is_zipfile(path):
        reason = "it is damaged, cut short or no PyTorch file; fetch or copy it again"
    elif "references types outside" in reason:
        reason = "it holds no model"
    return WeightsError(f"'{path}' cannot be read as an Ultralytics checkpoint: {reason or type(error).__name__}")


def is_restricted() -> bool:
    """Whether checkpoints are loaded by the restricted unpickler, which --trust-checkpoint turns off."""
    return os.environ.get("ULTRALYTICS_SAFE_LOAD", "").lower() not in {"0", "false"}


def version_of(path: Path) -> str | None:
    """Return the version of Ultralytics that a checkpoint says it was made with; None if it says none.

    The pickle is not executed: its last text under the key `version` is looked up among the opcodes.
    """
    found = None
    try:
        with zipfile.ZipFile(path) as archive:
            name = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
            with archive.open(name) as file:
                content = file.read(LARGEST)
        texts = _texts(content)
        for text in texts:
            if text == "version" and re.match(r"\d+\.\d+", version := next(texts, None) or ""):
                found = version
    except Exception:  # damaged, or not the form that torch writes; what was found so far is right
        return found
    return found


def _texts(content: bytes) -> Iterator[str | None]:
    """The texts of a pickle in their order, those that it remembers included; None for every other value."""
    memo: dict[Any, str | None] = {}
    last: str | None = None
    for opcode, argument, _ in pickletools.genops(content):
        if opcode.name in {"BINPUT", "LONG_BINPUT", "PUT"}:
            memo[argument] = last
            continue
        if opcode.name == "MEMOIZE":
            memo[len(memo)] = last
            continue
        if opcode.name in {"BINGET", "LONG_BINGET", "GET"}:
            last = memo.get(argument)
        else:
            last = argument if isinstance(argument, str) and "UNICODE" in opcode.name else None
        yield last


def _refused(path: Path, error: Exception) -> list[str]:
    """Names of the objects that the restricted unpickler refused; none where loading failed for another reason."""
    said = [str(e) for e in _chain(error) if isinstance(e, pickle.UnpicklingError)]
    found = [match for text in said if (match := REFUSAL.search(text))]
    if not found:
        return []
    first = next((name for match in found for name in match.groups() if name), "an object that is not listed")
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)  # less those that the loader has allowed
    except Exception:  # not an archive that torch can list
        names = []
    return sorted({*names, first.rstrip(".,")})


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _missing(error: Exception) -> str | None:
    """The object or module that an unrestricted load did not find."""
    for cause in _chain(error):
        if isinstance(cause, ModuleNotFoundError) and cause.name:
            return cause.name
        if isinstance(cause, AttributeError) and (match := LACKING.search(str(cause))):
            return f"{match['module']}.{match['name']}"
    return None


def _is_lacking(name: str) -> bool:
    """Whether an object cannot be imported here; nothing is imported to find out."""
    module, _, attribute = name.rpartition(".")
    top = module.partition(".")[0]
    if top == "__main__":
        return not hasattr(sys.modules["__main__"], attribute)
    if top == "ultralytics":
        return not _in_ultralytics(module, attribute)
    try:
        return bool(top) and top not in sys.modules and importlib.util.find_spec(top) is None
    except (ImportError, ValueError):
        return True


def _in_ultralytics(module: str, attribute: str) -> bool:
    if module in sys.modules:
        return hasattr(sys.modules[module], attribute)
    place = PACKAGE.joinpath(*module.split(".")[1:])
    return place.with_suffix(".py").is_file() or (place / "__init__.py").is_file()


def _unsafe(path: Path, names: list[str]) -> str:
    return (
        f"'{path}' was not loaded: it names Python objects outside the known model classes ({_listed(names)}), which "
        f"could run code. If you trust its origin, repeat with --trust-checkpoint."
    )


def _not_here(path: Path, names: list[str]) -> str:
    """What to do about objects that are not installed here; of the user's own before those of Ultralytics."""
    own = [name for name in names if name.partition(".")[0] != "ultralytics"]
    if own and own[0].startswith("__main__."):
        return (
            f"'{path}' cannot be loaded: it names {_listed(own)}, which the script that saved it has defined itself. "
            f"Save the model with a class from a module, or its state dict alone."
        )
    if own:
        module = own[0].partition(".")[0]
        trust = ", and repeat with --trust-checkpoint if you trust its origin" if is_restricted() else ""
        return (
            f"'{path}' cannot be loaded: it names {_listed(own)}, and the module '{module}' cannot be imported here. "
            f"Install it or add its folder to PYTHONPATH{trust}."
        )
    made, here = version_of(path), str(ultralytics.__version__)
    named = f"it names {_listed(names)}, which Ultralytics {here} does not have"
    if made is not None and _is_newer(made, here):
        return (
            f"'{path}' was made with Ultralytics {made}, here is {here}: {named}. Update with pip install -U "
            f"ultralytics, as far as this version of yolokd allows, or save the model anew with {here}."
        )
    origin = f" (it says that Ultralytics {made} made it)" if made is not None else ""
    return (
        f"'{path}' cannot be loaded: {named}{origin}. It comes from a changed copy or another version of Ultralytics: "
        f"install that one, or save the model anew with {here}."
    )


def _is_newer(made: str, here: str) -> bool:
    def release(version: str) -> list[int]:
        return [int(part) for part in re.findall(r"\d+", version)[:3]]

    return release(made) > release(here)


def _listed(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", …" if len(names) > SHOWN else "")
