from __future__ import annotations

import pytest

from yolokd.cli.progress import image_bar


@pytest.mark.parametrize("terminal", [False, True])
def test_image_bar__shows_itself_on_a_terminal_and_only_where_images_are_opened(
    terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if terminal:
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("TERM", "xterm")
    with image_bar():
        pass
    assert capsys.readouterr() == ("", "")
    with image_bar() as progress:
        progress(1, 2)
        progress(2, 2)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert ("Opening images" in shown.err) == terminal
