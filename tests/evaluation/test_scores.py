"""Scores of a blend."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from digit_recognizer.data import dataset, splits
from digit_recognizer.ensemble.blend import Blend, out_of_fold
from digit_recognizer.evaluation import metrics, scores
from digit_recognizer.evaluation.scores import Scores
from digit_recognizer.recipe import Recipe, load_recipe

LABELS = np.arange(400, dtype=np.uint8) % 10
DIGITS = dataset.Dataset(
    np.zeros((400, 28, 28), np.uint8), LABELS, np.zeros((50, 28, 28), np.uint8), Path("files"), False, ""
)
RECIPE = load_recipe("quick").changed(folds=4, members=8, holdout=0.2)


def answers(rows: npt.NDArray[np.intp], wrong: set[int]) -> npt.NDArray[np.float32]:
    """Probabilities that are right but for some rows."""
    digits = np.array([(LABELS[row] + (row in wrong)) % 10 for row in rows], int)
    return (np.eye(10, dtype=np.float32) * 0.8 + 0.02)[digits].reshape(len(rows), 10)


def scored(recipe: Recipe = RECIPE, *, wrong: set[int], wrong_last: set[int], **changes: object) -> Scores:
    """The scores of members that all get the same rows wrong, other ones after the last epoch."""
    split = splits.split(LABELS, folds=recipe.folds, members=recipe.members, holdout=recipe.holdout, seed=0)
    fold = tuple(answers(one.validation, wrong) for one in split.folds)
    last = tuple(answers(one.validation, wrong_last) for one in split.folds)
    held, held_last = answers(split.holdout, wrong), answers(split.holdout, wrong_last)
    blend = Blend(
        oof=out_of_fold(split.folds, fold, 400),
        oof_last=out_of_fold(split.folds, last, 400),
        holdout=held,
        test=np.full((50, 10), 0.1, np.float32),
        folds=split.folds,
        fold_members=fold,
        fold_members_last=last,
        holdout_members=(held,) * recipe.members,
        holdout_members_last=(held_last,) * recipe.members,
        histories=[],
        epochs=recipe.epochs,
        stopped=False,
    )
    return scores.score_blend(replace(blend, **changes), RECIPE, split, DIGITS)  # type: ignore[arg-type]


def test_expected_score_compares_the_same_networks_on_both_sets() -> None:
    split = splits.split(LABELS, folds=4, members=8, holdout=0.2, seed=0)
    held, outside = set(split.holdout[:8].tolist()), set(np.flatnonzero(~np.isin(np.arange(400), split.holdout))[:32])
    plain = scored(wrong=held | outside, wrong_last=held | outside)
    assert plain.holdout
    assert plain.expected.accuracy == pytest.approx(0.9)
    # After the last epoch the same networks have none wrong, here as there: their errors say nothing of the holdout.
    better_last = scored(wrong=held | outside, wrong_last=set())
    assert better_last.expected.accuracy == pytest.approx(plain.holdout.accuracy)
    # The holdout's rows are harder than others.
    harder = scored(wrong=held, wrong_last=held)
    assert harder.expected.accuracy > plain.holdout.accuracy + 0.05


def test_without_holdout_the_last_epoch_is_scored() -> None:
    recipe = RECIPE.changed(holdout=0)
    found = scored(recipe, wrong=set(), wrong_last=set(range(40)))
    assert found.holdout is None
    assert found.oof.errors == 0
    assert found.expected.accuracy == pytest.approx(0.9)


def test_row_in_several_folds_counts_once() -> None:
    once = scored(RECIPE.changed(members=4), wrong=set(range(0, 400, 20)), wrong_last=set(range(0, 400, 20)))
    twice = scored(wrong=set(range(0, 400, 20)), wrong_last=set(range(0, 400, 20)))
    assert twice.oof.rows == 2 * once.oof.rows
    assert (twice.oof.low, twice.oof.high) == pytest.approx((once.oof.low, once.oof.high))
    assert (twice.expected.low, twice.expected.high) == pytest.approx((once.expected.low, once.expected.high))
    assert twice.oof == metrics.score(twice.oof.errors, twice.oof.rows, distinct=once.oof.rows)


@pytest.mark.parametrize(
    ("changes", "truncated"),
    [
        ({}, ""),
        ({"epochs": 3}, "3 of 8 epochs"),
        ({"epochs": 3, "stopped": True}, "3 of 8 epochs, the last one incomplete"),
        ({"members": 4}, "4 of 8 members"),
        ({"members": 4, "epochs": 1}, "4 of 8 members, 1 of 8 epochs"),
    ],
)
def test_truncation_is_described(changes: dict[str, int], truncated: str) -> None:
    recipe = RECIPE.changed(members=changes.pop("members", 8))
    found = scored(recipe, wrong=set(), wrong_last=set(), **changes)
    assert found.truncated == truncated
    assert str(found).startswith(f"truncated by the budget: {truncated}\n" if truncated else "out-of-fold")


def test_barely_trained_and_tuned_runs_are_labelled() -> None:
    good, bad = scored(wrong=set(), wrong_last=set()), scored(wrong=set(range(300)), wrong_last=set())
    assert "warning: barely trained" not in str(good)
    assert str(bad).splitlines()[-1].startswith("warning: barely trained")
    assert "the shipped recipes were tuned on splits that include these rows" in str(good)
    assert "tuned" not in str(replace(good, tuned=False))
