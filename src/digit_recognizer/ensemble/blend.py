"""Average the probabilities of members: arrays in, arrays out, no files."""

from collections.abc import Mapping
from dataclasses import dataclass

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


def average(members: Mapping[int, Member], split: Split, *, rows: int) -> Blend:
    """Average the probabilities of the members.

    Args:
        members: member index → member, at least one with validation rows.
        split: the split that the members were trained on.
        rows: the number of training rows.
    """
    indices = sorted(index for index in members if not split.folds[index].full)
    folds = tuple(split.folds[index] for index in indices)
    by_name = {name: tuple(members[index].probabilities[name] for index in indices) for name in PROBABILITIES}
    every_test = [members[index].probabilities["test"] for index in sorted(members)]
    holdout, test = (
        np.asarray(np.mean(parts, axis=0, dtype=np.float64), np.float32) for parts in (by_name["holdout"], every_test)
    )
    return Blend(
        oof=out_of_fold(folds, by_name["fold"], rows),
        oof_last=out_of_fold(folds, by_name["fold-last-epoch"], rows),
        holdout=holdout,
        test=test,
        full_members=len(members) - len(indices),
        folds=folds,
        fold_members=by_name["fold"],
        fold_members_last=by_name["fold-last-epoch"],
        holdout_members=by_name["holdout"],
        holdout_members_last=by_name["holdout-last-epoch"],
        histories=[members[index].history for index in indices],
        best_epochs=tuple(members[index].record["best_epoch"] for index in indices),
        epochs=min(member.record["epochs"] for member in members.values()),
        stopped=any(member.record["stopped"] for member in members.values()),
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
