"""Re-rank ambiguous predictions by the distance to the nearest training images.

The distance is the image distortion model of D. Keysers et al., "Deformation Models for Image Recognition" (IEEE TPAMI,
2007). It compares pixels, where a network compares learnt features, so the errors of the two differ.
"""

import functools
import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from digit_recognizer.console import Spinner
from digit_recognizer.data.dataset import Dataset
from digit_recognizer.data.splits import Split
from digit_recognizer.ensemble.blend import Blend, count_errors, count_fold_errors, out_of_fold
from digit_recognizer.recipe import Recipe
from digit_recognizer.training import devices
from digit_recognizer.training.budget import FINAL_SECONDS
from digit_recognizer.training.executors import Reporter, local
from digit_recognizer.training.progress import Progress

Pixels = npt.NDArray[np.uint8]
Probabilities = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float32]
Flags = npt.NDArray[np.bool_]

MIN_PROBABILITY = 0.05  # digits of a lower probability are not re-ranked
COARSE_CANDIDATES = 300  # reference images of a digit, by Euclidean distance, compared at half the resolution
FINE_CANDIDATES = 32  # the nearest of these, compared at full resolution
NEAREST = 3  # the nearest of these, averaged; with fewer, one mislabelled reference image would decide
REACH, PATCH = 2, 5  # pixels that a pixel may be displaced by; side of the patch that is compared around it
MAX_WORKERS = 8  # starting more takes longer than it saves
START_SECONDS = 1.0  # seconds until a worker has prepared the reference images
AMBIGUOUS_SHARE = 0.02  # typical share of ambiguous predictions


@dataclass(frozen=True)
class Queries:
    """Images with predictions to re-rank, and the reference images allowed for them.

    Attributes:
        images: uint8 (n, 28, 28).
        predictions: one or more arrays of probabilities for these images, each float32 (n, 10).
        references: indices of training rows; none of them is among ``images``.
    """

    images: Pixels
    predictions: tuple[Probabilities, ...]
    references: npt.NDArray[np.intp]


def rerank_blend(blend: Blend, recipe: Recipe, data: Dataset, split: Split, *, deadline: float | None = None) -> Blend:
    """Re-rank the ambiguous predictions of a blend and of its members, with the recipe's ``knn_weight``.

    Scored rows are excluded from the reference images: for the holdout these are all training rows outside it, for the
    validation rows of a member the rows it was trained on. For the test rows they are those of the holdout, or all
    training rows if some members were trained on them.

    Args:
        blend, recipe, data, split: the blend and what it was computed from.
        deadline: a time of ``time.monotonic`` at which the run should end; rows not re-ranked by then stay unchanged.
    """
    if not recipe.knn_weight:
        return blend
    every_row = np.arange(len(data.labels))
    outside_holdout = np.delete(every_row, split.holdout)
    fold_predictions = zip(blend.fold_members, blend.fold_members_last, strict=True)
    holdout_predictions = (blend.holdout, *blend.holdout_members, *blend.holdout_members_last)
    queries = [
        Queries(data.test_images, (blend.test,), every_row if blend.full_members else outside_holdout),
        Queries(data.images[split.holdout], holdout_predictions, outside_holdout),
        *(
            Queries(data.images[fold.validation], predictions, fold.train)
            for fold, predictions in zip(blend.folds, fold_predictions, strict=True)
        ),
    ]
    (test,), (holdout, *holdout_members), *folds = rerank(
        queries,
        data.images,
        data.labels,
        weight=recipe.knn_weight,
        deadline=None if deadline is None else deadline - FINAL_SECONDS,
    )
    fold_members, fold_members_last = zip(*folds, strict=True)
    count = len(blend.folds)
    reranked = replace(
        blend,
        oof=out_of_fold(blend.folds, fold_members, len(data.labels)),
        oof_last=out_of_fold(blend.folds, fold_members_last, len(data.labels)),
        holdout=holdout,
        test=test,
        fold_members=fold_members,
        fold_members_last=fold_members_last,
        holdout_members=tuple(holdout_members[:count]),
        holdout_members_last=tuple(holdout_members[count:]),
    )
    changed = int((blend.test.argmax(axis=1) != test.argmax(axis=1)).sum())
    before, after = (
        count_fold_errors(blend.folds, members, data.labels) for members in (blend.fold_members, fold_members)
    )
    errors = f"out-of-fold errors {before:,} → {after:,}"
    if len(split.holdout):
        before, after = (
            count_errors(data.labels[split.holdout], predictions) for predictions in (blend.holdout, holdout)
        )
        errors += f", holdout errors {before:,} → {after:,}"
    print(f"k-NN re-ranking: {changed:,} of {len(test):,} test predictions changed\n  {errors}", flush=True)
    return reranked


def rerank(
    queries: Sequence[Queries],
    images: Pixels,
    labels: Pixels,
    *,
    weight: float,
    deadline: float | None = None,
    run_jobs: Callable[..., None] = local.run_jobs,
) -> list[tuple[Probabilities, ...]]:
    """Re-rank all ambiguous predictions in worker processes, the most ambiguous images first.

    Args:
        queries: images, predictions and the rows of their reference images.
        images, labels: uint8 (k, 28, 28) and (k,), the training rows.
        weight: 0 changes nothing (see ``reweight``).
        deadline: a time of ``time.monotonic`` after which no image is started; the rest keep their predictions.
        run_jobs: computes distances in parallel; see ``executors.local.run_jobs``.

    Returns:
        for each of ``queries`` its predictions after re-ranking.
    """
    digits = [functools.reduce(np.logical_or, map(ambiguous, group.predictions)) for group in queries]
    distances = [np.full(flags.shape, np.nan, np.float32) for flags in digits]
    rows = [(number, int(row)) for number, flags in enumerate(digits) for row in np.flatnonzero(flags.any(axis=1))]

    def second_probability(location: tuple[int, int]) -> float:
        number, row = location
        return max(float(np.sort(predictions[row])[-2]) for predictions in queries[number].predictions)

    rows.sort(key=second_probability, reverse=True)
    if rows:
        allowed = np.zeros((len(queries), len(images)), bool)
        for mask, group in zip(allowed, queries, strict=True):
            mask[group.references] = True
        job = _DistanceJob(
            images=np.array([queries[number].images[row] for number, row in rows]),
            digits=np.array([digits[number][row] for number, row in rows]),
            groups=np.array([number for number, _ in rows]),
            references=images,
            labels=labels,
            allowed=allowed,
        )
        count = 0

        def done(index: int, image_distances: Floats) -> None:
            nonlocal count
            number, row = rows[index]
            distances[number][row] = image_distances
            count += 1
            spinner.turn(f"{count / len(rows):.0%}")

        with Spinner(f"re-ranking {len(rows):,} ambiguous predictions by k-NN") as spinner:
            run_jobs(
                job,
                range(len(rows)),
                Progress(0, 0, (), 0),
                workers=min(MAX_WORKERS, devices.cores()),
                threads=1,
                done=done,
                may_start=lambda: deadline is None or time.monotonic() < deadline,
            )
        if count < len(rows):
            print(f"budget: only {count:,} of {len(rows):,} ambiguous predictions were re-ranked", flush=True)
    return [
        tuple(reweight(predictions, group_distances, weight) for predictions in group.predictions)
        for group, group_distances in zip(queries, distances, strict=True)
    ]


def ambiguous(probabilities: Probabilities) -> Flags:
    """Return the digits, bool (n, 10), of at least ``MIN_PROBABILITY``, in rows that have two or more of them."""
    flags = probabilities >= MIN_PROBABILITY
    return np.asarray(flags & (flags.sum(axis=1, keepdims=True) > 1))


def reweight(probabilities: Probabilities, distances: Floats, weight: float) -> Probabilities:
    """Multiply the probability of each ambiguous digit by its distance to the power of -``weight``.

    The sum over the ambiguous digits of a row is preserved. Rows that are not ambiguous stay unchanged, and so do rows
    that lack a distance for one of their ambiguous digits.

    Args:
        probabilities: float32 (n, 10).
        distances: float32 (n, 10), to the nearest reference images of each digit; NaN where not computed.
        weight: 0 changes nothing.
    """
    flags = ambiguous(probabilities)
    flags &= ~(flags & np.isnan(distances)).any(axis=1, keepdims=True)
    before = np.where(flags, probabilities, 0).astype(np.float64)
    after = before * np.where(flags, distances + 1e-6, 1).astype(np.float64) ** -weight
    scale = before.sum(axis=1, keepdims=True) / np.maximum(after.sum(axis=1, keepdims=True), 1e-300)
    return np.where(flags, after * scale, probabilities).astype(np.float32)


@dataclass(frozen=True)
class _DistanceJob:
    """A worker's job: index of an image → its distances, float32 (10,), NaN for digits that are not ambiguous.

    Attributes:
        images, digits, groups: uint8 (n, 28, 28), bool (n, 10) and integers (n,): the images, their ambiguous digits,
            and the row of ``allowed`` that applies.
        references, labels: uint8 (k, 28, 28) and (k,).
        allowed: bool (groups, k), the reference images of each group.
    """

    images: Pixels
    digits: Flags
    groups: npt.NDArray[np.intp]
    references: Pixels
    labels: Pixels
    allowed: Flags

    def __call__(self, index: int, reporter: Reporter) -> Floats:
        distances = np.full(10, np.nan, np.float32)
        image, allowed = self.images[index : index + 1], self.allowed[self.groups[index]]
        half = _halved(image)
        fine_gradients, coarse_gradients = gradients(image), gradients(half)
        for digit in map(int, np.flatnonzero(self.digits[index])):
            rows, halves, coarse = self._by_digit[digit]
            euclidean = np.square(halves - half.ravel()).sum(axis=1)
            euclidean[~allowed[rows]] = np.inf
            candidates = np.argsort(euclidean, kind="stable")[: min(COARSE_CANDIDATES, np.isfinite(euclidean).sum())]
            candidate_gradients = np.ascontiguousarray(np.moveaxis(coarse[candidates], 0, -1))
            distorted = distortion_distances(
                coarse_gradients, candidate_gradients, reach=REACH // 2, patch=PATCH // 2 + 1
            )
            candidates = candidates[np.argsort(distorted, kind="stable")[:FINE_CANDIDATES]]
            candidate_gradients = gradients(self.references[rows[candidates]])
            distorted = distortion_distances(fine_gradients, candidate_gradients, reach=REACH, patch=PATCH)
            distances[digit] = np.sort(distorted)[:NEAREST].mean()
        return distances

    @functools.cached_property
    def _by_digit(self) -> list[tuple[npt.NDArray[np.intp], Floats, Floats]]:
        """For each digit: its rows, their halved images, float32 (n, 196), and those gradients, (n, 2, 14, 14)."""
        by_digit = []
        for digit in range(10):
            rows = np.flatnonzero(self.labels == digit)
            halves = _halved(self.references[rows])
            coarse = np.ascontiguousarray(np.moveaxis(gradients(halves), -1, 0))
            by_digit.append((rows, halves.reshape(-1, 196), coarse))
        return by_digit


def gradients(images: Pixels | Floats) -> Floats:
    """Return the Sobel gradients of images.

    Args:
        images: (n, side, side), 0 to 255.

    Returns:
        float32 (2, side, side, n), the images along the last axis, over which the computation is vectorised.
    """
    ink = np.moveaxis(images, 0, -1).astype(np.float32) / 255

    def along(axis: int) -> Floats:
        slope = ndimage.correlate1d(ink, [-1, 0, 1], axis=axis, mode="constant")
        return np.asarray(ndimage.correlate1d(slope, [1, 2, 1], axis=1 - axis, mode="constant"))

    return np.stack((along(0), along(1)))


def distortion_distances(image: Floats, reference: Floats, *, reach: int, patch: int) -> Floats:
    """Return the distances of the image distortion model between an image and reference images.

    The patch of gradients around each pixel is compared with the patches around nearby pixels of the reference image,
    and the smallest difference counts.

    Args:
        image: float32 (2, side, side, 1), the gradients of an image.
        reference: float32 (2, side, side, n), those of the reference images.
        reach: pixels that a pixel may be displaced by, vertically and horizontally together.
        patch: side of the patch, odd, at least 3.

    Returns:
        float32 (n,): sums of squared differences, 0 for equal images. The distance is not symmetric.
    """
    side, border, count = image.shape[1], patch // 2, reference.shape[-1]
    reference = np.pad(reference, ((0, 0), (reach, reach), (reach, reach), (0, 0)))
    smallest = np.full((side, side, count), np.inf, np.float32)
    # In place: allocating new arrays in each step takes a quarter longer.
    difference, patches = np.empty((2, *smallest.shape), np.float32), np.empty_like(smallest)
    squared = np.zeros((side + 2 * border, side + 2 * border, count), np.float32)
    rows = np.empty((side, side + 2 * border, count), np.float32)
    for down, right in itertools.product(range(-reach, reach + 1), repeat=2):
        if abs(down) + abs(right) > reach:
            continue
        top, left = reach + down, reach + right
        np.subtract(reference[:, top : top + side, left : left + side], image, out=difference)
        np.square(difference, out=difference)
        np.add(difference[0], difference[1], out=squared[border : border + side, border : border + side])
        np.add(squared[:side], squared[1 : side + 1], out=rows)
        for step in range(2, patch):
            rows += squared[step : step + side]
        np.add(rows[:, :side], rows[:, 1 : side + 1], out=patches)
        for step in range(2, patch):
            patches += rows[:, step : step + side]
        np.minimum(smallest, patches, out=smallest)
    total: Floats = smallest.sum(axis=(0, 1))
    return total


def estimate_rerank_seconds(recipe: Recipe, predictions: int) -> float:
    """Measure some distances, and return the estimated seconds of re-ranking; 0 if the recipe has no ``knn_weight``."""
    if not recipe.knn_weight:
        return 0.0
    blank = np.zeros((FINE_CANDIDATES, 28, 28), np.uint8)
    start = time.monotonic()
    for _ in range(4):
        distortion_distances(gradients(blank[:1]), gradients(blank), reach=REACH, patch=PATCH)
    digit = 2 * (time.monotonic() - start) / 4  # the coarse search takes about as long as the fine one
    return START_SECONDS + 2.2 * digit * AMBIGUOUS_SHARE * predictions / min(MAX_WORKERS, devices.cores())


def _halved(images: Pixels) -> Floats:
    """Return images at half the resolution, float32 (n, 14, 14), 0 to 255."""
    return np.asarray(images.reshape(-1, 14, 2, 14, 2).mean(axis=(2, 4), dtype=np.float32))
