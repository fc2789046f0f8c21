"""Stand-ins for the training of a member and for the executor, without TensorFlow and worker processes."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from digit_recognizer.data.dataset import Dataset
from digit_recognizer.data.splits import Split
from digit_recognizer.ensemble import members
from digit_recognizer.recipe import Recipe
from digit_recognizer.training.progress import Progress


class InProcess:
    """Stands in for an executor."""

    def plan(self, members: int) -> tuple[int, int]:
        return 1, 1

    def run_jobs(
        self,
        job: Callable[[int, Any], Any],
        members: Sequence[int],
        progress: Progress,
        *,
        done: Callable[[int, Any], None],
        may_start: Callable[[], bool],
        **options: object,
    ) -> None:
        run_in_process(job, members, progress, done=done, may_start=may_start)


def run_in_process(
    job: Callable[[int, Any], Any],
    indices: Sequence[int],
    progress: Progress,
    *,
    done: Callable[[int, Any], None],
    may_start: Callable[[], bool],
    **options: object,
) -> None:
    """Stand in for ``executors.local.run_jobs``."""
    for index in indices:
        if not may_start():
            return
        done(index, job(index, None))


class FakeTrainer:
    """Stores members with random probabilities instead of training them.

    Attributes:
        trained, epochs: the indices of the members in the order of the calls, and their epochs.
        interrupt_after: the number of members after which training is interrupted; None for never.
    """

    def __init__(self, interrupt_after: int | None = None) -> None:
        self.trained: list[int] = []
        self.epochs: list[int] = []
        self.interrupt_after = interrupt_after

    def train_one(
        self,
        recipe: Recipe,
        data: Dataset,
        split: Split,
        owners: Sequence[str],
        last_step: float | None,
        logs: Path | None,
        index: int,
        reporter: object,
    ) -> members.MemberFiles:
        if len(self.trained) == self.interrupt_after:
            raise KeyboardInterrupt
        random = np.random.default_rng(index)

        def probabilities(rows: int) -> members.Probabilities:
            return random.dirichlet(np.ones(10), rows).astype(np.float32)

        fold = split.folds[index]
        validation, holdout = len(fold.validation), 0 if fold.full else len(split.holdout)
        arrays = {
            "fold": probabilities(validation),
            "fold-last-epoch": probabilities(validation),
            "holdout": probabilities(holdout),
            "holdout-last-epoch": probabilities(holdout),
            "test": probabilities(len(data.test_images)),
        }
        record = {"member": index, "epochs": recipe.epochs, "best_epoch": 1, "stopped": False, "seconds": 1.0}
        history = {name: [1.0] * recipe.epochs for name in ("loss", "accuracy", "val_loss", "val_accuracy")}
        self.trained.append(index)
        self.epochs.append(recipe.epochs)
        return members.encode_member(record, b"network", history, "summary", arrays)
