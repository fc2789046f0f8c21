"""Split the training rows into a holdout and stratified folds of the rest."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from digit_recognizer import hints
from digit_recognizer.errors import BadInput

Rows = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Fold:
    """A division of the rows outside the holdout: ascending indices into the training table.

    Attributes:
        train: training rows.
        validation: validation rows, which choose the checkpoint and give the out-of-fold probabilities; empty if the
            member trains on all rows, those of the holdout too.
    """

    train: Rows
    validation: Rows

    @property
    def full(self) -> bool:
        """Whether the member trains on all rows, so that none is left to score it."""
        return not len(self.validation)


@dataclass(frozen=True)
class Split:
    """The holdout rows (none if its fraction is 0) and a fold for each member."""

    holdout: Rows
    folds: tuple[Fold, ...]


def split(
    labels: npt.NDArray[np.uint8], *, folds: int, members: int, holdout: float, seed: int, full_members: int = 0
) -> Split:
    """Split the rows, stratified by label.

    Member i has fold ``i % folds`` as its validation fold; after ``folds`` members the rows are divided again, with
    another seed.

    Args:
        labels: uint8 (n,), 0 to 9.
        folds: number of folds, at least 2.
        members: number of folds to return; with fewer than ``folds`` some rows have no out-of-fold probabilities.
        full_members: how many of them, the last ones, train on all rows and have no validation rows.
        holdout: fraction of the rows in the holdout, 0 for none.
        seed: determines the rows.

    Raises:
        BadInput: a digit has too few rows for every fold.
    """
    from sklearn.model_selection import StratifiedKFold, train_test_split  # slow to import, and not needed in workers

    counts = np.bincount(labels, minlength=10)
    rows = np.arange(len(labels))
    holdout_rows = rows[:0]
    if holdout:
        _require(counts, 2, "a holdout and folds")
        try:
            rows, holdout_rows = train_test_split(rows, test_size=holdout, stratify=labels, random_state=seed)
        except ValueError as error:
            raise BadInput(
                f"training data: {len(labels)} rows are too few for a holdout of {holdout:g}",
                hint=f"use more rows, or set {hints.option('holdout', 0)}",
            ) from error
        rows, holdout_rows = np.sort(rows), np.sort(holdout_rows)
        counts = np.bincount(labels[rows], minlength=10)
    _require(counts, folds, f"{folds} folds" + (f" and a holdout of {holdout:g}" if holdout else ""))
    divisions = []
    full = Fold(train=np.arange(len(labels)), validation=rows[:0])
    for repeat in range(-(-(members - full_members) // folds)):
        shuffle = int(np.random.SeedSequence((seed, repeat)).generate_state(1)[0])
        divider = StratifiedKFold(folds, shuffle=True, random_state=shuffle)
        divisions += [
            Fold(train=rows[train], validation=rows[validation])
            for train, validation in divider.split(rows, labels[rows])
        ]
    return Split(holdout=holdout_rows, folds=(*divisions[: members - full_members], *[full] * full_members))


def _require(counts: npt.NDArray[np.intp], least: int, purpose: str) -> None:
    scarce = int(counts.argmin())
    if counts[scarce] < least:
        raise BadInput(
            f"training data: expected at least {least} rows of each digit for {purpose}, "
            f"found {counts[scarce]} of digit {scarce}",
            hint=f"use more rows, or lower {hints.option('folds')}",
        )
