"""Reading a report as a program: the tree of its HTML by the standard library, and its Markdown as another would."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, field
from html.parser import HTMLParser

from markdown_it import MarkdownIt

VOID = {"meta", "img", "source", "br", "hr", "link", "input"}


@dataclass
class Node:
    """An element."""

    tag: str
    attributes: dict[str, str]
    children: list[Node | str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """Everything that is written in it, white space squeezed."""
        words = [child if isinstance(child, str) else child.text for child in self.children]
        return " ".join(" ".join(words).split())

    def all(self, tag: str, name: str = "") -> list[Node]:
        """All elements below, in order, with a tag and a class."""
        found = []
        for child in self.children:
            if isinstance(child, Node):
                if child.tag == tag and name in child.attributes.get("class", ""):
                    found.append(child)
                found += child.all(tag, name)
        return found


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open = [Node("", {})]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        node = Node(tag, {key: value or "" for key, value in attrs})
        self.open[-1].children.append(node)
        if tag not in VOID:
            self.open.append(node)

    def handle_endtag(self, tag: str) -> None:
        assert self.open[-1].tag == tag, f"</{tag}> closes <{self.open[-1].tag}>"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.open[-1].children.append(data)


def read_html(text: str) -> Node:
    """Parse HTML in which every element is closed."""
    reader = _Reader()
    reader.feed(text)
    reader.close()
    assert len(reader.open) == 1, f"<{reader.open[-1].tag}> stays open"
    return reader.open[0]


def read_markdown(text: str) -> Node:
    """Parse Markdown with tables, as CommonMark understands it."""
    html: str = MarkdownIt("commonmark").enable("table").render(text)
    return read_html(re.sub(r"<!--.*?-->", "", html).replace(" />", ">"))


def tables(page: Node) -> list[list[list[str]]]:
    """The cells of every table."""
    rows = [table.all("tr") for table in page.all("table")]
    return [
        [[c.text for c in row.children if isinstance(c, Node) and c.tag in {"td", "th"}] for row in table]
        for table in rows
    ]


def decoded(address: str) -> bytes:
    """The content of an image that is part of the page."""
    kind, _, content = address.partition(";base64,")
    assert kind in {"data:image/svg+xml", "data:image/jpeg"}, kind
    return base64.b64decode(content, validate=True)
