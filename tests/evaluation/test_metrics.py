"""Scores equal those of SciPy and scikit-learn; properties of the expected score."""

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.datasets import load_digits
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.metrics import confusion_matrix

from digit_recognizer.ensemble.blend import count_errors
from digit_recognizer.evaluation import expected_score, metrics


@pytest.mark.parametrize(("errors", "rows"), [(0, 10), (10, 10), (21, 4200), (130, 28000)])
def test_interval_is_wilsons(errors: int, rows: int) -> None:
    score = metrics.score(errors, rows)
    expected = binomtest(rows - errors, rows).proportion_ci(method="wilson")
    assert (score.low, score.high) == pytest.approx((expected.low, expected.high))
    assert score.accuracy == 1 - errors / rows


def test_interval_depends_on_distinct_rows() -> None:
    once, twice = metrics.score(20, 4000), metrics.score(40, 8000, distinct=4000)
    assert (twice.low, twice.high) == pytest.approx((once.low, once.high))


def test_confusion_matrix_and_errors() -> None:
    random = np.random.default_rng(0)
    labels, probabilities = random.integers(0, 10, 500), random.random((500, 10)).astype(np.float32)
    predicted = probabilities.argmax(axis=1)
    matrix = metrics.confusion_matrix(labels, probabilities)
    np.testing.assert_array_equal(matrix, confusion_matrix(labels, predicted, labels=range(10)))
    assert count_errors(labels, probabilities) == (labels != predicted).sum() == matrix.sum() - np.trace(matrix)


def test_confusion_table_is_aligned() -> None:
    lines = metrics.format_confusion(np.diag(range(0, 5000, 500))).splitlines()
    assert len(lines) == 11
    assert "[4500]" in lines[-1]
    assert max(map(len, lines)) < 80


def test_expected_score_accounts_for_the_difficulty_of_the_rows() -> None:
    random = np.random.default_rng(0)
    wrong = random.random(4000) < 0.005
    member_rates = np.where(wrong, 0.9, 0.0)
    member_rates[random.integers(0, 4000, 10)] = 0.5
    share = float(member_rates.mean())
    plain = expected_score.expected_score(wrong, 28_000, 7_000)
    same, hard = (
        expected_score.expected_score(
            wrong, 28_000, 7_000, members=(member_rates, np.arange(40_000) < failures, np.ones(40_000))
        )
        for failures in (round(share * 40_000), round(share * 28_000))
    )
    assert plain.accuracy == pytest.approx(1 - wrong.mean())
    assert same.accuracy == pytest.approx(plain.accuracy, abs=1e-4)
    assert hard.accuracy > plain.accuracy + 5e-4, "members have fewer errors on other rows, so these are hard"
    assert same.high - same.low < plain.high - plain.low
    assert same.public_high - same.public_low > same.high - same.low


def test_expected_score_is_unbiased() -> None:
    """One row of a hundred is hard: each member misclassifies it with a probability of 0.6."""
    random = np.random.default_rng(0)
    estimates = []
    for _ in range(500):
        hard = random.random(6000) < 0.01
        members = random.random((3, 6000)) < np.where(hard, 0.6, 0.001)
        blend = members.sum(axis=0) > 1
        failures = np.concatenate((members[0, 1500:3000], members[1, 3000:4500], members[2, 4500:]))
        estimate = expected_score.expected_score(
            blend[:1500], 1500, 500, members=(members[:, :1500].mean(axis=0), failures, np.ones(4500))
        )
        estimates.append(estimate.accuracy)
    truth = 1 - 0.01 * (0.6**3 + 3 * 0.6**2 * 0.4)
    assert np.mean(estimates) == pytest.approx(truth, abs=4 * np.std(estimates) / len(estimates) ** 0.5)
    assert np.std(estimates) < 1.6e-3


@pytest.mark.parametrize("errors", [0, 1, 200])
def test_expected_score_has_an_interval_for_any_errors(errors: int) -> None:
    wrong = np.arange(200) < errors
    once = np.ones(200)
    for members in (None, (wrong * 1.0, wrong * 1.0, once), (np.zeros(200), np.zeros(200), once)):
        estimate = expected_score.expected_score(wrong, 28_000, 7_000, members=members)
        assert 0 <= estimate.low <= estimate.accuracy <= estimate.high <= 1
        assert estimate.low < estimate.high


@pytest.mark.parametrize(("members", "folds"), [(4, 10), (16, 2), (40, 2)])
def test_expected_interval_has_its_coverage_for_any_number_of_folds(members: int, folds: int) -> None:
    """The difficulty of a row is shared by all members, so a row in twenty validation folds is still one row."""
    random = np.random.default_rng(members)
    within = []
    for _ in range(150):
        difficulty = np.where(random.random(8000) < 0.02, random.beta(2, 2, 8000), 0.001)
        wrong = random.random((members, 8000)) < difficulty
        blend = wrong.mean(axis=0) > 0.5
        failures, counts = np.zeros(4000), np.zeros(4000)
        for member in range(members):
            if member % folds == 0:
                rows = random.permutation(np.arange(250, 4000))
            validation = rows[member % folds :: folds]
            failures[validation] += wrong[member, validation]
            counts[validation] += 1
        scored = counts > 0
        member_errors = (wrong[:, :250].mean(axis=0), failures[scored], counts[scored])
        estimate = expected_score.expected_score(blend[:250], 4000, 1000, members=member_errors)
        within.append(estimate.low <= 1 - blend[4000:].mean() <= estimate.high)
    assert 0.84 <= np.mean(within) <= 0.99


@pytest.mark.slow
def test_expected_interval_has_its_coverage_on_real_digits() -> None:
    """Random forests stand in for networks, which would take hours to train for 60 splits."""
    pixels, labels = load_digits(return_X_y=True)
    within = []
    for split in range(60):
        random = np.random.default_rng(split)
        rows = random.permutation(len(labels))
        fold_rows, holdout, new = rows[:500], rows[500:700], rows[700:]
        predictions, failures = [], np.zeros(len(labels))
        for member in range(4):
            validation, train = fold_rows[member::4], np.delete(fold_rows, np.s_[member::4])
            forest = ExtraTreesClassifier(8, random_state=4 * split + member).fit(pixels[train], labels[train])
            failures[validation] = forest.predict(pixels[validation]) != labels[validation]
            predictions.append(forest.predict_proba(pixels))
        blend = np.mean(predictions, axis=0).argmax(axis=1) != labels
        member_rates = np.mean([one.argmax(axis=1) != labels for one in predictions], axis=0)
        members = (member_rates[holdout], failures[fold_rows], np.ones(len(fold_rows)))
        estimate = expected_score.expected_score(blend[holdout], len(new), len(new) // 4, members=members)
        all_rows, public_rows = 1 - blend[new].mean(), 1 - blend[new[: len(new) // 4]].mean()
        within.append(
            (estimate.low <= all_rows <= estimate.high, estimate.public_low <= public_rows <= estimate.public_high)
        )
    shares = np.mean(within, axis=0)
    assert ((shares >= 0.8) & (shares <= 0.99)).all(), shares


def test_expected_score_near_one_is_as_precise_as_the_holdout() -> None:
    wrong = np.zeros(72, bool)
    wrong[0] = True
    members = np.repeat([1.0, 0.5, 0.0], [1, 1, 70]), np.repeat([1.0, 0.0], [1, 273]), np.ones(274)
    estimate = expected_score.expected_score(wrong, 359, 90, members=members)
    assert estimate.accuracy > 0.999
    assert 0.95 < estimate.low < 0.99, "72 rows without an error allow no lower accuracy"
