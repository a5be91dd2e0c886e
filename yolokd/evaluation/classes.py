"""Which class of a model is which class of the data: by name, or as the user says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from yolokd.errors import DataError, UserError


def match_classes(
    model: Mapping[int, str], data: Mapping[int, str], classes: Mapping[str, str], name: str
) -> dict[int, int]:
    """Return the model's class index → the data's, by name and whatever the case, `classes` taking precedence.

    Args:
        model: Class index → name of the model.
        data: Class index → name of the data.
        classes: The model's name → the data's, where they differ; names that this model does not have are passed over.
        name: What to call the model in the error.

    Raises:
        DataError: They have no class in common.
    """
    target = {_key(word): index for index, word in data.items()}
    renamed = {_key(word): _key(other) for word, other in classes.items()}
    found = {index: target.get(renamed.get(_key(word), _key(word))) for index, word in model.items()}
    partners = {index: partner for index, partner in found.items() if partner is not None}
    if not partners:
        raise DataError(
            f"'{name}' and the data have no class in common. The model knows {_list(model.values())}; the data has "
            f"{_list(data.values())}. Name equal ones: --classes MODEL_NAME=DATA_NAME."
        )
    return partners


def check_mapping(classes: Mapping[str, str], models: Iterable[Mapping[int, str]], data: Mapping[int, str]) -> None:
    """Check what the user says.

    Args:
        classes: A model's name → the data's.
        models: Class index → name of each model.
        data: Class index → name of the data.

    Raises:
        UserError: A name that no model has, or that the data does not have.
    """
    theirs = {_key(word) for names in models for word in names.values()}
    ours = {_key(word) for word in data.values()}
    for word, other in classes.items():
        if _key(other) not in ours:
            raise UserError(f"--classes {word}={other}: the data has no class '{other}', but {_list(data.values())}.")
        if _key(word) not in theirs:
            raise UserError(f"--classes {word}={other}: no model here has a class '{word}'.")


def _key(word: str) -> str:
    return word.strip().lower()


def _list(words: Iterable[str]) -> str:
    shown = list(words)
    return ", ".join(shown[:10]) + (f", … ({len(shown)} in all)" if len(shown) > 10 else "")
