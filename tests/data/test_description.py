from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from yolokd.data.description import keypoints_of, load_yaml, refuse_script
from yolokd.errors import DataError

GOOD = "train: images/train\nval: images/val\n"


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "data.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "text",
    [
        "names: [a, b]",
        "names: {0: a, 1: b}",
        "names: {'0': a, '1': b}",
        "names: [1, 2.5]",
        "nc: 3",
        "nc: '3'",
        "nc: 2.0\nnames: [a, b]",
        "names: [a]\ndownload: https://example.com/a.zip\npath: ../x",
    ],
)
def test_load_yaml__returns_what_it_says(tmp_path: Path, text: str) -> None:
    import yaml

    assert load_yaml(write(tmp_path, GOOD + text)) == yaml.safe_load(GOOD + text)


def test_load_yaml__takes_lists_of_paths_and_the_word_validation(tmp_path: Path) -> None:
    data = load_yaml(write(tmp_path, "train: [a, b]\nvalidation: c\nnames: [x]"))
    assert data["train"] == ["a", "b"]


@pytest.mark.parametrize(
    "text, message",
    [
        ("names: [a\ntrain: x", r"data.yaml', line 2 is not valid YAML: expected"),
        ("a: b: c", r"line 1 is not valid YAML"),
        ("!!python/object/apply:os.system ['true']", r"line 1 is not valid YAML: could not determine a constructor"),
        ("- a\n- b", "holds a list, but a data YAML is a mapping"),
        ("", "holds nothing, but"),
        ("hello", "holds text, but"),
        (GOOD, "neither 'names' nor 'nc'"),
        (GOOD + "names: cat", "names must be a list or a mapping from index to name, got text"),
        (GOOD + "names: []", "names must be a list or a mapping"),
        (GOOD + "names: 3", "got a number"),
        (GOOD + "names: [a, no]", "every class name must be text, got False; put it in quotes"),
        (GOOD + "names: [a, [b]]", r"every class name must be text, got \['b'\]"),
        (GOOD + "names: [a, ' ']", "every class name must be text, got ' '"),
        (GOOD + "names: [a, b, a]", "names holds 'a' more than once"),
        (GOOD + "names: {1: a, 2: b}", "indices of names must be 0 to 1, got 1, 2"),
        (GOOD + "names: [a]\nnc: 2", "nc is 2, but names holds 1"),
        (GOOD + "nc: many", "nc is the number of classes, a whole number from 1, got 'many'"),
        (GOOD + "nc: 1.5", "got 1.5"),
        (GOOD + "nc: 0", "got 0"),
        (GOOD + "nc: true", "got True"),
        ("val: x\nnames: [a]", "has no 'train'"),
        ("train: x\nnames: [a]", "has no 'val'"),
        ("train: x\nval:\nnames: [a]", "has no 'val'"),
        ("train: 3\nval: x\nnames: [a]", "train must be a path or a list of paths, got 3"),
        ("train: x\nval: [y, 3]\nnames: [a]", "val must be a path or a list of paths"),
        (GOOD + "names: [a]\npath: [x]", "path must be the folder of the data set"),
    ],
)
def test_load_yaml__says_what_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_yaml(write(tmp_path, text))


def test_load_yaml__names_the_file_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data.yaml' cannot be read: No such file"):
        load_yaml(tmp_path / "data.yaml")
    with pytest.raises(DataError, match="cannot be read"):
        load_yaml(tmp_path)


def test_load_yaml__refuses_what_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "data.yaml").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(DataError, match="not text in UTF-8"):
        load_yaml(tmp_path / "data.yaml")


@pytest.mark.parametrize(
    "download",
    [
        None,
        "",
        "https://example.com/data.zip",
        "http://example.com/a/b.tar.gz?token=1",
        "HTTPS://EXAMPLE.COM/DATA.ZIP",
    ],
)
def test_refuse_script__allows_none_and_addresses_of_archives(download: str | None) -> None:
    assert not is_refused({"download": download})
    assert not is_refused({})
    assert is_refused({"download": f"{download or ''}; true"})


def is_refused(content: dict[str, Any]) -> bool:
    try:
        refuse_script(content, Path("data.yaml"))
    except DataError:
        return True
    return False


@pytest.mark.parametrize(
    "download",
    [
        "bash get.sh",
        "import os\nos.system('true')",
        "https://example.com/get.py",
        "https://example.com/page",
        "http = 1; import os  # .zip",
        "https://example.com/a.zip\nimport os",
        "https://example.com/a.py#x.zip",
        "ftp://example.com/a.zip",
        ["https://example.com/a.zip"],
        {"script": "x"},
        3,
    ],
)
def test_refuse_script__refuses_everything_else(download: Any) -> None:
    with pytest.raises(DataError, match=re.escape("'data.yaml' has a download script, which would be run as code")):
        refuse_script({"download": download}, Path("data.yaml"))


def test_refuse_script__shows_the_beginning_of_a_long_script() -> None:
    with pytest.raises(DataError) as caught:
        refuse_script({"download": "import os\n" + "x = 1\n" * 500}, Path("data.yaml"))
    assert "import os x = 1" in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("shape, found", [("[17, 3]", (17, 3)), ("[2, 2]", (2, 2)), ("[0, 0]", (0, 0))])
def test_keypoints_of__is_the_pair(tmp_path: Path, shape: str, found: tuple[int, int]) -> None:
    path = write(tmp_path, GOOD + f"names: [a]\nkpt_shape: {shape}")
    assert keypoints_of(load_yaml(path), path) == found


@pytest.mark.parametrize("shape", ["17", "", "[17]", "[17, 3, 1]", "[a, b]", "[-1, 2]", "[true, 2]", "[1.0, 2]"])
def test_load_yaml__kpt_shape_must_be_a_pair(tmp_path: Path, shape: str) -> None:
    with pytest.raises(DataError, match=r"kpt_shape is the number of keypoints and 2 \(x, y\) or 3"):
        load_yaml(write(tmp_path, GOOD + f"names: [a]\nkpt_shape: {shape}"))
