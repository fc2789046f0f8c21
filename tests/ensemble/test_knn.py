"""What is near under small deformation, and what the nearest digits say, on the bundled sample's real digits."""

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from digit_recognizer import recipe
from digit_recognizer.data import dataset, splits
from digit_recognizer.data.dataset import Dataset
from digit_recognizer.ensemble import knn
from digit_recognizer.ensemble.blend import Blend
from digit_recognizer.evaluation import scores


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    home = tmp_path_factory.mktemp("neighbours")
    return dataset.load(None, default=home / "data", cache=home / "cache")


def undecided(labels: knn.Pixels, seed: int = 0) -> knn.Probabilities:
    """Half for each row's label and half for another digit."""
    other = (labels + np.random.default_rng(seed).integers(1, 10, len(labels))) % 10
    return np.asarray((np.eye(10)[labels] + np.eye(10)[other]) / 2, np.float32)


def told(
    probabilities: knn.Probabilities, images: knn.Pixels, digits: Dataset, first: int, **how: float
) -> knn.Probabilities:
    """The probabilities once all digits from number ``first`` on were asked about the images."""
    circle = knn.Queries(images, (probabilities,), np.arange(first, len(digits.labels)))
    ((after,),) = knn.rerank([circle], digits.images, digits.labels, **{"weight": 5, **how})
    return after


def distances(image: knn.Pixels, others: knn.Pixels) -> knn.Floats:
    here, there = knn.gradients(image[None]), knn.gradients(others)
    return knn.distortion_distances(here, there, reach=2, patch=5)


def test_distance_of_an_image_to_itself_or_a_slightly_moved_copy_is_small(digits: Dataset) -> None:
    image = np.pad(digits.images[0][4:-4, 4:-4], 4)
    moved = [np.roll(image, (down, right), (0, 1)) for down, right in ((0, 0), (1, -1), (0, 2), (2, 1))]
    same, near, as_far, further = distances(image, np.array(moved))
    another = distances(image, digits.images[digits.labels != digits.labels[0]]).min()
    assert same == near == as_far == 0
    assert further > 0
    assert another > 0


def test_distances_match_the_definition(digits: Dataset) -> None:
    """By loops over pixels, in another way than the kit's."""
    from scipy import ndimage

    image, other = digits.images[:2].astype(float) / 255
    here, there = (
        np.pad([ndimage.sobel(one, axis=axis, mode="constant") for axis in (0, 1)], ((0, 0), (6, 6), (6, 6)))
        for one in (image, other)
    )
    inside = np.zeros((40, 40), bool)
    inside[6:-6, 6:-6] = True
    total = 0.0
    for y in range(6, 34):
        for x in range(6, 34):
            apart = []
            for down in range(-2, 3):
                for right in range(abs(down) - 2, 3 - abs(down)):
                    steps = [(i, j) for i in range(-2, 3) for j in range(-2, 3) if inside[y + i, x + j]]
                    pairs = [(here[:, y + i, x + j], there[:, y + i + down, x + j + right]) for i, j in steps]
                    apart.append(sum(float(np.square(a - b).sum()) for a, b in pairs))
            total += min(apart)
    assert distances(digits.images[0], digits.images[1:2])[0] == pytest.approx(total, rel=1e-4)


def test_reranking_corrects_undecided_predictions(digits: Dataset) -> None:
    labels = digits.labels[:100]
    after = told(undecided(labels), digits.images[:100], digits, 100)
    assert (after.argmax(axis=1) == labels).sum() >= 95
    np.testing.assert_allclose(after.sum(axis=1), 1, rtol=1e-5)


def test_only_ambiguous_digits_of_ambiguous_rows_change(digits: Dataset, capsys: pytest.CaptureFixture[str]) -> None:
    before = np.full((3, 10), 0.001, np.float32)
    before[:, 4] = 0.991
    before[1, [4, 9]], before[2, [4, 9]] = (0.9, 0.092), (0.5, 0.492)
    after = told(before, digits.images[:3], digits, 3)
    assert "re-ranking 2 ambiguous predictions" in capsys.readouterr().out
    np.testing.assert_array_equal(after[0], before[0])
    others = [digit for digit in range(10) if digit not in (4, 9)]
    np.testing.assert_array_equal(after[:, others], before[:, others])
    assert (after[1:, 4] != before[1:, 4]).all()
    np.testing.assert_allclose(after[1:, [4, 9]].sum(axis=1), 0.992, rtol=1e-5)


def test_without_ambiguous_rows_no_worker_starts(digits: Dataset, capsys: pytest.CaptureFixture[str]) -> None:
    sure = np.eye(10, dtype=np.float32)[digits.labels[:5]]
    np.testing.assert_array_equal(told(sure, digits.images[:5], digits, 5), sure)
    assert capsys.readouterr().out == ""


def test_weight_scales_the_change(digits: Dataset) -> None:
    before = undecided(digits.labels[:5])
    none, little, much = (told(before, digits.images[:5], digits, 5, weight=weight) for weight in (0, 1, 10))
    np.testing.assert_allclose(none, before, rtol=1e-6)
    assert (little.max(axis=1) > 0.5).all()
    assert (little.max(axis=1) < much.max(axis=1)).all()


def test_one_mislabelled_reference_image_does_not_decide(digits: Dataset) -> None:
    before = undecided(digits.labels[:1])
    wrong = np.flatnonzero((before[0] > 0) & (np.arange(10) != digits.labels[0]))[0]
    mistaken = replace(digits, labels=np.concatenate(([wrong], digits.labels[1:])).astype(np.uint8))
    assert told(before, digits.images[:1], mistaken, 0)[0].argmax() == digits.labels[0]


def test_only_allowed_reference_images_are_used(digits: Dataset) -> None:
    """Labels of others change nothing, and each circle asks its own."""
    opinions, half = undecided(digits.labels[:5]), len(digits.labels) // 2
    circles = [
        knn.Queries(digits.images[:5], (opinions,), rows)
        for rows in (np.arange(5, half), np.arange(half, len(digits.labels)))
    ]
    labels = np.concatenate((digits.labels[:half], (digits.labels[half:] + 1) % 10))
    before, after = (knn.rerank(circles, digits.images, these, weight=5) for these in (digits.labels, labels))
    np.testing.assert_array_equal(before[0][0], after[0][0])
    assert (before[1][0] != after[1][0]).any()


def test_predictions_of_one_query_are_reranked_independently(digits: Dataset) -> None:
    one, other = undecided(digits.labels[:5]), undecided(digits.labels[:5], seed=1)
    circle = knn.Queries(digits.images[:5], (one, other), np.arange(5, len(digits.labels)))
    ((first, second),) = knn.rerank([circle], digits.images, digits.labels, weight=5)
    np.testing.assert_array_equal(first, told(one, digits.images[:5], digits, 5))
    np.testing.assert_array_equal(second, told(other, digits.images[:5], digits, 5))


def test_no_image_is_started_after_the_deadline(digits: Dataset, capsys: pytest.CaptureFixture[str]) -> None:
    before = undecided(digits.labels[:5])
    after = told(before, digits.images[:5], digits, 5, deadline=time.monotonic() - 1)
    np.testing.assert_array_equal(after, before)
    assert "budget: only 0 of 5 ambiguous predictions were re-ranked" in capsys.readouterr().out


@pytest.mark.slow
def test_labels_of_scored_rows_do_not_affect_their_reranking(
    digits: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = recipe.load_recipe("quick")
    split = splits.split(digits.labels, folds=one.folds, members=2, holdout=one.holdout, seed=0)
    held = digits.labels[split.holdout]
    of_fold = tuple(undecided(digits.labels[fold.validation]) for fold in split.folds)
    test = undecided(np.zeros(len(digits.test_images), np.uint8))
    nobody = np.full((len(digits.labels), 10), np.nan, np.float32)
    alone = (undecided(held, seed=1), undecided(held, seed=2))
    blend = Blend(
        oof=nobody,
        oof_last=nobody,
        holdout=undecided(held),
        test=test,
        folds=split.folds,
        fold_members=of_fold,
        fold_members_last=of_fold,
        holdout_members=alone,
        holdout_members_last=alone,
        histories=[],
        epochs=one.epochs,
        stopped=False,
    )
    after = knn.rerank_blend(blend, one, digits, split)
    shown = capsys.readouterr().out
    before, after_reranking = (scores.score_blend(found, one, split, digits) for found in (blend, after))
    assert before.holdout
    assert after_reranking.holdout
    assert after_reranking.holdout.accuracy > 0.9 > before.holdout.accuracy
    assert after_reranking.oof.accuracy > 0.9 > before.oof.accuracy
    assert after_reranking.oof_last_epoch == after_reranking.oof
    assert all(member.accuracy > 0.9 for member in after_reranking.holdout_members)
    oof = f"out-of-fold errors {before.oof.errors} → {after_reranking.oof.errors}"
    assert f"{oof}, holdout errors {before.holdout.errors} → {after_reranking.holdout.errors}\n" in shown
    for fold, opinions in zip(split.folds, after.fold_members, strict=True):
        np.testing.assert_allclose(after.oof[fold.validation], opinions, rtol=1e-6)

    labels = digits.labels.copy()
    labels[split.holdout] = (held + 1) % 10
    again = knn.rerank_blend(blend, one, replace(digits, labels=labels), split)
    for name in ("holdout", "test", "oof"):
        np.testing.assert_array_equal(getattr(again, name), getattr(after, name))
    labels[split.folds[0].validation] = (labels[split.folds[0].validation] + 1) % 10
    again = knn.rerank_blend(blend, one, replace(digits, labels=labels), split)
    np.testing.assert_array_equal(again.fold_members[0], after.fold_members[0])
    assert (again.test != after.test).any()


def test_blend_without_knn_weight_is_unchanged(digits: Dataset, tmp_path: Path) -> None:
    one = recipe.load_recipe("quick").changed(knn_weight=0)
    split = splits.split(digits.labels, folds=one.folds, members=1, holdout=one.holdout, seed=0)
    nothing = np.empty((0, 10), np.float32)
    blend = Blend(nothing, nothing, nothing, nothing, (), (), (), (), (), [], one.epochs, False)
    assert knn.rerank_blend(blend, one, digits, split) is blend
