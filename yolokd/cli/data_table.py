"""The table of a data set: counts of images and objects, one column per split."""

from __future__ import annotations

from rich.markup import escape
from rich.table import Table
from rich.text import Text

from yolokd.data.check import DataReport

SIZE_TEXTS = {"small": "below 32² pixels", "medium": "to 96²", "large": "above"}  # COCO's classes


def report_table(report: DataReport) -> Table:
    """Counts of images and objects, one column per split."""
    table = Table("")
    for name in report.splits:
        table.add_column(escape(name), justify="right")
    splits = report.splits.values()
    rows = {
        "images": [split.images for split in splits],
        **({"left out": [split.left_out for split in splits]} if any(split.left_out for split in splits) else {}),
        "with objects": [split.labeled for split in splits],
        "background": [split.background for split in splits],
        "objects": [split.objects.total() for split in splits],
    }
    rows |= {f"  {name}": [split.objects[index] for split in splits] for index, name in report.names.items()}
    if any(split.sizes for split in splits):
        for size, limit in SIZE_TEXTS.items():
            rows[f"{size} objects ({limit})"] = [split.sizes[size] for split in splits]
    for name, counts in rows.items():
        table.add_row(Text(name), *(f"{count}" for count in counts))
    return table
