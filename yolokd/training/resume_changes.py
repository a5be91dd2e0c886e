"""What may change where a run is continued: where its files are, the batch, the machine; and the record of it.

What does not change what is learned is taken as it is. What does, is named, and stands in the list
`resumptions` of `provenance.json`. Everything else would make another run of it, and is refused with the reason.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from yolokd.backend.dataset import Dataset, resolve
from yolokd.backend.devices import check_device
from yolokd.data.layout import fingerprint
from yolokd.errors import DataError, UserError
from yolokd.loaders.unlabeled import Unlabeled, find_unlabeled
from yolokd.recipe.load import with_assignments
from yolokd.training import run_files as records
from yolokd.training.argument_checks import check_with_device
from yolokd.training.resume import Interrupted

CHANGEABLE: Mapping[str, bool] = {  # keys of `train` that a resumed run may change → whether the result changes
    "batch": True, "cache": False, "device": False, "patience": True, "plots": False, "save_period": False,
    "time": True, "val": True, "workers": False,
}  # fmt: skip
MOVABLE = {"data": "--data", "unlabeled": "--unlabeled"}
REASONS = {
    "epochs": "the learning rate and the schedules of the losses were laid out for the run's length",
    "imgsz": "the size of the input is that of the epochs behind",
    "name": "the run stays in its folder; rename the folder itself",
    "project": "the run stays in its folder; move the folder itself",
    "seed": "it has decided the first weights and the order of the images",
}
REASON = "it would make another run of it"


@dataclass(frozen=True)
class Resumption:
    """An interrupted run with what is to change."""

    run: Interrupted  # its settings are those to go on with
    arguments: Mapping[str, Any]  # of Ultralytics, that replace those of the checkpoint
    notes: tuple[str, ...]  # for the user


def split_assignments(assignments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return those assignments of `--set` that a resumed run may follow, and the others."""
    keys = [assignment.partition("=")[0].strip() for assignment in assignments]
    free = [key.startswith("train.") and key.removeprefix("train.") in {*CHANGEABLE, *MOVABLE} for key in keys]
    pairs = list(zip(assignments, free, strict=True))
    return [text for text, is_free in pairs if is_free], [text for text, is_free in pairs if not is_free]


def refuse_others(assignments: Sequence[str]) -> None:
    """Raise `UserError` for assignments that a resumed run may not follow, with the reason of each."""
    refuse_fixed([assignment.partition("=")[0].strip() for assignment in split_assignments(assignments)[1]])


def refuse_fixed(keys: Sequence[str]) -> None:
    """Raise `UserError` for options or keys that a resumed run keeps, with the reason of each."""
    if keys:
        each = "; ".join(f"{key}: {REASONS.get(key.removeprefix('--').removeprefix('train.'), REASON)}" for key in keys)
        known = ", ".join([*MOVABLE.values(), "--teacher", "--batch", "--device"])
        more = ", ".join(f"train.{key}" for key in CHANGEABLE if key not in {"batch", "device"})
        raise UserError(
            f"A resumed run keeps its settings; leave out {', '.join(keys)} or start a new run ({each}). What may be "
            f"given with --resume: {known}, and --set of {more}."
        )


def prepare(run: Interrupted, assignments: Sequence[str]) -> Resumption:
    """Check what is to change in an interrupted run, and find its data where they are now.

    What no assignment names goes on as it was in the end, which need not be as the recipe says: a batch size that was
    found, halved for memory or changed by an earlier resume, workers that Ultralytics does without on a CPU.

    Args:
        run: From `read_interrupted`.
        assignments: `train.key=value` with keys of `CHANGEABLE` and `MOVABLE`.

    Raises:
        UserError: Another key, a value that training does not take, a device that is not there.
        DataError: Data that are missing, or others than the run was started with.
    """
    refuse_others(assignments)
    stored = run.settings.load_recipe()
    train = with_assignments(stored, assignments).train
    changes = {
        key: value
        for key, value in train.items()
        if key in CHANGEABLE and _names(assignments, key) and value != run.arguments.get(key, stored.train.get(key))
    }
    check_device(changes.get("device", run.arguments.get("device")))
    check_with_device({**stored.train, **run.arguments, **changes})
    settings = replace(run.settings, recipe=deepcopy(run.settings.recipe), provenance=deepcopy(run.settings.provenance))
    changed = {key: {"from": run.arguments.get(key), "to": value} for key, value in changes.items()}
    affected = [key for key in changes if CHANGEABLE[key]]
    run = replace(run, settings=settings)
    data = _find_data(run, str(train["data"]) if _names(assignments, "data") else None)
    if data.changed:
        affected.append("data")
    if data.moved:
        changed["data"] = {"from": run.data, "to": data.path}
        settings.provenance["data"] = data.path
    unlabeled = _find_unlabeled(run, train.get("unlabeled") if _names(assignments, "unlabeled") else None)
    if unlabeled.changed:
        affected.append("unlabeled")
    if unlabeled.moved:
        changed["unlabeled"] = {"from": stored.train.get("unlabeled"), "to": unlabeled.path}
        settings.recipe["train"]["unlabeled"] = unlabeled.path
        settings.provenance["unlabeled"]["source"] = unlabeled.path
    entry = {
        "first_epoch": run.epoch + 1,
        "changed": changed,
        "changes_result": affected,
        "versions": records.versions(),
        "command": records.command_line(),
    }
    settings.provenance["resumptions"] = [*settings.provenance.get("resumptions", ()), entry]
    arguments = {**changes, **({"data": data.path} if data.moved else {})}
    return Resumption(run, arguments, tuple(_notes(run, changed, affected)))


def _names(assignments: Sequence[str], key: str) -> bool:
    return any(assignment.partition("=")[0].strip() == f"train.{key}" for assignment in assignments)


def _notes(run: Interrupted, changed: Mapping[str, Mapping[str, Any]], affected: Sequence[str]) -> list[str]:
    first = f"from epoch {run.epoch + 1}"
    notes = [f"{key} {was['from']} becomes {was['to']} {first} on" for key, was in changed.items()]
    if in_place := [key for key in affected if key not in changed]:
        notes.append(f"{' and '.join(in_place)}: labels or images have changed since the run was started")
    if affected:
        notes.append(
            f"{', '.join(affected)}: the result is not that of the run without this change; provenance.json says so"
        )
    return notes


@dataclass(frozen=True)
class _Found:
    path: str
    moved: bool  # to another path than the run knows
    changed: bool  # in what it holds


def _find_data(run: Interrupted, asked: str | None) -> _Found:
    try:
        found = resolve(asked or run.data)
    except DataError as error:
        if asked is not None or Path(run.data).is_file():
            raise
        raise DataError(f"{error} If the data were moved, give where they are now with --data.") from error
    single = run.arguments.get("single_cls")
    if run.names and not single and found.names != run.names:
        wrong = next(i for i in sorted({*found.names, *run.names}) if found.names.get(i) != run.names.get(i))
        raise DataError(
            f"'{found.yaml_path}' has other classes than the run was started with: class {wrong} is "
            f"'{found.names.get(wrong)}', and was '{run.names.get(wrong)}'. Give the same data, or start a new run."
        )
    before = run.settings.provenance.get("data_fingerprint")
    changed = before is not None and _digest(found.splits, before) != before
    path = str(found.yaml_path.absolute())
    if changed and asked is not None:
        raise DataError(
            f"'{path}' holds other data than the run was started with: {_what_differs(run, found)}. Give the same "
            f"data, or start a new run."
        )
    return _Found(path, path != run.data, changed)


def _what_differs(run: Interrupted, found: Dataset) -> str:
    before: Mapping[str, Mapping[str, Any]] = run.settings.provenance.get("data_splits") or {}
    now = records.split_identities(found.splits)
    texts = []
    for split in dict.fromkeys([*before, *now]):
        old, new = before.get(split), now.get(split)
        if old is None or new is None:
            texts.append(f"the split {split} is {'new' if old is None else 'missing'}")
        elif old["images"] != new["images"]:
            texts.append(f"{split} has {new['images']} images, and had {old['images']}")
        elif old != new:
            texts.append(f"in {split} names or sizes of images, or labels differ")
    return "; ".join(texts) if before and texts else "names or sizes of images, or labels differ"


def _find_unlabeled(run: Interrupted, asked: object) -> _Found:
    recipe, before = run.settings.load_recipe(), run.settings.provenance.get("unlabeled") or {}
    source = recipe.train.get("unlabeled")
    if asked is None:
        found = find_unlabeled(recipe)
        changed = found is not None and bool(before) and _identity(found, before) != before["fingerprint"]
        return _Found(str(source), moved=False, changed=changed)
    if source is None:
        raise UserError(f"The run '{run.folder}' has no unlabeled images; '{asked}' cannot join it now.")
    path = str(Path(str(asked)).expanduser().absolute())
    moved = recipe.with_sections(train={**recipe.train, "unlabeled": path})
    found = find_unlabeled(moved)
    if found is not None and before and _identity(found, before) != before["fingerprint"]:
        count = f"{len(found.files)} images, and the run was started with {before['pictures']}"
        what = count if len(found.files) != before["pictures"] else "images of other names or sizes"
        raise DataError(f"'{path}' holds {what}. Give the same unlabeled images, or start a new run.")
    return _Found(path, path != source, changed=False)


def _identity(found: Unlabeled, before: Mapping[str, Any]) -> str:
    return _digest({"unlabeled": [found.source]}, before["fingerprint"])


def _digest(splits: Mapping[str, Sequence[Path]], before: str) -> str:
    """The fingerprint to compare with an earlier one."""
    return fingerprint(splits, like=before)
