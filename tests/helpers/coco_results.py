"""Random COCO ground truths with detections."""

from __future__ import annotations

from typing import Any

import numpy as np

Record = dict[str, Any]


def random_results(seed: int, *, count: int = 40, decimals: int = 2) -> tuple[Record, list[Record]]:
    """Crowds, objects of all sizes, duplicates, equal scores, images without objects, a class without objects."""
    rng = np.random.default_rng(seed)
    images = [{"id": int(i)} for i in rng.permutation(count * 3)[:count]]
    annotations: list[Record] = []
    found: list[Record] = []
    for image in images:
        for _ in range(int(rng.integers(0, 12))):
            box = [*rng.uniform(0, 400, 2).tolist(), *np.exp(rng.uniform(2, 5.5, 2)).tolist()]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image["id"],
                    "category_id": int(rng.choice([1, 3, 7])),
                    "bbox": box,
                    "area": box[2] * box[3] * float(rng.uniform(0.5, 1)),
                    "iscrowd": int(rng.random() < 0.1),
                }
            )
            for _ in range(int(rng.integers(0, 4))):
                noise = rng.normal(0, 0.08, 4) * np.array([box[2], box[3], box[2], box[3]])
                found.append(
                    {
                        "image_id": image["id"],
                        "category_id": annotations[-1]["category_id"] if rng.random() < 0.9 else 7,
                        "bbox": (np.array(box) + noise).tolist(),
                        "score": round(float(rng.random()), decimals),
                    }
                )
    rng.shuffle(found)
    categories = [{"id": n, "name": f"class {n}"} for n in (7, 3, 1, 9)]
    return {"images": images, "annotations": annotations, "categories": categories}, found
