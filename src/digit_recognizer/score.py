"""Labels and probabilities → errors, accuracy, interval, confusion."""

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


def expected_public(validation: Score, rows: int) -> tuple[float, float]:
    """The range in which the accuracy on ``rows`` other rows of the same kind lies 99 times in 100.

    The normal approximation of the difference of two shares, with a success and a failure added to what validation
    counted (Agresti and Caffo, 2000), so that no error among few rows does not promise none.
    """
    z = NormalDist().inv_cdf(0.995)
    share = (validation.rows - validation.errors + 1) / (validation.rows + 2)
    reach = z * math.sqrt(share * (1 - share) * (1 / (validation.rows + 2) + 1 / rows))
    return max(0.0, share - reach), min(1.0, share + reach)


@dataclass(frozen=True)
class Expected:
    """What a blend is expected to score on rows that it was not judged by.

    Attributes:
        accuracy: the expected share that is right.
        low, high: 90 % interval of the accuracy on ``rows`` new rows.
        public_low, public_high: the same on ``public_rows`` of them.
    """

    accuracy: float
    rows: int
    low: float
    high: float
    public_rows: int
    public_low: float
    public_high: float

    def __str__(self) -> str:
        return (
            f"{self.accuracy:.5f} (90 %: {self.low:.5f} to {self.high:.5f} on all {self.rows:,} rows, "
            f"{self.public_low:.5f} to {self.public_high:.5f} on a public part of {self.public_rows:,})"
        )


def expected(
    wrong: npt.NDArray[np.bool_],
    rows: int,
    public_rows: int,
    members: tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]] | None = None,
) -> Expected:
    """Estimate a blend's accuracy on new rows from rows that score it, and from more rows that score its members.

    A holdout is small, so much of what a blend scores there is whether its rows happen to be hard. Its members err on
    hard rows as well, and they are scored on many more rows: the estimate is the share of all these rows that a member
    gets wrong, less what blending saves on the holdout. That is a control variate (Lavenberg and Welch, 1981) whose
    weight is the share of rows; estimated from the same few errors, it would be biased. A row that several members left
    out is one row: the variance of the members' errors is that of a ratio of sums over rows (Cochran, 1977, 6.4). The
    mean and variance that follow are those of a beta distribution, half an error and half a success added (Jeffreys),
    and new rows are drawn by it: beta-binomial.

    Args:
        wrong: bool (n,), the rows that the blend gets wrong; at least 2, and none of them trained on.
        rows, public_rows: how many new rows, and how many of them the public score is of.
        members: float (n,), the share of the members that get each of these rows wrong; float (k,) and (k,), of each
            other row, how many of the members that left it out get it wrong, and how many left it out. All three are
            of the same networks.
    """
    from scipy.stats import betabinom  # slow to import, and not needed for `make scores`

    n, mean = len(wrong), float(wrong.mean())
    variance = mean * (1 - mean) / n
    if members:
        alone, failures, times = members
        single = float(failures.sum() / times.sum())
        weight = len(times) / (len(times) + n)
        better = mean + weight * (single - float(alone.mean()))
        outside = float(np.square(failures - single * times).sum() / times.sum() ** 2)
        left = float(np.var(wrong - weight * alone, ddof=1)) / n + weight**2 * outside
        if 0 < better < 1 and left > 0:  # else there is hardly an error anywhere
            mean, variance = better, left
    worth = mean * (1 - mean) / variance if variance else n  # so many rows of the blend's own would tell as much
    ends = [
        1 - betabinom.ppf((0.95, 0.05), count, mean * worth + 0.5, (1 - mean) * worth + 0.5) / count
        for count in (rows, public_rows)
    ]
    (low, high), (public_low, public_high) = (map(float, end) for end in ends)
    return Expected(1 - mean, rows, low, high, public_rows, public_low, public_high)


def errors(labels: Labels, probabilities: npt.NDArray[np.float32]) -> int:
    """Count the rows of float (n, 10) probabilities whose most probable digit is not the label."""
    return int((probabilities.argmax(axis=1) != labels).sum())


def loss(labels: Labels, probabilities: npt.NDArray[np.float32]) -> float:
    """The mean cross-entropy of float (n, 10) probabilities, natural logarithm; none counts as less than 1e-7."""
    return float(losses(labels, probabilities).mean())


def losses(labels: Labels, probabilities: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """The cross-entropy of each row, float64 (n,); see ``loss``."""
    return -np.log(np.maximum(probabilities[np.arange(len(labels)), labels], 1e-7).astype(np.float64))


def confusion(labels: Labels, probabilities: npt.NDArray[np.float32]) -> npt.NDArray[np.intp]:
    """Count rows by label (down) and most probable digit (across): integers (10, 10)."""
    return np.bincount(labels.astype(np.intp) * 10 + probabilities.argmax(axis=1), minlength=100).reshape(10, 10)


def table(matrix: npt.NDArray[np.intp]) -> str:
    """Draw a confusion matrix as text: labels down, answers across, the right ones in brackets."""
    width = max(4, len(str(matrix.max())) + 2)
    lines = ["label".rjust(6) + "".join(str(digit).rjust(width) + " " for digit in range(10)).rstrip()]
    for digit, counts in enumerate(matrix):
        cells = (f"[{n}]" if i == digit else f"{n or '·'} " for i, n in enumerate(counts))
        lines.append(str(digit).rjust(6) + "".join(cell.rjust(width + 1) for cell in cells).rstrip())
    return "\n".join(lines)
