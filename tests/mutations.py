"""Damaged, misplaced and hostile versions of files, and a record of what a folder holds."""

from __future__ import annotations

import hashlib
import io
import os
import random
import stat
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

Mutation = Callable[[Path], object]  # changes the file at a path in place

DEEP = 3_000  # levels of nesting, beyond any limit of recursion
HUGE = 10**400  # too large for a float
ENDLESS = "9" * 5000  # more digits than Python converts to an integer


def state_of(folder: Path) -> dict[str, str]:
    """Return what lies below a folder: relative path → digest of a file, or the kind of anything else."""
    found = {}
    for root, folders, files in os.walk(os.fsencode(folder)):
        for name in [*folders, *files]:
            path = os.path.join(root, name)  # noqa: PTH118  (names that are no UTF-8)
            found[os.fsdecode(os.path.relpath(path, os.fsencode(folder)))] = _state(path)
    return found


def _state(path: bytes) -> str:
    if os.path.islink(path):  # noqa: PTH114
        return f"link to {os.fsdecode(os.readlink(path))}"  # noqa: PTH115
    if os.path.isfile(path):  # noqa: PTH113
        with open(path, "rb") as file:  # noqa: PTH123
            return hashlib.sha256(file.read()).hexdigest()
    return "folder" if os.path.isdir(path) else "special"  # noqa: PTH112


def changed(content: Callable[[bytes], bytes]) -> Mutation:
    """Return the mutation that replaces a file's bytes by a function of them."""

    def mutate(path: Path) -> None:
        path.write_bytes(content(path.read_bytes()))

    return mutate


def written(content: bytes | str) -> Mutation:
    """Return the mutation that replaces a file's bytes by others."""
    return changed(lambda _: content.encode() if isinstance(content, str) else content)


def flipped(seed: int, count: int = 16) -> Mutation:
    """Return the mutation that changes some bytes, at places drawn by a seed."""

    def flip(content: bytes) -> bytes:
        rng, found = random.Random(seed), bytearray(content)
        for _ in range(count if found else 0):
            found[rng.randrange(len(found))] ^= rng.randrange(1, 256)
        return bytes(found)

    return changed(flip)


def replaced(make: Callable[[Path], object]) -> Mutation:
    """Return the mutation that puts something else in the place of a file."""

    def mutate(path: Path) -> None:
        path.unlink()
        make(path)

    return mutate


def _into_folder(path: Path) -> None:
    path.mkdir()
    (path / "inside.txt").write_text("0 .5 .5 .2 .2\n")


def _with_zeros(content: bytes) -> bytes:
    middle = len(content) // 3
    return content[:middle] + bytes(9) + content[middle:]


def _as_text(encoding: str) -> Mutation:
    return changed(lambda content: content.decode("utf-8", "replace").encode(encoding))


ANY: Mapping[str, Mutation] = {  # of whatever kind the file is
    "empty": written(b""),
    "first byte": changed(lambda content: content[:1]),
    "first half": changed(lambda content: content[: len(content) // 2]),
    "without the end": changed(lambda content: content[: max(len(content) - 7, 0)]),
    "zeros": changed(lambda content: bytes(len(content))),
    "zero bytes inside": changed(
        lambda content: content[: len(content) // 3] + bytes(9) + content[len(content) // 3 :]
    ),
    "random bytes": written(random.Random(0).randbytes(999)),
    "letters": written("to be or not to be\n" * 50),
    "one long line": written("a" * 300_000),
    "PNG": written(b"\x89PNG\r\n\x1a\n" + bytes(100)),
    "zip": written(b"PK\x03\x04" + bytes(100)),
    "folder": replaced(_into_folder),
    "broken link": replaced(lambda path: path.symlink_to("gone")),
    "link to itself": replaced(lambda path: path.symlink_to(path.name)),
    "pipe": replaced(lambda path: os.mkfifo(path)),
    "socket": replaced(lambda path: os.mknod(path, stat.S_IFSOCK | 0o600)),
    "device": replaced(lambda path: path.symlink_to("/dev/null")),
    "missing": replaced(lambda path: None),
}
TEXT: Mapping[str, Mutation] = {
    "UTF-16": _as_text("utf-16"),
    "UTF-32": _as_text("utf-32"),
    "byte order mark": _as_text("utf-8-sig"),
    "Latin-1": changed(lambda content: content.replace(b"a", b"\xe4")),
    "lone carriage returns": changed(lambda content: content.replace(b"\n", b"\r")),
    "control characters": changed(lambda content: content.replace(b"\n", b"\x0b\x1b[31m\x07\n")),
    "lone surrogate": changed(lambda content: content.replace(b"a", b"\xed\xa0\x80")),
    "digits without end": written(ENDLESS),
    "hexadecimal digits": written("0x" + "f" * 5000),
}
LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12)
)
YAML: Mapping[str, Mutation] = {
    "aliases that unfold": changed(lambda content: LAUGHS.encode() + content),
    "keys that unfold": changed(lambda content: LAUGHS.encode() + content + b"\nnames: *a11\nlosses: *a11\n"),
    "alias of itself": changed(lambda content: b"loop: &a [*a]\n" + content),
    "names hold themselves": changed(lambda content: content + b"\nnames: &n [*n]\nlosses: &l {l: *l}\n"),
    "nested lists": written("[" * DEEP),
    "nested mappings": written("{a: " * DEEP),
    "nested value": changed(lambda content: content + b"\nmore: " + b"[" * DEEP + b"]" * DEEP + b"\n"),
    "nested blocks": written("".join(" " * n + "a:\n" for n in range(1200))),
    "impossible date": changed(lambda content: content + b"\nmore: 2024-99-99\n"),
    "impossible time": changed(lambda content: content + b"\nmore: 2024-01-01 99:99:99\n"),
    "long digits": changed(lambda content: content + f"\nmore: {ENDLESS}\n".encode()),
    "base 60": changed(lambda content: content + b"\nmore: 1:2:3:4.5e\n"),
    "bad binary": changed(lambda content: content + b"\nmore: !!binary '*'\n"),
    "bad int": changed(lambda content: content + b"\nmore: !!int x\n"),
    "bad float": changed(lambda content: content + b"\nmore: !!float x\n"),
    "empty int": changed(lambda content: content + b"\nmore: !!int ''\n"),
    "bad bool": changed(lambda content: content + b"\nmore: !!bool x\n"),
    "bad timestamp": changed(lambda content: content + b"\nmore: !!timestamp x\n"),
    "a set": written("!!set {a, b}"),
    "an object": written("!!python/object/apply:os.system ['true']"),
    "keys twice": changed(lambda content: content + b"\n" + content),
    "list as key": changed(lambda content: content + b"\n? [1, 2]\n: 3\n"),
    "mapping as key": changed(lambda content: content + b"\n? {a: 1}\n: 3\n"),
    "merge of text": changed(lambda content: content + b"\n<<: text\n"),
    "two documents": changed(lambda content: content + b"\n---\n" + content),
    "number": written("3"), "null": written("null"), "list": written("[1, 2]"), "NaN": written(".nan"),
}  # fmt: skip
JSON: Mapping[str, Mutation] = {
    "nested lists": written("[" * DEEP + "]" * DEEP),
    "nested mappings": written('{"a":' * DEEP + "1" + "}" * DEEP),
    "number": written("3"), "null": written("null"), "list": written("[1, 2]"), "NaN": written("NaN"),
    "text": written('"text"'), "object": written("{}"), "two": written("{}{}"), "a comma": written('{"a": 1,}'),
    "lists": written("[[], {}, [[]]]"),
}  # fmt: skip
VALUES: Mapping[str, Any] = {
    "null": None, "true": True, "zero": 0, "minus one": -1, "large": 10**9, "huge": HUGE, "fraction": 0.5,
    "NaN": float("nan"), "infinity": float("inf"), "empty text": "", "text": "text", "zero byte": "a\0b",
    "line break": "a\nb", "long text": "a" * 5000, "parent": "..", "root": "/", "null device": "/dev/null",
    "pattern": "*?[a]", "empty list": [], "list": [1, "a", None], "nested": [[[]]],
    "empty mapping": {}, "mapping": {"a": 1}, "number as key": {1: {2: 3}},
}  # fmt: skip


def with_values(plain: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Yield copies of plain data, each with one value taken out or replaced by one of `VALUES`, and what it is."""
    items = plain.items() if isinstance(plain, dict) else enumerate(plain[:2]) if isinstance(plain, list) else ()
    for key, inner in items:
        place = ".".join(map(str, (*path, key)))
        for name, value in VALUES.items():
            yield f"{place} {name}", _replace(plain, key, value)
        if isinstance(plain, dict):
            yield f"{place} missing", {other: found for other, found in plain.items() if other != key}
        for name, below in with_values(inner, (*path, key)):
            yield name, _replace(plain, key, below)


def _replace(plain: Any, key: Any, value: Any) -> Any:
    if isinstance(plain, dict):
        return {**plain, key: value}
    return [*plain[:key], value, *plain[key + 1 :]]


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_header(width: int, height: int) -> bytes:
    """Return a PNG that claims this size and holds a few pixels."""
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + _chunk(b"IDAT", zlib.compress(bytes(200))) + _chunk(b"IEND", b"")


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    """Return an image file's bytes."""
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def _image(mode: str) -> Image.Image:
    image = Image.fromarray(np.arange(64 * 64 * 3, dtype=np.uint8).reshape(64, 64, 3))
    return image.convert("I").convert(mode) if mode == "I;16" else image.convert(mode)


def _frames() -> tuple[Image.Image, dict[str, Any]]:
    first, *others = (Image.new("RGB", (64, 64), (n * 60, 0, 0)) for n in range(4))
    return first, {"save_all": True, "append_images": others}


def _animated(kind: str) -> bytes:
    first, options = _frames()
    return encoded(first, kind, **options)


MODES = {
    "PNG": ("1", "L", "LA", "P", "RGBA", "I;16"), "TIFF": ("1", "CMYK", "YCbCr"), "JPEG": ("L", "CMYK"),
    "GIF": ("P",), "BMP": ("P",), "JPEG2000": ("RGB",), "ICO": ("RGB",), "WEBP": ("RGBA",),
}  # fmt: skip
JPEG = encoded(_image("RGB"), "JPEG")
IMAGE: Mapping[str, Mutation] = {  # of a file whose name ends in .png
    "60000 x 60000 in the header": written(png_header(60_000, 60_000)),
    "2^31-1 in the header": written(png_header(2**31 - 1, 2**31 - 1)),
    "no width": written(png_header(0, 5)),
    "long and thin": written(encoded(Image.new("RGB", (20_000, 10)), "PNG")),
    "one pixel": written(encoded(Image.new("RGB", (1, 1)), "PNG")),
    **{
        f"mode {mode} as {kind}": written(encoded(_image(mode), kind))
        for kind, modes in MODES.items()
        for mode in modes
    },
    "float TIFF": written(encoded(Image.fromarray(np.linspace(0, 1, 4096, dtype=np.float32).reshape(64, 64)), "TIFF")),
    **{f"animated {kind}": written(_animated(kind)) for kind in ("GIF", "PNG", "TIFF", "WEBP")},
    "SVG": written("<svg xmlns='http://www.w3.org/2000/svg' width='64' height='64'/>"),
    "PostScript": written("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\nshowpage\n"),
    "HEIF brand": written(b"\0\0\0\x18ftypheic" + bytes(100)),
    "JPEG": written(JPEG),
    "JPEG cut short": written(JPEG[:-400]),
    "JPEG without end mark": written(JPEG[:-2]),
}
STEMS: Mapping[str, bytes] = {  # of files' names
    "spaces": b" a  b ", "quotes": b"it's \"quoted\"", "line break": b"a\nb", "pattern": b"a*?[b]",
    "no UTF-8": b"caf\xe9\xff", "long": b"n" * 240, "dash": b"-rf", "dashes": b"--help", "emoji": "\U0001f697".encode(),
    "percent": b"100%20%3F", "markup": b"[bold red]x[-]", "escape": b"\x1b[31mred", "backslash": b"a\\nb",
    "comma": b"a,b", "braces": b"{a}", "hash": b"a#b", "right to left": "\u202eabc".encode(), "equals": b"a=b",
    "dollar": b"$HOME", "ampersand": b"a&b;c|d", "dots": b"a..b.c", "tab": b"a\tb",
}  # fmt: skip


def renamed(path: Path, stem: bytes) -> Path:
    """Give a file another name, its suffix kept, and return its new path."""
    target = Path(os.fsdecode(os.path.join(os.fsencode(path.parent), stem + os.fsencode(path.suffix))))  # noqa: PTH118
    path.rename(target)
    return target
