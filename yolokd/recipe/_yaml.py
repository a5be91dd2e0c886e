"""YAML for recipes: plain values only, repeated keys refused, `1e-5` understood as a number.

YAML 1.1, which PyYAML speaks, reads `1e-5` as text because the dot is missing; here both spellings are numbers, and
text that looks like one is quoted on writing. Tags and aliases are refused: a recipe has no use for them, tags
could name Python objects, and a few nested aliases unfold into gigabytes. Dates and `<<` are plain text.
"""

from __future__ import annotations

import re
from typing import Any

import yaml
from yaml.composer import ComposerError
from yaml.constructor import ConstructorError

from yolokd.errors import RecipeError
from yolokd.inputs import LARGEST_BITS

FLOAT = re.compile(r"[-+]?(?:[0-9][0-9_]*(?:\.[0-9_]*)?|\.[0-9][0-9_]*)[eE][-+]?[0-9]+$")


STANDARD = "tag:yaml.org,2002:"
SPECIAL = tuple(STANDARD + name for name in ("merge", "timestamp", "value"))  # read as text instead


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers = {  # noqa: RUF012
        first: [(tag, pattern) for tag, pattern in resolvers if tag not in SPECIAL]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        mark, tag = event.start_mark, getattr(event, "tag", None)
        if isinstance(event, yaml.AliasEvent):
            raise ComposerError(None, None, f"alias *{event.anchor} is not allowed, write the value out", mark)
        if tag is not None:
            tag = tag.replace(STANDARD, "!!")
            raise ComposerError(None, None, f"tag {tag} is not allowed, write a plain value", mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise ConstructorError(None, None, "a key must be a single word", key_node.start_mark)
            key = self.construct_object(key_node)
            if key in seen:
                raise ConstructorError(None, None, f"key {key!r} is given twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


def _whole(loader: _Loader, node: yaml.ScalarNode) -> int:
    number: int = loader.construct_yaml_int(node)
    if number.bit_length() > LARGEST_BITS:
        raise ConstructorError(None, None, "a whole number this large is not allowed", node.start_mark)
    return number


_Loader.add_constructor(STANDARD + "int", _whole)


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    # PyYAML writes some line breaks (U+0085, U+2028) unescaped and reads them back as spaces
    return dumper.represent_scalar(STANDARD + "str", text, style=None if text.isprintable() else '"')


_Dumper.add_representer(str, _text)
for _class in (_Loader, _Dumper):
    _class.add_implicit_resolver(STANDARD + "float", FLOAT, list("-+.0123456789"))


def parse(text: str, source: str) -> Any:
    """Return the plain data that `text` holds; None if it is empty.

    Raises:
        RecipeError: `text` is not YAML, or not of the plain sort; names `source`, line and column.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        reason = ", ".join(part for part in (error.context, error.problem) if part)
        raise RecipeError(f"{source}: {place}{reason}") from error
    except RecursionError as error:
        raise RecipeError(f"{source}: nested too deeply") from error
    except (yaml.YAMLError, ValueError) as error:  # control characters, endless digits
        raise RecipeError(f"{source}: {' '.join(str(error).split())}") from error


def dump(data: Any) -> str:
    """Return `data` as YAML that `parse` reads back unchanged; small mappings and lists stay on one line."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, default_flow_style=None, allow_unicode=True, width=110)
