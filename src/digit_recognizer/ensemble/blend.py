"""Average members' probabilities: arrays in, arrays out, no files."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from digit_recognizer.data.splits import Fold, Split
from digit_recognizer.ensemble import members
from digit_recognizer.ensemble.members import Member, Probabilities


@dataclass(frozen=True)
class Blend:
    """The probabilities of an ensemble, of networks alone until ``knn.rerank_blend`` re-ranks them.

    Names that end in ``last`` are by the weights after the last epoch, all others by the checkpoint.

    Attributes:
        oof, oof_last: float32 (n, 10), out-of-fold: each row's mean over the members that left it out; NaN where there
            is none.
        holdout: float32 (h, 10), the mean over all members on the holdout's rows.
        test: float32 (m, 10), the mean over all members on the test rows.
        folds: of each member, what it was trained on and what it left out.
        fold_members, fold_members_last: float32 (rows left out, 10), each member alone there.
        holdout_members, holdout_members_last: float32 (h, 10), each member alone on the holdout's rows.
        histories: each member's figures, epoch by epoch.
        epochs: how many epochs its members were to be trained for, the fewest of all.
        stopped: whether a budget ended one of them before that.
    """

    oof: Probabilities
    oof_last: Probabilities
    holdout: Probabilities
    test: Probabilities
    folds: tuple[Fold, ...]
    fold_members: tuple[Probabilities, ...]
    fold_members_last: tuple[Probabilities, ...]
    holdout_members: tuple[Probabilities, ...]
    holdout_members_last: tuple[Probabilities, ...]
    histories: list[dict[str, list[float]]]
    epochs: int
    stopped: bool


def average(trained: Mapping[int, Member], split: Split, *, rows: int) -> Blend:
    """Average the probabilities of the trained members.

    Args:
        trained: member index → member, at least one.
        split: the split that the members were trained on.
        rows: number of rows of the training table.
    """
    numbers = sorted(trained)
    folds = tuple(split.folds[number] for number in numbers)
    of = {name: tuple(trained[number].probabilities[name] for number in numbers) for name in members.PROBABILITIES}
    holdout, test = (
        np.asarray(np.mean(of[name], axis=0, dtype=np.float64), np.float32) for name in ("holdout", "test")
    )
    return Blend(
        oof=out_of_fold(folds, of["fold"], rows),
        oof_last=out_of_fold(folds, of["fold-last-epoch"], rows),
        holdout=holdout,
        test=test,
        folds=folds,
        fold_members=of["fold"],
        fold_members_last=of["fold-last-epoch"],
        holdout_members=of["holdout"],
        holdout_members_last=of["holdout-last-epoch"],
        histories=[trained[number].history for number in numbers],
        epochs=min(trained[number].record["epochs"] for number in numbers),
        stopped=any(trained[number].record["stopped"] for number in numbers),
    )


def out_of_fold(folds: tuple[Fold, ...], members: tuple[Probabilities, ...], rows: int) -> Probabilities:
    """Average the members' probabilities on their validation rows: float32 (rows, 10), NaN where a row is in none."""
    total, times = np.zeros((rows, 10)), np.zeros((rows, 1))
    for fold, probabilities in zip(folds, members, strict=True):
        total[fold.validation] += probabilities
        times[fold.validation] += 1
    with np.errstate(invalid="ignore"):
        return np.asarray(total / times, np.float32)


def count_errors(labels: npt.NDArray[np.integer], probabilities: npt.NDArray[np.float32]) -> int:
    """Count the rows of float (n, 10) probabilities whose most probable digit is not the label."""
    return int((probabilities.argmax(axis=1) != labels).sum())


def count_fold_errors(
    folds: tuple[Fold, ...], members: tuple[Probabilities, ...], labels: npt.NDArray[np.uint8]
) -> int:
    """Count the errors of all members on their validation rows; a row in several folds counts in each."""
    return sum(count_errors(labels[fold.validation], one) for fold, one in zip(folds, members, strict=True))
