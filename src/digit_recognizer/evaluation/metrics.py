"""Labels and probabilities → errors, accuracy with interval, cross-entropy, confusion matrix."""

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

Labels = npt.NDArray[np.integer]


@dataclass(frozen=True)
class Score:
    """How many of how many rows came out wrong.

    Attributes:
        errors: rows whose most probable digit is not their label.
        rows: rows scored.
        accuracy: share that is right.
        low, high: 95 % interval of the accuracy (Wilson, 1927), for rows drawn independently.
    """

    errors: int
    rows: int
    accuracy: float
    low: float
    high: float

    def __str__(self) -> str:
        interval = f"95 %: {self.low:.5f} to {self.high:.5f}"
        return f"{self.errors:,} of {self.rows:,} rows wrong, accuracy {self.accuracy:.5f} ({interval})"


def score(errors: int, rows: int, *, distinct: int | None = None) -> Score:
    """Give the accuracy of ``errors`` among ``rows`` (at least 1) with its interval.

    Args:
        errors: wrong rows, 0 to ``rows``.
        rows: scored rows.
        distinct: how many of them are different images, where some were scored more than once: only these tell apart.
    """
    z = NormalDist().inv_cdf(0.975)
    n = distinct or rows
    accuracy = 1 - errors / rows
    middle = (accuracy + z * z / (2 * n)) / (1 + z * z / n)
    reach = z / (1 + z * z / n) * math.sqrt(accuracy * (1 - accuracy) / n + z * z / (4 * n * n))
    return Score(errors, rows, accuracy, max(0.0, middle - reach), min(1.0, middle + reach))


def mean_cross_entropy(labels: Labels, probabilities: npt.NDArray[np.float32]) -> float:
    """The mean cross-entropy of float (n, 10) probabilities, natural logarithm; none counts as less than 1e-7."""
    return float(cross_entropy(labels, probabilities).mean())


def cross_entropy(labels: Labels, probabilities: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """The cross-entropy of each row, float64 (n,); see ``mean_cross_entropy``."""
    return -np.log(np.maximum(probabilities[np.arange(len(labels)), labels], 1e-7).astype(np.float64))


def confusion_matrix(labels: Labels, probabilities: npt.NDArray[np.float32]) -> npt.NDArray[np.intp]:
    """Count rows by label (down) and most probable digit (across): integers (10, 10)."""
    return np.bincount(labels.astype(np.intp) * 10 + probabilities.argmax(axis=1), minlength=100).reshape(10, 10)


def format_confusion(matrix: npt.NDArray[np.intp]) -> str:
    """Draw a confusion matrix as text: labels down, answers across, the right ones in brackets."""
    width = max(4, len(str(matrix.max())) + 2)
    lines = ["label".rjust(6) + "".join(str(digit).rjust(width) + " " for digit in range(10)).rstrip()]
    for digit, counts in enumerate(matrix):
        cells = (f"[{n}]" if i == digit else f"{n or '·'} " for i, n in enumerate(counts))
        lines.append(str(digit).rjust(6) + "".join(cell.rjust(width + 1) for cell in cells).rstrip())
    return "\n".join(lines)
