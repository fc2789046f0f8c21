"""Progress: what is shown on a terminal and elsewhere, and how much time is left."""

import re
import sys
import time

import pytest

from digit_recognizer import console
from digit_recognizer.training.progress import Progress

FIGURES = {"loss": 0.12345, "val_loss": 0.05, "val_accuracy": 0.98765}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that the module is given, in seconds; to be changed by the test."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def terminal(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", str(columns))


def test_the_time_left_is_that_of_the_steps_and_not_of_the_start(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    shown = Progress(2, 10, (), 2, workers=1)
    clock[0] = 30  # TensorFlow loads
    shown.batch(0, 1, 100, 0.5)
    clock[0] = 39.9
    shown.epoch(0, 1, FIGURES)
    assert capsys.readouterr().out.splitlines()[-1].endswith("  3 min"), "19 epochs of 10 s"


def test_lines_fit_60_columns_and_the_star_is_explained(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    shown = Progress(100, 100, [3], 99, workers=2)
    for epoch in range(1, 4):
        for step in (1, 100):
            clock[0] += 200
            shown.batch(41, step, 100, 0.5)
        shown.epoch(41, epoch, FIGURES | {"val_loss": 0.05 / epoch if epoch < 3 else 1.0, "loss": 12.5})
    shown.over(41, "member 42/100 trained in 10 min")
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 60, lines
    assert lines[0] == "member 4/100  kept from before"
    assert lines[2] == "* a member's lowest validation loss so far"
    assert [line.count("*") for line in lines[4:7]] == [1, 1, 0]
    assert len(lines) == 8


def test_elsewhere_one_line_says_that_workers_start(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    shown = Progress(4, 10, (), 4, workers=2)
    shown.stage(0, "building the network")
    shown.refresh()
    shown.batch(0, 1, 10, 0.5)
    assert capsys.readouterr().out == "starting 2 workers, which load TensorFlow\n"
    assert shown.refresh_seconds is None
    Progress(0, 0, (), 0)
    assert capsys.readouterr().out == ""


def test_a_terminal_shows_what_is_done_and_for_how_long(
    clock: list[float], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal(monkeypatch, 40)
    shown = Progress(4, 10, (), 4, workers=2)
    clock[0] = 12
    shown.refresh()
    shown.stage(1, "predicting")
    clock[0] = 15
    shown.refresh()
    text = capsys.readouterr().out
    drawn = text.split("\r\x1b[K")
    assert "\n" not in text
    assert drawn[1].startswith("starting 2 workers")
    assert max(map(len, drawn)) < 40
    assert drawn[-1] == "member 2/4 predicting  3 s"
    shown.batch(1, 1, 10, 0.5)
    shown.refresh()
    assert re.fullmatch(r"  0%  member 2/4 step 1/10 loss 0\.5000", capsys.readouterr().out.split("\r\x1b[K")[-1])


@pytest.mark.parametrize(("seconds", "text"), [(45.2, "45 s"), (720, "12 min"), (3900, "1 h 05 min")])
def test_a_duration_reads_as_people_write_it(seconds: float, text: str) -> None:
    assert console.format_duration(seconds) == text
