"""Progress: what is shown on a terminal and elsewhere, and how much time is left."""

import re
import sys
import time

import pytest

from digit_recognizer.training.progress import Progress

FIGURES = {"loss": 0.12345, "val_loss": 0.05, "val_accuracy": 0.98765}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time of ``time.monotonic`` in seconds, which the test sets."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def terminal(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm")


def test_time_left_excludes_the_start(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress(2, 10, (), 2, workers=1)
    clock[0] = 30  # TensorFlow loads
    progress.batch(0, 1, 100, 0.5)
    clock[0] = 39.9
    progress.epoch(0, 1, FIGURES)
    assert capsys.readouterr().out.splitlines()[-1].endswith("  3 min"), "19 epochs of 10 s"


def test_lines_fit_60_columns_and_explain_the_star(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress(100, 100, [3], 99, workers=2)
    for epoch in range(1, 4):
        for step in (1, 100):
            clock[0] += 200
            progress.batch(41, step, 100, 0.5)
        progress.epoch(41, epoch, FIGURES | {"val_loss": 0.05 / epoch if epoch < 3 else 1.0, "loss": 12.5})
    progress.over(41, "member 42/100 trained in 10 min")
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 60, lines
    assert lines[0] == "member 4/100  kept from before"
    assert lines[2] == "* a member's lowest validation loss so far"
    assert [line.count("*") for line in lines[4:7]] == [1, 1, 0]
    assert len(lines) == 8


def test_pipe_gets_one_line_at_the_start(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress(4, 10, (), 4, workers=2)
    progress.stage(0, "building the network")
    progress.refresh()
    progress.batch(0, 1, 10, 0.5)
    assert capsys.readouterr().out == "starting 2 workers (loading TensorFlow)\n"
    assert progress.refresh_seconds is None
    Progress(0, 0, (), 0)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("width", [30, 50, 60, 100])
def test_terminal_shows_bars_that_fit_and_vanish(
    width: int, clock: list[float], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal(monkeypatch, width)
    with Progress(4, 10, (), 4, workers=2) as progress:
        clock[0] = 12
        progress.stage(1, "predicting")
        clock[0] = 15
        progress.refresh()
        progress.batch(0, 1, 10, 0.5)
        clock[0] = 16
        progress.batch(0, 2, 10, 0.5)
        progress.epoch(0, 1, FIGURES)
        print("printed while bars are shown")
    text = capsys.readouterr().out
    drawn = re.sub(r"\x1b\[[?0-9;]*[A-Za-z]", "", text).replace("\r", "\n").splitlines()
    assert max(map(len, drawn)) <= width
    assert any(line.startswith("starting 2 workers") for line in drawn)
    assert any(line.startswith("member 2/4 predicting  3 s") for line in drawn)
    assert any(re.match("member 1/4 .* epoch 1/10", line) for line in drawn)
    assert ("step 2/10" in text) == (width >= 60), "a narrow terminal omits details"
    assert any(line.startswith("total ") for line in drawn)
    assert text.rstrip().endswith("\x1b[2K"), "the bars are erased"
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1, "the cursor is shown again"


def test_interrupt_restores_the_cursor(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    terminal(monkeypatch, 60)
    with pytest.raises(KeyboardInterrupt), Progress(1, 1, (), 1):
        raise KeyboardInterrupt
    assert "\x1b[?25h" in capsys.readouterr().out


def test_dumb_terminal_gets_plain_lines(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    terminal(monkeypatch, 60)
    monkeypatch.setenv("TERM", "dumb")
    with Progress(1, 1, (), 1, workers=1) as progress:
        progress.batch(0, 1, 1, 0.5)
    assert capsys.readouterr().out == "starting 1 worker (loading TensorFlow)\n"
