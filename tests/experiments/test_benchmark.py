"""Benchmark: verdicts on the goals, which runs count, comparison on the same rows."""

import json
import shutil
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest

from digit_recognizer import hints, launch
from digit_recognizer.data import dataset
from digit_recognizer.errors import KitError
from digit_recognizer.experiments import benchmark, timing
from digit_recognizer.recipe import load_recipe
from digit_recognizer.training import budget, devices
from digit_recognizer.training.executors import local
from stored_runs import DIGITS, FakeKernel, store_run

REACHED = benchmark.Measurements(
    values={name: goal.value / 2 if goal.seconds else goal.value for name, goal in benchmark.GOALS.items()},
    intervals={},
    pairs={},
    competition=True,
    precision="float32",
)


def _measured(**changes: float | None) -> benchmark.Measurements:
    """Measurements that reach all goals except for the named figures."""
    return replace(REACHED, values=REACHED.values | changes)


def _verdicts(measurements: benchmark.Measurements) -> dict[str, str]:
    """Figures whose verdict is not "met"."""
    verdicts = {name: benchmark.verdict(name, measurements) for name in benchmark.GOALS}
    return {name: verdict for name, verdict in verdicts.items() if verdict != "met"}


def test_missed_goals_and_missing_runs_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(hints.CALLER_VARIABLE, "make")
    changes = {benchmark.STANDARD_TIME: 601, benchmark.STANDARD_SCORE: None, benchmark.OOF_DIFFERENCE: None}
    measurements = _measured(**changes)
    assert _verdicts(measurements) == {
        benchmark.STANDARD_TIME: "missed",
        benchmark.STANDARD_SCORE: "no run",
        benchmark.OOF_DIFFERENCE: "no run",
    }
    text = benchmark.goal_table(measurements, Path("my files"))
    assert "  make run DATA='my files'\n" in text
    assert "  make run RECIPE=deotte15 MEMBERS=2 DATA='my files'\n" in text


def test_pace_goal_is_higher_with_bfloat16() -> None:
    measurements = _measured(**{benchmark.PACE_RATIO: 1.5})
    assert _verdicts(measurements) == {}
    assert _verdicts(replace(measurements, precision="bfloat16")) == {benchmark.PACE_RATIO: "missed"}


@pytest.mark.parametrize(
    ("accuracy", "interval", "expected"),
    [
        (0.99657, (0.99521, 0.99764), "unclear"),
        (0.99557, (0.99421, 0.99664), "missed"),
        (0.99739, (0.99596, 0.99843), "met"),
    ],
)
def test_goal_inside_the_interval_is_not_missed(accuracy: float, interval: tuple[float, float], expected: str) -> None:
    name = benchmark.STANDARD_SCORE
    measurements = replace(_measured(**{name: accuracy}), intervals={name: interval})
    assert benchmark.verdict(name, measurements) == expected
    assert f"{name}: 90 % interval {interval[0]:.5f} to {interval[1]:.5f}" in benchmark.goal_table(measurements)


@pytest.mark.parametrize(("discordant", "expected"), [((21, 11), "unclear"), ((30, 11), "missed"), ((9, 21), "met")])
def test_difference_within_chance_is_not_missed(discordant: tuple[int, int], expected: str) -> None:
    name, p = benchmark.OOF_DIFFERENCE, binomtest(discordant[0], sum(discordant)).pvalue
    pair = benchmark.PairedResult(7980, (38, 28), discordant, p, (discordant[1] - discordant[0]) / 7980)
    measurements = replace(_measured(**{name: pair.difference}), pairs={name: pair})
    assert benchmark.verdict(name, measurements) == expected
    text = benchmark.goal_table(measurements)
    assert f"38 and 28 of 7,980 wrong,\n  {discordant[0]} and {discordant[1]} by one alone, p = {p:.2g}" in text
    assert max(map(len, text.splitlines())) <= 60


def test_goals_do_not_apply_to_other_data() -> None:
    poor = {name: 10.0**6 if goal.seconds else -1.0 for name, goal in benchmark.GOALS.items()}
    measurements = replace(_measured(**poor), competition=False)
    assert set(_verdicts(measurements).values()) == {"–"}
    assert "goals apply to the competition's data" in benchmark.goal_table(measurements)


def test_paired_comparison_counts_errors_of_one_classifier_alone() -> None:
    labels = np.arange(20, dtype=np.uint8) % 10
    correct = np.eye(10, dtype=np.float32)[labels]
    first, second = correct.copy(), correct.copy()
    first[:4] = np.roll(first[:4], 1, axis=1)
    second[3:13] = np.roll(second[3:13], 1, axis=1)
    pair = benchmark.compare_paired(labels, first, second)
    assert pair == benchmark.PairedResult(20, (4, 10), (3, 9), binomtest(3, 12).pvalue, 0.3)
    assert benchmark.compare_paired(labels, second, first).difference == -0.3
    same = benchmark.compare_paired(labels, first, first)
    assert (same.discordant, same.p, same.difference) == ((0, 0), 1, 0)


def test_standard_and_deotte15_share_their_split() -> None:
    splits = [(recipe.folds, recipe.holdout, recipe.seed) for recipe in map(load_recipe, ("standard", "deotte15"))]
    assert splits[0] == splits[1]


def test_only_complete_runs_of_the_exact_recipe_count(tmp_path: Path) -> None:
    recipe = load_recipe("standard").changed(members=2, full_members=0)
    other, home = tmp_path / "other", tmp_path / "home"
    for similar in (recipe.changed(name="best-tuned", seed=1), recipe.changed(epochs=3), recipe.changed(members=1)):
        store_run(home, similar, DIGITS)
    store_run(home, recipe, DIGITS, stopped=True)
    store_run(home, recipe, DIGITS, scores={})
    damaged = store_run(home, recipe, DIGITS)
    (damaged / "members" / "01" / "fold.npy").write_bytes(b"")
    older_code = store_run(home, recipe, DIGITS)
    content = json.loads((older_code / "run.json").read_text())
    content["identity"]["code"] = "0" * 16
    (older_code / "run.json").write_text(json.dumps(content))
    assert benchmark._find_run((other, home), [recipe], DIGITS) is None
    complete = store_run(home, recipe, DIGITS)
    assert benchmark._find_run((other, home), [recipe], DIGITS) == complete
    assert benchmark._find_run((home,), [recipe.changed(seed=2), recipe], DIGITS) == complete
    preferred = store_run(other, recipe, DIGITS)
    assert benchmark._find_run((other, home), [recipe], DIGITS) == preferred
    shutil.rmtree(other)
    assert benchmark._find_run((other, home), [recipe], DIGITS) == complete


def test_members_of_the_same_folds_are_compared_on_the_same_rows(tmp_path: Path) -> None:
    standard = store_run(tmp_path, load_recipe("standard"), DIGITS, wrong=3)
    deotte15 = store_run(tmp_path, load_recipe("deotte15").changed(members=2), DIGITS, wrong=1)
    pairs = benchmark.compare_members(standard, deotte15, DIGITS)
    oof, holdout = pairs[benchmark.OOF_DIFFERENCE], pairs[benchmark.HOLDOUT_DIFFERENCE]
    assert (oof.rows, oof.errors, oof.discordant) == (30, (6, 2), (4, 0))
    assert (holdout.rows, holdout.errors, holdout.discordant) == (30, (3, 1), (2, 0))
    assert holdout.difference == pytest.approx(-2 / 30)


def test_pace_counts_the_slowest_of_all_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "plan_workers", lambda members: (2, 1))
    paces = {"dense": SimpleNamespace(start=1.0, step=0.5), "other": SimpleNamespace(start=2.0, step=0.25)}
    monkeypatch.setattr(budget, "measure_paces", lambda *positional, seconds: paces)
    recipe = load_recipe("dense")
    assert timing.training_pace(recipe, DIGITS) == 2 * recipe.batch_size / 0.5


def test_share_of_the_matrix_product_speed_counts_three_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    def run_jobs(job: Any, indices: Iterable[int], *_: Any, done: Callable[[int, Any], None], **__: Any) -> None:
        for index in indices:
            done(index, job(index, None))

    monkeypatch.setattr(local, "run_jobs", run_jobs)
    monkeypatch.setattr(devices, "plan_workers", lambda members: (2, 1))
    monkeypatch.setattr(timing, "training_pace", lambda recipe, digits: 1000.0)
    speed = timing._multiply_matrices
    monkeypatch.setattr(timing, "_multiply_matrices", lambda precision, index, reporter: 1e9)
    recipe = load_recipe("standard").changed(network="dense+conv-pool")
    shares = timing.matrix_product_shares(recipe, DIGITS)
    assert shares == {
        "dense": pytest.approx(1000 * 3 * 251_136 / 2e9),
        "conv-pool": pytest.approx(1000 * 3 * 7_748_608 / 2e9),
    }
    monkeypatch.setattr(timing, "MATRIX_SECONDS", 0.1)
    assert all(1e8 < speed(precision, 0, None) < 1e15 for precision in ("float32", "bfloat16"))


@pytest.fixture
def instant(monkeypatch: pytest.MonkeyPatch) -> FakeKernel:
    """A benchmark without any training or prediction."""
    kernel = FakeKernel()
    monkeypatch.setattr(launch, "run_kernel", kernel)
    monkeypatch.setattr(dataset, "load", lambda data, *, default, cache: DIGITS)
    monkeypatch.setattr(timing, "training_pace", lambda recipe, digits: 3000.0)
    monkeypatch.setattr(timing, "plain_keras_pace", lambda digits: 1500.0)
    monkeypatch.setattr(timing, "matrix_product_shares", lambda recipe, digits: {"a": 0.7, "b": 0.6})
    monkeypatch.setattr(timing, "prediction_seconds", lambda home, data: 16.0)
    monkeypatch.setattr(timing, "estimate_recipe_seconds", lambda recipe, digits: 100.0 * recipe.members)
    return kernel


def test_benchmark_runs_the_recipes_and_stores_its_figures(tmp_path: Path, instant: FakeKernel) -> None:
    benchmark.run_benchmark(tmp_path, None)
    (place,) = tmp_path.glob("runs/bench-*")
    store_run(tmp_path, load_recipe("deotte15").changed(members=2), DIGITS, wrong=2)
    shutil.rmtree(place)
    assert benchmark.run_benchmark(tmp_path, None) == 0, "goals do not apply to the sample"
    assert [recipe.name for recipe in instant.recipes] == ["standard", "standard"]
    stored = json.loads((tmp_path / "runs" / "bench.json").read_text())
    assert set(stored["values"]) == set(benchmark.GOALS)
    assert None not in stored["values"].values()
    assert stored["values"][benchmark.PACE_RATIO] == 2
    assert stored["values"][benchmark.MATRIX_SHARE] == 0.6
    assert stored["pairs"][benchmark.OOF_DIFFERENCE]["errors"] == [2, 4]
    assert stored["intervals"][benchmark.STANDARD_SCORE] == [0.8, 1.0]


@pytest.mark.parametrize(("status", "error"), [(130, KeyboardInterrupt), (1, KitError)])
def test_failed_or_interrupted_run_ends_the_benchmark(
    status: int, error: type[BaseException], tmp_path: Path, instant: FakeKernel
) -> None:
    instant.status = status
    with pytest.raises(error):
        benchmark.run_benchmark(tmp_path, None)
    assert not (tmp_path / "runs" / "bench.json").exists()
