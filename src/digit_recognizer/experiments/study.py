"""A search's folder: an Optuna study in SQLite, which several processes may use, the best recipe and the plots."""

import sqlite3
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy.exc import SQLAlchemyError  # installed with Optuna, which uses it for its storage

from digit_recognizer import files
from digit_recognizer.data.dataset import Dataset
from digit_recognizer.errors import KitError
from digit_recognizer.recipe import Recipe

try:
    import optuna as optuna  # also for tune.py, which would not explain why it is missing
except ModuleNotFoundError as error:
    raise KitError("optuna is not installed", hint="pip install -r requirements/tune.txt") from error
STORAGE_ERRORS = (sqlite3.Error, SQLAlchemyError, optuna.exceptions.StorageInternalError)
COMPLETE, PRUNED, FAILED = (optuna.trial.TrialState[state] for state in ("COMPLETE", "PRUNED", "FAIL"))
BASELINE = "baseline"  # user attribute of the trial that trains the recipe unchanged
LOCK_SECONDS = 60  # to wait for another process that writes to the study
HEARTBEAT_SECONDS = 20  # between signs of life; a trial without one for twice as long counts as failed
COMPLETE_BEFORE_PRUNING = 4  # trials that the median is taken of
EPOCHS_BEFORE_PRUNING = 2
LONGEST_NAME = 60  # characters of a recipe's name


def open_study(folder: Path) -> optuna.Study:
    """Open the study in ``folder``, or create it. One process at a time: SQLite creates its tables only once.

    Raises:
        KitError: the stored study is damaged or locked.
        BadInput: the folder cannot be written.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    path = (folder / "study.db").resolve()
    with files.locked(folder / "lock"), files.explained(folder), explain_storage_errors(folder, (Exception,)):
        _check_integrity(path)
        storage = optuna.storages.RDBStorage(
            f"sqlite:///{path}",
            engine_kwargs={"connect_args": {"timeout": LOCK_SECONDS}},
            heartbeat_interval=HEARTBEAT_SECONDS,
        )
        study = optuna.create_study(
            study_name="study",
            storage=storage,
            sampler=optuna.samplers.TPESampler(constant_liar=True),
            pruner=optuna.pruners.MedianPruner(
                n_startup_trials=COMPLETE_BEFORE_PRUNING, n_warmup_steps=EPOCHS_BEFORE_PRUNING
            ),
            load_if_exists=True,
        )
        optuna.storages.fail_stale_trials(study)
        study.get_trials()  # reads every row, which reveals damaged ones
    return study


def _check_integrity(path: Path) -> None:
    """Raise ``sqlite3.DatabaseError`` if SQLite finds the file damaged."""
    if not path.exists():
        return
    with closing(sqlite3.connect(path, timeout=LOCK_SECONDS)) as database:
        (verdict,) = database.execute("PRAGMA integrity_check(1)").fetchone()
    if verdict != "ok":
        raise sqlite3.DatabaseError(verdict)


@contextmanager
def explain_storage_errors(folder: Path, errors: tuple[type[Exception], ...] = STORAGE_ERRORS) -> Iterator[None]:
    """Turn the errors of a damaged or locked study into a ``KitError``; others pass."""
    path = folder / "study.db"
    try:
        yield
    except errors as error:
        if isinstance(error, (KitError, OSError)):
            raise
        cause = error.__cause__ or error
        reason = (str(getattr(cause, "orig", None) or cause).strip().splitlines() or [type(cause).__name__])[0]
        if "locked" in reason:
            raise KitError(
                f"{path}: locked by another process for more than {LOCK_SECONDS} s", hint="rerun the command"
            ) from error
        raise KitError(
            f"{path}: cannot be read or written ({reason})", hint=f"remove {folder} to start its study again"
        ) from error


def finished_trials(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """Return the trials that were completed or pruned."""
    return study.get_trials(deepcopy=False, states=(COMPLETE, PRUNED))


def baseline_trial(study: optuna.Study) -> optuna.trial.FrozenTrial | None:
    """Return the trial of the unchanged recipe, finished or waiting; None if it was never added or failed."""
    trials = study.get_trials(deepcopy=False)
    return next((trial for trial in trials if BASELINE in trial.user_attrs and trial.state != FAILED), None)


def write_best_recipe(study: optuna.Study, folder: Path, base: Recipe, digits: Dataset) -> Path | None:
    """Write the best recipe so far into the study's folder; return its path, or None if no trial is complete."""
    if not study.get_trials(deepcopy=False, states=(COMPLETE,)):
        return None
    best = study.best_trial
    name = f"{base.name.removesuffix('-tuned')[: LONGEST_NAME - len('-tuned')]}-tuned"
    tuned = base.changed(name=name, **best.params)
    source = "the bundled sample, NOT the competition's files" if digits.sample else "the competition's files"
    comment = (
        f"# Best of {len(finished_trials(study))} trials on fold 0 of {source}: validation loss {best.value:.4f}.\n"
    )
    path = folder / f"{tuned.name}.toml"
    files.write_bytes(path, (comment + tuned.toml()).encode())
    return path


def draw_plots(study: optuna.Study, folder: Path) -> None:
    """Write Optuna's own plots to ``plots.html``, one page that needs no network."""
    from optuna import visualization

    target: dict[str, Any] = {"target_name": "validation loss"}
    figures = [
        visualization.plot_optimization_history(study, **target),
        visualization.plot_intermediate_values(study),
        visualization.plot_slice(study, **target),
        visualization.plot_parallel_coordinate(study, **target),
    ]
    if len({trial.value for trial in study.get_trials(deepcopy=False, states=(COMPLETE,))}) > 1:
        figures.insert(1, visualization.plot_param_importances(study, **target))
    for figure in figures:
        figure.update_layout(width=None, autosize=True)  # as wide as the page
    plots = [figure.to_html(full_html=False, include_plotlyjs=i == 0) for i, figure in enumerate(figures)]
    head = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{folder.name}</title>'
    style = "<style>body{font:16px sans-serif;max-width:1300px;margin:2em auto}</style>"
    summary = f"{len(finished_trials(study))} trials; lowest validation loss on fold 0: {study.best_value:.4f}."
    page = f"{head}{style}<h1>{folder.name}</h1><p>{summary}</p>{''.join(plots)}</html>"
    files.write_bytes(folder / "plots.html", page.encode())
