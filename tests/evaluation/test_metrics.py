"""Scores are those that SciPy and scikit-learn give."""

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.datasets import load_digits
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.metrics import confusion_matrix

from digit_recognizer.ensemble.blend import count_errors
from digit_recognizer.evaluation import expected_score, metrics


@pytest.mark.parametrize(("errors", "rows"), [(0, 10), (10, 10), (21, 4200), (130, 28000)])
def test_interval_is_wilson(errors: int, rows: int) -> None:
    found = metrics.score(errors, rows)
    expected = binomtest(rows - errors, rows).proportion_ci(method="wilson")
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert found.accuracy == 1 - errors / rows


def test_rows_scored_twice_do_not_narrow_the_interval() -> None:
    once, twice = metrics.score(20, 4000), metrics.score(40, 8000, distinct=4000)
    assert (twice.low, twice.high) == pytest.approx((once.low, once.high))


def test_confusion_matrix_and_error_count() -> None:
    random = np.random.default_rng(0)
    labels, probabilities = random.integers(0, 10, 500), random.random((500, 10)).astype(np.float32)
    answers = probabilities.argmax(axis=1)
    matrix = metrics.confusion_matrix(labels, probabilities)
    np.testing.assert_array_equal(matrix, confusion_matrix(labels, answers, labels=range(10)))
    assert count_errors(labels, probabilities) == (labels != answers).sum() == matrix.sum() - np.trace(matrix)


def test_confusion_table_is_aligned() -> None:
    lines = metrics.format_confusion(np.diag(range(0, 5000, 500))).splitlines()
    assert len(lines) == 11
    assert "[4500]" in lines[-1]
    assert max(map(len, lines)) < 80


def test_expected_score_corrects_for_hard_holdout_rows() -> None:
    random = np.random.default_rng(0)
    wrong = random.random(4000) < 0.005
    alone = np.where(wrong, 0.9, 0.0)
    alone[random.integers(0, 4000, 10)] = 0.5
    share = float(alone.mean())
    plain = expected_score.expected_score(wrong, 28_000, 7_000)
    same, hard = (
        expected_score.expected_score(
            wrong, 28_000, 7_000, members=(alone, np.arange(40_000) < failures, np.ones(40_000))
        )
        for failures in (round(share * 40_000), round(share * 28_000))
    )
    assert plain.accuracy == pytest.approx(1 - wrong.mean())
    assert same.accuracy == pytest.approx(plain.accuracy, abs=1e-4)
    assert hard.accuracy > plain.accuracy + 5e-4, "the members do better elsewhere, so these rows are hard"
    assert same.high - same.low < plain.high - plain.low
    assert same.public_high - same.public_low > same.high - same.low


def test_expected_score_is_unbiased() -> None:
    """One row of a hundred is hard, and two of three members miss it, more or less; on average the truth comes out."""
    random = np.random.default_rng(0)
    off = []
    for _ in range(500):
        hard = random.random(6000) < 0.01
        members = random.random((3, 6000)) < np.where(hard, 0.6, 0.001)
        blend = members.sum(axis=0) > 1
        failures = np.concatenate((members[0, 1500:3000], members[1, 3000:4500], members[2, 4500:]))
        found = expected_score.expected_score(
            blend[:1500], 1500, 500, members=(members[:, :1500].mean(axis=0), failures, np.ones(4500))
        )
        off.append(found.accuracy)
    truth = 1 - 0.01 * (0.6**3 + 3 * 0.6**2 * 0.4)
    assert np.mean(off) == pytest.approx(truth, abs=4 * np.std(off) / len(off) ** 0.5)
    assert np.std(off) < 1.6e-3


@pytest.mark.parametrize("errors", [0, 1, 200])
def test_expected_score_has_an_interval_for_any_error_count(errors: int) -> None:
    wrong = np.arange(200) < errors
    once = np.ones(200)
    for members in (None, (wrong * 1.0, wrong * 1.0, once), (np.zeros(200), np.zeros(200), once)):
        found = expected_score.expected_score(wrong, 28_000, 7_000, members=members)
        assert 0 <= found.low <= found.accuracy <= found.high <= 1
        assert found.low < found.high


@pytest.mark.parametrize(("members", "folds"), [(4, 10), (16, 2), (40, 2)])
def test_expected_interval_covers_with_repeated_folds(members: int, folds: int) -> None:
    """Rows differ in difficulty, and members share it: a row that twenty of them left out is still one row."""
    random = np.random.default_rng(members)
    within = []
    for _ in range(150):
        difficulty = np.where(random.random(8000) < 0.02, random.beta(2, 2, 8000), 0.001)
        wrong = random.random((members, 8000)) < difficulty
        blend = wrong.mean(axis=0) > 0.5
        failures, times = np.zeros(4000), np.zeros(4000)
        for member in range(members):
            if member % folds == 0:
                rows = random.permutation(np.arange(250, 4000))
            out = rows[member % folds :: folds]
            failures[out] += wrong[member, out]
            times[out] += 1
        kept = times > 0
        outside = (wrong[:, :250].mean(axis=0), failures[kept], times[kept])
        found = expected_score.expected_score(blend[:250], 4000, 1000, members=outside)
        within.append(found.low <= 1 - blend[4000:].mean() <= found.high)
    assert 0.84 <= np.mean(within) <= 0.99


@pytest.mark.slow
def test_expected_interval_has_its_nominal_coverage() -> None:
    """Forests in place of networks, trained anew for each split, which networks would take hours for."""
    pixels, labels = load_digits(return_X_y=True)
    within = []
    for split in range(60):
        random = np.random.default_rng(split)
        rows = random.permutation(len(labels))
        outside, held, new = rows[:500], rows[500:700], rows[700:]
        answers, failures = [], np.zeros(len(labels))
        for member in range(4):
            out, train = outside[member::4], np.delete(outside, np.s_[member::4])
            forest = ExtraTreesClassifier(8, random_state=4 * split + member).fit(pixels[train], labels[train])
            failures[out] = forest.predict(pixels[out]) != labels[out]
            answers.append(forest.predict_proba(pixels))
        blend = np.mean(answers, axis=0).argmax(axis=1) != labels
        alone = np.mean([one.argmax(axis=1) != labels for one in answers], axis=0)
        members = (alone[held], failures[outside], np.ones(len(outside)))
        found = expected_score.expected_score(blend[held], len(new), len(new) // 4, members=members)
        whole, part = 1 - blend[new].mean(), 1 - blend[new[: len(new) // 4]].mean()
        within.append((found.low <= whole <= found.high, found.public_low <= part <= found.public_high))
    shares = np.mean(within, axis=0)
    assert ((shares >= 0.8) & (shares <= 0.99)).all(), shares
