"""Tuning: the rows of a trial, the values it tries, pruning, the stored study."""

import math
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest

from conftest import one_line
from digit_recognizer import cli, hints
from digit_recognizer.data import dataset, splits
from digit_recognizer.errors import KitError
from digit_recognizer.experiments import study as storage
from digit_recognizer.experiments import tune
from digit_recognizer.recipe import load_recipe
from digit_recognizer.training.executors import local
from stored_runs import DIGITS

DENSE = load_recipe("dense")


class SilentReporter:
    def batch(self, done: int, of: int, loss: float) -> None: ...

    def epoch(self, epoch: int, figures: dict[str, float]) -> None: ...

    saved = None

    def save(self, state: bytes) -> None: ...


def _unit_study(folder: Path, trials: int = 3) -> optuna.Study:
    """Store a study of completed trials that train nothing."""
    study = storage.open_study(folder)
    study.optimize(lambda trial: trial.suggest_float("dropout", 0, 0.6), n_trials=trials)
    return study


def test_trials_use_no_row_of_the_holdout() -> None:
    images = np.zeros((400, 28, 28), np.uint8)
    images[:, 0, 0], images[:, 0, 1] = np.arange(400) // 256, np.arange(400) % 256  # the row number, in two pixels
    digits = dataset.Dataset(images, (np.arange(400) % 10).astype(np.uint8), images[:5], Path(), False, "")
    rows = tune.trial_data(DENSE, digits)
    used = np.concatenate(
        [part[:, 0, 0].astype(int) * 256 + part[:, 0, 1] for part in (rows.images, rows.validation_images)]
    )
    split = splits.split(digits.labels, folds=10, members=1, holdout=0.1, seed=0)
    assert len(split.holdout) == 40
    assert sorted([*used, *split.holdout]) == list(range(400)), "the holdout of a run of the same recipe"
    np.testing.assert_array_equal(np.concatenate((rows.labels, rows.validation_labels)), used % 10)


def test_suggested_values_are_valid_and_include_the_recipes_own() -> None:
    base = DENSE.changed(learning_rate=0.5, batch_size=8)
    fields = [*tune.CATEGORICAL, *tune.RANGES]
    study = optuna.create_study()
    study.enqueue_trial({name: getattr(base, name) for name in fields})
    suggestions = [tune.suggest_values(study.ask(), base, fields) for _ in range(30)]
    assert base.changed(**suggestions[0]) == base
    assert {type(values["batch_size"]) for values in suggestions} == {int}
    for values in suggestions:
        base.changed(**values)  # raises for a value out of range
    assert len({values["network"] for values in suggestions}) > 2


def test_trial_is_pruned_for_a_high_or_a_nan_loss() -> None:
    study = optuna.create_study(pruner=optuna.pruners.MedianPruner(n_startup_trials=2, n_warmup_steps=2))

    def objective(trial: optuna.Trial) -> float:
        reporter: Any = tune._PruningReporter(SilentReporter(), trial)  # type: ignore[arg-type]
        losses = [3.0, 2.0, math.nan if trial.number == 3 else 1.0 + 5 * (trial.number == 2), 0.5]
        for epoch, loss in enumerate(losses, 1):
            reporter.epoch(epoch, {"val_loss": loss})
        return losses[-1]

    study.optimize(objective, n_trials=5)
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "COMPLETE", "PRUNED", "PRUNED", "COMPLETE"]
    assert [trial.last_step for trial in study.trials] == [4, 4, 3, 2, 4]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--fields", "dropout,folds"], "hint: choose from network, preprocessing, schedule, learning_rate, "),
        (["--trials", "0"], "--trials: expected a whole number from 1 to 100000"),
        (["--trials", "100001"], "--trials: expected a whole number from 1 to 100000"),
        (["--trials", "9" * 4000], "--trials: expected a whole number"),
        (["--fields", ""], "at least one trial and one field\nhint: such as --trials 20 --fields dropout,rotation"),
        (["--fields", ","], "at least one trial and one field"),
        (["--fields", "dropout,shift,dropout"], "fields: expected each field once, found dropout several times"),
        (["--recipe", "none.toml"], "none.toml: No such file"),
    ],
)
def test_invalid_options_are_refused(
    options: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["tune", *options]) == 2
    assert message in one_line(capsys.readouterr().err)
    assert not list(tmp_path.iterdir())


def _damage(database: Path, how: str) -> None:
    content = database.read_bytes()
    if how == "truncated":
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


@pytest.fixture(scope="module")
def stored_study(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The file of a study of three trials."""
    folder = tmp_path_factory.mktemp("study")
    _unit_study(folder)
    assert len(storage.finished_trials(storage.open_study(folder))) == 3
    return (folder / "study.db").read_bytes()


@pytest.mark.parametrize(
    "how",
    [
        "truncated",
        "zeroed",
        "text",
        "folder",
        "ALTER TABLE trials RENAME COLUMN state TO lost",
        "UPDATE trials SET state = 'LOST'",
        "UPDATE trial_params SET distribution_json = '{'",
    ],
)
def test_damaged_study_is_named(how: str, tmp_path: Path, stored_study: bytes) -> None:
    (tmp_path / "study.db").write_bytes(stored_study)
    _damage(tmp_path / "study.db", how)
    with pytest.raises(KitError, match=r"study\.db: cannot be read or written \(.+\)$") as raised:
        storage.open_study(tmp_path)
    assert "\n" not in str(raised.value)
    assert raised.value.hint == f"remove {tmp_path} to start its study again"


def test_study_locked_by_another_process_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stored_study: bytes
) -> None:
    (tmp_path / "study.db").write_bytes(stored_study)
    monkeypatch.setattr(storage, "LOCK_SECONDS", 0.1)
    with closing(sqlite3.connect(tmp_path / "study.db")) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(KitError, match="locked by another process for more than"):
            storage.open_study(tmp_path)


def test_storage_errors_are_explained_and_others_pass(tmp_path: Path) -> None:
    (tmp_path / "study.db").touch()
    malformed = pytest.raises(KitError, match=r"study\.db: cannot be read or written \(malformed\)")
    with malformed, storage.explain_storage_errors(tmp_path):
        raise sqlite3.DatabaseError("malformed")
    with pytest.raises(ZeroDivisionError), storage.explain_storage_errors(tmp_path):
        1 / 0  # noqa: B018


def test_long_recipe_name_is_shortened(tmp_path: Path) -> None:
    path = storage.write_best_recipe(_unit_study(tmp_path, 1), tmp_path, DENSE.changed(name="a" * 60), DIGITS)
    assert path
    assert load_recipe(str(path)).name == "a" * 54 + "-tuned"


@pytest.fixture
def no_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to tune in, where trials are completed in this process without training."""

    def run_jobs(
        job: Any, members: Any, progress: Any, *, workers: int, threads: int, done: Any, may_start: Any
    ) -> None:
        folder, base, fields = job.args[:3]
        for index in members:
            if may_start():
                study = storage.open_study(folder)
                study.optimize(
                    lambda trial: sum(map(float, tune.suggest_values(trial, base, fields).values())), n_trials=1
                )
                done(index, ("trial", 1.0))

    monkeypatch.setattr(local, "run_jobs", run_jobs)
    monkeypatch.setattr(dataset, "load", lambda data, *, default, cache: DIGITS)
    monkeypatch.setattr(tune, "draw_plots", lambda study, folder: 1 / 0)
    monkeypatch.setenv(hints.CALLER_VARIABLE, "make")
    return tmp_path


def test_study_is_resumed_and_names_the_next_command(no_training: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def tune_to(trials: int) -> str:
        path = tune.tune_recipe(no_training, Path("my files"), DENSE, trials=trials, fields=["dropout", "shift"])
        assert load_recipe(str(path)).name == "dense-tuned"
        return capsys.readouterr().out

    first = tune_to(2)
    assert "\n2 trials to run\n" in first
    assert "\nplots: not drawn (ZeroDivisionError: division by zero)\n" in first
    assert "\nnext: make run RECIPE=runs/studies/sample-dense-" in first
    assert "/dense-tuned.toml DATA='my files', which scores the recipe on the holdout\n" in first
    assert "\n2 of 3 trials are complete\n" in tune_to(3)
    last = tune_to(3)
    assert "\n3 of 3 trials are complete; none is run\n" in last
    assert "\nbest of 3 trials: trial " in last
    (folder,) = no_training.glob("runs/studies/*")
    baseline = storage.baseline_trial(storage.open_study(folder))
    assert baseline and baseline.number == 0
    assert baseline.params == {"dropout": DENSE.dropout, "shift": DENSE.shift}
    assert f" (baseline {baseline.value:.4f})" in last


@pytest.mark.parametrize(
    ("deadline", "hint"), [(None, "lower LEARNING_RATE="), (0.0, "raise BUDGET= or lower EPOCHS=")]
)
def test_search_without_a_complete_trial_is_an_error(
    deadline: float | None, hint: str, no_training: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "run_jobs", lambda *positional, **named: None)
    with pytest.raises(KitError, match="tune: no trial was completed") as raised:
        tune.tune_recipe(no_training, None, DENSE, trials=1, deadline=deadline)
    assert raised.value.hint == hint
