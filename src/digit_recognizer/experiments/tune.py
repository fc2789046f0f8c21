"""Search a recipe's fields for better values with Optuna.

A trial trains one member on fold 0 and is scored by its lowest validation loss. The search never uses the holdout. The
lowest loss of many trials is optimistic; a run of the tuned recipe scores it on the holdout.
"""

import hashlib
import json
import math
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from digit_recognizer import files, hints, provenance, recipe
from digit_recognizer.console import format_duration
from digit_recognizer.data import dataset, splits
from digit_recognizer.data.dataset import Dataset
from digit_recognizer.ensemble import train
from digit_recognizer.errors import BadInput, KitError
from digit_recognizer.experiments.study import (
    BASELINE,
    COMPLETE,
    PRUNED,
    baseline_trial,
    draw_plots,
    explain_storage_errors,
    finished_trials,
    open_study,
    optuna,
    write_best_recipe,
)
from digit_recognizer.recipe import Recipe
from digit_recognizer.training import devices
from digit_recognizer.training.executors import Reporter, local
from digit_recognizer.training.progress import Progress

# Field → lowest value, highest value, whether it is searched on a logarithmic scale.
RANGES: dict[str, tuple[float, float, bool]] = {
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
CATEGORICAL = ("network", "preprocessing", "schedule")
FIELDS = ("learning_rate", "batch_size", "weight_decay", "dropout", "rotation", "zoom", "shift")  # the default
PLOT_SECONDS = 8.0  # of a budget, kept free for the plots


class TrialData(NamedTuple):
    """Fold 0: uint8 images (n, 28, 28) and labels (n,), to train on and for validation."""

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.uint8]
    validation_images: npt.NDArray[np.uint8]
    validation_labels: npt.NDArray[np.uint8]


def tune_recipe(
    home: Path,
    data: Path | None,
    base: Recipe,
    *,
    trials: int,
    fields: Sequence[str] = FIELDS,
    deadline: float | None = None,
) -> Path:
    """Run the study of this recipe until it has ``trials`` trials, and write the best recipe and the plots.

    The first trial is the baseline, the unchanged recipe, so the result is never worse on the fold. Interrupt the call
    at any time: finished trials are stored, and the next call resumes the study. Several processes may call it at once
    to share the trials; together they may run a few more than ``trials``.

    Args:
        home: folder of ``runs``; the study is stored in ``runs/studies/<study>/``.
        data: folder or zip of the competition's files; None for ``data/``, or else the bundled sample.
        base: where the search starts; fields that are not searched keep its values.
        trials: number of completed or pruned trials that the study is to have.
        fields: fields to search, each named once.
        deadline: a time of ``time.monotonic`` by which the call ends; a trial that is running then is dropped.

    Returns:
        The recipe file, which ``recipe.load_recipe`` reads.

    Raises:
        BadInput: a field that cannot be searched or is named twice, or data that cannot be read.
        KitError: no trial was completed, or the stored study is damaged or locked.
    """
    _check_arguments(trials, fields)
    digits = dataset.load(data, default=home / "data", cache=home / "runs" / "cache")
    rows = trial_data(base, digits)
    folder = study_folder(home, base, fields, digits)
    print(f"data: {digits}\nrecipe: {base}\nstudy: runs/studies/{folder.name}", flush=True)
    with explain_storage_errors(folder):
        study = open_study(folder)
        with files.locked(folder / "lock"):
            if not baseline_trial(study):
                study.enqueue_trial({name: getattr(base, name) for name in fields}, user_attrs={BASELINE: True})
        _run_trials(study, folder, base, digits, rows, trials, fields, deadline)
        path = write_best_recipe(study, folder, base, digits)
        if path is None:
            remedy = f"lower {hints.option('learning_rate')}"
            if deadline is not None:
                remedy = f"raise {hints.option('budget')} or lower {hints.option('epochs')}"
            raise KitError("tune: no trial was completed", hint=remedy)
        try:
            draw_plots(study, folder)
            plots = f"runs/studies/{folder.name}/plots.html"
        except Exception as error:  # a plot that cannot be drawn does not end the search
            plots = f"not drawn ({type(error).__name__}: {error})"
        best, baseline = study.best_trial, baseline_trial(study)
        before = f" (baseline {baseline.value:.4f})" if baseline and baseline.state == COMPLETE else ""
        run = hints.command("run", recipe=path.relative_to(home), **({"data": data} if data else {}))
        print(f"best of {len(finished_trials(study))} trials: trial {best.number}, {format_values(best.params)}")
        print(f"  validation loss {best.value:.4f}{before}")
        print("  the lowest loss of many trials is optimistic")
        print(f"plots: {plots}\nnext: {run}, which scores the recipe on the holdout")
    return path


def _check_arguments(trials: int, fields: Sequence[str]) -> None:
    if trials < 1 or not fields:
        example = f"{hints.option('trials', 20)} {hints.option('fields', 'dropout,rotation')}"
        raise BadInput("tune: expected at least one trial and one field", hint=f"such as {example}")
    for name in fields:
        if name not in RANGES and name not in CATEGORICAL:
            known = ", ".join((*CATEGORICAL, *RANGES))
            raise BadInput(f"fields: expected fields that can be searched, found {name!r}", hint=f"choose from {known}")
        if list(fields).count(name) > 1:
            raise BadInput(f"fields: expected each field once, found {name} several times", hint=f"name {name} once")


def _run_trials(
    study: optuna.Study,
    folder: Path,
    base: Recipe,
    digits: Dataset,
    rows: TrialData,
    trials: int,
    fields: Sequence[str],
    deadline: float | None,
) -> None:
    """Run the trials that the study lacks, in worker processes; write the best recipe after each."""
    missing = max(0, trials - len(finished_trials(study)))
    if missing == trials:
        print(f"{trials} trials to run", flush=True)
    else:
        print(f"{trials - missing} of {trials} trials are complete{'' if missing else '; none is run'}", flush=True)
    progress = Progress(missing, base.epochs, (), missing, noun="trial", each_epoch=False)
    workers, threads = devices.plan_workers(max(missing, 1))
    started, longest = 0, 0.0

    def may_start() -> bool:
        nonlocal started
        started += 1
        in_time = started <= workers or deadline is None or time.monotonic() + longest < deadline
        return in_time and len(finished_trials(study)) < trials

    def done(index: int, result: tuple[str, float]) -> None:
        nonlocal longest
        line, seconds = result
        longest = max(longest, seconds)
        progress.over(index, line)
        write_best_recipe(study, folder, base, digits)

    last_step = None if deadline is None else deadline - PLOT_SECONDS
    job = partial(_run_trial, folder, base, tuple(fields), rows, last_step)
    local.run_jobs(job, range(missing), progress, workers=workers, threads=threads, done=done, may_start=may_start)


def trial_data(base: Recipe, digits: Dataset) -> TrialData:
    """Return the rows of fold 0. The holdout is that of a run of the same recipe, and none of its rows is included."""
    fold = splits.split(digits.labels, folds=base.folds, members=1, holdout=base.holdout, seed=base.seed).folds[0]
    return TrialData(
        digits.images[fold.train],
        digits.labels[fold.train],
        digits.images[fold.validation],
        digits.labels[fold.validation],
    )


def study_folder(home: Path, base: Recipe, fields: Sequence[str], digits: Dataset) -> Path:
    """Make and return the study's folder, named by a digest of all that its trials have in common."""
    shared = json.dumps([provenance.identity(base, digits), sorted(fields)], sort_keys=True)
    digest = hashlib.blake2b(shared.encode(), digest_size=4).hexdigest()
    return files.folder(home / "runs" / "studies" / f"{'sample-' if digits.sample else ''}{base.name}-{digest}")


def suggest_values(trial: optuna.Trial, base: Recipe, fields: Sequence[str]) -> dict[str, Any]:
    """Choose a value for each field, from a range that includes the recipe's own value."""
    values: dict[str, Any] = {}
    for field in recipe.recipe_fields():
        name, own = field.name, getattr(base, field.name)
        if name not in fields:
            continue
        if "choice" in field.metadata:
            choices = dict.fromkeys([*field.metadata["choice"], own])  # its own may be several, joined by +
            values[name] = trial.suggest_categorical(name, list(choices))
            continue
        low, high, log = RANGES[name]
        low, high = min(low, own), max(high, own)
        if field.type is int:
            values[name] = trial.suggest_int(name, int(low), int(high), log=log)
        else:
            values[name] = trial.suggest_float(name, low, high, log=log)
    return values


class _TrialTimeout(Exception):
    """The deadline came before the trial's last epoch."""


class _PruningReporter(Reporter):
    """Reports epochs to Optuna, which may prune the trial, and forwards them to the parent process."""

    def __init__(self, reporter: Reporter, trial: optuna.Trial) -> None:
        self._reporter, self._trial, self.saved = reporter, trial, None

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

    def save(self, state: bytes) -> None:
        """Discard the state: an interrupted trial is not resumed."""


def _run_trial(
    folder: Path,
    base: Recipe,
    fields: Sequence[str],
    rows: TrialData,
    last_step: float | None,
    index: int,
    reporter: Reporter,
) -> tuple[str, float]:
    """Run one trial in a worker process; return a line that describes it, and its seconds."""
    from digit_recognizer.training import trainer

    began = time.monotonic()
    numbers = []

    def objective(trial: optuna.Trial) -> float:
        numbers.append(trial.number)
        candidate = base.changed(**suggest_values(trial, base, fields))
        with tempfile.TemporaryDirectory() as scratch:
            trained = trainer.train_member(
                candidate.of_member(0),
                *rows,
                seed=train.member_seed(base.seed, 0),
                checkpoint=Path(scratch) / "network.keras",
                reporter=_PruningReporter(reporter, trial),
                deadline=last_step,
            )
        if trained.stopped:
            raise _TrialTimeout
        trial.set_user_attr("accuracy", trained.history["val_accuracy"][trained.best_epoch - 1])
        return trained.history["val_loss"][trained.best_epoch - 1]

    study = open_study(folder)
    with explain_storage_errors(folder):
        study.optimize(objective, n_trials=1, catch=_TrialTimeout)
        trial = study.get_trials(deepcopy=False)[numbers[0]]
    if trial.state == COMPLETE:
        outcome = f"loss {trial.value:.4f}  accuracy {trial.user_attrs['accuracy']:.4f}"
    else:
        outcome = f"pruned at epoch {trial.last_step}" if trial.state == PRUNED else "dropped at the deadline"
    values = "baseline, the unchanged recipe" if BASELINE in trial.user_attrs else format_values(trial.params)
    seconds = time.monotonic() - began
    return f"trial {trial.number}  {outcome}  {format_duration(seconds)}  {values}", seconds


def format_values(values: dict[str, Any]) -> str:
    """Format field values as one line."""
    return ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in values.items()
    )
