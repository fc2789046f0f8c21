"""Train the missing members of a run, each in a worker process, and store them."""

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from digit_recognizer import files
from digit_recognizer.console import format_duration
from digit_recognizer.data.dataset import Dataset
from digit_recognizer.data.splits import Split
from digit_recognizer.ensemble import members
from digit_recognizer.ensemble.blend import Average, Blend, count_errors
from digit_recognizer.ensemble.members import Member, MemberFiles
from digit_recognizer.errors import BadInput
from digit_recognizer.recipe import Recipe
from digit_recognizer.training import budget, devices, numerics
from digit_recognizer.training.executors import Executor, Reporter, local, processes
from digit_recognizer.training.progress import Progress

if TYPE_CHECKING:
    from digit_recognizer.runs import Run

ATTEMPTS = 2  # how often a member is started before its failure ends the run


def train_member(
    recipe: Recipe,
    data: Dataset,
    split: Split,
    owners: Sequence[str],
    last_step: float | None,
    logs: Path | None,
    index: int,
    reporter: Reporter,
) -> MemberFiles:
    """Train one member, in a worker process that may run on another machine, and return its files.

    Args:
        recipe, data, split: what to train, and on which rows.
        owners: of each member of the run, the digest that marks its files.
        last_step: a time of ``time.monotonic`` after which no training step starts; None for no limit.
        logs: the folder of TensorBoard's logs, one folder per member; None for no logs.
        index: the member, counted from 0.
        reporter: receives the progress.
    """
    from digit_recognizer.models import architectures  # imports TensorFlow
    from digit_recognizer.training import trainer

    start = time.monotonic()
    fold, seed = split.folds[index], member_seed(recipe.seed, index)
    validation_images, validation_labels = data.images[fold.validation], data.labels[fold.validation]
    holdout = split.holdout[:0] if fold.full else split.holdout
    holdout_images, holdout_labels = data.images[holdout], data.labels[holdout]
    member_recipe = recipe.of_member(index)
    with tempfile.TemporaryDirectory(prefix=processes.temporary_prefix(os.getpid())) as scratch:
        checkpoint = Path(scratch) / members.NETWORK
        trained = trainer.train_member(
            member_recipe,
            data.images[fold.train],
            data.labels[fold.train],
            validation_images,
            validation_labels,
            seed=seed,
            checkpoint=checkpoint,
            reporter=reporter,
            owner=owners[index],
            deadline=last_step,
            logs=logs / f"{index:02}" if logs else None,
        )
        network = checkpoint.read_bytes()
    probabilities = {
        "fold": trainer.predict(trained.network, validation_images),
        "holdout": trainer.predict(trained.network, holdout_images),
        "test": trainer.predict(trained.network, data.test_images),
        "fold-last-epoch": trainer.predict(trained.last_network, validation_images),
        "holdout-last-epoch": trainer.predict(trained.last_network, holdout_images),
    }
    weights, multiply_adds = architectures.size(trained.network)
    record = {
        "member": index,
        "network": member_recipe.network,
        "preprocessing": member_recipe.preprocessing,
        "weights": weights,
        "multiply_adds": multiply_adds,
        "seconds": trained.seconds + time.monotonic() - start,
        "peak_memory": devices.peak_memory(),
        "seed": seed,
        "precision": trained.precision,
        "train_rows": len(fold.train),
        "fold_rows": len(fold.validation),
        "epochs": recipe.epochs,
        "best_epoch": trained.best_epoch,
        "stopped": trained.stopped,
        "fold_errors": count_errors(validation_labels, probabilities["fold"]),
        "fold_errors_at_last_epoch": count_errors(validation_labels, probabilities["fold-last-epoch"]),
        "holdout_errors": count_errors(holdout_labels, probabilities["holdout"]),
    }
    summary = architectures.summary(trained.network)
    return members.encode_member(record, network, trained.history, summary, probabilities)


def train_members(
    recipe: Recipe,
    data: Dataset,
    split: Split,
    run: "Run",
    *,
    deadline: float | None = None,
    tensorboard: bool = False,
    after_each: Callable[[Blend], None] = lambda blend: None,
    train_one: Callable[..., MemberFiles] = train_member,
    executor: Executor = local,
    shard: tuple[int, int] | None = None,
) -> list[int]:
    """Train the members that the run lacks; each is stored as soon as it is trained.

    Args:
        recipe, data, split, run: what to train, on which rows, and where to store it.
        deadline: a time of ``time.monotonic`` at which the run should end. The pace is measured, and fewer members are
            trained if not all fit, or fewer epochs if not even one does.
        tensorboard: whether to write TensorBoard's logs into the run's folder.
        after_each: called with the mean of the trained members after each member, once one of them has validation rows.
        train_one: trains one member; see ``train_member``.
        executor: runs the members in parallel.
        shard: (k, n): train every n-th member only, from the k-th on; None for all.

    Returns:
        the indices of the members that are stored.

    Raises:
        BadInput: the run's folder cannot be written, or the budget is too short to train anything.
    """
    owners = [run.owner(index) for index in range(recipe.members)]
    so_far, stored = Average(split, len(data.labels)), []
    for index in range(recipe.members):
        if member := _stored_member(run, recipe, index):
            so_far.add(index, member)
            stored.append(index)
    number, count = shard or (1, 1)
    missing = [index for index in range(number - 1, recipe.members, count) if index not in stored]
    workers, threads = executor.plan(recipe.members)
    longest, last_step, epochs = 0.0, None, recipe.epochs
    if deadline is not None and missing:
        from digit_recognizer.ensemble.knn import estimate_rerank_seconds  # imports SciPy

        print("budget: measuring the pace", flush=True)
        rerank_seconds = partial(estimate_rerank_seconds, recipe)
        plan = budget.plan_budget(recipe, data, split, len(stored), missing, deadline, rerank_seconds)
        missing, epochs, longest, last_step = missing[: plan.members], plan.epochs, plan.member_seconds, plan.last_step
        print(f"budget: {plan.members} of {recipe.members} members fit, {epochs} epochs each", flush=True)
    progress = Progress(recipe.members, epochs, stored, len(missing), workers=min(workers, len(missing)))
    trained, started = list(stored), 0

    def may_start() -> bool:
        nonlocal started
        started += 1
        return started <= workers or deadline is None or time.monotonic() + longest < deadline

    def done(index: int, files_of_member: MemberFiles) -> None:
        nonlocal longest
        seconds = files_of_member.record["seconds"]
        longest = max(longest, seconds)
        members.write_member(run.member(index), owners[index], files_of_member)
        progress.over(index, f"member {index + 1}/{recipe.members} trained in {format_duration(seconds)}")
        trained.append(index)
        so_far.add(index, run.read_member(index))
        report()

    def report() -> None:
        if so_far.scored:
            after_each(so_far.blend())

    report()
    logs = run.folder / "tensorboard" if tensorboard else None
    precision = numerics.resolved_precision(recipe.precision)  # another machine might choose another one
    job = partial(train_one, recipe.changed(epochs=epochs, precision=precision), data, split, owners, last_step, logs)
    executor.run_jobs(
        job,
        missing,
        progress,
        workers=workers,
        threads=threads,
        done=done,
        may_start=may_start,
        states=_StoredStates(run),
        attempts=ATTEMPTS,
    )
    return sorted(trained)


class _StoredStates:
    """The states of unfinished members, in their folders."""

    def __init__(self, run: "Run") -> None:
        self._run = run

    def load(self, member: int) -> bytes | None:
        try:
            return self._path(member).read_bytes()
        except OSError:
            return None

    def save(self, member: int, state: bytes) -> None:
        files.write_bytes(self._path(member), state)

    def _path(self, member: int) -> Path:
        return self._run.member(member) / members.STATE


def member_seed(seed: int, index: int) -> int:
    """Return the seed of member ``index``, 32 bits; different members and recipe seeds have different ones."""
    return int(np.random.SeedSequence((seed, 1 << 16, index)).generate_state(1)[0])


def _stored_member(run: "Run", recipe: Recipe, index: int) -> Member | None:
    """Read a complete member of an earlier process; None if there is none. A damaged one is removed."""
    folder = run.member(index)
    if not (folder / members.RECORD).exists():
        return None
    try:
        member = members.read_member(folder, run.owner(index))
        reason = "" if member.complete(recipe) else f"{folder}: truncated by a budget"
    except BadInput as error:
        reason = str(error)
    if not reason:
        return member
    print(f"member {index + 1}/{recipe.members} is trained again: {reason}", flush=True)
    with files.explained(folder):
        shutil.rmtree(folder)
    return None
