"""The search for better values: what it sees, what it may try, what it keeps."""

import math
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest

from conftest import kit, one_line
from digit_recognizer import cli, data, folds, recipe, tune

DENSE = recipe.named("dense")


class Silent:
    """Stands for the process that waits."""

    def batch(self, done: int, of: int, loss: float) -> None: ...

    def epoch(self, epoch: int, figures: dict[str, float]) -> None: ...


def test_trials_see_no_row_of_the_holdout() -> None:
    images = np.zeros((400, 28, 28), np.uint8)
    images[:, 0, 0], images[:, 0, 1] = np.arange(400) // 256, np.arange(400) % 256  # each image tells its row
    digits = data.Data(images, (np.arange(400) % 10).astype(np.uint8), images[:5], Path(), False, "")
    rows = tune._rows(DENSE, digits)
    seen = np.concatenate([part[:, 0, 0].astype(int) * 256 + part[:, 0, 1] for part in (rows.images, rows.out_images)])
    split = folds.split(digits.labels, folds=10, members=1, holdout=0.1, seed=0)
    assert len(split.holdout) == 40
    assert sorted([*seen, *split.holdout]) == list(range(400)), "the holdout of a run of the same recipe"
    np.testing.assert_array_equal(np.concatenate((rows.labels, rows.out_labels)), seen % 10)


def test_values_are_tried_that_a_recipe_can_have_and_its_own_among_them() -> None:
    base = DENSE.changed(learning_rate=0.5, batch_size=8)
    fields = [*tune.CHOICES, *tune.SEARCHED]
    study = optuna.create_study()
    study.enqueue_trial({name: getattr(base, name) for name in fields})
    tried = [tune._suggested(study.ask(), base, fields) for _ in range(30)]
    assert base.changed(**tried[0]) == base
    assert {type(values["batch_size"]) for values in tried} == {int}
    for values in tried:
        base.changed(**values)  # refuses what is out of range
    assert len({values["network"] for values in tried}) > 2


def test_a_hopeless_trial_is_pruned_and_so_is_one_whose_loss_is_no_number() -> None:
    study = optuna.create_study(pruner=optuna.pruners.MedianPruner(n_startup_trials=2, n_warmup_steps=2))

    def objective(trial: optuna.Trial) -> float:
        told: Any = tune._Reports(Silent(), trial)  # type: ignore[arg-type]
        losses = [3.0, 2.0, math.nan if trial.number == 3 else 1.0 + 5 * (trial.number == 2), 0.5]
        for epoch, loss in enumerate(losses, 1):
            told.epoch(epoch, {"val_loss": loss})
        return losses[-1]

    study.optimize(objective, n_trials=5)
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "COMPLETE", "PRUNED", "PRUNED", "COMPLETE"]
    assert [trial.last_step for trial in study.trials] == [4, 4, 3, 2, 4]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--fields", "dropout,folds"], "expected some of network, view, schedule, learning_rate, "),
        (["--trials", "0"], "at least one trial"),
        (["--fields", ""], "at least one trial and one field"),
        (["--recipe", "none.toml"], "none.toml: No such file"),
    ],
)
def test_what_cannot_be_searched_is_refused(
    words: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["tune", *words]) == 2
    assert told in one_line(capsys.readouterr().err)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_killed_study_is_gone_on_with_by_two_processes_and_ends_in_a_recipe_that_runs(tmp_path: Path) -> None:
    words = ["tune", "--recipe", "dense", "--epochs", "1", "--trials", "5", "--fields", "learning_rate,dropout"]
    command = [sys.executable, "-m", "digit_recognizer", *words]

    def start() -> subprocess.Popen[str]:
        return subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    first = start()
    deadline = time.monotonic() + 200
    while not list(tmp_path.glob("runs/studies/*/*.toml")):  # after the first trial
        assert time.monotonic() < deadline
        assert first.poll() is None, first.communicate()
        time.sleep(0.05)
    first.kill()
    first.communicate()
    both = [start(), start()]
    for one in both:
        shown, faults = one.communicate(timeout=300)
        assert (one.returncode, faults) == (0, "")
        assert "best of " in shown
    (folder,) = tmp_path.glob("runs/studies/sample-dense-*")
    study = tune._opened(folder)
    finished = tune._finished(study)
    assert 5 <= len(finished) <= 5 + 4, "two more workers may have been at it"
    assert tune._as_it_is(study)
    assert study.best_value <= tune._as_it_is(study).value
    page = (folder / "plots.html").read_text()
    assert page.count('class="plotly-graph-div"') == 5
    assert "Hyperparameter Importances" in page
    again = kit(*words, cwd=tmp_path)
    assert "5 of 5 trials are there" in again.stdout
    assert len(tune._finished(tune._opened(folder))) == len(finished)
    (found,) = folder.glob("*.toml")
    assert recipe.named(str(found)).learning_rate == study.best_params["learning_rate"]
    ran = kit("run", "--recipe", found, "--epochs", "1", cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert len(list(tmp_path.glob("submissions/sample-dense-tuned-*.csv"))) == 1
