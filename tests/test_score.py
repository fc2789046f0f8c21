"""Scores are those that SciPy and scikit-learn give."""

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix

from digit_recognizer import score


@pytest.mark.parametrize(("errors", "rows"), [(0, 10), (10, 10), (21, 4200), (130, 28000)])
def test_the_interval_is_wilsons(errors: int, rows: int) -> None:
    found = score.score(errors, rows)
    expected = binomtest(rows - errors, rows).proportion_ci(method="wilson")
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert found.accuracy == 1 - errors / rows


def test_rows_scored_twice_do_not_narrow_the_interval() -> None:
    once, twice = score.score(20, 4000), score.score(40, 8000, distinct=4000)
    assert (twice.low, twice.high) == pytest.approx((once.low, once.high))


def test_confusion_and_errors() -> None:
    random = np.random.default_rng(0)
    labels, probabilities = random.integers(0, 10, 500), random.random((500, 10)).astype(np.float32)
    answers = probabilities.argmax(axis=1)
    matrix = score.confusion(labels, probabilities)
    np.testing.assert_array_equal(matrix, confusion_matrix(labels, answers, labels=range(10)))
    assert score.errors(labels, probabilities) == (labels != answers).sum() == matrix.sum() - np.trace(matrix)


def test_the_table_lines_up() -> None:
    lines = score.table(np.diag(range(0, 5000, 500))).splitlines()
    assert len(lines) == 11
    assert "[4500]" in lines[-1]
    assert max(map(len, lines)) < 80
