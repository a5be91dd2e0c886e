"""Matches of runs that were never scored: some share of the objects of each image, and one false positive in each."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from yolokd.evaluation.matches import ClassMatches, Matches, write_matches

ALL = 2**10 - 1  # found at every IoU


def matches_of(shares: float | list[float], *, images: int = 40, objects: int = 10) -> Matches:
    """Find this share of each image's objects, at every IoU; the false positives come last.

    Args:
        shares: One for all images, or one for each.
        images: How many images there are, if one share is for all.
        objects: Of each image.
    """
    each = np.full(images, shares) if isinstance(shares, float) else np.array(shares)
    hits = np.repeat(np.arange(len(each)), np.rint(each * objects).astype(int))
    rng = np.random.default_rng(0)
    image = np.concatenate([rng.permutation(hits), np.arange(len(each))]).astype(np.int32)
    found = np.concatenate([np.full(len(hits), ALL), np.zeros(len(each))]).astype(np.uint16)
    owner = np.repeat(np.arange(len(each)), objects).astype(np.int32)
    return Matches(len(each), (ClassMatches(image, found, np.zeros(len(image), np.uint16), owner),))


def leave_matches(folder: Path, sha256: str, share: float, name: str = "matches.npz") -> None:
    """Write the matches of a run that found the same share in every image, so that the images change nothing."""
    write_matches(folder / name, matches_of(share), sha256)
