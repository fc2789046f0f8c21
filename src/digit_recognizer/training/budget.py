"""Plan how many members and epochs fit into a time budget, from a measurement of the training pace."""

import heapq
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from digit_recognizer import hints
from digit_recognizer.console import format_duration
from digit_recognizer.data.dataset import Dataset
from digit_recognizer.data.splits import Split
from digit_recognizer.errors import BadInput
from digit_recognizer.recipe import Recipe
from digit_recognizer.training import devices
from digit_recognizer.training.executors import Reporter, local
from digit_recognizer.training.progress import Progress

if TYPE_CHECKING:
    from digit_recognizer.training import trainer

PREDICT_SHARE = 0.45  # time to predict an image / time to train on one
FINAL_SECONDS = 6.0  # seconds to blend, score, write, check and draw, and to write the report
MARGIN = 0.05  # fraction of the time left that is kept free, because the pace varies


@dataclass(frozen=True)
class Plan:
    """What fits before the deadline.

    Attributes:
        members: number of members still to train.
        epochs: number of epochs of each.
        member_seconds: time for one member, until it is stored.
        last_step: value of ``time.monotonic`` after which no training step starts.
    """

    members: int
    epochs: int
    member_seconds: float
    last_step: float


def plan_budget(
    recipe: Recipe,
    data: Dataset,
    split: Split,
    kept: int,
    missing: Sequence[int],
    deadline: float,
    rerank_seconds: Callable[[int], float],
) -> Plan:
    """Measure the pace with all workers busy and plan what fits before the deadline.

    Args:
        recipe: the recipe of the run.
        data: images and labels.
        split: holdout and folds.
        kept: number of members that are already trained.
        missing: indices of the other members, at least one.
        deadline: value of ``time.monotonic`` by which the run has to end.
        rerank_seconds: function of a number of images that returns the seconds to re-rank their predictions by k-NN.

    Raises:
        BadInput: nothing fits, and no member is trained yet.
    """
    start_time = time.monotonic()
    workers, _ = devices.plan_workers(recipe.members)
    paces = measure_paces(recipe, data, split, missing, seconds=min(8.0, (deadline - start_time) / 25))
    step, start = max(pace.step for pace in paces.values()), max(pace.start for pace in paces.values())
    # Time to import TensorFlow in a new worker.
    loading = max(0.0, time.monotonic() - start_time - max(pace.seconds for pace in paces.values()))
    fold = max((split.folds[index] for index in missing), key=lambda fold: len(fold.train))
    predict_seconds = step / recipe.batch_size * PREDICT_SHARE
    epoch = step * max(1, len(fold.train) // recipe.batch_size) + predict_seconds * len(fold.validation)
    # After training, Keras compiles two functions more: prediction by the last weights and by the checkpoint.
    rows = 2 * (len(split.folds[0].validation) + len(split.holdout)) + len(data.test_images)
    after_training = start + predict_seconds * rows
    images = len(data.labels) + len(data.test_images)
    rerank_image = rerank_seconds(images) / images

    def final_seconds(members: int) -> float:
        predictions = (kept + members) * len(split.folds[0].validation) + len(split.holdout) + len(data.test_images)
        return FINAL_SECONDS + rerank_image * predictions

    first_wave = min(workers, len(missing))
    left = (1 - MARGIN) * (deadline - time.monotonic()) - loading
    fitting_epochs = (left - final_seconds(first_wave) - 2 * start - after_training) / epoch
    if fitting_epochs <= 0 and not kept:
        minimum = format_duration(time.monotonic() - start_time + loading + 3 * start + final_seconds(first_wave))
        raise BadInput(
            f"budget: too short to train anything; start-up, prediction and scoring alone take about {minimum}",
            hint=f"pass a larger {hints.option('budget')}",
        )
    epochs = max(1, min(recipe.epochs, int(fitting_epochs)))
    seconds = 2 * start + epochs * epoch + after_training
    durations = [step_seconds(paces, recipe, index) / step * seconds for index in missing]
    members = first_wave if fitting_epochs > 0 else 0
    while 0 < members < len(missing):
        more = min(members + workers, len(missing))
        if schedule(durations[:more], workers) + final_seconds(more) > left:
            break
        members = more
    return Plan(members, epochs, seconds, deadline - after_training - final_seconds(members))


def schedule(seconds: Sequence[float], workers: int) -> float:
    """Return when the last job ends, if each worker takes the next job as soon as it is free."""
    free = [0.0] * workers
    for job in seconds:
        heapq.heapreplace(free, free[0] + job)
    return max(free)


def measure_paces(
    recipe: Recipe, data: Dataset, split: Split, members: Sequence[int], *, seconds: float
) -> "dict[str, trainer.Pace]":
    """Train members at once, one per worker, for about ``seconds``.

    Returns:
        network → measured times, the longest if several workers train the same network. Networks beyond the number of
        workers are missing.
    """
    workers, threads = devices.plan_workers(recipe.members)
    networks = [recipe.of_member(index).network for index in members]
    first = sorted(networks.index(network) for network in set(networks))  # one member of each network, then others
    others = [position for position in range(len(members)) if position not in first]
    measured = [members[position] for position in [*first, *others][:workers]]
    paces: dict[str, trainer.Pace] = {}

    def done(index: int, pace: "trainer.Pace") -> None:
        network = recipe.of_member(index).network
        paces[network] = max(pace, paces.get(network, pace), key=lambda pace: pace.step)

    job = partial(_measure_pace, recipe, data, split, seconds)
    local.run_jobs(job, measured, Progress(0, 0, (), 0), workers=workers, threads=threads, done=done)
    return paces


def step_seconds(paces: "dict[str, trainer.Pace]", recipe: Recipe, index: int) -> float:
    """Return the seconds of a step of a member; the longest measured if its network was not measured."""
    network = recipe.of_member(index).network
    return paces[network].step if network in paces else max(pace.step for pace in paces.values())


def _measure_pace(
    recipe: Recipe, data: Dataset, split: Split, seconds: float, index: int, reporter: Reporter
) -> "trainer.Pace":
    from digit_recognizer.training import trainer  # imports TensorFlow, in the worker only

    rows = split.folds[index].train
    return trainer.measure_pace(recipe.of_member(index), data.images[rows], data.labels[rows], seconds=seconds)
