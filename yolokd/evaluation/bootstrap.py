"""How sure a difference in AP between two networks is, given how few images it was measured on.

The images are drawn anew with replacement, the same for both networks, and AP is computed on each draw as COCO does it;
the interval holds the middle 95 % of the differences (Efron and Tibshirani, "An Introduction to the Bootstrap", 1993,
section 13.3). Detections are matched to objects once: within an image nothing changes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from yolokd.evaluation.coco import evaluator, mean_precision

RESAMPLES = 1000
FEW = 500  # images up to which all resamples are drawn; above a fifth of them, which is steady enough there
CONFIDENCE = 0.95


def ap_interval(
    truth: Any, before: Any, after: Any, *, resamples: int | None = None, seed: int = 0
) -> tuple[float, float]:
    """Return the 95 % interval of the AP (IoU 0.50:0.95) of `after` less that of `before`; [−1, 1] for one image.

    Args:
        truth: COCO's ground truth.
        before: Detections of one network, a list of COCO's results.
        after: Detections of the other.
        resamples: How often the images are drawn; None is 1000, or 200 for more than 500 images.
        seed: Of the draws.

    Raises:
        DataError: As `yolokd.evaluation.coco.score`.
    """
    pair = _Matches(truth, before), _Matches(truth, after)
    images = pair[0].images
    if images < 2:
        return -1.0, 1.0
    rng = np.random.default_rng(seed)
    count = resamples or (RESAMPLES if images <= FEW else RESAMPLES // 5)
    differences = []
    for _ in range(count):
        drawn = rng.integers(images, size=images)
        first, second = (matches.ap(drawn) for matches in pair)
        differences.append(second - first)
    low, high = np.quantile(differences, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


class _Matches:
    """One network's detections, matched to the objects of each image."""

    def __init__(self, truth: Any, detections: Any) -> None:
        self.evaluation, categories = evaluator(truth, detections, separate_eval=True)
        parameters = self.evaluation.params
        parameters.areaRng, parameters.areaRngLbl = parameters.areaRng[:1], parameters.areaRngLbl[:1]  # all sizes
        parameters.maxDets = parameters.maxDets[-1:]
        self.evaluation.evaluate()
        self.images, self.classes = len(parameters.imgIds), len(categories)
        self.found = self.evaluation._evalImgs_cpp  # class after class, image after image

    def ap(self, drawn: NDArray[np.int64]) -> float:
        """Return the AP on the images at these places, (n,), each as often as it is there."""
        from faster_coco_eval.faster_eval_api_cpp import COCOevalAccumulate

        places = (kind * self.images + image for kind in range(self.classes) for image in drawn)
        found = COCOevalAccumulate(self.evaluation._paramsEval, [self.found[place] for place in places])
        return mean_precision(np.asarray(found["precision"]))
