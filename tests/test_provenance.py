"""Provenance of runs: identity, and what is known of stored runs."""

import json
import shutil
from pathlib import Path

import pytest

from conftest import ROOT, call
from digit_recognizer import ledger, provenance
from kaggle_server import Server, submission

RUN = "standard-20261122-104359"
FORMER_IDENTITY = {
    "recipe": {"name": "standard", "view": "plain+upright", "neighbours": 5, "members": 4},
    "recipe_digest": "ddc2060c",
    "sample": False,
}
FORMER_LEDGER = (
    "run,time,recipe,recipe_digest,commit,data,members,oof_errors,oof_rows,oof_accuracy,holdout_errors,holdout_rows,"
    "holdout_accuracy,file_sha256,reference,status,public_score,message\n"
    "standard-20261122-104359,2026-11-22T10:50:03+0000,standard,ddc2060c,,883625c3d3268d72,4,56,15960,0.99649,9,2100,"
    "0.99571,{},,,,\n"
)


@pytest.mark.parametrize(
    ("file", "changes"),
    [
        ("doctor.py", False),
        ("cli.py", False),
        ("console.py", False),
        ("evaluation/metrics.py", False),
        ("kaggle/client.py", False),
        ("data/csv_reader.py", True),
        ("models/augmentation.py", True),
        ("training/executors/local.py", True),
        ("ensemble/blend.py", True),
    ],
)
def test_source_digest_covers_what_determines_results(
    file: str, changes: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "digit_recognizer"
    shutil.copytree(ROOT / "src" / "digit_recognizer", package, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(provenance, "__file__", str(package / "provenance.py"))
    before = provenance.source_digest()
    (package / file).write_text((package / file).read_text() + "# changed\n")
    assert (provenance.source_digest() != before) == changes


@pytest.fixture
def former_run(tmp_path: Path) -> Path:
    """A folder with a run and a ledger of the version before fields were renamed."""
    (tmp_path / "runs" / RUN).mkdir(parents=True)
    files = {
        f"runs/{RUN}/run.json": json.dumps({"identity": FORMER_IDENTITY, "train_rows": 42000, "test_rows": 28000}),
        f"runs/{RUN}/scores.json": json.dumps({"holdout": {"errors": 9, "rows": 2100}, "sample": False}),
        f"submissions/{RUN}.csv": submission(100).decode(),
    }
    (tmp_path / "submissions").mkdir()
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    digest = ledger.digest(tmp_path / "submissions" / f"{RUN}.csv")
    (tmp_path / "submissions" / "ledger.csv").write_text(FORMER_LEDGER.format(digest))
    return tmp_path


def test_former_run_and_ledger_are_readable(former_run: Path) -> None:
    (row,) = ledger.read(former_run / "submissions")
    assert row.validation
    assert (row.validation.errors, row.validation.rows) == (9, 2100)
    origin = provenance.find_provenance(former_run, RUN, row)
    assert (origin.sample, origin.train_rows, origin.test_rows) == (False, 42000, 28000)
    assert (origin.why_not_submittable, origin.why_not_selected) == ("", "")


def test_verbs_accept_a_former_run(former_run: Path, kaggle: Server) -> None:
    listed = call("scores", cwd=former_run)
    assert (listed.returncode, listed.stderr) == (0, "")
    assert RUN in listed.stdout
    checked = call("check", "--file", f"submissions/{RUN}.csv", cwd=former_run)
    assert (checked.returncode, checked.stderr) == (0, "")
    assert "valid, 28,000 rows" in checked.stdout
    assert "cannot be submitted" not in checked.stdout
    sent = call("submit", "--yes", "--no-wait", cwd=former_run)
    assert (sent.returncode, sent.stderr) == (0, "")
    (row,) = ledger.read(former_run / "submissions")
    assert row.reference
