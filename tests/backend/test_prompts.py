"""Prompts without their text encoder, which is not here: what a message says. With one: tests/teachers/test_opening."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.helpers.box_models import NAMES, box_model, stub_encoder
from yolokd.backend import prompts
from yolokd.backend.prompts import missing_parts, names_of, set_prompts
from yolokd.errors import WeightsError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Ultralytics' folder of weights, empty, and an empty working folder."""
    monkeypatch.setattr(prompts, "SETTINGS", {"weights_dir": str(tmp_path / "weights")})
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setitem(sys.modules, "clip", None)
    return tmp_path / "weights"


@pytest.mark.parametrize(
    ("kind", "name", "inside"), [("world", "ViT-B-32.pt", "weights/clip"), ("yoloe", "mobileclip_blt.ts", "weights")]
)
def test_set_prompts__offline_says_what_is_missing_and_where_it_belongs(
    kind: str, name: str, inside: str, folder: Path
) -> None:
    with pytest.raises(WeightsError) as caught:
        set_prompts(box_model(kind), ["car"], "model.pt")
    assert str(caught.value) == (
        "'model.pt' takes class names as prompts, and its text encoder cannot be loaded: there is no network. It needs "
        "the package clip (pip install 'git+https://github.com/ultralytics/CLIP.git') and the file "
        f"{name} in '{folder.parent / inside}'."
    )


def test_missing_parts__nothing_where_package_and_file_are_here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = ModuleType("clip")
    package.__spec__ = type(sys.__spec__)("clip", None)
    monkeypatch.setitem(sys.modules, "clip", package)
    for place, variant in (
        (folder / "clip" / "ViT-B-32.pt", "clip:ViT-B/32"),
        (folder / "mobileclip_blt.ts", "mobileclip:blt"),
        (Path("mobileclip2_b.ts"), "mobileclip2:b"),
    ):
        (part,) = missing_parts(variant)
        assert part.startswith(f"the file {place.name} in")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch()
        assert missing_parts(variant) == []


def test_set_prompts__an_encoder_that_fails_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    stub_encoder(monkeypatch)

    def fail(variant: str, device: object = None) -> None:
        raise RuntimeError("PytorchStreamReader failed.\nA long explanation")

    monkeypatch.setattr(sys.modules["ultralytics.nn.text_model"], "build_text_model", fail)
    with pytest.raises(WeightsError, match=r"its text encoder cannot be loaded: PytorchStreamReader failed\.$"):
        set_prompts(box_model("world"), ["car"], "model.pt")


def test_names_of__a_list_and_none_as_old_models_of_yolo_world_have_them() -> None:
    model = box_model("world")
    model.names = list(NAMES.values())
    assert names_of(model, "model.pt") == NAMES
    del model.names
    with pytest.raises(
        WeightsError, match="was saved without class names"
    ):  # of COCO's eighty there are three features
        names_of(model, "model.pt")
    model.txt_feats = model.txt_feats.repeat(1, 27, 1)[:, :80]
    assert names_of(model, "model.pt")[79] == "toothbrush"
    assert model.model[-1].nc == 80
