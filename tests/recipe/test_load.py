from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from yolokd.errors import RecipeError
from yolokd.recipe import AIDConfig, IKDConfig, Schedule, list_recipes, load_recipe, recipe_path, recipe_text
from yolokd.recipe.arguments import OWN
from yolokd.recipe.load import LARGEST

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = sorted(path.stem for path in (ROOT / "recipes").glob("*.yaml"))


def refusal(recipe: str | Path, overrides: Sequence[str] = ()) -> str:
    with pytest.raises(RecipeError) as info:
        load_recipe(recipe, overrides)
    return str(info.value)


def run(code: str, folder: Path) -> str:
    """Run `code` where `folder` comes first on the import path."""
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    command = [sys.executable, "-c", code]
    return subprocess.run(
        command, cwd=folder, env=environment, check=True, capture_output=True, text=True
    ).stdout.strip()


def test_list_recipes__names_the_shipped_ones() -> None:
    assert list(list_recipes()) == SHIPPED
    assert {"aid", "baseline", "best", "everything", "ikd", "init"} < set(SHIPPED)


@pytest.mark.parametrize("name", list(list_recipes()))
def test_load_recipe__shipped_recipes_load(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.summary.endswith(".")
    shared = {key: value for key, value in recipe.train.items() if key not in OWN}
    if name == "qad":  # a fine-tuning; `compare` refuses it beside a baseline without the same arguments
        assert (shared["quantize"], recipe.quantizes) == (8, True)
        return
    assert shared == load_recipe("baseline").train, "the control arm must have the same arguments"


@pytest.mark.parametrize("name", list(list_recipes()))
def test_shipped_recipes__say_where_their_numbers_come_from(name: str) -> None:
    header = [line for line in recipe_text(name).splitlines() if line.startswith("# ")]
    assert any(line.startswith("# Numbers: ") for line in header)
    text = " ".join(line[2:] for line in header).lower()
    assert any(words in text for words in ("not re-tuned", "nothing tuned", "benchmarks/study.md"))


FBKD = dict.fromkeys(("fbkd_feature", "fbkd_spatial", "fbkd_relation", "fbkd_channel"), "auto")
FGD = {"fgd": 1.0, "fgd_channel": 1.0}
SAMKD = {"samkd": "auto", "samkd_logits": 2.0}
TERMS: dict[str, dict[str, Any]] = {
    "aid": FBKD,
    "baseline": {},
    "bckd": {"bckd_cls": 8.0, "bckd_box": 32.0},
    "best": {"bckd_cls": 8.0, "bckd_box": 32.0},
    "bckd_ssim": {"bckd_cls": 8.0, "bckd_box": 32.0, "ssim": 2.0},
    "cwd": {"cwd": 5.0},
    "everything": {"bckd_cls": 8.0, "bckd_box": 32.0, "ssim": 2.0, **SAMKD, "ikd": 4e-5},
    "fbkd": FBKD,
    "fgd": FGD,
    "ikd": {**FGD, "ikd": 4e-5},
    "init": {},
    "ld": {"ld": 1.5},
    "keypoint": {"bckd_cls": 8.0, "bckd_box": 32.0, "keypoint_oks": 4.0, "keypoint_visibility": 0.5},
    "mask": {"bckd_cls": 8.0, "bckd_box": 32.0, "mask_bce": 2.0, "mask_dice": 2.0},
    "mgd": {"mgd": "auto"},
    "pkd": {"pkd": 10.0},
    "pseudo": {},
    "qad": {"bckd_cls": 8.0, "bckd_box": 32.0},
    "samkd": SAMKD,
    "soft": {"soft_cls": 0.5, "soft_box": 7.5},
    "ssim": {"ssim": 2.0},
    "ultralytics": {"ultralytics": 6.0},
}


def test_shipped_recipes__terms_are_published_rescaled_or_automatic() -> None:
    assert {name: load_recipe(name).terms() for name in TERMS} == TERMS


TUNED = {
    "bckd": {"cls", "box"},
    "samkd": {"generator", "logits"},
    "ssim": {"schedule"},
}  # what the study or the bench has moved away from the defaults


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_recipes__numbers_are_the_defaults(name: str) -> None:
    recipe = load_recipe(name)
    for method, config in recipe.losses.items():
        plain = type(config)()
        changed = {key for key, value in config if value not in ("auto", getattr(plain, key))}
        assert changed == TUNED.get(method, set())
    assert recipe.weighting.aid in (None, AIDConfig())
    assert recipe.augment.ikd in (None, IKDConfig())
    assert recipe.schedule == Schedule()


@pytest.mark.parametrize(("name", "host", "section"), [("aid", "fbkd", "weighting"), ("ikd", "fgd", "augment")])
def test_shipped_recipes__a_method_on_a_host_adds_nothing_else(name: str, host: str, section: str) -> None:
    method, without = load_recipe(name), load_recipe(host)
    assert [line.split(":")[0] for line in method.differences(without)] == ["summary", f"{section}.{name}"]


def test_shipped_recipes__everything_has_each_method_as_in_its_own_recipe() -> None:
    whole = load_recipe("everything").to_dict()
    for section, name in (("losses", "bckd"), ("losses", "ssim"), ("losses", "samkd")):
        assert whole[section][name] == load_recipe(name).to_dict()[section][name]
    assert whole["weighting"] == load_recipe("aid").to_dict()["weighting"]
    assert whole["augment"] == load_recipe("ikd").to_dict()["augment"]
    assert set(whole["losses"]) == {"bckd", "ssim", "samkd"}


@pytest.mark.parametrize("name", ["baseline.yaml", "own.yml", "./own", "folder/own", Path("own.yaml")])
def test_recipe_path__a_separator_or_suffix_means_a_file(name: str | Path) -> None:
    assert recipe_path(name) == Path(name)


def test_recipe_path__home_is_expanded() -> None:
    assert recipe_path("~/own.yaml") == Path.home() / "own.yaml"


def test_load_recipe__an_unknown_name_lists_the_known_and_the_nearest() -> None:
    text = refusal("bckd_sim")
    assert text.startswith(
        "no shipped recipe is called 'bckd_sim'; did you mean bckd_ssim? Shipped: aid, baseline, bckd, "
    )
    assert text.endswith("A recipe of your own is a path that ends in .yaml.")
    assert refusal("").startswith("no shipped recipe is called ''. Shipped: aid, baseline, ")
    assert "did you mean bckd?" in refusal("BCKD")


def test_load_recipe__reads_a_file(tmp_path: Path) -> None:
    file = tmp_path / "my.recipe.yaml"
    file.write_text("\ufefflosses: {ssim: {gain: 1e-1}}", encoding="utf-8")
    recipe = load_recipe(file)
    assert recipe.name == "my.recipe"
    assert recipe.losses.terms() == {"ssim": 0.1}
    assert recipe == load_recipe(str(file))


def test_load_recipe__resolved_yaml_reads_back(tmp_path: Path) -> None:
    recipe = load_recipe("bckd_ssim", ["teacher.classes={person: pedestrian}"])
    file = tmp_path / "resolved.yaml"
    file.write_text(recipe.to_yaml(), encoding="utf-8")
    assert load_recipe(file) == recipe


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty; write at least losses: {}"),
        (b"# only a comment\n", "is empty; write at least losses: {}"),
        (b"[losses]", "must be a mapping with keys such as losses and train, got ['losses']"),
        (b"losses", "must be a mapping with keys such as losses and train, got 'losses'"),
        (b"a: \xff", "is not a text file in UTF-8 (byte 3)"),
        (b"losses: {a: 1\n", "line 2, column 1: "),
        (b"#" * (LARGEST + 1), "is larger than 256 kB, so hardly a recipe"),
    ],
)
def test_load_recipe__a_file_that_is_no_recipe_is_named(tmp_path: Path, content: bytes, words: str) -> None:
    file = tmp_path / "my.yaml"
    file.write_bytes(content)
    assert refusal(file).startswith(f"recipe {file}: {words}")


def test_load_recipe__a_missing_file_or_a_folder_is_named(tmp_path: Path) -> None:
    missing = tmp_path / "none.yaml"
    assert refusal(missing).startswith(f"recipe {missing}: no such file; shipped recipes are aid, baseline, ")
    assert refusal(tmp_path) == f"recipe {tmp_path}: is a folder; name the YAML file in it"
    assert "cannot be read" in refusal("a\0b.yaml")


def test_load_recipe__problems_of_a_file_are_listed_under_its_name(tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    file.write_text("losses: {ssim: {window: 4}}\nepochs: 3\n")
    lines = refusal(file).splitlines()
    assert lines[0] == f"recipe {file}: 2 problems"
    assert [line.split(":")[0].strip() for line in lines[1:]] == ["losses.ssim.window", "epochs"]


def test_overrides__change_create_and_remove() -> None:
    recipe = load_recipe(
        "bckd",
        [
            "losses.bckd=null",
            "losses.ssim.gain=4",
            "losses.ssim.levels=[p3, p4]",
            "losses.ssim.normalize=null",
            "teacher.classes={person: pedestrian}",
            "schedule.shape = cosine",
            "train.lr0=1e-5",
            "train.data=a=b.yaml",
            "losses.mgd.gain=auto",
            "losses.mgd.schedule.until=0.5",
            "weighting.aid={}",
            "augment.ikd.adversarial=null",
        ],
    )
    data = recipe.to_dict()
    assert recipe.name == "bckd"
    assert data["losses"] == {
        "ssim": {"gain": 4.0, "levels": ["p3", "p4"], "window": 11, "sigma": 1.5, "normalize": None},
        "mgd": {
            "schedule": {"warmup": 0.0, "shape": "constant", "until": 0.5},
            "gain": "auto",
            "levels": None,
            "ratio": 0.65,
            "generator": "conv",
            "seed": 0,
        },
    }
    assert data["weighting"] == {"aid": {"alpha": 0.1, "scope": "instance", "normalize": "raw"}}
    assert data["augment"] == {"ikd": {"noise": 0.3, "crop": 0.8, "adversarial": None, "until": 0.67}}
    assert data["teacher"]["classes"] == {"person": "pedestrian"}
    assert data["schedule"]["shape"] == "cosine"
    assert data["train"] == {"epochs": 100, "imgsz": 640, "lr0": 1e-5, "data": "a=b.yaml"}


def test_overrides__taking_the_losses_away_leaves_aid_nothing_to_weigh() -> None:
    assert refusal("aid", ["losses.fbkd=null"]) == (
        "recipe aid: weighting.aid: has nothing to weigh; add a loss under losses, or leave it out"
    )
    assert load_recipe("aid", ["losses.fbkd=null", "weighting.aid=null"]).terms() == {}


def test_overrides__later_ones_win() -> None:
    recipe = load_recipe("ssim", ["losses.ssim=null", "losses.ssim.gain=3", "losses.ssim.gain=5"])
    assert recipe.losses.terms() == {"ssim": 5.0}


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("losses.ssim.gain", "must be path=value, such as losses.ssim.gain=4"),
        ("=4", "must be path=value, such as losses.ssim.gain=4"),
        ("losses..gain=4", "must be path=value, such as losses.ssim.gain=4"),
        ("losses.ssim.gain=", "has no value; write null to mean none"),
        ("train.name=# x", "has no value; write null to mean none"),
        ("train.epochs.first=4", "train.epochs is 100; it has no keys"),
        ("losses.ssim.gain=[", "line 1, column 2: while parsing a flow node"),
        ("summary=!!str x", "line 1, column 1: tag !!str is not allowed, write a plain value"),
        ("teacher.classes={a: b, a: c}", "line 1, column 8: key 'a' is given twice"),
    ],
)
def test_overrides__a_bad_assignment_is_named(assignment: str, words: str) -> None:
    assert refusal("ssim", [assignment]).startswith(f"recipe ssim: --set {assignment!r}: {words}")


def test_overrides__an_item_of_a_list_cannot_be_set() -> None:
    words = "losses.samkd.scales is [1, 2, 4]; give the whole list, losses.samkd.scales=[...]"
    assert refusal("samkd", ["losses.samkd.scales.0=3"]) == f"recipe samkd: --set 'losses.samkd.scales.0=3': {words}"


def test_overrides__bad_assignments_and_bad_values_are_reported_together() -> None:
    assert refusal("ssim", ["x", "losses.ssim.gain=-1", "epochs=3"]).splitlines() == [
        "recipe ssim: 3 problems",
        "  --set 'x': must be path=value, such as losses.ssim.gain=4",
        "  losses.ssim.gain: must be a number >= 0 or auto, got -1",
        "  epochs: unknown key; did you mean train.epochs? "
        "(known: summary, losses, weighting, augment, schedule, balance, teacher, student, train, regimes)",
    ]


def test_import__brings_in_neither_torch_nor_ultralytics() -> None:
    code = (
        "import sys, yolokd, yolokd.recipe as r; r.load_recipe('everything', ['train.lr0=0.1']); r.schema(); "
        "import yolokd.recipe.keys as k; k.key_table(); "
        "print([name for name in ('torch', 'ultralytics', 'numpy') if name in sys.modules])"
    )
    assert run(code, ROOT) == "[]"


def test_list_recipes__an_installed_wheel_carries_them(tmp_path: Path) -> None:
    # the layout that pyproject.toml asks for: recipes/ becomes yolokd/recipe/shipped
    assert 'recipes = "yolokd/recipe/shipped"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for part in ("__init__.py", "api.py", "errors.py", "inputs.py", "version.py"):
        (tmp_path / "yolokd").mkdir(exist_ok=True)
        shutil.copy(ROOT / "yolokd" / part, tmp_path / "yolokd")
    shutil.copytree(ROOT / "yolokd" / "recipe", tmp_path / "yolokd" / "recipe")
    shutil.copytree(ROOT / "recipes", tmp_path / "yolokd" / "recipe" / "shipped")
    shutil.copytree(ROOT / "recipes", tmp_path / "recipes", ignore=lambda *_: [f"{name}.yaml" for name in SHIPPED])
    code = "from yolokd.recipe import *; print(list_recipes()['ssim'], load_recipe('ssim').name)"
    file = tmp_path / "yolokd" / "recipe" / "shipped" / "ssim.yaml"
    assert run(code, tmp_path) == f"{file} ssim"
