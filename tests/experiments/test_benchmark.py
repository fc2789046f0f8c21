"""The benchmark measures each of its figures, by runs of exactly the recipes meant, and says which fall short."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest

from digit_recognizer import provenance, recipe, runs
from digit_recognizer.cli import main
from digit_recognizer.data import dataset, splits
from digit_recognizer.ensemble import members
from digit_recognizer.experiments import benchmark
from digit_recognizer.recipe import Recipe

FIGURES: dict[str, Any] = {
    name: (goal if side == "at least" else goal / 2) for name, (side, goal) in benchmark.GOALS.items()
}
FIGURES |= {"precision": "float32", "judged": True, "paired": {}, "ranges": {}}
DIGITS = dataset.Dataset(
    np.zeros((400, 28, 28), np.uint8),
    np.arange(400, dtype=np.uint8) % 10,
    np.zeros((5, 28, 28), np.uint8),
    Path("files"),
    False,
    "0" * 16,
)
OUT, HOLDOUT = (f"accuracy of standard - of deotte15, {name}" for name in ("out of fold", "holdout"))


def _verdicts(figures: dict[str, Any]) -> dict[str, str]:
    return dict(zip(benchmark.GOALS, benchmark.table(FIGURES | figures).splitlines(), strict=True))


def test_what_falls_short_is_marked_and_so_is_what_was_not_measured() -> None:
    verdicts = _verdicts({"best: seconds": 7201, "best: expected accuracy": None, OUT: None})
    assert [name for name, line in verdicts.items() if line.endswith("SHORT")] == ["best: seconds"]
    assert verdicts["best: expected accuracy"].endswith(
        "no complete run here; make bench WHOLE=1, or make run RECIPE=best"
    )
    assert verdicts[OUT].endswith("no complete run here; make run RECIPE=deotte15 MEMBERS=2")


def test_a_processor_that_is_fast_at_bfloat16_has_a_higher_goal() -> None:
    pace = {"training pace / of plain Keras": 1.5}
    assert "SHORT" not in benchmark.table(FIGURES | pace)
    assert benchmark.table(FIGURES | pace | {"precision": "bfloat16"}).count("SHORT") == 1


@pytest.mark.parametrize(
    ("accuracy", "interval", "end"),
    [
        (0.99657, [0.99521, 0.99764], "below, within chance"),
        (0.99657, [0.99521, 0.99719], "SHORT"),
        (0.99739, [0.99596, 0.99843], "(90 %: 0.99596 to 0.99843)"),
    ],
)
def test_a_goal_inside_the_range_is_not_short(accuracy: float, interval: list[float], end: str) -> None:
    name = "best: expected accuracy"
    assert _verdicts({name: accuracy, "ranges": {name: interval}})[name].endswith(end)


@pytest.mark.parametrize(
    ("alone", "end"), [([21, 11], "p = 0.11)  below, within chance"), ([30, 11], "SHORT"), ([9, 21], ")")]
)
def test_a_difference_within_chance_is_not_short(alone: list[int], end: str) -> None:
    p = binomtest(alone[0], sum(alone)).pvalue
    pair = {"rows": 7980, "wrong": [38, 28], "alone": alone, "p": p, "difference": (alone[1] - alone[0]) / 7980}
    line = _verdicts({OUT: pair["difference"], "paired": {OUT: pair}})[OUT]
    assert line.endswith(end)
    assert f"(38 and 28 of 7,980 wrong, {alone[0]} and {alone[1]} alone, p = " in line


def test_other_data_are_measured_and_not_judged() -> None:
    bad = {name: (0 if side == "at least" else 10**6) for name, (side, _) in benchmark.GOALS.items()}
    text = benchmark.table(FIGURES | bad | {"judged": False})
    assert "SHORT" not in text
    assert text.count("not judged: other data") == len(benchmark.GOALS)


def test_pairs_count_the_rows_that_one_alone_gets_wrong() -> None:
    labels = np.arange(20, dtype=np.uint8) % 10
    right = np.eye(10, dtype=np.float32)[labels]
    ours, theirs = right.copy(), right.copy()
    ours[:4] = np.roll(ours[:4], 1, axis=1)
    theirs[3:13] = np.roll(theirs[3:13], 1, axis=1)
    pair = benchmark.paired(labels, ours, theirs)
    assert pair == {"rows": 20, "wrong": [4, 10], "alone": [3, 9], "p": binomtest(3, 12).pvalue, "difference": 0.3}
    assert benchmark.paired(labels, theirs, ours)["difference"] == -0.3
    same = benchmark.paired(labels, ours, ours)
    assert (same["alone"], same["p"], same["difference"]) == ([0, 0], 1, 0)


def test_standard_and_deotte15_leave_out_the_same_rows() -> None:
    fields = [(one.folds, one.holdout, one.seed) for one in map(recipe.load_recipe, ("standard", "deotte15"))]
    assert fields[0] == fields[1]


def _leave(home: Path, one: Recipe, *, wrong: int, stopped: bool = False, scores: dict[str, Any] | None = None) -> Path:
    """Leave a run whose members get the first ``wrong`` rows of everything wrong."""
    split = splits.split(DIGITS.labels, folds=one.folds, members=one.members, holdout=one.holdout, seed=one.seed)
    run = runs.begin(home / "runs", one, DIGITS)
    for index, fold in enumerate(split.folds):
        rows = {"fold": fold.validation, "holdout": split.holdout}
        answers = {name: np.eye(10, dtype=np.float32)[DIGITS.labels[of]] for name, of in rows.items()}
        for answer in answers.values():
            answer[:wrong] = np.roll(answer[:wrong], 1, axis=1)
        test = np.full((len(DIGITS.test_images), 10), 0.1, np.float32)
        probabilities = {name: answers.get(name.split("-")[0], test) for name in members.PROBABILITIES}
        run.member(index).mkdir(parents=True)
        (run.member(index) / members.NETWORK).touch()
        record = {"epochs": one.epochs, "stopped": stopped}
        members.write_member(
            run.member(index), provenance.member_owner(run.identity, index), record, {"loss": [1.0]}, "", probabilities
        )
    run.finish({"expected": {"accuracy": 0.9, "low": 0.8, "high": 1.0}} if scores is None else scores)
    return run.folder


def test_only_a_complete_run_of_exactly_the_recipe_counts(tmp_path: Path) -> None:
    best = recipe.load_recipe("best").changed(members=2)
    other, home = tmp_path / "other", tmp_path / "home"
    for near in (best.changed(name="best-tuned", seed=1), best.changed(epochs=3), best.changed(members=1)):
        _leave(home, near, wrong=1)
    _leave(home, best, wrong=1, stopped=True)
    _leave(home, best, wrong=1, scores={})
    damaged = _leave(home, best, wrong=1)
    (damaged / "members" / "01" / "fold.npy").write_bytes(b"")
    old = _leave(home, best, wrong=1)
    about = json.loads((old / "run.json").read_text())
    about["identity"]["code"] = "0" * 16
    (old / "run.json").write_text(json.dumps(about))
    assert benchmark._stored((other, home), [best], DIGITS) is None
    meant = _leave(home, best, wrong=1)
    assert benchmark._stored((other, home), [best], DIGITS) == meant
    assert benchmark._stored((home,), [best.changed(seed=2), best], DIGITS) == meant
    later = _leave(other, best, wrong=1)
    assert benchmark._stored((other, home), [best], DIGITS) == later
    shutil.rmtree(other)
    assert benchmark._stored((other, home), [best], DIGITS) == meant


def test_members_of_the_same_folds_are_compared_on_the_same_rows(tmp_path: Path) -> None:
    standard, rival = recipe.load_recipe("standard"), recipe.load_recipe("deotte15").changed(members=2)
    pairs = benchmark._pairs(_leave(tmp_path, standard, wrong=3), _leave(tmp_path, rival, wrong=1), DIGITS)
    assert (pairs["out of fold"]["rows"], pairs["holdout"]["rows"]) == (76, 20)
    assert (pairs["out of fold"]["wrong"], pairs["out of fold"]["alone"]) == ([6, 2], [4, 0])
    assert (pairs["holdout"]["wrong"], pairs["holdout"]["alone"]) == ([3, 1], [2, 0])
    assert pairs["holdout"]["difference"] == -0.1


@pytest.mark.slow
def test_every_figure_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(benchmark, "PAIRS", 1)
    monkeypatch.setattr(benchmark, "SECONDS", 1.0)
    for name in ("standard", "best", "deotte15"):
        small = recipe.load_recipe(name).changed(network="dense", members=2, epochs=1)
        monkeypatch.setitem(recipe.RECIPES, name, small)
    assert main(["run", "--recipe", "deotte15"]) == 0
    assert main(["bench"]) == 0, "nothing is judged by the sample"
    stored = json.loads((tmp_path / "runs" / "bench.json").read_text())
    assert {name for name in benchmark.GOALS if stored[name] is None} == {"best: expected accuracy"}
    assert all(stored[name] > 0 for name in benchmark.GOALS if "seconds" in name or "/" in name)
    assert stored["paired"][HOLDOUT]["rows"] == 72
    assert stored["ranges"]["standard: expected accuracy"][1] > stored["standard: expected accuracy"]
