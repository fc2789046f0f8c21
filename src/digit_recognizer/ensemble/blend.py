"""Average the probabilities of members: arrays in, arrays out, no files."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from digit_recognizer.data.splits import Fold, Split
from digit_recognizer.ensemble.members import PROBABILITIES, Member, Probabilities


@dataclass(frozen=True)
class Blend:
    """The probabilities of an ensemble, before or after k-NN re-ranking.

    Names that end in ``last`` refer to the weights after the last epoch, all others to the checkpoint.

    Attributes:
        oof, oof_last: float32 (n, 10), out-of-fold: for each training row the mean over the members that have it in
            their validation fold; NaN where there is none.
        holdout: float32 (h, 10), the mean over all members with validation rows on the holdout rows.
        test: float32 (m, 10), the mean over all members on the test rows.
        full_members: the number of members that were trained on all rows; the fields below are of the others.
        folds: the fold of each member.
        fold_members, fold_members_last: for each member float32 (validation rows, 10).
        holdout_members, holdout_members_last: for each member float32 (h, 10).
        histories: for each member, metric → value per epoch.
        best_epochs: for each member the epoch of its checkpoint, counted from 1.
        epochs: the number of planned epochs, the smallest of all members.
        stopped: whether a budget stopped a member before its last epoch.
    """

    oof: Probabilities
    oof_last: Probabilities
    holdout: Probabilities
    test: Probabilities
    full_members: int
    folds: tuple[Fold, ...]
    fold_members: tuple[Probabilities, ...]
    fold_members_last: tuple[Probabilities, ...]
    holdout_members: tuple[Probabilities, ...]
    holdout_members_last: tuple[Probabilities, ...]
    histories: list[dict[str, list[float]]]
    best_epochs: tuple[int, ...]
    epochs: int
    stopped: bool


def average(members: Iterable[tuple[int, Member]], split: Split, *, rows: int) -> Blend:
    """Average the probabilities of members; see ``Average``.

    Args:
        members: indices and members, at least one with validation rows. They are consumed one by one.
        split: the split that the members were trained on.
        rows: the number of training rows.
    """
    total = Average(split, rows)
    for index, member in members:
        total.add(index, member)
    return total.blend()


class Average:
    """The mean of members that are added one by one.

    Of each member only the probabilities of its validation fold and of the holdout are kept, so that a thousand members
    fit into memory. The last bits of the test probabilities depend on the order in which members are added.

    Args:
        split: the split that the members were trained on.
        rows: the number of training rows.
    """

    def __init__(self, split: Split, rows: int) -> None:
        self._split, self._rows, self._count = split, rows, 0
        self._test: npt.NDArray[np.float64] | float = 0.0
        self._scored: dict[int, Member] = {}
        self._epochs: list[int] = []
        self._stopped = False

    @property
    def scored(self) -> bool:
        """Whether a member with validation rows was added."""
        return bool(self._scored)

    def add(self, index: int, member: Member) -> None:
        """Add the member with this index, counted from 0."""
        self._test = self._test + member.probabilities["test"].astype(np.float64)
        self._count += 1
        self._epochs.append(member.record["epochs"])
        self._stopped |= member.record["stopped"]
        if not self._split.folds[index].full:
            kept = {name: values for name, values in member.probabilities.items() if name != "test"}
            self._scored[index] = replace(member, probabilities=kept)

    def blend(self) -> Blend:
        """Return the mean of the members so far, of which at least one has validation rows."""
        indices = sorted(self._scored)
        members = [self._scored[index] for index in indices]
        folds = tuple(self._split.folds[index] for index in indices)
        fold, fold_last, holdout, holdout_last = (
            tuple(member.probabilities[name] for member in members) for name in PROBABILITIES if name != "test"
        )
        return Blend(
            oof=out_of_fold(folds, fold, self._rows),
            oof_last=out_of_fold(folds, fold_last, self._rows),
            holdout=np.asarray(np.mean(holdout, axis=0, dtype=np.float64), np.float32),
            test=np.asarray(self._test / self._count, np.float32),
            full_members=self._count - len(indices),
            folds=folds,
            fold_members=fold,
            fold_members_last=fold_last,
            holdout_members=holdout,
            holdout_members_last=holdout_last,
            histories=[member.history for member in members],
            best_epochs=tuple(member.record["best_epoch"] for member in members),
            epochs=min(self._epochs),
            stopped=self._stopped,
        )


def out_of_fold(folds: tuple[Fold, ...], members: tuple[Probabilities, ...], rows: int) -> Probabilities:
    """Average the members' probabilities on their validation rows: float32 (rows, 10), NaN for rows in no fold."""
    total, counts = np.zeros((rows, 10)), np.zeros((rows, 1))
    for fold, probabilities in zip(folds, members, strict=True):
        total[fold.validation] += probabilities
        counts[fold.validation] += 1
    with np.errstate(invalid="ignore"):
        return np.asarray(total / counts, np.float32)


def count_errors(labels: npt.NDArray[np.integer], probabilities: npt.NDArray[np.float32]) -> int:
    """Count the rows of float (n, 10) probabilities whose most probable digit is not the label."""
    return int((probabilities.argmax(axis=1) != labels).sum())


def count_fold_errors(
    folds: tuple[Fold, ...], members: tuple[Probabilities, ...], labels: npt.NDArray[np.uint8]
) -> int:
    """Count the errors of all members on their validation rows; a row in several folds counts in each."""
    return sum(
        count_errors(labels[fold.validation], probabilities) for fold, probabilities in zip(folds, members, strict=True)
    )
