"""Writing the page: one HTML file that needs nothing else, and Markdown with its pictures in a folder beside it.

Both come from templates. In HTML everything is escaped by Jinja; in Markdown every value has its punctuation escaped,
so that a class called `<script>` or `a|b` stays what it is in both.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from yolokd.errors import UserError
from yolokd.report.view import Page

TEMPLATES = Path(__file__).parent / "templates"
MARK = "yolokd report"  # in both files, so that nothing else is ever overwritten
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
        if file.is_dir() or (file.exists() and MARK not in file.read_text(encoding="utf-8", errors="replace")[:1000]):
            raise UserError(f"'{file}' is there and is no report of yolokd; give another name with --out.")
    return path


def folder_of(html: Path) -> Path:
    """The folder beside the page for the Markdown's pictures and for what later reports need not find out again."""
    return html.with_name(f"{html.stem}_files")


def write_page(page: Page, html: Path) -> None:
    """Write the page, its Markdown and their pictures, each file complete or not at all; pictures of old ones go.

    Args:
        page: What to show.
        html: From `check_place`.
    """
    folder = folder_of(html)
    folder.mkdir(exist_ok=True)
    files = dict(_pictures(page))
    for name, content in files.items():
        _replace(folder / name, content)
    for old in (*folder.glob("*.svg"), *folder.glob("*.jpg")):
        if old.name not in files:
            old.unlink()
    _replace(html.with_suffix(".md"), _markdown(page, folder.name).encode())
    _replace(html, _html(page).encode())


def _pictures(page: Page) -> Iterator[tuple[str, bytes]]:
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
    """Return bytes as the address of a picture within the page."""
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
    from urllib.parse import quote

    return quote(name)


def _replace(file: Path, content: bytes) -> None:
    """Write beside and rename."""
    part = file.with_name(f"{file.name}.part")
    try:
        part.write_bytes(content)
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)
