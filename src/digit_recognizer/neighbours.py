"""Ask the nearest training digits about images that the networks are in doubt of."""

import functools
import itertools
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from digit_recognizer import engines

Pixels = npt.NDArray[np.uint8]
Probabilities = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float32]

DOUBT = 0.05  # a digit less probable than this is not asked about
NEAREST = 300  # training images of a digit, by plain distance, that are compared by deformation
SPEAKING = 3  # of these, the nearest then: fewer would believe a mistaken label
REACH = 2  # pixels that a pixel may be moved by, either way
PATCH = 5  # side of the surroundings that are compared
OFTEN = 0.02  # of the images are in doubt, as a rule


def doubted(probabilities: Probabilities) -> npt.NDArray[np.intp]:
    """The rows of float (n, 10) in which at least two digits have a probability of ``DOUBT``, the surest last."""
    second = np.sort(probabilities, axis=1)[:, -2]
    rows = np.flatnonzero(second >= DOUBT)
    return rows[np.argsort(-second[rows], kind="stable")]


def asked(
    probabilities: Probabilities,
    images: Pixels,
    known: Pixels,
    labels: Pixels,
    *,
    weight: float,
    deadline: float | None = None,
) -> Iterator[tuple[int, Probabilities]]:
    """Give the rows that are in doubt, one by one, with what is more probable once the nearest digits are asked.

    Each digit of a probability of at least ``DOUBT`` is weighed by d to the power of -``weight``, where d is the mean
    distance to the nearest three of its known images; the sum of theirs stays as it is. What is near is told by pixels
    and not by features that a network has learnt, so the two are wrong about different images.

    Args:
        probabilities: float32 (n, 10), what the networks say.
        images: uint8 (n, 28, 28), of which they say it.
        known, labels: uint8 (k, 28, 28) and (k,), images with labels, none of them among ``images``.
        weight: 0 changes nothing.
        deadline: a time of ``time.monotonic`` after which no row is begun.

    Yields:
        A row's number and its new probabilities, float32 (10,), the most doubtful row first.
    """
    by_digit = [known[labels == digit] for digit in range(10)]
    blurred = [_blurred(those) for those in by_digit]

    def nearness(row: int) -> tuple[int, Probabilities] | None:
        if deadline is not None and time.monotonic() > deadline:
            return None
        told = probabilities[row].astype(np.float64)
        digits = np.flatnonzero(told >= DOUBT)
        image = _blurred(images[row : row + 1])
        weighed = told[digits]
        for i, digit in enumerate(digits):
            apart = np.square(blurred[digit] - image).sum(axis=1)
            near = by_digit[digit][np.argsort(apart, kind="stable")[:NEAREST]]
            distance = np.sort(distances(images[row], near))[:SPEAKING].mean()
            weighed[i] *= (distance + 1e-6) ** -weight
        told[digits] = weighed / weighed.sum() * told[digits].sum()
        return row, told.astype(np.float32)

    with ThreadPoolExecutor(engines.cores()) as pool:
        yield from filter(None, pool.map(nearness, map(int, doubted(probabilities))))


def distances(image: Pixels, others: Pixels) -> Floats:
    """How far an image is from others where pixels may be moved a little.

    The image distortion model of D. Keysers et al., "Deformation Models for Image Recognition" (IEEE TPAMI, 2007): each
    pixel's surroundings, as gradients, are compared with the other's within ``REACH``, and the least difference counts.

    Args:
        image: uint8 (28, 28).
        others: uint8 (n, 28, 28).

    Returns:
        float32 (n,): sums of squares of gradients, 0 for like images. Not the same from other to image.
    """
    side, edge = image.shape[0], PATCH // 2
    here = _gradients(image[None])
    there = np.pad(_gradients(others), ((0, 0), (REACH, REACH), (REACH, REACH), (0, 0)))
    least = np.full((side, side, len(others)), np.inf, np.float32)
    padded = np.zeros((side + 2 * edge, side + 2 * edge, len(others)), np.float32)
    for down, right in itertools.product(range(2 * REACH + 1), repeat=2):
        apart = there[:, down : down + side, right : right + side] - here
        padded[edge : edge + side, edge : edge + side] = np.square(apart, out=apart).sum(axis=0)
        rows = functools.reduce(np.add, (padded[i : i + side] for i in range(PATCH)))
        patches = functools.reduce(np.add, (rows[:, i : i + side] for i in range(PATCH)))
        np.minimum(least, patches, out=least)
    total: Floats = least.sum(axis=(0, 1))
    return total


def seconds(images: int) -> float:
    """Measure what it takes here, all cores at work, to ask about as many of ``images`` as are in doubt as a rule."""
    blank = np.zeros((NEAREST, 28, 28), np.uint8)
    began = time.monotonic()
    with ThreadPoolExecutor(engines.cores()) as pool:
        list(pool.map(lambda _: distances(blank[0], blank), range(4 * engines.cores())))
    return (time.monotonic() - began) / 2 / engines.cores() * OFTEN * images


def _gradients(images: Pixels) -> Floats:
    """Sobel's gradients, float32 (2, 28, 28, n), of uint8 (n, 28, 28): images last, to be reckoned abreast."""
    ink = np.moveaxis(images, 0, -1).astype(np.float32) / 255

    def along(axis: int) -> Floats:
        slope = ndimage.correlate1d(ink, [-1, 0, 1], axis=axis, mode="constant")
        return np.asarray(ndimage.correlate1d(slope, [1, 2, 1], axis=1 - axis, mode="constant"))

    return np.stack((along(0), along(1)))


def _blurred(images: Pixels) -> Floats:
    """Smoothed images as rows, float32 (n, 784), so that a stroke beside another is near to it."""
    return np.asarray(ndimage.gaussian_filter(images.astype(np.float32) / 255, (0, 1, 1))).reshape(len(images), -1)
