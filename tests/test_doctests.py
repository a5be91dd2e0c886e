"""The examples in the docstrings of the public functions: each has one, and it shows what it says."""

from __future__ import annotations

import doctest
from importlib import import_module

import pytest

PUBLIC = {
    "yolokd.losses.bckd": ("score_gap", "bckd_cls_map", "bckd_box_map"),
    "yolokd.losses.ssim": ("ssim_map", "ssim_loss_map"),
    "yolokd.losses.aid": ("aid_weight",),
    "yolokd.losses.mgd": ("random_mask", "reconstruction_map"),
    "yolokd.losses.samkd": ("spatial_attention", "channel_attention", "top_mask"),
    "yolokd.losses.pkd": ("pkd_map",),
    "yolokd.losses.cwd": ("cwd_map",),
    "yolokd.losses.ld": ("ld_map",),
    "yolokd.losses.fgd": ("box_masks",),
    "yolokd.losses.ultralytics": ("score_weighted_l2_map",),
    "yolokd.augment.ikd": ("sample_rule", "adversarial"),
    "yolokd.evaluation.kitti": ("evaluate", "evaluate_folders"),
    "yolokd.evaluation.coco": ("evaluate_json",),
}
FUNCTIONS = [(module, name) for module, names in PUBLIC.items() for name in names]


@pytest.mark.parametrize(("module", "name"), FUNCTIONS, ids=[f"{module}.{name}" for module, name in FUNCTIONS])
def test_docstring__has_an_example_that_holds(module: str, name: str) -> None:
    function = getattr(import_module(module), name)
    found = doctest.DocTestFinder(recurse=False).find(function, name, globs=dict(vars(import_module(module))))
    assert len(found) == 1
    assert any(example.want for example in found[0].examples), f"{name} shows no result"
    said: list[str] = []
    result = doctest.DocTestRunner().run(found[0], out=said.append)
    assert result.failed == 0, "".join(said)
