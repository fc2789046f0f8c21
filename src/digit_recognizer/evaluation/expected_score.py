"""Estimate the score that a blend will have on rows that did not judge it."""

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from digit_recognizer.evaluation import metrics


def public_score_range(validation: metrics.Score, rows: int) -> tuple[float, float]:
    """The range in which the accuracy on ``rows`` other rows of the same kind lies 99 times in 100.

    The normal approximation of the difference of two shares, with a success and a failure added to what validation
    counted (Agresti and Caffo, 2000), so that no error among few rows does not promise none.
    """
    z = NormalDist().inv_cdf(0.995)
    share = (validation.rows - validation.errors + 1) / (validation.rows + 2)
    reach = z * math.sqrt(share * (1 - share) * (1 / (validation.rows + 2) + 1 / rows))
    return max(0.0, share - reach), min(1.0, share + reach)


@dataclass(frozen=True)
class ExpectedScore:
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


def expected_score(
    wrong: npt.NDArray[np.bool_],
    rows: int,
    public_rows: int,
    members: tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]] | None = None,
) -> ExpectedScore:
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
    return ExpectedScore(1 - mean, rows, low, high, public_rows, public_low, public_high)
