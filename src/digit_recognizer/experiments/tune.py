"""Search a recipe's own fields for better values, on Optuna, whose stored study several processes may share.

A trial trains one member, that of fold 0, and is judged by its least loss on that fold; the holdout's rows are not even
handed to it. The least of many trials is too good a figure: what the recipe found is worth, a run of it tells.
"""

import hashlib
import json
import math
import sqlite3
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from sqlalchemy.exc import SQLAlchemyError  # Optuna's own dependency, by which it stores a study

from digit_recognizer import files, provenance, recipe
from digit_recognizer.console import format_duration
from digit_recognizer.data import dataset, splits
from digit_recognizer.ensemble import train
from digit_recognizer.errors import BadInput, KitError
from digit_recognizer.recipe import Recipe
from digit_recognizer.training import devices
from digit_recognizer.training.executors import local
from digit_recognizer.training.progress import Progress

try:
    import optuna
except ModuleNotFoundError as missing:
    raise KitError("optuna: not installed", hint="make tune, or pip install -r requirements/tune.txt") from missing
STORAGE_ERRORS = (sqlite3.Error, SQLAlchemyError, optuna.exceptions.StorageInternalError)
COMPLETE, PRUNED, FAIL = (optuna.trial.TrialState[state] for state in ("COMPLETE", "PRUNED", "FAIL"))
# Field → lowest value, highest value, whether the search goes by its logarithm.
SEARCHED: dict[str, tuple[float, float, bool]] = {
    "learning_rate": (1e-4, 3e-2, True),
    "batch_size": (32, 512, True),
    "weight_decay": (0, 0.5, False),
    "dropout": (0, 0.6, False),
    "rotation": (0, 20, False),
    "zoom": (0, 0.2, False),
    "shift": (0, 0.15, False),
    "shear": (0, 20, False),
    "warmup": (0, 0.5, False),
    "resampling": (0, 1, False),
}
CHOICES = ("network", "preprocessing", "schedule")  # searched only where FIELDS= names them
FIELDS = ("learning_rate", "batch_size", "weight_decay", "dropout", "rotation", "zoom", "shift")
WAIT = 60  # seconds for a process that writes to the study
BEFORE_PRUNING = 4  # whole trials that the median is taken of
HEARTBEAT = 20  # seconds between signs of life; a trial without one for twice as long is taken for dead
AT_THE_END = 8.0  # seconds to draw the page
FIRST = "the recipe as it is"


class Rows(NamedTuple):
    """What a trial sees: uint8 images (·, 28, 28) and labels (·,) of fold 0, those to train on and those left out."""

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.uint8]
    out_images: npt.NDArray[np.uint8]
    out_labels: npt.NDArray[np.uint8]


def tune_recipe(
    home: Path,
    given: Path | None,
    base: Recipe,
    *,
    trials: int,
    fields: Sequence[str] = FIELDS,
    deadline: float | None = None,
) -> Path:
    """Go on with the study of this recipe until it has ``trials``, and leave the best recipe and the plots.

    The first trial is the recipe as it is, so what is found is never worse on the fold.

    Args:
        home: the folder of ``runs``; the study lies in ``runs/studies/<study>/``.
        given: folder or zip of the competition's files.
        base: where the search starts; the fields not searched stay.
        trials: finished or pruned ones that the study is to have. Processes that share it may make a few more.
        fields: which fields to search, each named once.
        deadline: a time of ``time.monotonic`` by which all is done; a trial that is not over then is dropped.

    Returns:
        The recipe file, which ``recipe.load_recipe`` reads.

    Raises:
        BadInput: a field that cannot be searched or is named twice, or data that cannot be read.
        KitError: not one trial was finished, or the stored study is damaged or locked.
    """
    if trials < 1 or not fields:
        raise BadInput("tune: expected at least one trial and one field", hint="see tune --help")
    for name in fields:
        if name not in SEARCHED and name not in CHOICES:
            raise BadInput(f"fields: expected some of {', '.join(CHOICES)}, {', '.join(SEARCHED)}, found {name!r}")
        if list(fields).count(name) > 1:
            raise BadInput(f"fields: expected each field once, found {name} several times")
    digits = dataset.load(given, default=home / "data", cache=home / "runs" / "cache")
    rows = _rows(base, digits)
    folder = _folder(home, base, fields, digits)
    print(f"data: {digits}\nrecipe: {base}\nstudy: runs/studies/{folder.name}", flush=True)
    with _explained(folder):
        return _searched(home, folder, base, digits, rows, trials, fields, deadline)


def _searched(
    home: Path,
    folder: Path,
    base: Recipe,
    digits: dataset.Dataset,
    rows: Rows,
    trials: int,
    fields: Sequence[str],
    deadline: float | None,
) -> Path:
    """Make the trials that the study in ``folder`` lacks; see ``tune``."""
    study = _opened(folder)
    with files.locked(folder / "lock"):
        if not _as_it_is(study):
            study.enqueue_trial({name: getattr(base, name) for name in fields}, user_attrs={FIRST: True})
    missing = max(0, trials - len(_finished(study)))
    print(f"{trials - missing} of {trials} trials are there" if missing < trials else f"{trials} trials to make")
    progress = Progress(missing, base.epochs, (), missing, noun="trial", each_epoch=False)
    longest = begun = 0.0
    workers, threads = devices.plan_workers(max(missing, 1))

    def may_start() -> bool:
        nonlocal begun
        begun += 1
        in_time = begun <= workers or deadline is None or time.monotonic() + longest < deadline
        return in_time and len(_finished(study)) < trials

    def done(index: int, told: tuple[str, float]) -> None:
        nonlocal longest
        line, seconds = told
        longest = max(longest, seconds)
        progress.over(index, line)
        _keep_best(study, folder, base, digits)

    job = partial(_trial, folder, base, tuple(fields), rows, None if deadline is None else deadline - AT_THE_END)
    local.run_jobs(job, range(missing), progress, workers=workers, threads=threads, done=done, may_start=may_start)
    path = _keep_best(study, folder, base, digits)
    if path is None:
        raise KitError("tune: no trial was finished", hint="give it more time or fewer EPOCHS")
    try:
        _draw(study, folder)
        plots = f"runs/studies/{folder.name}/plots.html"
    except Exception as error:  # no picture is worth the search
        plots = f"not drawn ({type(error).__name__}: {error})"
    best, first = study.best_trial, _as_it_is(study)
    before = f", {first.value:.4f} as the recipe was" if first and first.state == COMPLETE else ""
    print(f"best of {len(_finished(study))}, trial {best.number}: {_told(best.params)}")
    print(
        f"  loss {best.value:.4f} on the fold{before}; the least of many is optimistic, a run scores it on the holdout"
    )
    print(f"plots: {plots}\nrecipe: make run RECIPE={path.relative_to(home)}")
    return path


def _rows(base: Recipe, digits: dataset.Dataset) -> Rows:
    fold = splits.split(digits.labels, folds=base.folds, members=1, holdout=base.holdout, seed=base.seed).folds[0]
    return Rows(
        digits.images[fold.train],
        digits.labels[fold.train],
        digits.images[fold.validation],
        digits.labels[fold.validation],
    )


def _folder(home: Path, base: Recipe, fields: Sequence[str], digits: dataset.Dataset) -> Path:
    """Give the study's folder, whose name follows from all that its trials have in common."""
    shared = json.dumps([provenance.identity(base, digits), sorted(fields)], sort_keys=True)
    digest = hashlib.blake2b(shared.encode(), digest_size=4).hexdigest()
    return files.folder(home / "runs" / "studies" / f"{'sample-' if digits.sample else ''}{base.name}-{digest}")


def _opened(folder: Path) -> optuna.Study:
    """Open the folder's study, or make it; one process at a time, for SQLite makes its tables only once."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    path = (folder / "study.db").resolve()
    with files.locked(folder / "lock"), files.explained(folder), _explained(folder, (Exception,)):
        _check(path)
        storage = optuna.storages.RDBStorage(
            f"sqlite:///{path}",
            engine_kwargs={"connect_args": {"timeout": WAIT}},
            heartbeat_interval=HEARTBEAT,
        )
        study = optuna.create_study(
            study_name="study",
            storage=storage,
            sampler=optuna.samplers.TPESampler(constant_liar=True),
            pruner=optuna.pruners.MedianPruner(n_startup_trials=BEFORE_PRUNING, n_warmup_steps=2),
            load_if_exists=True,
        )
        optuna.storages.fail_stale_trials(study)
        study.get_trials()
    return study


def _check(path: Path) -> None:
    """Have SQLite look for damage in all of a file; what is not there is not damaged."""
    if not path.exists():
        return
    with closing(sqlite3.connect(path, timeout=WAIT)) as database:
        (found,) = database.execute("PRAGMA integrity_check(1)").fetchone()
    if found != "ok":
        raise sqlite3.DatabaseError(found)


@contextmanager
def _explained(folder: Path, errors: tuple[type[Exception], ...] = STORAGE_ERRORS) -> Iterator[None]:
    """Turn what a damaged or locked study raises into a ``KitError``."""
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
                f"{path}: another process has locked it for more than {WAIT} s", hint="run the same command again"
            ) from error
        raise KitError(
            f"{path}: cannot be read or written ({reason})", hint=f"remove {folder}; its study then starts anew"
        ) from error


def _finished(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    return study.get_trials(deepcopy=False, states=(COMPLETE, PRUNED))


def _as_it_is(study: optuna.Study) -> optuna.trial.FrozenTrial | None:
    """The trial of the recipe as it is, made or to be made; None where there is none or it was broken off."""
    found = [trial for trial in study.get_trials(deepcopy=False) if FIRST in trial.user_attrs]
    return next((trial for trial in found if trial.state != FAIL), None)


def _suggested(trial: optuna.Trial, base: Recipe, fields: Sequence[str]) -> dict[str, Any]:
    """Let a trial choose a value for each field, from a range that the recipe's own value is in."""
    chosen: dict[str, Any] = {}
    for setting in recipe.recipe_fields():
        name = setting.name
        if name not in fields:
            continue
        if "choice" in setting.metadata:
            choices = dict.fromkeys([*setting.metadata["choice"], getattr(base, name)])  # "a+b" is none of the names
            chosen[name] = trial.suggest_categorical(name, list(choices))
            continue
        low, high, log = SEARCHED[name]
        low, high = min(low, getattr(base, name)), max(high, getattr(base, name))
        if setting.type is int:
            chosen[name] = trial.suggest_int(name, int(low), int(high), log=log)
        else:
            chosen[name] = trial.suggest_float(name, low, high, log=log)
    return chosen


class _TimeUp(Exception):
    """The trial was not over at the deadline."""


class _Reports(local.Reporter):
    """Hands a trial's epochs on to Optuna, which may end it, and to the process that waits for it."""

    def __init__(self, reporter: local.Reporter, trial: optuna.Trial) -> None:
        self._reporter, self._trial = reporter, trial

    def stage(self, text: str) -> None:
        self._reporter.stage(text)

    def batch(self, done: int, of: int, loss: float) -> None:
        self._reporter.batch(done, of, loss)

    def epoch(self, epoch: int, figures: dict[str, float]) -> None:
        self._reporter.epoch(epoch, figures)
        if not math.isfinite(figures["val_loss"]):
            raise optuna.TrialPruned
        self._trial.report(figures["val_loss"], epoch)
        if self._trial.should_prune():
            raise optuna.TrialPruned


def _trial(
    folder: Path,
    base: Recipe,
    fields: Sequence[str],
    rows: Rows,
    deadline: float | None,
    index: int,
    reporter: local.Reporter,
) -> tuple[str, float]:
    """Make one trial in a worker; a line that tells of it, and the seconds it took."""
    from digit_recognizer.training import trainer

    began = time.monotonic()
    numbers = []

    def objective(trial: optuna.Trial) -> float:
        numbers.append(trial.number)
        chosen = base.changed(**_suggested(trial, base, fields))
        with tempfile.TemporaryDirectory() as scratch:
            trained = trainer.train_member(
                chosen.of_member(0),
                *rows,
                seed=train.member_seed(base.seed, 0),
                checkpoint=Path(scratch) / "network.keras",
                reporter=_Reports(reporter, trial),
                deadline=deadline,
            )
        if trained.stopped:
            raise _TimeUp
        trial.set_user_attr("accuracy", trained.history["val_accuracy"][trained.best_epoch - 1])
        return trained.history["val_loss"][trained.best_epoch - 1]

    study = _opened(folder)
    with _explained(folder):
        study.optimize(objective, n_trials=1, catch=_TimeUp)
        made = study.get_trials(deepcopy=False)[numbers[0]]
    if made.state == COMPLETE:
        outcome = f"loss {made.value:.4f}  accuracy {made.user_attrs['accuracy']:.4f}"
    else:
        outcome = f"pruned at epoch {made.last_step}" if made.state == PRUNED else "dropped, time was up"
    chosen = FIRST if FIRST in made.user_attrs else _told(made.params)
    seconds = time.monotonic() - began
    return f"trial {made.number}  {outcome}  {format_duration(seconds)}  {chosen}", seconds


def _told(values: dict[str, Any]) -> str:
    return ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in values.items()
    )


def _keep_best(study: optuna.Study, folder: Path, base: Recipe, digits: dataset.Dataset) -> Path | None:
    """Write the best recipe so far into the study's folder; None where there is none yet."""
    if not study.get_trials(deepcopy=False, states=(COMPLETE,)):
        return None
    best = study.best_trial
    name = f"{base.name.removesuffix('-tuned')[:54]}-tuned"  # a recipe's name has 60 characters at most
    found = base.changed(name=name, **best.params)
    where = "the bundled sample, NOT of the competition's files" if digits.sample else "the competition's files"
    about = f"# The best of {len(_finished(study))} trials by fold 0 of {where}: loss {best.value:.4f}.\n"
    path = folder / f"{found.name}.toml"
    files.write_bytes(path, (about + found.toml()).encode())
    return path


def _draw(study: optuna.Study, folder: Path) -> None:
    """Put Optuna's own plots on one page, which needs no network."""
    from optuna import visualization

    value: dict[str, Any] = {"target_name": "loss on the fold"}
    figures = [
        visualization.plot_optimization_history(study, **value),
        visualization.plot_intermediate_values(study),
        visualization.plot_slice(study, **value),
        visualization.plot_parallel_coordinate(study, **value),
    ]
    if len({trial.value for trial in study.get_trials(deepcopy=False, states=(COMPLETE,))}) > 1:
        figures.insert(1, visualization.plot_param_importances(study, **value))
    for figure in figures:
        figure.update_layout(width=None, autosize=True)  # as wide as the page
    plots = [figure.to_html(full_html=False, include_plotlyjs=i == 0) for i, figure in enumerate(figures)]
    head = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{folder.name}</title>'
    style = "<style>body{font:16px sans-serif;max-width:1300px;margin:2em auto}</style>"
    told = f"{len(_finished(study))} trials, the best with a loss of {study.best_value:.4f} on fold 0."
    page = f"{head}{style}<h1>{folder.name}</h1><p>{told}</p>{''.join(plots)}</html>"
    files.write_bytes(folder / "plots.html", page.encode())
