"""Estimate the accuracy of a blend on new rows. Pure functions."""

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from digit_recognizer.evaluation import metrics


def public_score_range(validation: metrics.Score, rows: int) -> tuple[float, float]:
    """Return the range that contains the accuracy on ``rows`` new rows with a probability of 99 %.

    The normal approximation of a difference of two proportions, with one success and one failure added to the
    validation counts (Agresti and Caffo, 2000), so that zero errors among few rows do not imply zero errors.
    """
    z = NormalDist().inv_cdf(0.995)
    share = (validation.rows - validation.errors + 1) / (validation.rows + 2)
    reach = z * math.sqrt(share * (1 - share) * (1 / (validation.rows + 2) + 1 / rows))
    return max(0.0, share - reach), min(1.0, share + reach)


@dataclass(frozen=True)
class ExpectedScore:
    """The expected accuracy of a blend on new rows.

    Attributes:
        accuracy: the expected share of correct rows.
        rows: number of new rows.
        low, high: 90 % interval of the accuracy on ``rows`` new rows.
        public_rows: number of rows in the public score.
        public_low, public_high: 90 % interval of the accuracy on ``public_rows`` new rows.
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
            f"{self.accuracy:.5f}\n"
            f"  90 %: {self.low:.5f} to {self.high:.5f} on all {self.rows:,} rows\n"
            f"  90 %: {self.public_low:.5f} to {self.public_high:.5f} on a public part of {self.public_rows:,}"
        )


def expected_score(
    wrong: npt.NDArray[np.bool_],
    rows: int,
    public_rows: int,
    members: tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]] | None = None,
) -> ExpectedScore:
    """Estimate the accuracy of a blend on new rows from its errors and from those of its members on more rows.

    A holdout is small, so its score depends on how many hard rows it happens to have. Members err on hard rows too, and
    they are scored on many more rows. The estimate is the members' error rate over all these rows minus the reduction
    by blending on the holdout: a control variate (Lavenberg and Welch, 1981). Its weight is the share of rows, since a
    weight estimated from the same few errors would be biased. A row in several validation folds is one row: the
    variance of the members' error rate is that of a ratio of sums over rows (Cochran, 1977, 6.4). New rows follow a
    beta-binomial distribution with this mean and variance, with half an error and half a success added (Jeffreys).

    Args:
        wrong: bool (n,), the rows that the blend misclassifies; at least 2, none of them trained on.
        rows, public_rows: numbers of new rows, in total and in the public score.
        members: float (n,), for each of these rows the share of members that misclassify it; float (k,) and (k,), for
            each other row the number of members that misclassify it, and the number of folds that validate on it. All
            three are of the same networks.
    """
    from scipy.stats import betabinom  # slow to import, and not needed by the table of runs

    n, mean = len(wrong), float(wrong.mean())
    variance = mean * (1 - mean) / n
    if members:
        holdout_rates, failures, counts = members
        single = float(failures.sum() / counts.sum())
        weight = len(counts) / (len(counts) + n)
        estimate = mean + weight * (single - float(holdout_rates.mean()))
        fold_variance = float(np.square(failures - single * counts).sum() / counts.sum() ** 2)
        estimate_variance = float(np.var(wrong - weight * holdout_rates, ddof=1)) / n + weight**2 * fold_variance
        if 0 < estimate < 1 and estimate_variance > 0:  # otherwise there are almost no errors
            mean, variance = estimate, estimate_variance
    # The members only add to what the holdout tells. Near an estimate of 0 the ratio would be far below n.
    effective_rows = max(n, mean * (1 - mean) / variance if variance else n)
    intervals = [
        1 - betabinom.ppf((0.95, 0.05), count, mean * effective_rows + 0.5, (1 - mean) * effective_rows + 0.5) / count
        for count in (rows, public_rows)
    ]
    (low, high), (public_low, public_high) = (map(float, end) for end in intervals)
    return ExpectedScore(1 - mean, rows, low, high, public_rows, public_low, public_high)
