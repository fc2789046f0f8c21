"""Provenance of runs: identity, and what is known of stored runs."""

import json
import shutil
from pathlib import Path

import pytest

from conftest import ROOT
from digit_recognizer import ledger, provenance

FORMER_IDENTITY = {
    "recipe": {"name": "standard", "view": "plain+upright", "neighbours": 5, "members": 4},
    "recipe_digest": "ddc2060c",
    "sample": False,
}
FORMER_LEDGER = (
    "run,time,recipe,recipe_digest,commit,data,members,oof_errors,oof_rows,oof_accuracy,holdout_errors,holdout_rows,"
    "holdout_accuracy,file_sha256,reference,status,public_score,message\n"
    "standard-20261122-104359,2026-11-22T10:50:03+0000,standard,ddc2060c,,883625c3d3268d72,4,56,15960,0.99649,9,2100,"
    "0.99571,a1d5,,,,\n"
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


def test_former_runs_and_ledgers_are_readable(tmp_path: Path) -> None:
    run = "standard-20261122-104359"
    (tmp_path / "runs" / run).mkdir(parents=True)
    about = {"identity": FORMER_IDENTITY, "train_rows": 42000, "test_rows": 28000}
    (tmp_path / "runs" / run / "run.json").write_text(json.dumps(about))
    (tmp_path / "submissions").mkdir()
    (tmp_path / "submissions" / "ledger.csv").write_text(FORMER_LEDGER)
    (row,) = ledger.read(tmp_path / "submissions")
    assert row.validation
    assert (row.validation.errors, row.validation.rows) == (9, 2100)
    found = provenance.find_provenance(tmp_path, run, row)
    assert (found.sample, found.train_rows, found.test_rows, found.why_not_submittable) == (False, 42000, 28000, "")
