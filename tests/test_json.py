"""``--json``: one document on standard output, everything else on standard error, the same exit status."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from conftest import kit
from digit_recognizer import cli, ledger
from digit_recognizer.ledger import Row
from submissions import store_submission


def parsed(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """Return the document on standard output, which must be all that is on it."""
    document: dict[str, Any] = json.loads(done.stdout)
    assert done.stdout.isascii()
    return document


def test_scores_are_ranked_and_numbers_not_texts(tmp_path: Path) -> None:
    store_submission(tmp_path, "quick-1", wrong=100, errors=20, expected="0.9941")
    store_submission(tmp_path, "standard-1", wrong=90, errors=15, expected="0.9962")
    row = Row(run="größer-1", recipe="quick", members="4", oof_errors=50, oof_rows=1000, public_score="0.99")
    ledger.record(tmp_path / "submissions", row)
    done = kit("scores", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    runs = parsed(done)["runs"]
    assert [run["expected"] for run in runs] == [0.9962, 0.9941, None]
    assert runs[0]["holdout"]["errors"] == 15
    assert runs[2]["oof"]["rows"] == 1000
    assert (runs[2]["members"], runs[2]["public_score"]) == (4, 0.99)
    assert "standard-1" in done.stderr, "the table is on standard error"


def test_no_runs_is_an_empty_list(tmp_path: Path) -> None:
    assert parsed(kit("scores", "--json", cwd=tmp_path)) == {"runs": []}


def test_check_lists_faults_and_returns_its_status(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("ImageId,Label\n1,0\n2,11\n")
    done = kit("check", "--file", "x.csv", "--rows", "2", "--json", cwd=tmp_path)
    assert done.returncode == 2
    document = parsed(done)
    assert not document["valid"]
    assert not document["submittable"]
    assert len(document["faults"]) == 1
    assert document["faults"][0] in done.stderr
    (tmp_path / "x.csv").write_text("ImageId,Label\n1,0\n2,1\n")
    done = kit("check", "--file", "x.csv", "--rows", "2", "--json", cwd=tmp_path)
    assert done.returncode == 0
    document = parsed(done)
    assert (document["valid"], document["submittable"]) == (True, False)
    assert "2 test rows" in document["reason"]


@pytest.mark.parametrize(
    "words", [["scores"], ["check", "--file", "missing.csv"], ["compare", "--recipes", "unknown"]], ids=" ".join
)
def test_failure_is_a_document_with_error_and_hint(words: list[str], tmp_path: Path) -> None:
    (tmp_path / "submissions").mkdir()
    (tmp_path / "submissions" / "ledger.csv").write_text("nonsense\n")
    done = kit(*words, "--json", cwd=tmp_path)
    assert done.returncode == 2
    document = parsed(done)
    assert set(document) == {"error", "hint"}
    assert document["error"] in done.stderr


def test_unexpected_failure_is_a_document_too(tmp_path: Path) -> None:
    code = (
        "from digit_recognizer import cli; from digit_recognizer.kaggle import sync\n"
        "def fail(home): raise RuntimeError('broken')\n"
        "sync.scores = fail; raise SystemExit(cli.main(['scores', '--json']))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert parsed(done) == {"error": "internal error: RuntimeError: broken", "hint": ""}


def test_verbs_without_a_document_refuse_the_option(capsys: pytest.CaptureFixture[str]) -> None:
    for verb in set(cli.USER_VERBS) - set(cli.JSON_VERBS):
        required = ["--runs", "a,b"] if verb == "merge" else []
        assert cli.main([verb, *required, "--json"]) == 2
        assert "unknown option '--json'" in capsys.readouterr().err
