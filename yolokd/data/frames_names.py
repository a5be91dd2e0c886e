"""Names of clips and of their images that every file system takes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from yolokd.files import sha256_of

LONGEST = 80  # characters of a clip's name, and of an image's name behind it


def safe_name(text: str) -> str:
    """Return a name that every file system takes: ASCII letters, digits, dots, dashes and underscores; may be empty.

    Example:
        >>> safe_name("Königsallee 12:30?")
        'K-nigsallee-12-30'
    """
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text)[:LONGEST].strip(".-_")


def image_names(paths: list[str]) -> list[str]:
    """Return a name, without suffix, for each image of a folder; no two are equal, in whatever letter case.

    A name depends on the image's path alone, unless two paths would give one name: those end in a digest of the path,
    and so does a name that lacks characters of the path.

    Args:
        paths: Paths inside the folder, with `/`.

    Example:
        >>> image_names(["a/1.jpg", "b/1.jpg"])
        ['a-1', 'b-1']
    """
    plain = [path.rpartition(".")[0].replace("/", "-") for path in paths]
    names = [safe_name(text) for text in plain]
    found = Counter(name.casefold() for name in names)
    return [
        name if name == text and found[name.casefold()] == 1 else f"{name}-{sha256_of(path)[:12]}".lstrip("-")
        for path, text, name in zip(paths, plain, names, strict=True)
    ]


def clip_names(source: Path, *, is_file: bool) -> Iterator[str]:
    """Yield names for a clip, by preference: that of its file or folder, with that of the folder above, with a number.

    Args:
        source: The video or folder.
        is_file: Whether it has a suffix that is left out.

    Example:
        >>> from itertools import islice
        >>> list(islice(clip_names(Path("/trip/front_cam.mp4"), is_file=True), 4))
        ['front_cam', 'trip-front-cam', 'front-cam-2', 'front-cam-3']
    """
    stem = safe_name(source.stem if is_file else source.name) or "clip"
    yield stem
    plain = stem.replace("_", "-")
    above = safe_name(source.parent.name).replace("_", "-")
    if above:
        yield f"{above}-{plain}"
    for number in count(2):
        yield f"{plain}-{number}"
