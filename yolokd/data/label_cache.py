"""Ultralytics' label caches lie beside the labels and travel with data sets; as pickles they could run code."""

from __future__ import annotations

import pickle
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from yolokd.data.layout import images_of, label_path
from yolokd.errors import DataError
from yolokd.inputs import refuse_special

MAGIC = b"\x93NUMPY"
ARRAYS = frozenset({
    *((f"numpy.{core}.multiarray", name) for core in ("core", "_core") for name in ("_reconstruct", "scalar")),
    *((f"numpy.{core}.numeric", "_frombuffer") for core in ("core", "_core")),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
})  # fmt: skip


def refuse_code(sources: Iterable[Path]) -> None:
    """Refuse the label cache of a split if it names anything but arrays; none or a damaged one is made anew.

    Args:
        sources: Folders of images or lists of them; missing ones are left out.

    Raises:
        DataError: Loading the cache would run code.
    """
    try:
        firsts = [found[0] for source in sources if source.exists() and (found := images_of(source))]
    except (OSError, ValueError):  # the check of the labels says why
        return
    if not firsts:
        return
    cache = Path(label_path(min(firsts))).parent.with_suffix(".cache")  # where Ultralytics looks for it
    try:
        refuse_special(cache)
        with cache.open("rb") as file:
            if file.read(len(MAGIC)) == MAGIC:
                version, _ = file.read(2)
                file.seek(int.from_bytes(file.read(2 if version == 1 else 4), "little"), 1)
            else:  # what is no array file is taken for a bare pickle
                file.seek(0)
            _Arrays(file).load()
    except _ForeignError as error:
        raise DataError(
            f"'{cache}' names {error}, which a label cache does not hold; loading it would run code. Delete it: it is "
            "made anew from the labels."
        ) from error
    except Exception:  # damaged: numpy stops at the same place, and Ultralytics makes it anew
        return


class _ForeignError(Exception):
    pass


class _Arrays(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in ARRAYS:
            return super().find_class(module, name)
        raise _ForeignError(f"{module}.{name}")
