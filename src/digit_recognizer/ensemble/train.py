"""Train the members of a run that are missing, each in a worker process."""

import shutil
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from digit_recognizer import files
from digit_recognizer.console import format_duration
from digit_recognizer.data.dataset import Dataset
from digit_recognizer.data.splits import Split
from digit_recognizer.ensemble import blend, members
from digit_recognizer.ensemble.members import Member
from digit_recognizer.errors import BadInput, KitError
from digit_recognizer.recipe import Recipe
from digit_recognizer.training import budget, devices
from digit_recognizer.training.executors import local
from digit_recognizer.training.progress import Progress

if TYPE_CHECKING:
    from digit_recognizer.runs import Run


def train_members(
    recipe: Recipe,
    data: Dataset,
    split: Split,
    run: "Run",
    *,
    deadline: float | None = None,
    after_each: Callable[[Mapping[int, Member]], None] = lambda trained: None,
) -> dict[int, Member]:
    """Train the members that the run does not have yet; each is stored as soon as it is trained.

    Args:
        recipe, data, split, run: what to train, on what, by what split, and where to store it.
        deadline: a time of ``time.monotonic`` by which the run is to end. Fewer members are trained then, and
            where not one would be, fewer epochs: as many as fit at the pace that is measured first.
        after_each: called with the trained members after each member.

    Returns:
        member index → member, as stored.

    Raises:
        BadInput: the run's folder cannot be written, or the budget is too short to train anything.
        KitError: a member that was trained is not in the run's folder any more, or is damaged.
    """
    owners = [(run.member(index), run.owner(index)) for index in range(recipe.members)]
    trained = {index: stored for index in range(recipe.members) if (stored := _stored(run, recipe, index))}
    missing = [index for index in range(recipe.members) if index not in trained]
    kept = sorted(trained)
    workers, threads = devices.plan_workers(recipe.members)
    longest, last_step, epochs = 0.0, None, recipe.epochs
    if deadline is not None and missing:
        print("budget: measuring the pace", flush=True)
        from digit_recognizer.ensemble.knn import estimate_rerank_seconds  # imports SciPy's filters

        plan = budget.plan_budget(
            recipe, data, split, len(kept), missing, deadline, partial(estimate_rerank_seconds, recipe)
        )
        missing, epochs, longest, last_step = missing[: plan.members], plan.epochs, plan.member_seconds, plan.last_step
        print(f"budget: time for {plan.members} of {recipe.members} members, {epochs} epochs each", flush=True)
    progress = Progress(recipe.members, epochs, kept, len(missing), workers=min(workers, len(missing)))
    begun = 0

    def may_start() -> bool:
        nonlocal begun
        begun += 1
        return begun <= workers or deadline is None or time.monotonic() + longest < deadline

    def done(index: int, seconds: float) -> None:
        nonlocal longest
        longest = max(longest, seconds)
        progress.over(index, f"member {index + 1}/{recipe.members} trained in {format_duration(seconds)}")
        trained[index] = _reread(run, index)
        after_each(trained)

    if kept:
        after_each(trained)
    job = partial(_train_member, recipe.changed(epochs=epochs), data, split, owners, last_step)
    local.run_jobs(job, missing, progress, workers=workers, threads=threads, done=done, may_start=may_start)
    for index in trained:  # what was blended is what is stored
        _reread(run, index)
    return trained


def _stored(run: "Run", recipe: Recipe, index: int) -> Member | None:
    """A member of an earlier call that the recipe trained to the end; what else its folder holds is removed."""
    folder = run.member(index)
    if not folder.exists():
        return None
    try:
        stored = members.read_member(folder, run.owner(index))
        reason = "" if stored.complete(recipe) else f"{folder}: truncated by a budget"
    except BadInput as error:
        reason = str(error)
    if not reason:
        return stored
    if (folder / members.RECORD).exists():
        print(f"member {index + 1}/{recipe.members} is trained again: {reason}", flush=True)
    with files.explained(folder):
        shutil.rmtree(folder)
    return None


def member_seed(seed: int, index: int) -> int:
    """The seed of member ``index``, 32 bits, unlike those of its neighbours under any recipe's seed."""
    return int(np.random.SeedSequence((seed, 1 << 16, index)).generate_state(1)[0])


def _reread(run: "Run", index: int) -> Member:
    """A member that this run trained or kept; ``KitError`` where it is not as it was."""
    try:
        return members.read_member(run.member(index), run.owner(index))
    except BadInput as error:
        raise KitError(f"{error}; it was changed during the run", hint="run the same command again") from error


def _train_member(
    recipe: Recipe,
    data: Dataset,
    split: Split,
    owners: list[tuple[Path, str]],
    last_step: float | None,
    index: int,
    reporter: local.Reporter,
) -> float:
    from digit_recognizer.models import architectures  # TensorFlow is imported here, in the worker
    from digit_recognizer.training import trainer

    began = time.monotonic()
    fold, seed, (place, owner) = split.folds[index], member_seed(recipe.seed, index), owners[index]
    folder = files.folder(place)
    trained = trainer.train_member(
        recipe.of_member(index),
        data.images[fold.train],
        data.labels[fold.train],
        data.images[fold.validation],
        data.labels[fold.validation],
        seed=seed,
        checkpoint=folder / members.NETWORK,
        reporter=reporter,
        deadline=last_step,
    )
    probabilities = {
        "fold": trainer.predict(trained.network, data.images[fold.validation]),
        "holdout": trainer.predict(trained.network, data.images[split.holdout]),
        "test": trainer.predict(trained.network, data.test_images),
        "fold-last-epoch": trainer.predict(trained.last_network, data.images[fold.validation]),
        "holdout-last-epoch": trainer.predict(trained.last_network, data.images[split.holdout]),
    }
    weights, products = architectures.size(trained.network)
    record = {
        "member": index,
        "network": recipe.of_member(index).network,
        "preprocessing": recipe.of_member(index).preprocessing,
        "weights": weights,
        "multiply_adds": products,
        "seconds": time.monotonic() - began,
        "seed": seed,
        "precision": trained.precision,
        "train_rows": len(fold.train),
        "fold_rows": len(fold.validation),
        "epochs": recipe.epochs,
        "best_epoch": trained.best_epoch,
        "stopped": trained.stopped,
        "fold_errors": blend.count_errors(data.labels[fold.validation], probabilities["fold"]),
        "fold_errors_at_last_epoch": blend.count_errors(data.labels[fold.validation], probabilities["fold-last-epoch"]),
        "holdout_errors": blend.count_errors(data.labels[split.holdout], probabilities["holdout"]),
    }
    members.write_member(folder, owner, record, trained.history, architectures.summary(trained.network), probabilities)
    return time.monotonic() - began
