"""Recipes side by side."""

import json
from pathlib import Path

import pytest

from conftest import kit, one_line
from digit_recognizer import cli, compare, data, recipe
from digit_recognizer import runs as runs_of
from digit_recognizer.compare import Line
from digit_recognizer.runs import Order


def test_a_claim_is_met_by_the_mean_of_the_seeds_or_within_their_spread_or_not() -> None:
    claims = {"accuracy": 0.992, "loss": 0.026}
    assert compare._claim(claims, [0.991, 0.993], [0.03, 0.02]) == "accuracy 0.9920 met, loss 0.0260 met"
    assert compare._claim(claims, [0.990, 0.9935], [0.02, 0.034]) == (
        "accuracy 0.9920 met within the spread, loss 0.0260 met within the spread"
    )
    assert compare._claim(claims, [0.9919], [0.0261]) == "accuracy 0.9920 NOT met, loss 0.0260 NOT met"
    assert compare._claim({}, [0.5], [0.1]) == "–"


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
        (["--seeds", "0"], "at least one recipe"),
        (["--recipes", "bare.toml"], "expected a holdout"),
    ):
        assert cli.main(["compare", *words]) == 2
        assert told in one_line(capsys.readouterr().err)


def test_recipes_that_hold_out_different_shares_are_judged_by_the_larger(tmp_path: Path) -> None:
    shares: list[float] = []

    def story(order: Order) -> None:
        shares.append(order.recipe.holdout)
        raise InterruptedError

    for names in (["standard", "dense"], ["dense", "standard"]):
        with pytest.raises(InterruptedError):
            compare.compare(tmp_path, None, names, 1, story)
    assert shares == [0.1, 0.1]


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
    digits = data.read(None, default=tmp_path / "data", cache=tmp_path / "runs" / "cache")
    dense_run = runs_of.finished(tmp_path / "runs", recipe.named("dense"), digits)
    assert dense_run
    record = dense_run / "members" / "00" / "member.json"
    kept = record.read_text()
    record.write_text(json.dumps(json.loads(kept) | {"epochs": 3}))
    assert not runs_of.finished(tmp_path / "runs", recipe.named("dense"), digits), "a budget cut it short"
    record.write_text(kept)
    assert kit("compare", "--recipes", "dense,adaptive-cnn", cwd=tmp_path).returncode == 0
    assert runs() == first
    assert (tmp_path / "runs" / "compare.md").read_text() == table
