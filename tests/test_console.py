"""Durations, tables, and displays on a terminal and elsewhere."""

import sys

import pytest

from digit_recognizer import console


@pytest.mark.parametrize(("seconds", "text"), [(45.2, "45 s"), (720, "12 min"), (3900, "1 h 05 min")])
def test_duration_is_readable(seconds: float, text: str) -> None:
    assert console.format_duration(seconds) == text


def test_table_aligns_wide_characters() -> None:
    text = console.render_table(["name", "errors"], [["数字", "7"], ["[b]x", "12"]], right=[1])
    assert text.splitlines() == ["name  errors", "数字       7", "[b]x      12"]


def test_table_wraps_text_on_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    row = [["word " * 10, "123456"]]
    assert len(console.render_table(["text", "number"], row, right=[1]).splitlines()) == 2
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "30")
    monkeypatch.setenv("TERM", "xterm")
    lines = console.render_table(["text", "number"], row, right=[1]).splitlines()
    assert max(map(len, lines)) <= 30
    assert " ".join(lines).split().count("word") == 10
    assert "123456" in lines[1]


def test_pipe_gets_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with console.Spinner("waiting") as spinner:
        spinner.turn("50%")
        spinner.sleep(0)
    assert capsys.readouterr().out == "waiting\n"


def test_spinner_restores_the_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    with pytest.raises(KeyboardInterrupt), console.Spinner("waiting"):
        raise KeyboardInterrupt
    text = capsys.readouterr().out
    assert "waiting" in text
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1
