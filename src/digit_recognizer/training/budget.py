"""What a budget leaves room for: members and epochs, planned from the pace that is measured first."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

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

PREDICT_SHARE = 0.45  # time to predict an image, as a share of the time to train on one
FINAL_SECONDS = 3.0  # seconds to blend, score, write, check and draw
MARGIN = 0.05  # of what is left, kept free because the pace varies


@dataclass(frozen=True)
class Plan:
    """What fits before the deadline.

    Attributes:
        members: how many more members to train.
        epochs: of each.
        member_seconds: what a member takes, from its start to its record.
        last_step: a time of ``time.monotonic`` after which no training step begins.
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
    """Measure the pace with all workers busy, as they will be, and plan what fits before the deadline.

    Args:
        recipe, data, split: what is to be trained.
        kept: how many members are trained already.
        missing: the members that are not, at least one.
        deadline: a time of ``time.monotonic`` by which the run is to end.
        rerank_seconds: number of predictions → the seconds that their re-ranking takes.

    Raises:
        BadInput: nothing fits, and no member is trained yet.
    """
    began = time.monotonic()
    workers, _ = devices.plan_workers(recipe.members)
    paces = measure_paces(recipe, data, split, missing[:workers], seconds=min(8.0, (deadline - began) / 25))
    step, start = max(pace.step for pace in paces), max(pace.start for pace in paces)
    loading = max(0.0, time.monotonic() - began - max(pace.seconds for pace in paces))  # TensorFlow, in a new worker
    fold = split.folds[0]
    predicted = step / recipe.batch_size * PREDICT_SHARE
    epoch = step * max(1, len(fold.train) // recipe.batch_size) + predicted * len(fold.validation)
    # Two more functions are compiled after training: to predict by the last weights and by the checkpoint.
    rows = 2 * (len(fold.validation) + len(split.holdout)) + len(data.test_images)
    after_training = start + predicted * rows
    everywhere = len(data.labels) + len(data.test_images)
    rerank_row = rerank_seconds(everywhere) / everywhere

    def at_the_end(members: int) -> float:
        scored = (kept + members) * len(fold.validation) + len(split.holdout) + len(data.test_images)
        return FINAL_SECONDS + rerank_row * scored

    at_once = min(workers, len(missing))
    left = (1 - MARGIN) * (deadline - time.monotonic()) - loading
    fitting = (left - at_the_end(at_once) - 2 * start - after_training) / epoch  # in epochs
    if fitting <= 0 and not kept:
        needed = format_duration(time.monotonic() - began + loading + 3 * start + at_the_end(at_once))
        raise BadInput(
            f"budget: too short to train anything; start-up, prediction and scoring alone take about {needed} here",
            hint="give more BUDGET",
        )
    epochs = max(1, min(recipe.epochs, int(fitting)))
    seconds = 2 * start + epochs * epoch + after_training
    members = at_once if fitting > 0 else 0
    while 0 < members < len(missing):
        more = min(members + workers, len(missing))
        if -(-more // workers) * seconds + at_the_end(more) > left:
            break
        members = more
    return Plan(members, epochs, seconds, deadline - after_training - at_the_end(members))


def measure_paces(
    recipe: Recipe, data: Dataset, split: Split, members: Sequence[int], *, seconds: float
) -> "list[trainer.Pace]":
    """Train these members for some ``seconds`` at once, and return how long their start and their steps took."""
    workers, threads = devices.plan_workers(recipe.members)
    paces: list[trainer.Pace] = []
    job = partial(_measure_pace, recipe, data, split, seconds)
    silent = Progress(0, 0, (), 0)
    local.run_jobs(job, members, silent, workers=workers, threads=threads, done=lambda _, pace: paces.append(pace))
    return paces


def _measure_pace(
    recipe: Recipe, data: Dataset, split: Split, seconds: float, index: int, reporter: local.Reporter
) -> "trainer.Pace":
    from digit_recognizer.training import trainer  # TensorFlow is imported here, in the worker

    rows = split.folds[index].train
    return trainer.measure_pace(recipe.of_member(index), data.images[rows], data.labels[rows], seconds=seconds)
