"""The search for better values: what it sees, what it may try, what it keeps."""

import math
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest

from conftest import kit, one_line
from digit_recognizer import cli, recipe
from digit_recognizer.data import dataset, splits
from digit_recognizer.errors import KitError
from digit_recognizer.experiments import tune

DENSE = recipe.load_recipe("dense")


class Silent:
    """Stands for the process that waits."""

    def batch(self, done: int, of: int, loss: float) -> None: ...

    def epoch(self, epoch: int, figures: dict[str, float]) -> None: ...


def test_trials_see_no_row_of_the_holdout() -> None:
    images = np.zeros((400, 28, 28), np.uint8)
    images[:, 0, 0], images[:, 0, 1] = np.arange(400) // 256, np.arange(400) % 256  # each image tells its row
    digits = dataset.Dataset(images, (np.arange(400) % 10).astype(np.uint8), images[:5], Path(), False, "")
    rows = tune._rows(DENSE, digits)
    seen = np.concatenate([part[:, 0, 0].astype(int) * 256 + part[:, 0, 1] for part in (rows.images, rows.out_images)])
    split = splits.split(digits.labels, folds=10, members=1, holdout=0.1, seed=0)
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
        (["--trials", "0"], "--trials: expected a whole number from 1 to 100000"),
        (["--trials", "100001"], "--trials: expected a whole number from 1 to 100000"),
        (["--trials", "9" * 4000], "--trials: expected a whole number"),
        (["--fields", ""], "at least one trial and one field"),
        (["--fields", ","], "at least one trial and one field"),
        (["--fields", "dropout,shift,dropout"], "fields: expected each field once, found dropout several times"),
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


def _study(folder: Path) -> Path:
    """Leave a study of three trials, and give its file."""
    study = tune._opened(folder)
    study.optimize(lambda trial: trial.suggest_float("dropout", 0, 0.6), n_trials=3)
    assert len(tune._finished(tune._opened(folder))) == 3
    return folder / "study.db"


def _damage(database: Path, how: str) -> None:
    content = database.read_bytes()
    if how == "torn":
        database.write_bytes(content[: len(content) // 2])
    elif how == "zeroed":
        database.write_bytes(content[:8192] + bytes(20_000) + content[28_192:])
    elif how == "text":
        database.write_text("no database" * 1000)
    elif how == "folder":
        database.unlink()
        database.mkdir()
    else:
        with sqlite3.connect(database) as connection:
            connection.execute(how)


@pytest.mark.parametrize(
    "how",
    [
        "torn",
        "zeroed",
        "text",
        "folder",
        "ALTER TABLE trials RENAME COLUMN state TO lost",
        "UPDATE trials SET state = 'LOST'",
        "UPDATE trial_params SET distribution_json = '{'",
    ],
)
def test_a_damaged_study_is_named(how: str, tmp_path: Path) -> None:
    _damage(_study(tmp_path), how)
    with pytest.raises(KitError, match=r"study\.db: cannot be read or written \(.+\)$") as refused:
        tune._opened(tmp_path)
    assert "\n" not in str(refused.value)
    assert refused.value.hint == f"remove {tmp_path}; its study then starts anew"


@pytest.mark.slow
def test_a_damaged_study_ends_in_one_line_and_an_undrawn_plot_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    digits = dataset.load(None, default=tmp_path / "data", cache=tmp_path / "runs" / "cache")
    folder = tune._folder(tmp_path, DENSE, tune.FIELDS, digits)
    words = ["tune", "--recipe", "dense", "--trials", "3"]
    monkeypatch.setattr(tune, "_draw", lambda study, folder: 1 / 0)
    database = _study(folder)
    assert cli.main(words) == 0
    assert "plots: not drawn (ZeroDivisionError: division by zero)" in capsys.readouterr().out
    assert recipe.load_recipe(str(folder / "dense-tuned.toml")).name == "dense-tuned"
    _damage(database, "torn")
    assert cli.main(words) == 1
    assert "study.db: cannot be read or written (" in one_line(capsys.readouterr().err)


def test_a_study_that_another_process_has_locked_is_named_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = _study(tmp_path)
    monkeypatch.setattr(tune, "WAIT", 0.1)
    with closing(sqlite3.connect(database)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(KitError, match="another process has locked it for more than"):
            tune._opened(tmp_path)


def test_what_a_worker_meets_in_the_stored_study_is_explained_and_the_rest_is_not(tmp_path: Path) -> None:
    (tmp_path / "study.db").touch()
    malformed = pytest.raises(KitError, match=r"study\.db: cannot be read or written \(malformed\)")
    with malformed, tune._explained(tmp_path):
        raise sqlite3.DatabaseError("malformed")
    with pytest.raises(ZeroDivisionError), tune._explained(tmp_path):
        1 / 0  # noqa: B018


def test_a_long_name_is_shortened_so_that_its_best_recipe_can_be_read(tmp_path: Path) -> None:
    study = tune._opened(tmp_path)
    study.optimize(lambda trial: trial.suggest_float("dropout", 0, 0.6), n_trials=1)
    path = tune._keep_best(
        study, tmp_path, DENSE.changed(name="a" * 60), dataset.Dataset(*[np.zeros(1, np.uint8)] * 3, tmp_path, True, "")
    )
    assert path
    assert recipe.load_recipe(str(path)).name == "a" * 54 + "-tuned"


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
    assert recipe.load_recipe(str(found)).learning_rate == study.best_params["learning_rate"]
    ran = kit("run", "--recipe", found, "--epochs", "1", cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert len(list(tmp_path.glob("submissions/sample-dense-tuned-*.csv"))) == 1
