"""Scores of a blend: which rows they are from, and their texts."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from digit_recognizer import hints
from digit_recognizer.data import dataset, splits
from digit_recognizer.ensemble.blend import Blend, out_of_fold
from digit_recognizer.errors import BadInput
from digit_recognizer.evaluation import metrics, scores
from digit_recognizer.evaluation.scores import Scores
from digit_recognizer.recipe import Recipe, load_recipe

LABELS = np.arange(400, dtype=np.uint8) % 10
DATA = dataset.Dataset(
    np.zeros((400, 28, 28), np.uint8), LABELS, np.zeros((50, 28, 28), np.uint8), Path("files"), False, ""
)
RECIPE = load_recipe("quick").changed(folds=4, members=8, holdout=0.2)
EVERY_20TH = set(range(0, 400, 20))


def predictions(rows: npt.NDArray[np.intp], wrong: set[int]) -> npt.NDArray[np.float32]:
    """Return probabilities for some training rows that are correct except for the rows ``wrong``."""
    digits = np.array([(LABELS[row] + (row in wrong)) % 10 for row in rows], int)
    return (np.eye(10, dtype=np.float32) * 0.8 + 0.02)[digits].reshape(len(rows), 10)


def score(
    recipe: Recipe = RECIPE, *, wrong: set[int] | None = None, wrong_last: set[int] | None = None, **changes: object
) -> Scores:
    """Return the scores of a blend of equal members.

    Args:
        wrong, wrong_last: the rows that all members misclassify, at the checkpoint and after the last epoch.
        changes: fields of the blend to replace.
    """
    wrong, wrong_last = wrong or set(), wrong_last or set()
    split = splits.split(LABELS, folds=recipe.folds, members=recipe.members, holdout=recipe.holdout, seed=0)
    fold_members = tuple(predictions(fold.validation, wrong) for fold in split.folds)
    fold_members_last = tuple(predictions(fold.validation, wrong_last) for fold in split.folds)
    holdout = predictions(split.holdout, wrong)
    blend = Blend(
        oof=out_of_fold(split.folds, fold_members, 400),
        oof_last=out_of_fold(split.folds, fold_members_last, 400),
        holdout=holdout,
        test=np.full((50, 10), 0.1, np.float32),
        full_members=0,
        folds=split.folds,
        fold_members=fold_members,
        fold_members_last=fold_members_last,
        holdout_members=(holdout,) * recipe.members,
        holdout_members_last=(predictions(split.holdout, wrong_last),) * recipe.members,
        histories=[],
        best_epochs=(),
        epochs=recipe.epochs,
        stopped=False,
    )
    return scores.score_blend(replace(blend, **changes), RECIPE, split, DATA)  # type: ignore[arg-type]


def test_full_members_are_named_as_unscored() -> None:
    assert "trained on all rows" not in str(score())
    text = str(score(full_members=3))
    assert f"  of the {RECIPE.members} with validation rows\n" in text
    assert "  the submission also has 3 members trained on all rows\n  no row is left to score them\n" in text
    stored = score(full_members=3).as_json()
    assert Scores.from_json(stored).full_members == 3
    del stored["full_members"]  # as earlier versions wrote it
    assert Scores.from_json(stored).full_members == 0


def test_expected_score_compares_the_same_networks_on_both_sets_of_rows() -> None:
    split = splits.split(LABELS, folds=4, members=8, holdout=0.2, seed=0)
    holdout_errors = set(split.holdout[:8].tolist())
    fold_errors = set(np.flatnonzero(~np.isin(np.arange(400), split.holdout))[:32])
    equal = score(wrong=holdout_errors | fold_errors, wrong_last=holdout_errors | fold_errors)
    assert equal.holdout
    assert equal.expected.accuracy == pytest.approx(0.9)
    # After the last epoch these networks have no errors on either set, so the holdout is not harder than other rows.
    better_last = score(wrong=holdout_errors | fold_errors)
    assert better_last.expected.accuracy == pytest.approx(equal.holdout.accuracy)
    hard_holdout = score(wrong=holdout_errors, wrong_last=holdout_errors)
    assert hard_holdout.expected.accuracy > equal.holdout.accuracy + 0.05


def test_expected_score_without_holdout_is_from_the_last_epoch() -> None:
    result = score(RECIPE.changed(holdout=0), wrong_last=set(range(40)))
    assert result.holdout is None
    assert result.oof.errors == 0
    assert result.expected.accuracy == pytest.approx(0.9)
    assert "no holdout: the blend itself is not scored\n" in str(result)


def test_row_in_several_validation_folds_is_one_row() -> None:
    once = score(RECIPE.changed(members=4), wrong=EVERY_20TH, wrong_last=EVERY_20TH)
    twice = score(wrong=EVERY_20TH, wrong_last=EVERY_20TH)
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
def test_truncation_by_a_budget_is_described(changes: dict[str, int], truncated: str) -> None:
    result = score(RECIPE.changed(members=changes.pop("members", 8)), **changes)
    assert result.truncated == truncated
    assert str(result).startswith(f"truncated by the budget: {truncated}\n" if truncated else "out-of-fold")


def test_text_names_rows_intervals_and_bias_within_60_columns() -> None:
    lines = str(score(wrong=EVERY_20TH)).splitlines()
    assert max(map(len, lines)) <= 60
    assert [re.sub(r"\d[\d.]*", "#", line) for line in lines[:13]] == [
        "out-of-fold, single members: # of # rows wrong",
        "  accuracy # (# %: # to #)",
        "  slightly optimistic: these rows chose the checkpoints",
        "  last epoch: accuracy # (# %: # to #)",
        "holdout, blend of #: # of # rows wrong",
        "  accuracy # (# %: # to #)",
        "  loss #; mean accuracy of a single member #",
        "  none of these members was trained on these rows",
        "  the shipped recipes were tuned on splits that include them",
        "expected public score: #",
        "  # %: # to # on all # rows",
        "  # %: # to # on a public part of #",
        "confusion matrix, holdout (down: true, across: predicted)",
    ]


def test_untuned_rows_are_not_described_as_tuned() -> None:
    assert "tuned" not in str(replace(score(), tuned=False))


def test_warning_follows_when_barely_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    barely_trained = score(wrong=set(range(300)))
    assert "warning" not in str(score())
    assert str(barely_trained).splitlines()[-2:] == ["warning: barely trained", "hint: increase --budget or --epochs"]
    monkeypatch.setenv(hints.CALLER_VARIABLE, "make")
    assert str(barely_trained).splitlines()[-1] == "hint: increase BUDGET= or EPOCHS="


@pytest.mark.parametrize("holdout", [0, 0.2])
def test_scores_survive_json(holdout: float) -> None:
    result = score(RECIPE.changed(holdout=holdout), wrong=EVERY_20TH)
    stored = json.loads(json.dumps({"sample": True, **result.as_json()}))
    restored = Scores.from_json(stored)
    assert str(restored) == str(result)
    assert restored.as_json() == result.as_json()


@pytest.mark.parametrize(
    "change",
    [{"oof": None}, {"oof": {}}, {"expected": 1}, {"holdout": [1]}, {"holdout_members": 3}, {"confusion": [[1], []]}],
)
def test_damaged_scores_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(BadInput, match=r"scores\.json: damaged"):
        Scores.from_json(score().as_json() | change)
