"""The whole report, from folders to files."""

from __future__ import annotations

import base64
import io
import json
import math
import re
import shutil
from pathlib import Path

import pytest
from PIL import Image

from tests.helpers.making import NAMES, Oracle, checkpoint, make_comparison, make_run, two_arms
from tests.helpers.reading import Node, decoded, read_html, read_markdown, tables
from yolokd.errors import DataError, UserError
from yolokd.report import figures, scoring, write

SECOND = "95 % interval, images and seeds"

Pages = tuple[Node, Node, Path]


def report(folders: list[Path], tmp_path: Path, *, data: str | None = None) -> Pages:
    """Write a report; return its HTML, its Markdown and where it lies."""
    html = write(folders, tmp_path / "r.html", data=data)
    page, example = html.read_text(encoding="utf-8"), html.with_suffix(".md").read_text(encoding="utf-8")
    return read_html(page), read_markdown(example), html


@pytest.fixture(scope="module")
def drawn(odd_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Pages:
    """A report with everything in it."""
    folder = tmp_path_factory.mktemp("drawn")
    oracle = Oracle(odd_data)
    oracle.shares["teacher"] = 0.9
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scoring, "examine", oracle)
        return report(two_arms(folder, odd_data, checkpoint(folder / "teacher.pt", "teacher"), oracle), folder)


def headings(page: Node) -> list[str]:
    return [node.text for node in page.all("h2")]


def test_write__both_pages_say_the_same(drawn: Pages) -> None:
    page, example, _ = drawn
    parts = ["Comparison", "Accuracy", "Accuracy and cost", "Training", "Images", "How this was measured", "Runs"]
    assert headings(page) == headings(example) == parts
    assert tables(page) == [table for table in tables(example) if table[0][0] != "ground truth"]
    (statement,) = page.all("ul", "statements")
    assert statement.text in " ".join(example.text.split())
    assert [n.attributes["alt"] for n in page.all("img")] == [n.attributes["alt"] for n in example.all("img")]
    titles = [n.text for n in page.all("figcaption")]
    for title in ("Difference to plain training", "AP by class", "AP against latency", "Box loss"):
        assert title in titles
        assert title in example.text
    assert {"bckd: distillation terms", "bckd: gradient ratio of each term", "bckd: share of each term"} <= set(titles)


def test_write__needs_no_network_and_runs_nothing(drawn: Pages) -> None:
    page, _, html = drawn
    assert page.all("script") == page.all("link") == page.all("iframe") == []
    policy = next(n for n in page.all("meta") if n.attributes.get("http-equiv") == "Content-Security-Policy")
    assert policy.attributes["content"] == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    text = re.sub(r"data:image/[a-z+]+;base64,[A-Za-z0-9+/=]+", "", html.read_text(encoding="utf-8"))
    for word in ("://", "url(", "@import"):
        assert word not in text
    places = {n.attributes["id"] for n in page.all("section") if "id" in n.attributes}
    links = [link.attributes["href"] for link in page.all("a")]
    assert len(links) == 7
    assert {link.removeprefix("#") for link in links} == places
    for node in page.all("img"):
        assert node.attributes["alt"]
        decoded(node.attributes["src"])


def test_write__names_that_want_to_be_markup_stay_text(drawn: Pages) -> None:
    page, example, html = drawn
    assert "<script" not in html.read_text(encoding="utf-8")
    assert [row[0] for row in tables(page)[1]] == ["class", *NAMES]
    assert [row[0] for row in tables(example)[1]] == ["class", *NAMES]
    assert example.all("script") == example.all("em") == []
    for file in html.with_name("r_files").glob("*.svg"):
        assert "<script" not in file.read_text(encoding="utf-8")


def test_write__charts_for_light_and_dark_pages(drawn: Pages) -> None:
    page, _, html = drawn
    elements = page.all("picture")
    assert len(elements) >= 12
    files = [file.read_bytes() for file in html.with_name("r_files").glob("*.svg")]
    for element in elements:
        (source,), (image,) = element.all("source"), element.all("img")
        assert source.attributes["media"] == "screen and (prefers-color-scheme: dark)"
        light, dark = decoded(image.attributes["src"]), decoded(source.attributes["srcset"])
        assert light != dark
        assert light in files


def test_write__images_side_by_side(drawn: Pages) -> None:
    page, example, html = drawn
    rows = page.all("article")
    assert 1 <= len(rows) <= 6
    for row in rows:
        captions = [node.text for node in row.all("figcaption")]
        assert [caption.split(" ")[0] for caption in captions] == ["ground", "teacher", "baseline,", "bckd,"]
        assert re.search(r"F1 \d\.\d\d: \d+ right, \d+ false, \d+ missed", captions[3])
        sizes = {Image.open(io.BytesIO(decoded(node.attributes["src"]))).size for node in row.all("img")}
        assert len(sizes) == 1
        assert max(sizes.pop()) == 560
    assert "baseline, seed 0 and bckd, seed 0 differ most in F1" in page.text
    for node in example.all("img"):
        assert (html.parent / node.attributes["src"]).is_file()


@pytest.mark.usefixtures("undrawn")
def test_write__one_run_per_recipe_is_a_table_without_claims(runs: list[Path], tmp_path: Path) -> None:
    page, _, _ = report([runs[0], runs[2]], tmp_path)
    (table, *_) = tables(page)
    assert table[0] == ["recipe", "seeds", "AP", "AP50", "difference in AP", SECOND, "verdict", "gap closed", "s/epoch"]
    assert table[3][5].endswith("] images")
    assert [row[:2] for row in table[1:]] == [["teacher", "–"], ["baseline", "1"], ["bckd", "1"]]
    assert "one seed, which proves nothing" in page.text
    assert " gains " not in page.text
    assert "±" not in page.text


@pytest.mark.usefixtures("undrawn")
def test_write__a_comparison(tmp_path: Path, odd_data: Path, teacher: Path, oracle: Oracle) -> None:
    aps = {"baseline": (0.2, 0.3, 0.25), "bckd": (0.3, 0.4, 0.36), "ssim": (0.1, math.nan, 0.2)}
    folder = make_comparison(tmp_path / "c", odd_data, teacher, aps)
    (folder / "student" / "ssim-1.log").write_text("Error: disk full\n")
    page, _, _ = report([folder], tmp_path)
    (table, *_) = tables(page)
    assert table[2][:4] == ["baseline", "3", "25.0 ± 5.0", "35.0 ± 5.0"]
    assert table[0][5:7] == ["95 % interval, seeds", SECOND]
    assert table[3][4:9] == ["+10.3", "[+8.9, +11.8]", "[+8.9, +11.8]", "gain", "19 %"]
    assert table[4][5:8] == ["[−39.3, +24.3]", "[−39.3, +24.3]", "undecided"]
    kinds = [node.attributes["class"] for node in page.all("ul", "statements")[0].all("li")]
    assert kinds == ["gain", "undecided"]
    (anomaly_checks,) = page.all("div", "alarms")
    assert "Not started yet: student/ssim-1." in anomaly_checks.text
    assert "student/ssim-1 is not finished; its log ends with: Error: disk full" in anomaly_checks.text
    assert "student/bckd-0 scores" in anomaly_checks.text  # the oracle does not know what the comparison found
    assert "in the comparison; its table keeps the latter" in anomaly_checks.text


@pytest.mark.usefixtures("undrawn")
def test_write__a_comparison_of_an_earlier_version_has_no_second_interval(
    tmp_path: Path, odd_data: Path, teacher: Path, oracle: Oracle
) -> None:
    folder = make_comparison(tmp_path / "c", odd_data, teacher, {"baseline": (0.2, 0.3), "bckd": (0.3, 0.41)})
    for file in folder.rglob("matches.npz"):
        file.unlink()
    page, example, _ = report([folder], tmp_path)
    for shown in (page, example):
        (table, *_) = tables(shown)
        assert SECOND not in table[0]
        assert table[3][4:7] == ["+10.5", "[+4.1, +16.9]", "seeds only"]
        assert "bckd has no interval for new images: some runs have no matches.npz" in shown.text
        assert "These images only." in shown.text
    (statement,) = page.all("ul", "statements")[0].all("li")
    assert statement.attributes["class"] == "seeds"
    assert " gains " not in page.text


@pytest.mark.usefixtures("undrawn")
def test_write__data_that_are_gone_leave_the_curves(
    tmp_path: Path, odd_data: Path, teacher: Path, oracle: Oracle
) -> None:
    gone = tmp_path / "gone" / "data.yaml"
    folder = make_comparison(tmp_path / "c", gone, teacher, {"baseline": (0.2, 0.3), "bckd": (0.3, 0.4)})
    page, _, _ = report([folder], tmp_path)
    assert headings(page) == ["Before you read on", "Comparison", "Training", "How this was measured", "Runs"]
    assert "Nothing was scored and there are no images here, since the data are not to be had" in page.text
    assert tables(page)[0][3][4:6] == ["+10.0", "[+10.0, +10.0]"]
    page, _, _ = report([folder], tmp_path, data=str(odd_data))
    assert "Images" in headings(page)
    assert "(another fingerprint)" in page.text
    with pytest.raises(DataError, match="no data YAML"):
        write([folder], tmp_path / "r.html", data="nowhere.yaml")


@pytest.mark.usefixtures("undrawn")
def test_write__damaged_and_unfinished_runs_are_shown_as_such(
    runs: list[Path], tmp_path: Path, odd_data: Path, teacher: Path, oracle: Oracle
) -> None:
    half = make_run(tmp_path / "half", odd_data, "pkd", teacher=teacher, epoch=1, epochs=3)
    bad: dict[str, list[float]] = {
        "train/kd_cwd": [1, math.nan, math.nan],
        "train/kd_bckd_cls": [0, 0, 0],
        "gradient/kd_bckd_cls": [40, 2, 1],
    }
    odd = make_run(tmp_path / "odd", odd_data, "cwd", teacher=teacher, columns=bad)
    (runs[1] / "weights" / "last.pt").unlink()
    page, _, _ = report([*runs, half, odd], tmp_path)
    (anomaly_checks,) = page.all("div", "alarms")
    for words in (
        "plain-1 has no weights/last.pt that can be read, so it is not scored.",
        "half is unfinished, 3 of 3 epochs; its score stands with the runs and counts in no mean.",
        "odd: train/kd_cwd is not finite in epoch 2 and 1 later.",
        "odd: train/kd_bckd_cls is 0 in every epoch: the term taught nothing.",
        "odd: kd_bckd_cls had up to 40 times the detection loss's gradient at the neck.",
    ):
        assert words in anomaly_checks.text
    states = {row[0]: row for row in tables(page)[-1]}
    assert states["half"][3] == "unfinished, 3 of 3 epochs"
    assert states["plain-1"][3:] == ["without weights, 3 of 3 epochs", "–", "–"]
    assert "pkd" not in tables(page)[1][0]


@pytest.mark.usefixtures("undrawn")
def test_write__a_single_run_without_teacher(runs: list[Path], tmp_path: Path) -> None:
    page, _, _ = report(runs[:1], tmp_path)
    assert "No difference to plain training can be taken from these runs." in page.text
    assert "with objects of lowest F1" in page.text


@pytest.mark.usefixtures("undrawn")
def test_write__several_students_have_sections_of_their_own(tmp_path: Path, odd_data: Path, oracle: Oracle) -> None:
    folders = [make_run(tmp_path / name, odd_data) for name in ("a", "b")]
    for folder in folders:
        file = folder / "provenance.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"student": f"{folder.name}.yaml"}))
    page, _, _ = report(folders, tmp_path)
    assert {"Accuracy of a", "Accuracy of b", "Training of a", "Training of b"} <= set(headings(page))
    assert page.all("h1")[0].text == "a and b on " + odd_data.parent.name


@pytest.mark.usefixtures("undrawn")
def test_write__a_second_report_replaces_the_first(runs: list[Path], tmp_path: Path, oracle: Oracle) -> None:
    _, _, html = report(runs, tmp_path)
    folder = html.with_name("r_files")
    assert len(oracle.asked) == 5
    report(runs[:1], tmp_path)
    assert len(oracle.asked) == 5
    assert not list(folder.glob("gain*.svg"))
    assert len(list((folder / "cache").iterdir())) == 10  # what was found, and the matches
    assert list(tmp_path.rglob("*.part")) == []


@pytest.mark.usefixtures("undrawn")
def test_write__where_it_goes_if_nobody_says(runs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert write(runs[0]) == runs[0] / "report.html"
    assert write(runs[:2]) == tmp_path / "report.html"


@pytest.mark.usefixtures("undrawn")
def test_write__refuses_places_that_are_not_its_own(runs: list[Path], tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(UserError, match=r"README\.md' is there and is no report"):
        write(runs[0], tmp_path / "README.html")
    with pytest.raises(UserError, match=r"must end in \.html"):
        write(runs[0], tmp_path / "report.md")
    with pytest.raises(UserError, match="there is no such folder"):
        write(runs[0], tmp_path / "nowhere" / "r.html")
    with pytest.raises(UserError, match="device 'gpu7' cannot be used"):
        write(runs[0], tmp_path / "r.html", device="gpu7")
    assert (tmp_path / "README.md").read_text() == "mine"


@pytest.mark.usefixtures("undrawn")
def test_write__a_disk_that_refuses_is_the_users_to_mend(
    runs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(UserError, match=r"cannot be written to '.*r\.html': No space left on device"):
        write(runs[0], tmp_path / "r.html")
    assert not (tmp_path / "r.html").exists()


@pytest.mark.usefixtures("undrawn")
def test_write__images_that_vanish_are_an_error_of_the_data(
    runs: list[Path], tmp_path: Path, odd_data: Path, oracle: Oracle
) -> None:
    data = shutil.copytree(odd_data.parent, tmp_path / "copy") / "data.yaml"
    data.write_text(data.read_text().replace(str(odd_data.parent), str(data.parent)))
    write(runs, tmp_path / "r.html", data=str(data))
    for image in (data.parent / "images" / "val").iterdir():
        image.write_bytes(image.read_bytes()[:60])  # the header is there, the rest is not
    with pytest.raises(DataError, match="cannot be read"):
        write(runs, tmp_path / "r.html", data=str(data))


def test_write__no_formula_is_shown_as_it_is_written(
    odd_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    oracle = Oracle(odd_data)
    monkeypatch.setattr(scoring, "examine", oracle)
    monkeypatch.setattr(figures, "LOG_RANGE", 1.0)  # all that can be is drawn on a logarithmic axis
    _, _, html = report(two_arms(tmp_path, odd_data, checkpoint(tmp_path / "teacher.pt", "teacher"), oracle), tmp_path)
    charts = [file.read_text(encoding="utf-8") for file in (tmp_path / "r_files").glob("*.svg")]
    assert any(">10<" in chart or ">0.1<" in chart for chart in charts)
    embedded = re.findall(r"data:image/svg\+xml;base64,([A-Za-z0-9+/=]+)", html.read_text(encoding="utf-8"))
    assert embedded
    for text in (*charts, *(base64.b64decode(code).decode() for code in embedded), html.with_suffix(".md").read_text()):
        assert "mathdefault" not in text
        assert "\\math" not in text
