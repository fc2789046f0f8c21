"""Folds and holdout keep their promises."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from digit_recognizer.data import splits
from digit_recognizer.errors import BadInput

LABELS = np.random.default_rng(0).integers(0, 10, 3000).astype(np.uint8)


@given(
    k=st.integers(2, 10), members=st.integers(1, 12), holdout=st.sampled_from([0.0, 0.1, 0.3]), seed=st.integers(0, 99)
)
@settings(max_examples=40, deadline=None)
def test_parts_share_no_rows(k: int, members: int, holdout: float, seed: int) -> None:
    split = splits.split(LABELS, folds=k, members=members, holdout=holdout, seed=seed)
    assert len(split.folds) == members
    assert len(split.holdout) == round(holdout * len(LABELS))
    for fold in split.folds:
        everything = np.concatenate((fold.train, fold.validation, split.holdout))
        assert sorted(everything) == list(range(len(LABELS))), "each row in exactly one part"
    for start in range(0, members - k + 1, k):
        together = np.concatenate([fold.validation for fold in split.folds[start : start + k]])
        assert len(np.unique(together)) == len(together) == len(LABELS) - len(split.holdout)


def test_full_members_train_on_all_rows_and_leave_the_others_unchanged() -> None:
    without = splits.split(LABELS, folds=5, members=6, holdout=0.1, seed=3)
    split = splits.split(LABELS, folds=5, members=9, holdout=0.1, seed=3, full_members=3)
    assert [fold.full for fold in split.folds] == [False] * 6 + [True] * 3
    for fold, same in zip(split.folds, without.folds, strict=False):
        np.testing.assert_array_equal(fold.validation, same.validation)
        np.testing.assert_array_equal(fold.train, same.train)
    for fold in split.folds[6:]:
        np.testing.assert_array_equal(fold.train, np.arange(len(LABELS)))


def test_parts_are_stratified() -> None:
    split = splits.split(LABELS, folds=5, members=5, holdout=0.1, seed=3)
    for rows in (split.holdout, *(fold.validation for fold in split.folds)):
        expected = np.bincount(LABELS, minlength=10) * len(rows) / len(LABELS)
        assert np.abs(np.bincount(LABELS[rows], minlength=10) - expected).max() < 2


def test_seed_determines_the_rows() -> None:
    one, same, other = (splits.split(LABELS, folds=5, members=7, holdout=0.1, seed=s) for s in (1, 1, 2))
    assert all((a.validation == b.validation).all() for a, b in zip(one.folds, same.folds, strict=True))
    assert (one.holdout != other.holdout).any()
    assert (one.folds[0].validation[:100] != one.folds[5].validation[:100]).any(), "a second round divides anew"


@pytest.mark.parametrize(
    ("labels", "holdout", "told"),
    [
        (np.arange(40) % 10, 0.0, "at least 5 rows of each digit for 5 folds, found 4 of digit 0"),
        (np.append(np.arange(90) % 9, 9), 0.1, "at least 2 rows of each digit for a holdout and folds, found 1"),
        (np.arange(90) % 9, 0.0, "found 0 of digit 9"),
        (np.arange(20) % 10, 0.1, "20 rows are too few for a holdout of 0.1"),
    ],
)
def test_too_few_rows_of_a_digit_are_refused(labels: np.ndarray, holdout: float, told: str) -> None:
    with pytest.raises(BadInput, match=told):
        splits.split(labels.astype(np.uint8), folds=5, members=5, holdout=holdout, seed=0)
