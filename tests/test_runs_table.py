"""The table of runs: order, marks, width, differences between recipes."""

import contextlib
import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import damage
from conftest import FUZZ, one_line
from digit_recognizer import cli, ledger, runs_table
from digit_recognizer.errors import BadInput
from digit_recognizer.kaggle import sync
from digit_recognizer.ledger import Row

HOLDOUT = {"holdout_errors": 21, "holdout_rows": 4200}


def cells(text: str, run: str) -> str:
    """Return the line below a run's name."""
    lines = text.splitlines()
    return lines[lines.index(run) + 1]


def test_runs_have_two_lines_each_and_notes_follow() -> None:
    rows = [
        Row(run="single-1", oof_errors=420, oof_rows=42000, status="pending"),
        Row(run="standard-20261125-070524", holdout_errors=10, holdout_rows=4200, public_score="0.99643"),
        Row(
            run="best-1",
            public_score="0.99601",
            expected="0.99650",
            expected_low="0.99512",
            expected_high="0.99761",
            **HOLDOUT,
        ),
        Row(run="file-1", public_score="0.5"),
    ]
    assert runs_table.render(rows) == (
        "run\n"
        "  expected  interval       validation  public   gap\n"
        "standard-20261125-070524\n"
        "  –         0.9956–0.9987  0.99762 b   0.99643  -0.00119\n"
        "best-1\n"
        "  0.99650   0.9951–0.9976  0.99500 b   0.99601  -0.00049\n"
        "single-1\n"
        "  –         0.9890–0.9909  0.99000 s   pending\n"
        "file-1\n"
        "                                       0.50000\n"
        "\n"
        "–: no expected score; the interval is that of the validation\n"
        "  score, 95 %\n"
        "b: accuracy of the blend on the holdout\n"
        "s: out-of-fold accuracy of single members, without a\n"
        "  holdout; the blend scores higher"
    )


def test_public_scores_outside_the_predicted_range_are_marked() -> None:
    rows = [
        Row(run="expected", public_score="0.995", **HOLDOUT),
        Row(run="leaked", public_score="1.00000", **HOLDOUT),
        Row(run="broken", public_score="0.98", **HOLDOUT),
        Row(run="single", oof_errors=420, oof_rows=42000, public_score="0.99600"),
    ]
    text = runs_table.render(rows)
    assert cells(text, "expected").endswith("0.99500  +0.00000")
    assert cells(text, "leaked").endswith("+0.00500 H")
    assert cells(text, "broken").endswith("-0.01500 L")
    assert cells(text, "single").endswith("+0.00600"), "a blend may score higher than its members"
    assert "leaked labels" in text
    assert "L: below the 99 % range" in text


def test_runs_that_cannot_be_submitted_come_last_with_the_reason() -> None:
    rows = [Row(run="sample-1", holdout_errors=0, holdout_rows=144), Row(run="a", **HOLDOUT), Row(run="b")]
    text = runs_table.render(rows, {"sample-1": "cannot be submitted: sample run", "a": ""})
    assert [line for line in text.splitlines() if not line.startswith(" ")][:5] == [
        "run",
        "a",
        "b",
        "",
        "not submitted:",
    ]
    assert cells(text, "sample-1") == "  1.00000 b  cannot be submitted: sample run"
    only = runs_table.render(rows[:1], {"sample-1": "cannot be submitted: sample run"})
    assert only.startswith("not submitted:\nsample-1\n")


@pytest.mark.parametrize("columns", ["60", "200"])
def test_scores_fit_60_columns_without_escapes(
    columns: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setenv("FORCE_COLOR", "1")
    rows = [
        Row(run="r" * 32, public_score="0.98", reference="5", **HOLDOUT),
        Row(run="n" * 99, status="\x1b[2J\nnew" + "y" * 99, reference="\x1b[31m", **HOLDOUT),
        Row(run="sample-" + "s" * 80, oof_errors=1234, oof_rows=42000),
        Row(run="q", status="\u202e", public_score="\x1b[2J", message="\x1b[2J"),
        Row(run="[red]markup", status="[bold]", **HOLDOUT),
        Row(run="part", train_rows=41_000, test_rows=28_000),
        Row(run="small", train_rows=42_000, test_rows=1_000_000),
    ]
    for row in rows:
        ledger.record(tmp_path / "submissions", row)
    assert cli.main(["scores"]) == 0
    text = capsys.readouterr().out
    names = {row.run for row in rows}
    assert names <= set(text.splitlines()), "names are not shortened"
    assert max(len(line) for line in text.splitlines() if line not in names) <= 60
    assert all(line.isprintable() for line in text.splitlines())
    assert "[bold]" in text


def store_recipe(home: Path, run: str, content: dict[str, object] | None, **row: str) -> None:
    """Record a run whose ``run.json`` has a recipe, or is damaged."""
    ledger.record(home / "submissions", Row(run=run, **row))
    path = home / "runs" / run / "run.json"
    path.parent.mkdir(parents=True)
    path.write_text("damaged" if content is None else json.dumps({"identity": {"recipe": content}}))


def test_differences_between_recipes_of_one_name_are_listed(tmp_path: Path) -> None:
    for run, digest, epochs in (("quick-1", "aa", 4), ("quick-2", "bb", 8), ("quick-3", "bb", 8), ("quick-4", "cc", 0)):
        content = {"name": "quick", "epochs": epochs, "folds": 2} if epochs else None
        store_recipe(tmp_path, run, content, recipe="quick", recipe_digest=digest, members="2")
    for run in ("best-1", "best-2"):
        ledger.record(tmp_path / "submissions", Row(run=run, recipe="best", recipe_digest="dd", members="2"))
    assert runs_table.recipe_differences(tmp_path, ledger.read(tmp_path / "submissions")) == (
        "recipe quick differs between these runs:\n"
        "  quick-1: digest aa, 2 members blended, epochs 4\n"
        "  quick-2: digest bb, 2 members blended, epochs 8\n"
        "  quick-3: digest bb, 2 members blended, epochs 8\n"
        "  quick-4: digest cc, 2 members blended"
    )


def test_former_names_of_fields_are_shown_by_their_present_names(tmp_path: Path) -> None:
    former = {"name": "quick", "view": "plain+upright-widened", "neighbours": 5, "seed": 0}
    present = {"name": "quick", "preprocessing": "none+deskew-width", "knn_weight": 5, "seed": 1}
    other = present | {"preprocessing": "none"}
    for run, digest, content in (("a", "aa", former), ("b", "bb", present), ("c", "cc", other)):
        store_recipe(tmp_path, run, content, recipe="quick", recipe_digest=digest)
    assert runs_table.recipe_differences(tmp_path, ledger.read(tmp_path / "submissions")) == (
        "recipe quick differs between these runs:\n"
        "  a: digest aa, preprocessing none+deskew-width, seed 0\n"
        "  b: digest bb, preprocessing none+deskew-width, seed 1\n"
        "  c: digest cc, preprocessing none, seed 1"
    )


RUNS = ("standard-1", "standard-2", "sample-quick-1", "李" * 40)
TEXTS = ("", "0", "0.99", "0,985", "1.0", "nan", "-1", "1e400", "9" * 5000, "٣", "²", "x y", "\x1b[2J", "a\nb", "=1")
COUNTS = st.sampled_from(["", "0", "1", "9", "42000", "999999999"])
CELLS: dict[str, st.SearchStrategy[str]] = {
    name: COUNTS if name in ledger.COUNTS else st.sampled_from(TEXTS) for name in ledger.FIELDS
}
ROWS = st.lists(
    st.fixed_dictionaries(CELLS | {"run": st.sampled_from(RUNS), "recipe": st.just("standard")}), max_size=4
)
RUN_JSON = json.dumps({"identity": {"sample": False, "recipe": {"view": "plain", "epochs": 9}}, "test_rows": 28000})


@pytest.mark.fuzz
@settings(max_examples=FUZZ, deadline=None)
@given(rows=ROWS, edits=st.just([]) | damage.EDITS, changes=damage.JSON_EDITS, json_edits=st.just([]) | damage.EDITS)
def test_scores_of_a_damaged_ledger_are_listed_or_refused(
    rows: list[dict[str, str]], edits: Any, changes: Any, json_edits: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    home = tmp_path_factory.getbasetemp() / "listed"
    text = io.StringIO()
    writer = csv.DictWriter(text, ledger.FIELDS)
    writer.writeheader()
    writer.writerows(rows)
    (home / "runs" / RUNS[0]).mkdir(parents=True, exist_ok=True)
    (home / "submissions").mkdir(exist_ok=True)
    (home / "submissions" / ledger.NAME).write_bytes(damage.edited(text.getvalue().encode(), edits))
    changed = damage.edited(damage.edited_json(RUN_JSON.encode(), changes), json_edits)
    (home / "runs" / RUNS[0] / "run.json").write_bytes(changed)
    try:
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            listed = sync.scores(home)
    except BadInput as error:
        assert f"{home}/submissions/ledger.csv" in one_line(str(error))
        assert error.hint
    else:
        json.dumps(listed, allow_nan=False)
        assert all(entry["run"] in printed.getvalue().splitlines() for entry in listed)
        assert all(0 <= (entry["public_score"] or 0) <= 1 for entry in listed)
        assert edits or {entry["run"] for entry in listed} == {row["run"] for row in rows}
