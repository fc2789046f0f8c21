"""k-NN re-ranking on the real digits of the bundled sample."""

import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from digit_recognizer.data import dataset, splits
from digit_recognizer.data.dataset import Dataset
from digit_recognizer.ensemble import knn
from digit_recognizer.ensemble.blend import Blend
from digit_recognizer.evaluation import scores
from digit_recognizer.recipe import load_recipe
from fake_trainer import run_in_process


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    home = tmp_path_factory.mktemp("sample")
    return dataset.load(None, default=home / "data", cache=home / "cache")


def ambiguous_predictions(labels: knn.Pixels, seed: int = 0) -> knn.Probabilities:
    """Return predictions with a probability of 0.5 for the label and for one other digit."""
    other = (labels + np.random.default_rng(seed).integers(1, 10, len(labels))) % 10
    return np.asarray((np.eye(10)[labels] + np.eye(10)[other]) / 2, np.float32)


def reranked(
    predictions: knn.Probabilities, data: Dataset, rows: int, *, first_reference: int | None = None, **options: float
) -> knn.Probabilities:
    """Re-rank predictions of the first ``rows`` training images, by all images from ``first_reference`` on."""
    references = np.arange(rows if first_reference is None else first_reference, len(data.labels))
    queries = [knn.Queries(data.images[:rows], (predictions,), references)]
    settings: dict[str, Any] = {"weight": 5, **options}
    ((result,),) = knn.rerank(queries, data.images, data.labels, run_jobs=run_in_process, **settings)
    return result


def distances(image: knn.Pixels, references: knn.Pixels) -> knn.Floats:
    return knn.distortion_distances(knn.gradients(image[None]), knn.gradients(references), reach=2, patch=5)


def test_distance_to_a_slightly_shifted_image_is_zero(data: Dataset) -> None:
    image = np.pad(data.images[0][4:-4, 4:-4], 4)
    shifts = ((0, 0), (1, -1), (0, 2), (2, 1))
    same, diagonal, within_reach, out_of_reach = distances(
        image, np.array([np.roll(image, shift, (0, 1)) for shift in shifts])
    )
    assert same == diagonal == within_reach == 0
    assert out_of_reach > 0
    assert distances(image, data.images[data.labels != data.labels[0]]).min() > 0


def test_distances_equal_those_of_loops_over_pixels(data: Dataset) -> None:
    from scipy import ndimage

    image, reference = (
        np.pad([ndimage.sobel(pixels, axis=axis, mode="constant") for axis in (0, 1)], ((0, 0), (6, 6), (6, 6)))
        for pixels in data.images[:2].astype(float) / 255
    )
    inside = np.zeros((40, 40), bool)
    inside[6:-6, 6:-6] = True
    total = 0.0
    for y in range(6, 34):
        for x in range(6, 34):
            differences = []
            for down in range(-2, 3):
                for right in range(abs(down) - 2, 3 - abs(down)):
                    steps = [(i, j) for i in range(-2, 3) for j in range(-2, 3) if inside[y + i, x + j]]
                    pairs = [(image[:, y + i, x + j], reference[:, y + i + down, x + j + right]) for i, j in steps]
                    differences.append(sum(float(np.square(a - b).sum()) for a, b in pairs))
            total += min(differences)
    assert distances(data.images[0], data.images[1:2])[0] == pytest.approx(total, rel=1e-4)


def test_ambiguous_predictions_become_correct(data: Dataset) -> None:
    labels = data.labels[:100]
    result = reranked(ambiguous_predictions(labels), data, 100)
    assert (result.argmax(axis=1) == labels).sum() >= 95
    np.testing.assert_allclose(result.sum(axis=1), 1, rtol=1e-5)


def test_only_ambiguous_digits_of_ambiguous_rows_change(data: Dataset, capsys: pytest.CaptureFixture[str]) -> None:
    predictions = np.full((3, 10), 0.001, np.float32)
    predictions[:, 4] = 0.991
    predictions[1, [4, 9]], predictions[2, [4, 9]] = (0.9, 0.092), (0.5, 0.492)
    result = reranked(predictions, data, 3)
    assert "re-ranking 2 ambiguous predictions" in capsys.readouterr().out
    np.testing.assert_array_equal(result[0], predictions[0])
    others = [digit for digit in range(10) if digit not in (4, 9)]
    np.testing.assert_array_equal(result[:, others], predictions[:, others])
    assert (result[1:, 4] != predictions[1:, 4]).all()
    np.testing.assert_allclose(result[1:, [4, 9]].sum(axis=1), 0.992, rtol=1e-5)


def test_unambiguous_predictions_stay_unchanged(data: Dataset, capsys: pytest.CaptureFixture[str]) -> None:
    predictions = np.eye(10, dtype=np.float32)[data.labels[:5]]
    np.testing.assert_array_equal(reranked(predictions, data, 5), predictions)
    assert capsys.readouterr().out == ""


def test_weight_controls_how_much_predictions_change(data: Dataset) -> None:
    predictions = ambiguous_predictions(data.labels[:5])
    zero, low, high = (reranked(predictions, data, 5, weight=weight) for weight in (0, 1, 10))
    np.testing.assert_allclose(zero, predictions, rtol=1e-6)
    assert (low.max(axis=1) > 0.5).all()
    assert (low.max(axis=1) < high.max(axis=1)).all()


def test_one_wrong_label_does_not_decide(data: Dataset) -> None:
    predictions = ambiguous_predictions(data.labels[:1])
    wrong = np.flatnonzero((predictions[0] > 0) & (np.arange(10) != data.labels[0]))[0]
    mislabelled = replace(data, labels=np.concatenate(([wrong], data.labels[1:])).astype(np.uint8))
    assert reranked(predictions, mislabelled, 1, first_reference=0)[0].argmax() == data.labels[0]


def test_queries_use_their_own_reference_images_only(data: Dataset) -> None:
    predictions, half = ambiguous_predictions(data.labels[:5]), len(data.labels) // 2
    queries = [
        knn.Queries(data.images[:5], (predictions,), rows)
        for rows in (np.arange(5, half), np.arange(half, len(data.labels)))
    ]
    changed_labels = np.concatenate((data.labels[:half], (data.labels[half:] + 1) % 10))
    (first,), (second,) = knn.rerank(queries, data.images, data.labels, weight=5, run_jobs=run_in_process)
    (first_again,), (second_again,) = knn.rerank(
        queries, data.images, changed_labels, weight=5, run_jobs=run_in_process
    )
    np.testing.assert_array_equal(first, first_again)
    assert (second != second_again).any()


def test_predictions_of_one_query_are_independent(data: Dataset) -> None:
    predictions = tuple(ambiguous_predictions(data.labels[:5], seed) for seed in (0, 1))
    queries = [knn.Queries(data.images[:5], predictions, np.arange(5, len(data.labels)))]
    ((first, second),) = knn.rerank(queries, data.images, data.labels, weight=5, run_jobs=run_in_process)
    np.testing.assert_array_equal(first, reranked(predictions[0], data, 5))
    np.testing.assert_array_equal(second, reranked(predictions[1], data, 5))


def test_no_image_starts_after_the_deadline(data: Dataset, capsys: pytest.CaptureFixture[str]) -> None:
    predictions = ambiguous_predictions(data.labels[:5])
    result = reranked(predictions, data, 5, deadline=time.monotonic() - 1)
    np.testing.assert_array_equal(result, predictions)
    assert "budget: only 0 of 5 ambiguous predictions were re-ranked" in capsys.readouterr().out


@pytest.mark.slow
def test_scored_rows_are_excluded_from_the_reference_images(data: Dataset, capsys: pytest.CaptureFixture[str]) -> None:
    """In worker processes, as in a run."""
    recipe = load_recipe("quick")
    split = splits.split(data.labels, folds=recipe.folds, members=2, holdout=recipe.holdout, seed=0)
    holdout_labels = data.labels[split.holdout]
    fold_members = tuple(ambiguous_predictions(data.labels[fold.validation]) for fold in split.folds)
    holdout_members = tuple(ambiguous_predictions(holdout_labels, seed) for seed in (1, 2))
    unknown = np.full((len(data.labels), 10), np.nan, np.float32)
    blend = Blend(
        oof=unknown,
        oof_last=unknown,
        holdout=ambiguous_predictions(holdout_labels),
        test=ambiguous_predictions(np.zeros(len(data.test_images), np.uint8)),
        full_members=0,
        folds=split.folds,
        fold_members=fold_members,
        fold_members_last=fold_members,
        holdout_members=holdout_members,
        holdout_members_last=holdout_members,
        histories=[],
        best_epochs=(),
        epochs=recipe.epochs,
        stopped=False,
    )
    result = knn.rerank_blend(blend, recipe, data, split)
    output = capsys.readouterr().out
    before, after = (scores.score_blend(one, recipe, split, data) for one in (blend, result))
    assert before.holdout
    assert after.holdout
    assert after.holdout.accuracy > 0.9 > before.holdout.accuracy
    assert after.oof.accuracy > 0.9 > before.oof.accuracy
    assert after.oof_last_epoch == after.oof
    assert all(member.accuracy > 0.9 for member in after.holdout_members)
    oof_errors = f"  out-of-fold errors {before.oof.errors} → {after.oof.errors}"
    assert f"{oof_errors}, holdout errors {before.holdout.errors} → {after.holdout.errors}\n" in output
    for fold, predictions in zip(split.folds, result.fold_members, strict=True):
        np.testing.assert_allclose(result.oof[fold.validation], predictions, rtol=1e-6)

    labels = data.labels.copy()
    labels[split.holdout] = (holdout_labels + 1) % 10
    repeated = knn.rerank_blend(blend, recipe, replace(data, labels=labels), split)
    for name in ("holdout", "test", "oof"):
        np.testing.assert_array_equal(getattr(repeated, name), getattr(result, name))
    labels[split.folds[0].validation] = (labels[split.folds[0].validation] + 1) % 10
    repeated = knn.rerank_blend(blend, recipe, replace(data, labels=labels), split)
    np.testing.assert_array_equal(repeated.fold_members[0], result.fold_members[0])
    assert (repeated.test != result.test).any()


def test_recipe_without_weight_leaves_the_blend_unchanged(data: Dataset) -> None:
    recipe = load_recipe("quick").changed(knn_weight=0)
    split = splits.split(data.labels, folds=recipe.folds, members=1, holdout=recipe.holdout, seed=0)
    empty = np.empty((0, 10), np.float32)
    blend = Blend(empty, empty, empty, empty, 0, (), (), (), (), (), [], (), recipe.epochs, False)
    assert knn.rerank_blend(blend, recipe, data, split) is blend
