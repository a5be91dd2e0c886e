"""Files that are whole or not there, digests, the cache folder."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import pytest

from yolokd.files import (
    PART,
    cache_folder,
    link_or_copy,
    replacing,
    sha256,
    sha256_of,
    unique_beside,
    write_json,
    write_whole,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_replacing__the_old_file_is_there_until_the_end(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with replacing(path) as part:
        part.write_text("new")
        assert path.read_text() == "old"
        assert part.parent == tmp_path
        assert part.name.startswith(".")
        assert part.name.endswith(PART)
    assert path.read_text() == "new"
    assert names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("folder", [True, False])
def test_replacing__an_exception_leaves_the_old_one_and_nothing_beside(tmp_path: Path, folder: bool) -> None:
    path = tmp_path / "a"
    path.write_text("old")

    def write_half(part: Path) -> None:
        if folder:
            part.mkdir()
            (part / "half").touch()
        else:
            part.touch()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), replacing(path) as part:
        write_half(part)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a"]


def test_replacing__a_folder(tmp_path: Path) -> None:
    with replacing(tmp_path / "a") as part:
        part.mkdir()
        (part / "b").touch()
    assert names(tmp_path / "a") == ["b"]
    assert names(tmp_path) == ["a"]


def test_replacing__nothing_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "a"):
        pass


def test_unique_beside__differs_each_time_and_fits_long_names(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 255)
    assert len({unique_beside(path) for _ in range(9)}) == 9
    unique_beside(path).touch()


@pytest.mark.parametrize(("content", "stored"), [("ä\n", b"\xc3\xa4\n"), (b"\xff\r\n", b"\xff\r\n")])
def test_write_whole__bytes_as_they_are_and_text_as_utf8(tmp_path: Path, content: str | bytes, stored: bytes) -> None:
    write_whole(tmp_path / "a", content)
    assert (tmp_path / "a").read_bytes() == stored


def test_write_json__reads_back(tmp_path: Path) -> None:
    write_json(tmp_path / "a", {"b": [1, None]})
    assert json.loads((tmp_path / "a").read_text()) == {"b": [1, None]}


def test_sha256__of_a_file_in_several_blocks(tmp_path: Path) -> None:
    content = bytes(range(256)) * 5000
    (tmp_path / "a").write_bytes(content)
    assert sha256(tmp_path / "a") == sha256_of(content) == hashlib.sha256(content).hexdigest()


def test_sha256__is_that_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_sha256__of_a_folder_depends_on_names_and_contents(tmp_path: Path) -> None:
    digests = set[str]()
    for name, content in (("a", "1"), ("b", "1"), ("a", "2"), ("c/a", "1")):
        file = tmp_path / str(len(digests)) / name
        file.parent.mkdir(parents=True)
        file.write_text(content)
        digests.add(sha256(tmp_path / str(len(digests))))
    assert len(digests) == 4
    again = tmp_path / "again"
    again.mkdir()
    (again / "a").write_text("1")
    assert sha256(again) == sha256(tmp_path / "0")


def test_cache_folder__of_the_environment_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YOLOKD_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"
    assert cache_folder("images") == tmp_path / "own" / "images"
    assert (tmp_path / "own" / "images").is_dir()


@pytest.mark.skipif(sys.platform in {"win32", "darwin"}, reason="the rule of other systems")
def test_cache_folder__of_the_system_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("YOLOKD_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "yolokd"


def test_cache_folder__that_cannot_be_made_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("YOLOKD_CACHE", str(tmp_path / "file"))
    assert cache_folder("images") == tmp_path / "file" / "images"


def test_link_or_copy__a_link_or_where_none_works_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "source"
    source.write_text("content")
    monkeypatch.chdir(tmp_path)
    link_or_copy(Path("source"), tmp_path / "link")
    assert (tmp_path / "link").readlink() == source
    with pytest.raises(FileExistsError):
        link_or_copy(source, tmp_path / "link")

    def refuse(*_: object, **__: object) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    link_or_copy(source, tmp_path / "copy")
    assert not (tmp_path / "copy").is_symlink()
    assert (tmp_path / "copy").read_text() == "content"
