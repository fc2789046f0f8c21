"""Errors, accuracy with its interval, cross-entropy, and the confusion matrix. Pure functions."""

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

Labels = npt.NDArray[np.integer]


@dataclass(frozen=True)
class Score:
    """The number of errors among scored rows.

    Attributes:
        errors: rows whose most probable digit is not their label.
        rows: scored rows.
        accuracy: share of correct rows.
        low, high: 95 % interval of the accuracy (Wilson, 1927), for independently drawn rows.
    """

    errors: int
    rows: int
    accuracy: float
    low: float
    high: float

    @property
    def wrong_rows(self) -> str:
        """The errors as text."""
        return f"{self.errors:,} of {self.rows:,} rows wrong"

    def __str__(self) -> str:
        return f"accuracy {self.accuracy:.5f} (95 %: {self.low:.5f} to {self.high:.5f})"


def score(errors: int, rows: int, *, distinct: int | None = None) -> Score:
    """Return the accuracy and its interval.

    Args:
        errors: 0 to ``rows``.
        rows: scored rows, at least 1.
        distinct: number of distinct images among them, if some were scored more than once; the interval depends on it.
    """
    z = NormalDist().inv_cdf(0.975)
    n = distinct or rows
    accuracy = 1 - errors / rows
    middle = (accuracy + z * z / (2 * n)) / (1 + z * z / n)
    reach = z / (1 + z * z / n) * math.sqrt(accuracy * (1 - accuracy) / n + z * z / (4 * n * n))
    return Score(errors, rows, accuracy, max(0.0, middle - reach), min(1.0, middle + reach))


def mean_cross_entropy(labels: Labels, probabilities: npt.NDArray[np.float32]) -> float:
    """Return the mean cross-entropy of float (n, 10) probabilities, natural logarithm, each at least 1e-7."""
    return float(cross_entropy(labels, probabilities).mean())


def cross_entropy(labels: Labels, probabilities: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Return the cross-entropy of each row, float64 (n,); see ``mean_cross_entropy``."""
    return -np.log(np.maximum(probabilities[np.arange(len(labels)), labels], 1e-7).astype(np.float64))


def confusion_matrix(labels: Labels, probabilities: npt.NDArray[np.float32]) -> npt.NDArray[np.intp]:
    """Return counts of rows by label (down) and most probable digit (across): integers (10, 10)."""
    return np.bincount(labels.astype(np.intp) * 10 + probabilities.argmax(axis=1), minlength=100).reshape(10, 10)


def format_confusion(matrix: npt.NDArray[np.intp]) -> str:
    """Return a confusion matrix as text, with the correct counts in brackets."""
    width = max(4, len(str(matrix.max())) + 2)
    lines = ["digit".rjust(6) + "".join(str(digit).rjust(width) + " " for digit in range(10)).rstrip()]
    for digit, counts in enumerate(matrix):
        cells = (f"[{n}]" if i == digit else f"{n or '·'} " for i, n in enumerate(counts))
        lines.append(str(digit).rjust(6) + "".join(cell.rjust(width + 1) for cell in cells).rstrip())
    return "\n".join(lines)
