"""The benchmark measures each of its figures, and says which fall short."""

import json
from pathlib import Path

import pytest

from digit_recognizer import bench, recipe
from digit_recognizer.cli import main

FIGURES = {name: (goal if side == "at least" else goal / 2) for name, (side, goal) in bench.GOALS.items()}


def test_what_falls_short_is_said_and_what_was_not_measured() -> None:
    lines = bench.table(FIGURES | {"precision": "float32", "best: seconds": 7201, "best: expected accuracy": None})
    told = dict(zip(FIGURES, lines.splitlines(), strict=True))
    assert [name for name, line in told.items() if line.endswith("SHORT")] == ["best: seconds"]
    assert told["best: expected accuracy"].endswith("no finished run here")


def test_a_processor_that_is_fast_at_bfloat16_is_asked_for_more() -> None:
    pace = {"training pace / of plain Keras": 1.5}
    assert "SHORT" not in bench.table(FIGURES | pace | {"precision": "float32"})
    assert bench.table(FIGURES | pace | {"precision": "bfloat16"}).count("SHORT") == 1


@pytest.mark.slow
def test_every_figure_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(bench, "PAIRS", 1)
    monkeypatch.setattr(bench, "SECONDS", 1.0)
    for name in ("standard", "best", "deotte15"):
        small = recipe.named(name).changed(network="dense", members=2, epochs=1)
        monkeypatch.setitem(recipe.RECIPES, name, small)
    assert main(["bench"]) in (0, 1)
    kept = json.loads((tmp_path / "runs" / "bench.json").read_text())
    missing = {name for name in bench.GOALS if kept[name] is None}
    assert missing == {name for name in bench.GOALS if name.startswith("best: exp") or "of deotte15, " in name}
    assert all(kept[name] > 0 for name in bench.GOALS if "seconds" in name or "/" in name)
