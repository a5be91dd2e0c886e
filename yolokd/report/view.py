"""A page as plain data: both templates show the same sections, and nothing in them is markup."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from yolokd.report.charts import Chart

NUMBER = re.compile(r"[-+−–[]|\d[\d.]*( %|$| of | ±)")  # how a cell of numbers begins


@dataclass(frozen=True)
class Table:
    """Rows of text."""

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    folded: bool = False  # behind a line to click on, where the page can do that

    @property
    def numeric(self) -> frozenset[int]:
        """The columns of numbers, which are set right; never the first."""
        columns = [[row[n] for row in self.rows] for n in range(len(self.header))]
        return frozenset(n for n, column in enumerate(columns) if n and all(map(NUMBER.match, column)))


@dataclass(frozen=True)
class Panel:
    """One image of a row."""

    title: str
    text: str
    alt: str
    jpeg: bytes


@dataclass(frozen=True)
class Row:
    """Panels side by side."""

    name: str  # stem of the panels' files
    title: str
    text: str
    panels: Sequence[Panel]


@dataclass(frozen=True)
class Listing:
    """Text shown as it is, behind a line to click on."""

    title: str
    text: str


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it, in this order."""

    title: str
    text: Sequence[str] = ()
    tables: Sequence[Table] = ()
    charts: Sequence[Chart] = ()
    after: str = ""  # how the charts are to be read
    key: bool = False  # whether the marks in the images are explained
    rows: Sequence[Row] = ()
    points: Sequence[str] = ()  # a list
    listings: Sequence[Listing] = ()
    listed: str = ""  # what the listings are

    @property
    def empty(self) -> bool:
        """Whether there is nothing to show."""
        return not (self.text or self.tables or self.charts or self.rows or self.points or self.listings)


@dataclass(frozen=True)
class Statement:
    """What the numbers allow to be said of one recipe."""

    kind: str  # gain, loss, undecided, seeds (shown for these images only), or open where nothing can be said
    word: str
    text: str
    about: str = ""  # the recipe


@dataclass(frozen=True)
class Tile:
    """A number that stands out."""

    label: str
    value: str
    unit: str


@dataclass(frozen=True)
class Page:
    """The whole report."""

    title: str
    facts: Sequence[tuple[str, str]]  # what was trained, on what
    tiles: Sequence[Tile]
    statements: Sequence[Statement]
    anomalies: Sequence[str]
    sections: Sequence[Section]
    footer: str
