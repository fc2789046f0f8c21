"""Comparison of recipes: shared holdout, reuse of complete runs, claims, tables."""

import json
import signal
from pathlib import Path

import numpy as np
import pytest

from conftest import one_line
from digit_recognizer import cli, launch
from digit_recognizer.data import dataset
from digit_recognizer.errors import KitError
from digit_recognizer.experiments import compare
from stored_runs import DIGITS, FakeKernel


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> FakeKernel:
    """A stand-in for kernel.py, on 400 rows."""
    fake = FakeKernel()
    monkeypatch.setattr(launch, "run_kernel", fake)
    monkeypatch.setattr(dataset, "load", lambda data, *, default, cache: DIGITS)
    return fake


def _result(errors: int, loss: float = 0.03, rows: int = 4200) -> compare.RunResult:
    row_losses = np.zeros(rows)
    row_losses[:errors] = loss * rows / errors
    return compare.RunResult(
        weights=252_170, multiply_adds=250_624, seconds=41.4, errors=errors, loss=loss, row_losses=row_losses
    )


@pytest.mark.parametrize(
    ("interval", "accuracy", "loss"),
    [
        ((0.98761, 0.99340), "undecided", "undecided"),
        ((0.99160, 0.99340), "met", "not met"),
        ((0.98761, 0.99140), "not met", "met"),
        ((0.99150, 0.99340), "met", "undecided"),
        ((0.98761, 0.99150), "undecided", "met"),
    ],
)
def test_claim_inside_the_interval_is_undecided(interval: tuple[float, float], accuracy: str, loss: str) -> None:
    claims = {"accuracy": 0.9915, "loss": 0.9915}
    low, high = interval
    assert compare.check_claims(claims, {"accuracy": interval, "loss": interval}) == (
        f"accuracy 0.9915 {accuracy} ({low:.5f}–{high:.5f}), loss 0.9915 {loss} ({low:.5f}–{high:.5f})"
    )


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
def test_claims_are_checked_on_the_pooled_seeds_of_the_competition_data(
    name: str, errors: tuple[int, ...], verdicts: list[str]
) -> None:
    results = [_result(count, loss=count / 1400) for count in errors]  # three nats per error
    claim = compare.summarize(name, results, 4200 * len(errors) * 9 // 10, competition=True).claim
    assert len(claim.split(", ")) == len(verdicts)
    assert all(part.startswith(verdict) for part, verdict in zip(claim.split(", "), verdicts, strict=True)), claim
    elsewhere = compare.summarize(name, results, 4200, competition=False).claim
    assert elsewhere == ("–" if name == "dense" else "not checked: other data")


def test_mean_interval_covers_the_true_mean_in_95_percent_of_samples() -> None:
    generator = np.random.default_rng(0)
    intervals = [compare.mean_interval(generator.exponential(size=400), 400) for _ in range(1000)]
    assert 930 <= sum(low <= 1 <= high for low, high in intervals) <= 970
    repeated = np.tile(np.random.default_rng(0).exponential(size=400), 2)
    assert compare.mean_interval(repeated, 400) == pytest.approx(intervals[0]), "a row scored twice counts once"


def test_competition_data_are_recognised_by_content(competition: Path, tmp_path: Path) -> None:
    digits = dataset.load(competition, default=tmp_path, cache=tmp_path / "cache")
    assert digits.fingerprint == dataset.COMPETITION_FINGERPRINT


def test_markdown_table_lists_every_seed() -> None:
    summary = compare.summarize("dense", [_result(70, 0.0652), _result(81, 0.07)], 8000, competition=True)
    header, rule, row = compare.markdown_table([summary]).splitlines()
    assert len(header) == len(rule) == len(row)
    assert "| 252 k   | 0.3 M     | 41 s     | 70 81 of 4,200 | 0.98202 (0.97" in row
    assert "0.0652 0.0700" in row


def test_screen_table_fits_60_columns() -> None:
    names = ("adaptive-cnn", "conv-pool", f"{'a' * 54}-tuned")
    results = [_result(1444), _result(1500), _result(1501)]
    text = compare.screen_table([compare.summarize(name, results, 12_000, competition=True) for name in names])
    assert max(map(len, text.splitlines())) <= 60
    assert "holdout: 4,200 rows × 3 seeds" in text
    assert "aaaa…aaaa-tuned" in text
    assert "claim of conv-pool: accuracy 0.9915 not met\n" in text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--recipes", "dense,vgg"], "found 'vgg'"),
        (["--seeds", "0"], "--seeds: expected a whole number from 1 to 1000"),
        (["--recipes", ","], "at least one recipe"),
        (["--seeds", "1001"], "--seeds: expected a whole number from 1 to 1000"),
        (["--seeds", "9" * 4000], "--seeds: expected a whole number"),
        (["--recipes", "bare.toml"], "expected a holdout"),
    ],
)
def test_invalid_options_are_refused(
    options: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bare.toml").write_text('network = "dense"\nmembers = 1\nfolds = 5\nepochs = 1\nholdout = 0\n')
    assert cli.main(["compare", *options]) == 2
    assert message in one_line(capsys.readouterr().err)


@pytest.mark.parametrize("names", [["standard", "dense"], ["dense", "standard"]])
def test_all_recipes_use_the_largest_holdout(names: list[str], tmp_path: Path, kernel: FakeKernel) -> None:
    compare.compare(tmp_path, None, names, 1)
    assert [(recipe.name, recipe.holdout) for recipe in kernel.recipes] == [(name, 0.1) for name in names]


@pytest.mark.parametrize("data", [None, Path("my files.zip")])
def test_compare_passes_the_data_to_kernel(data: Path | None, tmp_path: Path, kernel: FakeKernel) -> None:
    compare.compare(tmp_path, data, ["dense"], 1)
    assert kernel.data == [data]


def test_run_without_all_members_is_an_error(
    tmp_path: Path, kernel: FakeKernel, capsys: pytest.CaptureFixture[str]
) -> None:
    kernel.truncated_from = 1
    with pytest.raises(KitError, match="compare: dense, seed 1: the run ended without a complete set of members"):
        compare.compare(tmp_path, None, ["dense"], 2)
    assert [recipe.seed for recipe in kernel.recipes] == [0, 1], "seed 0 is complete"


@pytest.mark.parametrize("status", [130, -signal.SIGINT])
def test_interrupted_run_interrupts_the_comparison(
    status: int,
    tmp_path: Path,
    kernel: FakeKernel,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    kernel.status = status
    assert cli.main(["compare", "--recipes", "dense", "--seeds", "2"]) == 130
    assert "interrupted; " in capsys.readouterr().err
    assert len(kernel.recipes) == 1


def test_failed_run_is_reported_with_its_status(tmp_path: Path, kernel: FakeKernel) -> None:
    kernel.status = 3
    with pytest.raises(KitError, match=r"recipe dense: kernel\.py failed with exit status 3") as raised:
        compare.compare(tmp_path, None, ["dense"], 1)
    assert raised.value.hint


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("scores.json", "{}"),
        ("scores.json", '{"holdout": {"errors": 3, "rows": 5}, "holdout_loss": 1.0}'),
        ("scores.json", '{"holdout": {"errors": 3, "rows": 40}, "holdout_loss": NaN}'),
        ("members/00/member.json", "{}"),
    ],
)
def test_complete_run_is_reused_and_damaged_run_is_trained_again(
    name: str, content: str, tmp_path: Path, kernel: FakeKernel, capsys: pytest.CaptureFixture[str]
) -> None:
    def trainings() -> int:
        compare.compare(tmp_path, None, ["dense"], 1)
        return len(kernel.recipes)

    assert (trainings(), trainings()) == (1, 1)
    assert "complete run found; not trained again" in capsys.readouterr().out
    (folder,) = tmp_path.glob("runs/sample-dense-*")
    (folder / name).write_text(content)
    assert (trainings(), trainings()) == (2, 2)
    assert json.loads((tmp_path / "runs" / "compare.json").read_text())[0]["errors"] == [1]
