"""Comparisons: what is refused, what is kept, and that a stopped one ends like one that was not."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.comparing import APS, BUDGET, files
from tests.helpers.fixtures import make_data
from tests.helpers.models import detector, save
from yolokd.comparison.checks import load_recipes, plan_comparison
from yolokd.comparison.spec import Comparison, opened, read, stored_alike
from yolokd.data.layout import fingerprint
from yolokd.errors import UserError, WeightsError
from yolokd.recipe import Recipe


def load(*names: str | Path, overrides: Sequence[str] = (), **options: Any) -> list[Recipe]:
    return load_recipes(names, overrides, **{"data": "data.yaml", **BUDGET, **options})


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(text)
    return path


def make(tmp_path: Path, recipes: Sequence[Recipe], students: Sequence[Any] = ("s.yaml",), seeds: Any = (0,)) -> Any:
    return plan_comparison("t.pt", students, recipes, seeds, runs=tmp_path)


# The plan


def test_plan_comparison__holds_everything_and_writes_nothing(planned: Comparison, tiny_data: Path) -> None:
    assert planned.budget == {**BUDGET, "device": "cpu"}
    assert list(planned.recipes) == ["baseline", "bckd"]
    assert [run.name for run in planned.runs] == [name for name in sorted(APS, key=lambda n: n[-1]) if "/" in name]
    assert planned.data == str(tiny_data)
    assert planned.notes == ()
    assert not planned.folder.exists()
    recipe = planned.recipe_of(planned.runs[3], "cpu")
    assert recipe.terms()
    assert recipe.train == {
        **BUDGET,
        "data": str(tiny_data),
        "seed": 1,
        "name": "bckd-1",
        "patience": 0,
        "device": "cpu",
    }


def test_plan_comparison__the_folder_is_named_after_the_data(
    teacher_pt: Path, student_yaml: Path, tiny_data: Path, tmp_path: Path
) -> None:
    found = plan_comparison(None, [student_yaml], load("baseline", data=str(tiny_data)), [0], runs=tmp_path)
    assert found.folder == tmp_path / "compare-data"
    assert found.teacher is None
    with pytest.raises(WeightsError, match=r"no file 'missing.pt'"):
        plan_comparison("missing.pt", [student_yaml], load("bckd", data=str(tiny_data)), [0], runs=tmp_path)
    with pytest.raises(UserError, match="needs --teacher"):
        plan_comparison(None, [student_yaml], load("bckd", data=str(tiny_data)), [0], runs=tmp_path)


def test_load_recipes__adds_a_baseline_with_the_same_training(tmp_path: Path) -> None:
    mine = write(tmp_path, "mine", "losses: {ssim: {gain: 1.0}}\ntrain: {epochs: 7, lr0: 0.002}\n")
    baseline, other = load_recipes([mine])
    assert (baseline.name, other.name) == ("baseline", "mine")
    assert baseline.terms() == {}
    assert baseline.train == other.train == {"epochs": 7, "lr0": 0.002}
    assert [recipe.name for recipe in load("bckd", "baseline", "ssim")] == ["baseline", "bckd", "ssim"]


def test_load_recipes__overrides_hold_for_all_or_are_refused() -> None:
    assert all(recipe.train["lr0"] == 0.002 for recipe in load("bckd", "ssim", overrides=["train.lr0=0.002"]))
    with pytest.raises(UserError, match=r"train\.\* and teacher\.\* only, got 'losses.bckd.box=3'"):
        load("bckd", overrides=["losses.bckd.box=3"])


def test_load_recipes__the_same_name_twice(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="recipes need different names; given twice: bckd"):
        load("bckd", write(tmp_path, "bckd", "losses: {}\n"))
    with pytest.raises(UserError, match="no recipes to compare"):
        load()


def test_plan_comparison__different_budgets_are_refused_by_name(tmp_path: Path) -> None:
    mine = write(tmp_path, "mine", "losses: {ssim: {gain: 1.0}}\ntrain: {epochs: 7, lr0: 0.002, mosaic: 0.0}\n")
    with pytest.raises(UserError) as caught:
        make(tmp_path, load_recipes([mine, "bckd", "baseline"]))
    text = str(caught.value)
    assert "epochs (baseline 100, mine 7, bckd 100)" in text
    assert "lr0 (baseline 0.01, mine 0.002, bckd 0.01)" in text
    assert "mosaic" in text
    assert "imgsz (" not in text  # 640 is the default: given or not, it is the same
    assert "--epochs" in text


def test_plan_comparison__arguments_without_influence_may_differ(
    tmp_path: Path, student_yaml: Path, teacher_pt: Path, tiny_data: Path
) -> None:
    mine = write(tmp_path, "mine", "losses: {ssim: {gain: 1.0}}\ntrain: {workers: 0, plots: false, patience: 3}\n")
    recipes = load(mine, "baseline", data=str(tiny_data))
    assert plan_comparison(teacher_pt, [student_yaml], recipes, [0], runs=tmp_path).budget["epochs"] == 3


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["train.time=1.5"], "train.time"),
        (["train.batch=-1"], "--batch 16"),
        (["train.multi_scale=0.5"], "multi_scale"),
    ],
)
def test_plan_comparison__budgets_that_the_machine_would_choose(
    tmp_path: Path, overrides: list[str], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        make(tmp_path, load("bckd", overrides=overrides, batch=None))


def test_plan_comparison__names_that_clash_or_are_missing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"seeds .* given twice: 3"):
        make(tmp_path, load("bckd"), seeds=(3, 1, 3))
    with pytest.raises(UserError, match=r"students .* given twice: small"):
        make(tmp_path, load("bckd"), students=("a/small.yaml", "b/small.pt"))
    fake = write(tmp_path, "baseline", "losses: {ssim: {gain: 1.0}}\n")
    with pytest.raises(UserError, match="'baseline' of a comparison must have no losses"):
        make(tmp_path, load(fake))


def test_plan_comparison__the_teachers_classes_are_mapped_in_one_way(
    tmp_path: Path, student_yaml: Path, teacher_pt: Path, tiny_data: Path
) -> None:
    teacher = detector("v8", seed=1)
    teacher.names = {0: "class0", 1: "one", 2: "class2"}
    path = save(teacher, tmp_path / "other.pt")
    a, b = (
        write(tmp_path, name, f"losses: {{ssim: {{gain: 1.0}}}}\nteacher: {{classes: {{one: {data}}}}}\n")
        for name, data in (("a", "class1"), ("b", "class2"))
    )
    agreed = load(a, data=str(tiny_data))
    assert plan_comparison(path, [student_yaml], agreed, [0], runs=tmp_path).classes == {"one": "class1"}
    named = load("ssim", data=str(tiny_data), overrides=["teacher.classes=coco-to-kitti"])
    with pytest.raises(UserError, match="coco-to-kitti is for data with Car"):
        plan_comparison(path, [student_yaml], named, [0], runs=tmp_path)
    with pytest.raises(UserError, match=r"a, b map the teacher's classes differently"):
        plan_comparison(teacher_pt, [student_yaml], load(a, b, data=str(tiny_data)), [0], runs=tmp_path)


# The folder


def test_opened__the_file_says_what_was_planned(plan: Comparison) -> None:
    with opened(plan) as comparison:
        assert comparison == plan == read(plan.folder)
    assert not list(plan.folder.glob("*.part"))
    with opened(plan) as comparison:
        assert comparison == plan


def test_opened__killed_while_writing_the_file(plan: Comparison) -> None:
    plan.folder.mkdir()
    (plan.folder / "compare.json.part").write_text('{"data": ')
    with opened(plan):
        assert read(plan.folder) == plan


def test_opened__recipes_seeds_and_students_are_added(plan: Comparison) -> None:
    with opened(plan):
        pass
    recipes = {**plan.recipes, "ssim": load("ssim")[1].to_dict()}
    more = replace(plan, recipes=recipes, seeds=(1, 5), students={"tiny": next(iter(plan.students.values()))})
    with opened(more) as comparison:
        assert comparison == more  # what was asked for is run and shown
    kept = read(plan.folder)  # the file forgets nothing
    assert (list(kept.recipes), kept.seeds, list(kept.students)) == (
        ["baseline", "bckd", "ssim"],
        (0, 1, 5),
        ["student", "tiny"],
    )


def test_opened__a_teacher_may_join_a_comparison_of_baselines(plan: Comparison) -> None:
    bare = replace(plan, recipes={"baseline": plan.recipes["baseline"]}, teacher=None, teacher_sha256=None)
    for asked in (bare, plan, bare):
        with opened(asked):
            pass
    assert read(plan.folder).teacher_sha256 == plan.teacher_sha256


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"budget": {**BUDGET, "device": "cpu", "epochs": 4}}, r"another budget \(epochs 3, now 4\)"),
        ({"budget": {**BUDGET, "device": "cuda"}}, r"another budget \(device cpu, now cuda\)"),
        ({"budget": {**BUDGET, "device": "cpu", "lr0": 0.1}}, r"another budget \(lr0 0.01, now 0.1\)"),
        ({"data_fingerprint": "f"}, "other data than"),
        ({"teacher_sha256": "f"}, "another teacher than .*teacher.pt"),
        ({"allow_partial": True}, "--allow-partial off"),
    ],
)
def test_opened__another_comparison_is_refused_by_name(plan: Comparison, change: dict[str, Any], words: str) -> None:
    with opened(plan):
        pass
    before = files(plan.folder / "compare.json")
    with pytest.raises(UserError, match=f"was started with {words}.* another --name"), opened(replace(plan, **change)):
        pass
    assert files(plan.folder / "compare.json") == before
    assert read(plan.folder) == plan


def test_opened__levels_that_an_earlier_version_named_by_itself_are_all(plan: Comparison) -> None:
    ssim = load_recipes(["ssim"], data=plan.data, **BUDGET)[1].to_dict()
    assert ssim["losses"]["ssim"]["levels"] is None
    for levels in (["p3", "p4", "p5"], None):
        earlier = {**ssim, "losses": {"ssim": {**ssim["losses"]["ssim"], "levels": levels}}}
        with opened(replace(plan, recipes={**plan.recipes, "ssim": earlier})):
            pass
    fewer = {**ssim, "losses": {"ssim": {**ssim["losses"]["ssim"], "levels": ["p3"]}}}
    with pytest.raises(UserError, match="another recipe 'ssim'"), opened(replace(plan, recipes={"ssim": fewer})):
        pass


def test_opened__changed_recipes_and_students_are_named(plan: Comparison) -> None:
    with opened(plan):
        pass
    changed = load_recipes(["bckd"], data=plan.data, **BUDGET)[1].to_dict()
    changed["losses"]["bckd"]["box"] = 8.0
    with (
        pytest.raises(UserError, match=r"another recipe 'bckd' \(losses.bckd.box: 8.0 here, 32.0 there\)"),
        opened(replace(plan, recipes={**plan.recipes, "bckd": changed})),
    ):
        pass
    student = replace(plan.students["student"], digest="f")
    with (
        pytest.raises(UserError, match="another student 'student'"),
        opened(replace(plan, students={"student": student})),
    ):
        pass


def test_opened__stays_sequential_once_it_was(plan: Comparison) -> None:
    with opened(plan) as comparison:
        assert not comparison.sequential
    with opened(replace(plan, sequential=True)):
        pass
    with opened(plan) as comparison:
        assert comparison.sequential
    assert read(plan.folder).sequential


def test_stored_alike__writes_nothing(plan: Comparison) -> None:
    assert stored_alike(plan) is None
    assert not plan.folder.exists()
    with opened(plan):
        pass
    before = files(plan.folder)
    assert stored_alike(plan) == plan
    with pytest.raises(UserError, match="another budget"):
        stored_alike(replace(plan, budget={**plan.budget, "epochs": 9}))
    assert files(plan.folder) == before


def test_opened__other_versions_are_told(plan: Comparison) -> None:
    with opened(plan):
        pass
    with opened(replace(plan, versions={**plan.versions, "torch": "9.9"})) as comparison:
        assert comparison.notes == (f"earlier runs of this comparison were made with torch {plan.versions['torch']}",)


def test_opened__a_folder_that_is_something_else(plan: Comparison) -> None:
    (plan.folder / "weights").mkdir(parents=True)
    with pytest.raises(UserError, match="exists and is no comparison"), opened(plan):
        pass
    shutil.rmtree(plan.folder)
    plan.folder.mkdir()
    (plan.folder / "compare.json").write_text("[]")
    with pytest.raises(UserError, match="no comparison that can be read"), opened(plan):
        pass


def test_opened__one_process_at_a_time(plan: Comparison) -> None:
    with opened(plan), pytest.raises(UserError, match="being run by another process"), opened(plan):
        pass


def test_plan_comparison__data_and_student_are_known_by_their_content(
    plan: Comparison, teacher_pt: Path, student_yaml: Path, tmp_path: Path
) -> None:
    def again(data: Path, student: Path) -> Comparison:
        recipes = load_recipes(["bckd"], data=str(data), **BUDGET)
        return plan_comparison(teacher_pt, [student], recipes, [0, 1], devices=["cpu"], runs=tmp_path)

    data = make_data(tmp_path / "elsewhere")
    moved = again(data, Path(shutil.copy(student_yaml, tmp_path / "student.yaml")))
    assert moved.data_fingerprint == plan.data_fingerprint
    assert moved.students["student"].digest == plan.students["student"].digest
    (data.parent / "labels" / "val" / "000.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    wider = write(
        tmp_path, "student", student_yaml.read_text().replace("width_multiple: 0.125", "width_multiple: 0.25")
    )
    changed = again(data, wider)
    assert changed.data_fingerprint != plan.data_fingerprint
    assert changed.students["student"].digest != plan.students["student"].digest


def test_plan_comparison__one_that_an_earlier_version_started_goes_on(
    teacher_pt: Path, student_yaml: Path, tmp_path: Path
) -> None:
    def again() -> Comparison:
        recipes = load_recipes(["bckd"], data=str(data), **BUDGET)
        return plan_comparison(teacher_pt, [student_yaml], recipes, [0], devices=["cpu"], runs=tmp_path, name="c")

    data = make_data(tmp_path / "data")
    splits = {split: [data.parent / "images" / split] for split in ("train", "val")}
    old = replace(again(), data_fingerprint=fingerprint(splits, like="without a version"))
    assert old.data_fingerprint != again().data_fingerprint
    with opened(old):
        pass
    with opened(again()) as comparison:
        assert comparison.data_fingerprint == old.data_fingerprint
    (data.parent / "labels" / "val" / "000.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    with pytest.raises(UserError, match="other data than"), opened(again()):
        pass


def test_plan_comparison__names_the_images_that_are_left_out(
    teacher_pt: Path, student_yaml: Path, tmp_path: Path
) -> None:
    data = make_data(tmp_path / "data")
    (data.parent / "images" / "val" / "000.png").write_text("<html>")
    recipes = load_recipes(["bckd"], data=str(data), **BUDGET)
    calls: list[tuple[int, int]] = []
    found = plan_comparison(
        teacher_pt, [student_yaml], recipes, [0], runs=tmp_path, progress=lambda *call: calls.append(call)
    )
    (note,) = [note for note in found.notes if "left out" in note]
    assert "000.png (not an image of a known format)" in note
    assert calls[-1][0] == calls[-1][1] > 0
