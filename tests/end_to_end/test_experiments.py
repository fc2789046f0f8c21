"""compare, tune and bench, with real trainings on the bundled sample."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conftest import kit
from digit_recognizer import recipe
from digit_recognizer.data import dataset
from digit_recognizer.experiments import study, timing

pytestmark = pytest.mark.slow


def test_compare_trains_each_recipe_once(tmp_path: Path) -> None:
    def completed_runs() -> list[str]:
        return sorted(path.parent.name for path in tmp_path.glob("runs/*/scores.json"))

    fields = {"name": "resampled", "resampling": 0.5, "epochs": 6}
    (tmp_path / "resampled.toml").write_text(recipe.load_recipe("dense").changed(**fields).toml())
    first = kit("compare", "--recipes", "dense,resampled.toml", cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    markdown = (tmp_path / "runs" / "compare.md").read_text()
    summaries = json.loads((tmp_path / "runs" / "compare.json").read_text())
    assert [summary["recipe"] for summary in summaries] == ["dense", "resampled"]
    assert all(len(summary["errors"]) == 1 and summary["rows"] == 144 for summary in summaries)
    assert summaries[1]["errors"][0] < 30, "it learns from rows resampled by loss"
    runs = completed_runs()
    assert len(runs) == 2
    second = kit("compare", "--recipes", "dense,resampled.toml", cwd=tmp_path)
    assert second.stdout.count("complete run found") == 2
    assert completed_runs() == runs
    assert (tmp_path / "runs" / "compare.md").read_text() == markdown


def test_killed_study_is_resumed_by_two_processes(tmp_path: Path) -> None:
    options = ["tune", "--recipe", "dense", "--epochs", "1", "--trials", "3", "--fields", "learning_rate,dropout"]
    command = [sys.executable, "-m", "digit_recognizer", *options]

    def start() -> subprocess.Popen[str]:
        return subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    killed = start()
    limit = time.monotonic() + 200
    while not list(tmp_path.glob("runs/studies/*/*.toml")):  # written after the first trial
        assert time.monotonic() < limit
        assert killed.poll() is None, killed.communicate()
        time.sleep(0.05)
    killed.kill()
    killed.communicate()
    for process in [start(), start()]:
        output, errors = process.communicate(timeout=300)
        assert (process.returncode, errors) == (0, "")
        assert "best of " in output
    (folder,) = tmp_path.glob("runs/studies/sample-dense-*")
    stored = study.open_study(folder)
    finished = study.finished_trials(stored)
    assert 3 <= len(finished) <= 3 + 4, "up to four workers may have started one more"
    baseline = study.baseline_trial(stored)
    assert baseline
    assert stored.best_value <= baseline.value
    page = (folder / "plots.html").read_text()
    assert page.count('class="plotly-graph-div"') == 5
    assert "Hyperparameter Importances" in page
    (path,) = folder.glob("*.toml")
    assert recipe.load_recipe(str(path)).learning_rate == stored.best_params["learning_rate"]


def test_paces_and_predictions_are_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "PACE_SECONDS", 0.2)
    monkeypatch.setattr(timing, "PREDICTING_MEMBERS", 1)
    small = recipe.load_recipe("standard").changed(network="dense", members=1, full_members=0, epochs=1)
    monkeypatch.setitem(recipe.RECIPES, "standard", small)
    digits = dataset.load(None, default=tmp_path / "data", cache=tmp_path / "runs" / "cache")
    assert timing.plain_keras_pace(digits) > 100
    assert 0 < timing.estimate_recipe_seconds(small, digits) < 60
    assert timing.prediction_seconds(tmp_path, tmp_path / "runs" / "cache" / "sample") > 0
