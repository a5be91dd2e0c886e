"""Turns pydantic's list of errors into lines that say what was wrong, what came, and what is allowed.

The allowed values are read from the JSON schema, so that the message, the editor's hint and the check cannot disagree.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from reprlib import Repr
from typing import Any

from pydantic import ValidationError

from yolokd.errors import nearest
from yolokd.recipe.arguments import REFUSED, REFUSED_WITH_LOSSES

Location = tuple[str | int, ...]

LONGEST = 80  # characters of a value
_repr = Repr()
_repr.maxstring = _repr.maxother = _repr.maxlong = 60
NOUNS = {
    "array": "a list",
    "boolean": "true or false",
    "integer": "a whole number",
    "null": "null",
    "number": "a number",
    "object": "a mapping",
    "string": "text",
}
BOUNDS = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}


def problem_lines(error: ValidationError, data: object, schema: Mapping[str, Any]) -> list[str]:
    """Return one line per problem: dotted path, what is wrong, the value, what is allowed.

    Args:
        error: What pydantic raised.
        data: The data that it was given.
        schema: JSON schema of the whole recipe.
    """
    items = [dict(item) for item in error.errors(include_url=False)]
    lines = [_line(item, data, schema) for item in items if not _follows_from_items(item)]
    return list(dict.fromkeys(lines))  # a union complains once per member


def _follows_from_items(item: Mapping[str, Any]) -> bool:
    """Whether a list is called too short only because its items, which are reported themselves, were not counted."""
    if item["type"] != "too_short":
        return False
    least: int = item["ctx"]["min_length"]
    return len(item["input"]) >= least


def listing(source: str, lines: Sequence[str]) -> str:
    """Return the text of an error about `source`: on one line if there is a single problem."""
    if len(lines) == 1:
        return f"{source}: {lines[0]}"
    return "\n  ".join([f"{source}: {len(lines)} problems", *lines])


def dotted(path: Iterable[str | int]) -> str:
    """Return `losses.ssim.levels[1]` for ("losses", "ssim", "levels", 1); odd keys are quoted."""
    text = ""
    for key in path:
        if isinstance(key, int):
            text += f"[{key}]"
        else:
            text += ("." if text else "") + (key if key.replace("-", "_").isidentifier() else _repr.repr(key))
    return text


def shown(value: object) -> str:
    """Return a value as YAML would spell it, cut to a length that fits a line."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = _repr.repr(value)
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."


def _line(item: dict[str, Any], data: object, schema: Mapping[str, Any]) -> str:
    path, value = _follow(data, item["loc"])
    if item["type"] == "missing":
        return f"{dotted(item['loc'])}: is missing; write losses: {{}} for plain training"
    if item["type"] == "invalid_key" or item["loc"][-1:] == ("[key]",):
        return f"{dotted(path[:-1]) or 'top level'}: keys must be text, got {shown(item['input'])}"
    if item["type"] == "extra_forbidden":
        return f"{dotted(path)}: {_unknown(path, schema)}"
    if item["type"] == "rule":
        return f"{dotted(path)}: {item['msg']}, got {shown(value)}"
    if item["type"] == "combination":
        return f"{dotted(path)}: {item['msg']}"
    while not (node := _node(schema, path)):  # followed the name of a union's member, which is a key of the value too
        path, value = _follow(data, path[:-1])
    wanted, remedy = allowed(node, schema), _remedy(value, node, schema)
    return f"{dotted(path) or 'recipe'}: must be {wanted}, got {shown(value)}{remedy}"


def _remedy(value: object, node: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    alternatives = members(node, schema)
    options = [option for member in alternatives for option in _options(member)]
    free = {member.get("type") for member in alternatives if not _options(member)}
    if isinstance(value, str):
        if free & {"number", "integer"} and _numeric(value):
            return "; take the quotes off"
        near = nearest(value, map(str, options))
        return f"; did you mean {near}?" if near else ""
    gain = {"type": "number", "minimum": 0}.items()
    if value is False and any(gain <= member.items() and "maximum" not in member for member in alternatives):
        return "; 0 switches it off"  # YAML reads `off` as false
    quoted = "string" in free and not free & {"number", "integer"}
    return "; put it in quotes" if quoted and isinstance(value, bool | int | float) else ""


def _numeric(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _unknown(path: Location, schema: Mapping[str, Any]) -> str:
    key = str(path[-1])
    if path[0] == "train" and key in REFUSED | REFUSED_WITH_LOSSES:
        return (REFUSED | REFUSED_WITH_LOSSES)[key]
    known = _keys(_node(schema, path[:-1]), schema)
    near = nearest(key, known)
    if len(path) <= 2:  # a known key in the wrong section, such as `epochs` or `losses.ikd`
        tops = _keys(schema, schema)
        near = next((f"{top}.{key}" for top in tops if key in _keys(_node(schema, (top,)), schema)), near)
    hint = f"; did you mean {near}?" if near else ""
    return f"unknown key{hint}" + (f" (known: {', '.join(known)})" if len(known) <= 16 else "")


def _follow(data: object, loc: Location) -> tuple[Location, object]:
    """Follow pydantic's location as far as it names places in the data.

    What names none is the member of a union: one of a mapping's may be followed by a key of that mapping.
    """
    path: list[str | int] = []
    for key in loc:
        if isinstance(data, Mapping):
            if key not in data:
                continue
            data = data[key]
        elif isinstance(data, list) and isinstance(key, int) and key < len(data):
            data = data[key]
        else:
            break
        path.append(key)
    return tuple(path), data


def _node(schema: Mapping[str, Any], path: Location) -> Mapping[str, Any]:
    """Return the part of the schema that describes the value at `path`; an empty one if there is no such place."""
    node = schema
    for key in path:
        children = (
            member.get("properties", {}).get(key) or member.get("additionalProperties") or member.get("items")
            for member in members(node, schema)
        )
        node = next(filter(None, children), {})
    return node


def members(node: Mapping[str, Any], schema: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the alternatives that a node of the schema offers, references followed."""
    if "$ref" in node:
        return [schema["$defs"][node["$ref"].rpartition("/")[2]]]
    choices = node.get("anyOf") or node.get("oneOf", ())
    return [leaf for member in choices for leaf in members(member, schema)] or [node]


def _keys(node: Mapping[str, Any], schema: Mapping[str, Any]) -> list[str]:
    return [key for member in members(node, schema) for key in member.get("properties", ())]


def allowed(node: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    """Say what a node of the schema allows, such as "a number >= 0 or auto"."""
    words = [word for member in members(node, schema) for word in _alternatives(member, schema)]
    *others, last = dict.fromkeys(words)
    return f"{', '.join(others)} or {last}" if others else last


def _options(node: Mapping[str, Any]) -> list[Any]:
    """Return the values that a node of the schema names one by one."""
    return [node["const"]] if "const" in node else node.get("enum", [])


def _alternatives(node: Mapping[str, Any], schema: Mapping[str, Any]) -> list[str]:
    if options := _options(node):
        return ["null" if option is None else str(option) for option in options]
    bounds = [f"{sign} {node[name]}" for name, sign in BOUNDS.items() if name in node]
    words = [NOUNS.get(node.get("type", ""), "a plain value"), " and ".join(bounds)]
    if "multipleOf" in node:
        words.append(f"and a multiple of {node['multipleOf']}")
    if "minLength" in node:
        words.append("of at least one letter")
    if "minItems" in node:
        most = node.get("maxItems")
        words.append(
            f"of {node['minItems']}" + ("" if most == node["minItems"] else f" to {most}" if most else " or more")
        )
    if "examples" in node:
        words.append(f"such as {node['examples'][0]}")
    if "items" in node:
        words.append(f"(each item {allowed(node['items'], schema)})")
    return [" ".join(filter(None, words))]
