"""Overlap of boxes by hand."""

from __future__ import annotations

import math


def ciou(a: list[float], b: list[float]) -> float:
    """Zheng et al. (AAAI 2020) by hand."""
    w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    inter = max(w, 0.0) * max(h, 0.0)
    (wa, ha), (wb, hb) = (a[2] - a[0], a[3] - a[1]), (b[2] - b[0], b[3] - b[1])
    iou = inter / (wa * ha + wb * hb - inter)
    diagonal = (max(a[2], b[2]) - min(a[0], b[0])) ** 2 + (max(a[3], b[3]) - min(a[1], b[1])) ** 2
    centers = ((a[0] + a[2] - b[0] - b[2]) ** 2 + (a[1] + a[3] - b[1] - b[3]) ** 2) / 4
    v = 4 / math.pi**2 * (math.atan(wb / hb) - math.atan(wa / ha)) ** 2
    return iou - centers / diagonal - (v * v / (1 - iou + v) if v else 0.0)
