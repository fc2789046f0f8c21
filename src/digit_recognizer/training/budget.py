"""Plan how many members and epochs fit into a time budget, from a measurement of the training pace."""

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
from digit_recognizer.training.executors import local
from digit_recognizer.training.progress import Progress

if TYPE_CHECKING:
    from digit_recognizer.training import trainer

PREDICT_SHARE = 0.45  # time to predict an image / time to train on one
FINAL_SECONDS = 3.0  # seconds to blend, score, write, check and draw
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
    paces = measure_paces(recipe, data, split, missing[:workers], seconds=min(8.0, (deadline - start_time) / 25))
    step, start = max(pace.step for pace in paces), max(pace.start for pace in paces)
    # Time to import TensorFlow in a new worker.
    loading = max(0.0, time.monotonic() - start_time - max(pace.seconds for pace in paces))
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
    members = first_wave if fitting_epochs > 0 else 0
    while 0 < members < len(missing):
        more = min(members + workers, len(missing))
        if -(-more // workers) * seconds + final_seconds(more) > left:
            break
        members = more
    return Plan(members, epochs, seconds, deadline - after_training - final_seconds(members))


def measure_paces(
    recipe: Recipe, data: Dataset, split: Split, members: Sequence[int], *, seconds: float
) -> "list[trainer.Pace]":
    """Train these members at once for about ``seconds`` and return their measured times."""
    workers, threads = devices.plan_workers(recipe.members)
    paces: list[trainer.Pace] = []
    job = partial(_measure_pace, recipe, data, split, seconds)
    no_progress = Progress(0, 0, (), 0)
    local.run_jobs(job, members, no_progress, workers=workers, threads=threads, done=lambda _, pace: paces.append(pace))
    return paces


def _measure_pace(
    recipe: Recipe, data: Dataset, split: Split, seconds: float, index: int, reporter: local.Reporter
) -> "trainer.Pace":
    from digit_recognizer.training import trainer  # imports TensorFlow, in the worker only

    rows = split.folds[index].train
    return trainer.measure_pace(recipe.of_member(index), data.images[rows], data.labels[rows], seconds=seconds)
