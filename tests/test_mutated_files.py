"""Every command on damaged, misplaced and hostile files: exit code 0 or 2, one short error, and no input changed."""

from __future__ import annotations

import itertools
import json
import os
import random
import shutil
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.helpers import coco, kitti
from tests.helpers.calling import call
from tests.helpers.fixtures import make_data
from tests.helpers.making import Oracle, make_comparison, make_run, network
from tests.helpers.models import CONFIGS, detector, save
from tests.mutations import STEMS, renamed, state_of, with_values
from tests.readers import CHECK, CPU, DRAWN, KITTI, PAIR, READERS, RESUME, TRAIN, TYPED
from yolokd.recipe import load_recipe, recipe_path
from yolokd.report import charts, examples, scoring
from yolokd.training.settings import KEY, RunSettings

pytestmark = [
    pytest.mark.slow,  # some minutes in all, although most cases are drawn; see `_is_drawn`
    pytest.mark.timeout(90),  # a pipe that is waited for would keep a test for ever
    pytest.mark.filterwarnings("ignore"),  # of decoders, on damaged files
]

ODD = ("pattern", "no UTF-8")  # names that always take part
FEW = ("random bytes", "pipe", "keys that unfold", "nested value")
SAMPLED = 4  # replaced values per reader that always take part
SAID = {0, 2}  # exit codes of a command that has worked, or has said in a line why it cannot


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a sound file of every kind."""
    return make_inputs(tmp_path_factory.mktemp("inputs"))


def make_inputs(folder: Path) -> Path:
    """Write a sound file of every kind and return the folder."""
    data = make_data(folder / "set", train=4, val=2)
    (folder / "set" / "train.txt").write_text("".join(f"./images/train/{n:03d}.png\n" for n in range(4)))
    listed = {**yaml.safe_load(data.read_text()), "train": "train.txt"}
    (folder / "set" / "listed.yaml").write_text(yaml.safe_dump(listed))
    (folder / "set" / "labels" / "train.cache").write_bytes(b"an old cache")
    teacher = save(detector("v8", seed=1), folder / "teacher.pt")
    save(detector("v8"), folder / "student.pt")
    description = yaml.safe_load((CONFIGS / "v8/yolov8.yaml").read_text())
    description.update(depth_multiple=0.33, width_multiple=0.125)
    del description["scales"]
    (folder / "student.yaml").write_text(yaml.safe_dump(description))
    shutil.copy(recipe_path("bckd_ssim"), folder / "recipe.yaml")
    make_run(folder / "run", data, "bckd", teacher=teacher)
    line = {"epoch": 0, "instances": 3, "mean_weight": 0.5, "mean_loss": 1.0, "histogram": [3], "worst": []}
    (folder / "run" / "aid.jsonl").write_text(json.dumps(line))
    make_comparison(folder / "compared", data, teacher, {"baseline": (0.3, 0.4), "bckd": (0.4, 0.5)})
    (folder / "compared" / "student" / "bckd-1.log").write_text("kd_ssim pulls hard\n")
    make_going(folder / "going")
    frames = {f"{n:06}": kitti.CAR + kitti.DONT_CARE for n in range(4)}
    kitti.source(folder / "kitti", frames)
    (folder / "classes.yaml").write_text("Car: vehicle\nVan: vehicle\n")
    kitti.ids(folder / "train.txt", "000000", "000001")
    kitti.ids(folder / "val.txt", "000002", "000003")
    coco.write(folder / "coco", train=6, val=4)
    return folder


def make_going(folder: Path, **changes: Any) -> Path:
    """Write an interrupted run whose data are gone, so that nothing is trained, with some training arguments."""
    make_run(folder, Path("gone.yaml"))
    run = RunSettings(recipe=load_recipe("baseline").to_dict(), recipe_name="baseline")
    arguments = {
        "epochs": 3,
        "imgsz": 64,
        "batch": 8,
        "data": "gone.yaml",
        "device": "cpu",
        KEY: run.to_dict(),
        **changes,
    }
    saved = {"model": network(), "epoch": 0, "train_args": arguments}
    torch.save(saved, folder / "weights" / "last.pt")
    return folder


@dataclass
class Place:
    """An empty folder beside a copy of some inputs."""

    inputs: Path
    capsys: pytest.CaptureFixture[str]
    root: Path
    numbers: Iterator[int]

    def copy(self, *parts: str) -> Path:
        """Copy parts of the inputs into a new folder, make a new current folder beside it, and return the former."""
        root = self.root / str(next(self.numbers))
        for new in ("in", "work"):
            (root / new).mkdir(parents=True)
        (root / "work" / "runs").symlink_to("../in")  # a comparison is looked for there
        for part in dict.fromkeys(Path(part).parts[0] for part in parts):
            source = self.inputs / part
            if source.is_dir():
                shutil.copytree(source, root / "in" / part)
            else:
                shutil.copy(source, root / "in" / part)
        os.chdir(root / "work")
        return root / "in"

    def expect(self, folder: Path, *line: str) -> tuple[int, str]:
        """Run a command; expect a short error or none, and unchanged inputs; return exit code and what it printed."""
        before = state_of(folder)
        code, out, error = call(self.capsys, *(f"../in/{word[1:]}" if word[:1] == "@" else word for word in line))
        after = state_of(folder)
        assert "Traceback" not in error
        assert (code == 2) == ("Error: " in error or "Usage: " in error), error
        assert len(error) < 10_000
        assert {name: after.get(name) for name in before} == before
        return code, out + error


@pytest.fixture
def place(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Place]:
    """Where commands are called; an oracle stands for the networks of reports."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(scoring, "examine", oracle(inputs))
    monkeypatch.setattr(charts, "_svg", lambda *_: b"<svg/>")
    monkeypatch.setattr(examples, "draw", lambda *_: b"jpeg")
    yield Place(inputs, capsys, tmp_path, itertools.count())
    os.chdir("/")
    shutil.rmtree(tmp_path, ignore_errors=True)


@cache
def oracle(inputs: Path) -> Oracle:
    return Oracle(inputs / "set" / "data.yaml")


def _is_drawn(case: str, one_in: int) -> bool:
    """Whether a case takes part: one in so many by a hash of its name, all with YOLOKD_ALL_MUTATIONS=1."""
    return "YOLOKD_ALL_MUTATIONS" in os.environ or zlib.crc32(case.encode()) % one_in == 0


def _cases() -> Iterator[Any]:
    """The few mutations of every reader, and some of the others, of slow readers fewer."""
    for name, reader in READERS.items():
        for label in reader.mutations():
            if label in FEW or _is_drawn(f"{name}-{label}", 10 if reader.slow else 8):
                yield pytest.param(name, label, id=f"{name}-{label}")


@pytest.mark.parametrize("name", READERS)
def test_reader__sound_files_are_read(place: Place, name: str) -> None:
    reader = READERS[name]
    code, text = place.expect(place.copy(*reader.needs, reader.file), *reader.line)
    assert code in SAID, text
    assert "Error" not in text or name.startswith(("resume", "compare "))  # which would train


@pytest.mark.parametrize(("name", "label"), list(_cases()))
def test_file__mutated(place: Place, name: str, label: str) -> None:
    reader = READERS[name]
    folder = place.copy(*reader.needs, reader.file)
    reader.mutations()[label](folder / reader.file)
    code, text = place.expect(folder, *reader.line)
    assert code in SAID, text


def _typed() -> Iterator[Any]:
    """The first replaced values of each reader of plain data, and some of the others."""
    for name in TYPED:
        for number in range(SAMPLED * 30):
            if number < SAMPLED or _is_drawn(f"{name}-{number}", 10):
                yield pytest.param(name, number, id=f"{name}-{number}")


@cache
def _values(file: Path) -> list[tuple[str, str]]:
    """The texts of a file with one value replaced, in an order drawn at random, and what was replaced."""
    is_yaml = file.suffix == ".yaml"
    plain = yaml.safe_load(file.read_text()) if is_yaml else json.loads(file.read_text())
    write: Callable[[Any], str] = yaml.safe_dump if is_yaml else json.dumps
    found = [(what, write(changed)) for what, changed in with_values(plain)]
    random.Random(0).shuffle(found)
    return found


@pytest.mark.parametrize(("name", "number"), list(_typed()))
def test_value__of_another_kind(place: Place, name: str, number: int) -> None:
    reader = READERS[name]
    values = _values(place.inputs / reader.file)
    what, changed = values[number % len(values)]
    folder = place.copy(*reader.needs, reader.file)
    (folder / reader.file).write_text(changed)
    code, text = place.expect(folder, *reader.line)
    assert code in SAID, f"{what}\n{text}"


@pytest.mark.parametrize("key", ["epochs", "data", "device", "batch", KEY])
@pytest.mark.parametrize(
    "value", [None, "many", -1, float("nan"), [], {"recipe": 3}, {"recipe": {}, "recipe_name": 3}, 10**30], ids=str
)
def test_resume__training_arguments_of_another_kind(place: Place, key: str, value: object) -> None:
    folder = place.copy("set")
    make_going(folder / "going", **{key: value})
    code, text = place.expect(folder, *RESUME.line)
    assert code in SAID, text


NAMED = (  # a command in which None stands for the file that is renamed
    (CHECK.line, "set/images/val/001.png"),
    (CHECK.line, "set/labels/val/001.txt"),
    (("predict", "@student.pt", "@set/images/val", *DRAWN), "set/images/val/001.png"),
    (("predict", "@student.pt", None, *DRAWN), "set/images/val/001.png"),
    (("inspect", None, *PAIR, "--out", "drawn"), "set/images/val/001.png"),
    (("data", "check", None), "set/data.yaml"),
    (("recipes", "check", None), "recipe.yaml"),
    (("predict", None, "@set/images/val", *DRAWN), "student.pt"),
    (("eval", None, "--data", "@set/data.yaml", *CPU), "student.pt"),
    (("eval", "@student.pt", "--data", None, *CPU), "set/data.yaml"),
    (("report", None, "--out", "page.html", *CPU), "run"),
    (("train", "--resume", None), "going"),
    (("train", "--student", None, "--recipe", "bckd", "--data", "@set/data.yaml", *TRAIN), "student.yaml"),
    (KITTI.line, "kitti/training/image_2/000001.png"),
)


def _named() -> Iterator[Any]:
    """Two odd names in every place, and some of the others."""
    for (line, file), stem in itertools.product(NAMED, STEMS):
        case = f"{stem}-{' '.join(word or 'FILE' for word in line)}-{file}"
        if stem in ODD or _is_drawn(case, 8):
            yield pytest.param(stem, line, file, id=case)


@pytest.mark.parametrize(("stem", "line", "file"), list(_named()))
def test_name__of_a_file(place: Place, stem: str, line: tuple[str | None, ...], file: str) -> None:
    folder = place.copy("set", "recipe.yaml", "student.pt", "teacher.pt", "student.yaml", "run", "going", "kitti")
    target = renamed(folder / file, STEMS[stem])
    code, text = place.expect(folder, *(f"@{target.relative_to(folder)}" if word is None else word for word in line))
    assert code in SAID, text


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("name", READERS)
def test_file__without_permission(place: Place, name: str) -> None:
    reader = READERS[name]
    folder = place.copy(*reader.needs, reader.file)
    before = state_of(folder)
    (folder / reader.file).chmod(0)
    code, _, error = call(place.capsys, *(f"../in/{word[1:]}" if word[:1] == "@" else word for word in reader.line))
    (folder / reader.file).chmod(0o644)
    assert code in SAID, error
    assert "Traceback" not in error
    assert {path: state_of(folder).get(path) for path in before} == before


@pytest.mark.parametrize("name", [name for name, reader in READERS.items() if not reader.slow])
@settings(
    max_examples=3, deadline=None, derandomize=True, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
@given(flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), min_size=1, max_size=16))
@example(flips=[(0.0, 1)])
def test_bytes__flipped(place: Place, name: str, flips: list[tuple[float, int]]) -> None:
    reader = READERS[name]
    folder = place.copy(*reader.needs, reader.file)
    content = bytearray((folder / reader.file).read_bytes())
    for share, mask in flips:
        content[int(share * len(content))] ^= mask
    (folder / reader.file).write_bytes(content)
    code, text = place.expect(folder, *reader.line)
    assert code in SAID, text
