"""Recipes side by side."""

import json
from pathlib import Path

import numpy as np
import pytest

from conftest import kit, one_line
from digit_recognizer import cli, recipe
from digit_recognizer import runs as runs_of
from digit_recognizer.data import dataset, splits
from digit_recognizer.ensemble import members
from digit_recognizer.errors import KitError
from digit_recognizer.experiments import compare
from digit_recognizer.experiments.compare import Line
from digit_recognizer.runs import RunConfig


@pytest.mark.parametrize(
    ("interval", "value", "accuracy", "loss"),
    [
        ((0.98761, 0.99340), 0.9915, "undecided", "undecided"),
        ((0.99160, 0.99340), 0.9915, "met", "not met"),
        ((0.98761, 0.99140), 0.9915, "not met", "met"),
        ((0.99150, 0.99340), 0.9915, "met", "undecided"),
        ((0.98761, 0.99150), 0.9915, "undecided", "met"),
    ],
)
def test_a_claim_is_met_or_not_unless_it_lies_inside_the_interval(
    interval: tuple[float, float], value: float, accuracy: str, loss: str
) -> None:
    claims = {"accuracy": value, "loss": value}
    low, high = interval
    assert compare._claim(claims, {"accuracy": interval, "loss": interval}) == (
        f"accuracy {value:.4f} {accuracy} ({low:.5f}–{high:.5f}), loss {value:.4f} {loss} ({low:.5f}–{high:.5f})"
    )


def _result(errors: int, loss: float, rows: int = 4200) -> compare._Result:
    losses = np.zeros(rows)
    losses[:errors] = loss * rows / errors
    return compare._Result(1, 1, 1.0, errors, loss, losses)


@pytest.mark.parametrize(
    ("name", "errors", "verdicts"),
    [
        ("conv-pool", (39,), ["accuracy 0.9915 undecided", "loss 0.0260 undecided"]),
        ("conv-pool", (35, 30, 32), ["accuracy 0.9915 undecided", "loss 0.0260 undecided"]),
        ("conv-pool", (10, 12), ["accuracy 0.9915 met", "loss 0.0260 met"]),
        ("conv-pool", (100,), ["accuracy 0.9915 not met", "loss 0.0260 not met"]),
        ("three-conv", (20,), ["accuracy 0.9912 met"]),
        ("three-conv", (25,), ["accuracy 0.9912 undecided"]),
        ("dense", (25,), ["–"]),
    ],
)
def test_claims_are_judged_by_all_rows_together_and_only_on_the_competitions_data(
    name: str, errors: tuple[int, ...], verdicts: list[str]
) -> None:
    results = [_result(one, one / 1400) for one in errors]  # three nats a wrong row
    claim = compare._line(name, results, 4200 * len(errors) * 9 // 10, judged=True).claim
    assert len(claim.split(", ")) == len(verdicts)
    assert all(told.startswith(verdict) for told, verdict in zip(claim.split(", "), verdicts, strict=True)), claim
    elsewhere = compare._line(name, results, 4200, judged=False).claim
    assert elsewhere == ("–" if name == "dense" else "not judged: other data")


def test_the_interval_of_a_mean_holds_the_truth_nineteen_times_in_twenty() -> None:
    draw = np.random.default_rng(0)
    intervals = [compare._mean_interval(draw.exponential(size=400), 400) for _ in range(1000)]
    assert 930 <= sum(low <= 1 <= high for low, high in intervals) <= 970
    low, high = intervals[0]
    twice = compare._mean_interval(np.tile(np.random.default_rng(0).exponential(size=400), 2), 400)
    assert twice == pytest.approx((low, high)), "a row that is scored twice counts once"


def test_the_competitions_data_are_known_by_their_content(competition: Path, tmp_path: Path) -> None:
    digits = dataset.load(competition, default=tmp_path, cache=tmp_path / "cache")
    assert digits.fingerprint == dataset.COMPETITION_FINGERPRINT


def test_the_table_gives_every_seed() -> None:
    one = Line("dense", 252_170, 250_624, 41.4, (70, 81), (0.0652, 0.07), 4200, 8000, "–")
    header, rule, row = compare.table([one]).splitlines()
    assert len(header) == len(rule) == len(row)
    assert "| 252 k   | 0.3 M     | 41 s  | 70 81 of 4,200   | 0.98202 (0.97" in row
    assert "0.0652 0.0700" in row


def test_what_cannot_be_compared_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bare.toml").write_text('network = "dense"\nmembers = 1\nfolds = 5\nepochs = 1\nholdout = 0\n')
    for words, told in (
        (["--recipes", "dense,vgg"], "found 'vgg'"),
        (["--seeds", "0"], "--seeds: expected a whole number from 1 to 1000"),
        (["--recipes", ","], "at least one recipe"),
        (["--seeds", "1001"], "--seeds: expected a whole number from 1 to 1000"),
        (["--seeds", "9" * 4000], "--seeds: expected a whole number"),
        (["--recipes", "bare.toml"], "expected a holdout"),
    ):
        assert cli.main(["compare", *words]) == 2
        assert told in one_line(capsys.readouterr().err)


def test_recipes_that_hold_out_different_shares_are_judged_by_the_larger(tmp_path: Path) -> None:
    shares: list[float] = []

    def story(order: RunConfig) -> None:
        shares.append(order.recipe.holdout)
        raise InterruptedError

    for names in (["standard", "dense"], ["dense", "standard"]):
        with pytest.raises(InterruptedError):
            compare.compare(tmp_path, None, names, 1, story)
    assert shares == [0.1, 0.1]


def test_a_run_that_ends_incomplete_is_named(tmp_path: Path) -> None:
    trained: list[int] = []
    with pytest.raises(KitError, match=r"compare: dense, seed 1: its run ended without"):
        compare.compare(tmp_path, None, ["dense"], 2, lambda order: _finish(order, trained, whole=0))
    assert trained == [0, 1], "the first is complete"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("scores.json", "{}"),
        ("scores.json", '{"holdout": {"errors": 3, "rows": 5}, "holdout_loss": 1.0}'),
        ("scores.json", '{"holdout": {"errors": 3, "rows": 144}, "holdout_loss": NaN}'),
        ("members/00/member.json", "{}"),
    ],
)
def test_a_run_with_a_damaged_file_is_made_anew(tmp_path: Path, name: str, content: str) -> None:
    trained: list[int] = []

    def compared() -> int:
        compare.compare(tmp_path, None, ["dense"], 1, lambda order: _finish(order, trained))
        return len(trained)

    assert (compared(), compared()) == (1, 1)
    (folder,) = tmp_path.glob("runs/sample-dense-*")
    (folder / name).write_text(content)
    assert (compared(), compared()) == (2, 2)
    assert json.loads((tmp_path / "runs" / "compare.json").read_text())[0]["errors"] == [72]


def _finish(order: RunConfig, trained: list[int], *, whole: int = 9) -> None:
    """Leave a run as training does; seeds above ``whole`` as a budget does."""
    seed = order.recipe.seed
    trained.append(seed)
    digits = dataset.load(order.data, default=order.home / "data", cache=order.cache)
    split = splits.split(digits.labels, folds=order.recipe.folds, members=1, holdout=order.recipe.holdout, seed=seed)
    run = runs_of.begin(order.home / "runs", order.recipe, digits)
    held = len(split.holdout)
    rows = {"fold": len(split.folds[0].validation), "holdout": held, "test": len(digits.test_images)}
    probabilities = {name: np.full((rows[name.split("-")[0]], 10), 0.1, np.float32) for name in members.PROBABILITIES}
    record = {"epochs": order.recipe.epochs, "stopped": seed > whole, "weights": 1, "multiply_adds": 1, "seconds": 1.0}
    run.member(0).mkdir(parents=True)
    (run.member(0) / members.NETWORK).touch()
    members.write_member(
        run.member(0), runs_of.member_owner(run.identity, 0), record, {"loss": [1.0]}, "", probabilities
    )
    run.finish({"holdout": {"errors": held // 2, "rows": held}, "holdout_loss": 2.3})


@pytest.mark.slow
def test_recipes_are_trained_side_by_side_and_none_twice(tmp_path: Path) -> None:
    def runs() -> list[str]:
        return sorted(path.parent.name for path in tmp_path.glob("runs/*/scores.json"))

    done = kit("compare", "--recipes", "dense,adaptive-cnn", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    table = (tmp_path / "runs" / "compare.md").read_text()
    assert table in done.stdout
    both = json.loads((tmp_path / "runs" / "compare.json").read_text())
    assert [one["recipe"] for one in both] == ["dense", "adaptive-cnn"]
    assert all(len(one["errors"]) == 1 and one["rows"] == 144 for one in both)
    assert both[1]["errors"][0] < 20, "it learns from rows drawn by their loss"
    first = runs()
    assert len(first) == 2
    digits = dataset.load(None, default=tmp_path / "data", cache=tmp_path / "runs" / "cache")
    dense_run = runs_of.find_complete(tmp_path / "runs", recipe.load_recipe("dense"), digits)
    assert dense_run
    assert kit("compare", "--recipes", "dense,adaptive-cnn", cwd=tmp_path).returncode == 0
    assert runs() == first
    assert (tmp_path / "runs" / "compare.md").read_text() == table
