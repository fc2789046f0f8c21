"""Decide who trains on which rows: a holdout that nobody trains on, and stratified folds of the rest."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from digit_recognizer.errors import BadInput

Rows = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Fold:
    """One division of the rows outside the holdout; indices into the training table, ascending.

    Attributes:
        train: rows to train on.
        validation: validation rows, which choose the checkpoint and give the out-of-fold probabilities.
    """

    train: Rows
    validation: Rows


@dataclass(frozen=True)
class Split:
    """The holdout's rows (none where its fraction is 0) and a fold for each member."""

    holdout: Rows
    folds: tuple[Fold, ...]


def split(labels: npt.NDArray[np.uint8], *, folds: int, members: int, holdout: float, seed: int) -> Split:
    """Divide the rows, keeping the share of each digit.

    Member i leaves out fold ``i % folds``; after ``folds`` members the rows are divided anew, by a seed of its own.

    Args:
        labels: uint8 (n,), the digits.
        folds: number of folds, at least 2.
        members: how many folds to give; fewer than ``folds`` leave some rows without out-of-fold probabilities.
        holdout: fraction of the rows kept from every fold, 0 for none.
        seed: the same seed gives the same rows.

    Raises:
        BadInput: a digit has too few rows to be in every fold.
    """
    from sklearn.model_selection import StratifiedKFold, train_test_split  # takes a second, and workers need it not

    counts = np.bincount(labels, minlength=10)
    rows = np.arange(len(labels))
    held = rows[:0]
    if holdout:
        _require(counts, 2, "a holdout beside the folds")
        try:
            rows, held = train_test_split(rows, test_size=holdout, stratify=labels, random_state=seed)
        except ValueError as error:
            raise BadInput(
                f"training data: {len(labels)} rows are too few for a holdout of {holdout:g}; give more or set it to 0"
            ) from error
        rows, held = np.sort(rows), np.sort(held)
        counts = np.bincount(labels[rows], minlength=10)
    _require(counts, folds, f"{folds} folds" + (f" beside a holdout of {holdout:g}" if holdout else ""))
    divisions = []
    for repeat in range(-(-members // folds)):
        shuffle = int(np.random.SeedSequence((seed, repeat)).generate_state(1)[0])
        divider = StratifiedKFold(folds, shuffle=True, random_state=shuffle)
        divisions += [
            Fold(train=rows[train], validation=rows[validation])
            for train, validation in divider.split(rows, labels[rows])
        ]
    return Split(holdout=held, folds=tuple(divisions[:members]))


def _require(counts: npt.NDArray[np.intp], least: int, purpose: str) -> None:
    scarce = int(counts.argmin())
    if counts[scarce] < least:
        raise BadInput(
            f"training data: expected at least {least} rows of each digit for {purpose}, "
            f"found {counts[scarce]} of digit {scarce}; give more rows or fewer folds"
        )
