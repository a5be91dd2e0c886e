"""Writing the page: one HTML file that needs nothing else, and Markdown with its images in a folder beside it.

Both come from templates. In HTML everything is escaped by Jinja; in Markdown every value has its punctuation escaped,
so that a class called `<script>` or `a|b` stays what it is in both.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from yolokd.errors import UserError
from yolokd.files import write_whole
from yolokd.outputs import RECORD, OutputFolder
from yolokd.report.view import Page

TEMPLATES = Path(__file__).parent / "templates"
MARK = "yolokd report"  # in both files, so that nothing else is ever overwritten
MARKED = (f'<meta name="generator" content="{MARK}">', f"<!-- {MARK} -->")  # as it stands in them, on a line of its own
PUNCTUATION = re.compile(r"([\\`*_{}\[\]<>#|~&!$])")


class Plain(str):
    """Text of a Markdown page that is put there as it is."""


def check_place(html: Path) -> Path:
    """Return the absolute path of a page that may be written.

    Raises:
        UserError: The name does not end in .html, the folder does not exist, or a file there is not a report.
    """
    path = html.expanduser().absolute()
    if path.suffix.lower() not in {".html", ".htm"}:
        raise UserError(f"--out names the HTML page, so it must end in .html, got '{html}'.")
    if not path.parent.is_dir():
        raise UserError(f"The report cannot be written to '{html}': there is no such folder.")
    for file in (path, path.with_suffix(".md")):
        if file.is_dir() or (file.exists() and not _is_report(file)):
            raise UserError(f"'{file}' is there and is no report of yolokd; give another name with --out.")
    folder = folder_of(path)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"'{folder}' is there and is no folder of a report; give another name with --out.")
    return path


def _is_report(file: Path) -> bool:
    with file.open(encoding="utf-8", errors="replace") as stream:
        return any(line.strip() in MARKED for line in stream.read(1000).splitlines())


def folder_of(html: Path) -> Path:
    """The folder beside the page for the Markdown's images and for what later reports need not find out again."""
    return html.with_name(f"{html.stem}_files")


def write_page(page: Page, html: Path) -> None:
    """Write the page, its Markdown and their images, each file complete or not at all; those of an old page go.

    Args:
        page: What to show.
        html: From `check_place`.

    Raises:
        UserError: The folder holds an image of the same name that is not of the old page.
        OSError: A file cannot be written.
    """
    folder = folder_of(html)
    folder.mkdir(exist_ok=True)
    kept, files = OutputFolder(folder), dict(_images(page))
    own = kept.own_names() if (folder / RECORD).exists() else _shown(html.with_suffix(".md"), folder.name)
    for name in files:
        if name not in own and (folder / name).exists():
            raise UserError(f"'{folder / name}' is there and is not of this report; give another name with --out.")
    for name, content in files.items():
        kept.put(name, content)
    kept.remove(own - files.keys())
    write_whole(html.with_suffix(".md"), _encoded(_markdown(page, folder.name)))
    write_whole(html, _encoded(_html(page)))


def _encoded(text: str) -> bytes:
    """A page in UTF-8; bytes of a path that are none, which Python keeps as lone surrogates, are escaped."""
    return text.encode(errors="backslashreplace")


def _shown(markdown: Path, folder: str) -> set[str]:
    """Names of the images that a page shows from its folder, of a report from before there were records."""
    if not markdown.is_file():
        return set()
    address = re.escape(_address(folder))
    return set(
        re.findall(rf"\({address}/([^/()\s]+\.(?:svg|jpg))\)", markdown.read_text(encoding="utf-8", errors="replace"))
    )


def _images(page: Page) -> Iterator[tuple[str, bytes]]:
    for section in page.sections:
        for chart in section.charts:
            yield f"{chart.name}.svg", chart.light
        for row in section.rows:
            for number, panel in enumerate(row.panels):
                yield f"{row.name}-{number}.jpg", panel.jpeg


def _html(page: Page) -> str:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["data_uri"] = data_uri
    return environment.get_template("page.html").render(page=page, mark=MARK)


def _markdown(page: Page, folder: str) -> str:
    # The file is Markdown: autoescape would write HTML's entities into it; `finalize` escapes every value instead.
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), finalize=escaped, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    environment.filters["fenced"] = fenced
    environment.filters["plain"] = Plain
    return environment.get_template("page.md").render(page=page, mark=MARK, folder=Plain(_address(folder)))


def data_uri(content: bytes, kind: str) -> str:
    """Return bytes as the address of an image within the page."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def escaped(value: Any) -> str:
    """Return a value as text that Markdown shows unchanged, on one line."""
    if isinstance(value, Plain):
        return str(value)
    return PUNCTUATION.sub(r"\\\1", " ".join(str(value).split()))


def fenced(text: str) -> Plain:
    """Return text as a block of code, whatever backticks it holds."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(longest + 1, 3)
    return Plain(f"{fence}yaml\n{text.rstrip()}\n{fence}")


def _address(name: str) -> str:
    return quote(name)
