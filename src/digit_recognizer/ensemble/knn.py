"""Ask the nearest training digits about images that the networks are in doubt of."""

import functools
import itertools
import time
from collections.abc import Sequence
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
from digit_recognizer.training.executors import local
from digit_recognizer.training.progress import Progress

Pixels = npt.NDArray[np.uint8]
Probabilities = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float32]
Flags = npt.NDArray[np.bool_]
MIN_PROBABILITY = 0.05  # a digit less probable than this is not asked about
COARSE_CANDIDATES = (
    300  # training images of a digit, by plain distance, that are compared by deformation at half the resolution
)
FINE_CANDIDATES = 32  # of these, the nearest then, that are compared by deformation as they are
NEAREST = 3  # of these, the nearest then: fewer would believe a mistaken label
REACH, PATCH = 2, 5  # pixels that a pixel may be moved by; the side of its surroundings that are compared
MAX_WORKERS = 8  # more would take longer to start than to ask
START_SECONDS = 1.0  # seconds until a worker has seen all that is known
AMBIGUOUS_SHARE = 0.02  # of the images are in doubt, as a rule


@dataclass(frozen=True)
class Queries:
    """Images, what networks say of them, and whom to ask about them.

    Attributes:
        images: uint8 (n, 28, 28).
        opinions: each float32 (n, 10), probabilities.
        known: integers, rows of the training table that may be asked; none of them is among ``images``.
    """

    images: Pixels
    opinions: tuple[Probabilities, ...]
    known: npt.NDArray[np.intp]


def rerank_blend(
    blended: Blend, recipe: Recipe, data: Dataset, split: Split, *, deadline: float | None = None
) -> Blend:
    """Re-rank ambiguous predictions by the nearest training rows, with the recipe's weight.

    The reference rows of the test rows and the holdout are all training rows but the holdout's; those of the rows that
    a member left out are the rows it was trained on, so each member's fold is re-ranked apart.

    Args:
        blended, recipe, data, split: the blend and what it came from.
        deadline: a time of ``time.monotonic`` by which the run is to end; rows not re-ranked by then stay as they are.
    """
    if not recipe.knn_weight:
        return blended

    known = np.delete(np.arange(len(data.labels)), split.holdout)
    of_folds = zip(blended.fold_members, blended.fold_members_last, strict=True)
    on_holdout = (blended.holdout, *blended.holdout_members, *blended.holdout_members_last)
    circles = [
        Queries(data.test_images, (blended.test,), known),
        Queries(data.images[split.holdout], on_holdout, known),
        *(
            Queries(data.images[fold.validation], opinions, fold.train)
            for fold, opinions in zip(blended.folds, of_folds, strict=True)
        ),
    ]
    until = None if deadline is None else deadline - FINAL_SECONDS
    (test,), (holdout, *holdout_members), *folds = rerank(
        circles, data.images, data.labels, weight=recipe.knn_weight, deadline=until
    )
    of_fold, of_fold_last = zip(*folds, strict=True)
    count = len(blended.folds)
    after = replace(
        blended,
        oof=out_of_fold(blended.folds, of_fold, len(data.labels)),
        oof_last=out_of_fold(blended.folds, of_fold_last, len(data.labels)),
        holdout=holdout,
        test=test,
        fold_members=of_fold,
        fold_members_last=of_fold_last,
        holdout_members=tuple(holdout_members[:count]),
        holdout_members_last=tuple(holdout_members[count:]),
    )
    changed = int((blended.test.argmax(axis=1) != test.argmax(axis=1)).sum())
    old, new = (count_fold_errors(one.folds, one.fold_members, data.labels) for one in (blended, after))
    line = f"neighbours: {changed:,} of {len(test):,} answers changed; out of fold {old:,} wrong before, {new:,} after"
    if len(split.holdout):
        old, new = (count_errors(data.labels[split.holdout], one.holdout) for one in (blended, after))
        line += f"; holdout {old:,} and {new:,}"
    print(line, flush=True)
    return after


def rerank(
    circles: Sequence[Queries], known: Pixels, labels: Pixels, *, weight: float, deadline: float | None = None
) -> list[tuple[Probabilities, ...]]:
    """Give all opinions anew, with what is more probable where they are in doubt once the nearest digits are asked.

    What is near is told by pixels and not by features that a network has learnt, so the two are wrong about different
    images. Worker processes share the work, the most doubtful image first.

    Args:
        circles: images, opinions, and whom to ask.
        known, labels: uint8 (k, 28, 28) and (k,), the training table.
        weight: 0 changes nothing (see ``weighed``).
        deadline: a time of ``time.monotonic`` after which no image is begun; those that are left keep what they had.
    """
    doubts = [functools.reduce(np.logical_or, map(ambiguous, circle.opinions)) for circle in circles]
    places = [(c, row) for c, flags in enumerate(doubts) for row in np.flatnonzero(flags.any(axis=1))]
    places.sort(key=lambda place: -max(np.sort(opinion[place[1]])[-2] for opinion in circles[place[0]].opinions))
    apart = [np.full(flags.shape, np.nan, np.float32) for flags in doubts]
    if places:
        allowed = np.zeros((len(circles), len(known)), bool)
        for mine, circle in zip(allowed, circles, strict=True):
            mine[circle.known] = True
        images = np.array([circles[c].images[row] for c, row in places])
        wanted = np.array([doubts[c][row] for c, row in places])
        asking = _DistanceJob(images, wanted, np.array([c for c, _ in places]), known, labels, allowed)
        spinner, count = Spinner(f"asking neighbours about {len(places):,} images"), 0

        def done(number: int, distances: Floats) -> None:
            nonlocal count
            c, row = places[number]
            apart[c][row] = distances
            count += 1
            spinner.turn(f"{count / len(places):.0%}")

        local.run_jobs(
            asking,
            range(len(places)),
            Progress(0, 0, (), 0),
            workers=min(MAX_WORKERS, devices.cores()),
            threads=1,
            done=done,
            may_start=lambda: deadline is None or time.monotonic() < deadline,
        )
        spinner.stop()
        if count < len(places):
            print(f"time was up after neighbours were asked about {count:,} of {len(places):,} images", flush=True)
    return [
        tuple(reweight(opinion, distances, weight) for opinion in circle.opinions)
        for circle, distances in zip(circles, apart, strict=True)
    ]


def ambiguous(probabilities: Probabilities) -> Flags:
    """The digits, bool (n, 10), of a probability of at least ``DOUBT``, where a row has two or more of them."""
    flags = probabilities >= MIN_PROBABILITY
    return np.asarray(flags & (flags.sum(axis=1, keepdims=True) > 1))


def reweight(probabilities: Probabilities, distances: Floats, weight: float) -> Probabilities:
    """Multiply the probability of each digit in doubt by its distance to the power of -``weight``.

    The sum of those in doubt stays as it is. Rows without doubt, or without a distance for each digit in doubt, stay.

    Args:
        probabilities: float32 (n, 10).
        distances: float32 (n, 10), to the digit's nearest known images; NaN where they were not asked.
        weight: 0 changes nothing.
    """
    flags = ambiguous(probabilities)
    flags &= ~(flags & np.isnan(distances)).any(axis=1, keepdims=True)
    before = np.where(flags, probabilities, 0).astype(np.float64)
    after = before * np.where(flags, distances + 1e-6, 1).astype(np.float64) ** -weight
    share = before.sum(axis=1, keepdims=True) / np.maximum(after.sum(axis=1, keepdims=True), 1e-300)
    return np.where(flags, after * share, probabilities).astype(np.float32)


@dataclass(frozen=True)
class _DistanceJob:
    """The job of a worker: an image's number → its distances, float32 (10,), NaN where it is not in doubt.

    Attributes:
        images, doubts, circles: uint8 (n, 28, 28), bool (n, 10) and integers (n,), what is asked and in which circle.
        known, labels: uint8 (k, 28, 28) and (k,).
        allowed: bool (circles, k), which of the known each circle may ask.
    """

    images: Pixels
    doubts: Flags
    circles: npt.NDArray[np.intp]
    known: Pixels
    labels: Pixels
    allowed: Flags

    def __call__(self, number: int, reporter: local.Reporter) -> Floats:
        distances = np.full(10, np.nan, np.float32)
        image, allowed = self.images[number : number + 1], self.allowed[self.circles[number]]
        half = _halved(image)
        slopes, coarse_slopes = gradients(image), gradients(half)
        for digit in map(int, np.flatnonzero(self.doubts[number])):
            rows, halves, coarse = self._by_digit[digit]
            apart = np.square(halves - half.ravel()).sum(axis=1)
            apart[~allowed[rows]] = np.inf
            near = np.argsort(apart, kind="stable")[: min(COARSE_CANDIDATES, np.isfinite(apart).sum())]
            there = np.ascontiguousarray(np.moveaxis(coarse[near], 0, -1))
            apart = distortion_distances(coarse_slopes, there, reach=REACH // 2, patch=PATCH // 2 + 1)
            near = near[np.argsort(apart, kind="stable")[:FINE_CANDIDATES]]
            apart = distortion_distances(slopes, gradients(self.known[rows[near]]), reach=REACH, patch=PATCH)
            distances[digit] = np.sort(apart)[:NEAREST].mean()
        return distances

    @functools.cached_property
    def _by_digit(self) -> list[tuple[npt.NDArray[np.intp], Floats, Floats]]:
        """Each digit's rows, their halved images as float32 (n, 196), and the gradients of these, (n, 2, 14, 14)."""
        by_digit = []
        for digit in range(10):
            rows = np.flatnonzero(self.labels == digit)
            halves = _halved(self.known[rows])
            coarse = np.ascontiguousarray(np.moveaxis(gradients(halves), -1, 0))
            by_digit.append((rows, halves.reshape(-1, 196), coarse))
        return by_digit


def gradients(images: Pixels | Floats) -> Floats:
    """Sobel's gradients, float32 (2, side, side, n), of (n, side, side), 0 to 255: images last, reckoned abreast."""
    ink = np.moveaxis(images, 0, -1).astype(np.float32) / 255

    def along(axis: int) -> Floats:
        slope = ndimage.correlate1d(ink, [-1, 0, 1], axis=axis, mode="constant")
        return np.asarray(ndimage.correlate1d(slope, [1, 2, 1], axis=1 - axis, mode="constant"))

    return np.stack((along(0), along(1)))


def distortion_distances(here: Floats, there: Floats, *, reach: int, patch: int) -> Floats:
    """How far an image is from others where pixels may be moved a little.

    The image distortion model of D. Keysers et al., "Deformation Models for Image Recognition" (IEEE TPAMI, 2007): each
    pixel's surroundings, as gradients, are compared with the other's nearby, and the least difference counts.

    Args:
        here: float32 (2, side, side, 1), an image's gradients.
        there: float32 (2, side, side, n), those of others.
        reach: pixels that a pixel may be moved by, up or down and aside together.
        patch: side of the surroundings, odd, at least 3.

    Returns:
        float32 (n,): sums of squares of gradients, 0 for like images. Not the same from other to image.
    """
    side, edge, others = here.shape[1], patch // 2, there.shape[-1]
    there = np.pad(there, ((0, 0), (reach, reach), (reach, reach), (0, 0)))
    least = np.full((side, side, others), np.inf, np.float32)
    # Written in place: arrays made anew for each step take a quarter longer.
    apart, patches = np.empty((2, *least.shape), np.float32), np.empty_like(least)
    squares = np.zeros((side + 2 * edge, side + 2 * edge, others), np.float32)
    rows = np.empty((side, side + 2 * edge, others), np.float32)
    for down, right in itertools.product(range(-reach, reach + 1), repeat=2):
        if abs(down) + abs(right) > reach:
            continue
        top, left = reach + down, reach + right
        np.subtract(there[:, top : top + side, left : left + side], here, out=apart)
        np.square(apart, out=apart)
        np.add(apart[0], apart[1], out=squares[edge : edge + side, edge : edge + side])
        np.add(squares[:side], squares[1 : side + 1], out=rows)
        for step in range(2, patch):
            rows += squares[step : step + side]
        np.add(rows[:, :side], rows[:, 1 : side + 1], out=patches)
        for step in range(2, patch):
            patches += rows[:, step : step + side]
        np.minimum(least, patches, out=least)
    total: Floats = least.sum(axis=(0, 1))
    return total


def estimate_seconds(images: int) -> float:
    """Measure what it takes here, all cores at work, to ask about as many of ``images`` as are in doubt as a rule."""
    blank = np.zeros((FINE_CANDIDATES, 28, 28), np.uint8)
    began = time.monotonic()
    for _ in range(4):
        distortion_distances(gradients(blank[:1]), gradients(blank), reach=REACH, patch=PATCH)
    digit = 2 * (time.monotonic() - began) / 4  # choosing these takes about as long again
    return START_SECONDS + 2.2 * digit * AMBIGUOUS_SHARE * images / min(MAX_WORKERS, devices.cores())


def _halved(images: Pixels) -> Floats:
    """Images at half the resolution, float32 (n, 14, 14), from 0 to 255."""
    return np.asarray(images.reshape(-1, 14, 2, 14, 2).mean(axis=(2, 4), dtype=np.float32))


def estimate_rerank_seconds(recipe: Recipe, images: int) -> float:
    """How long it takes to re-rank the ambiguous ones of so many predictions."""
    if not recipe.knn_weight:
        return 0.0
    return estimate_seconds(images)
