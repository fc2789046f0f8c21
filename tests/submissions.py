"""Folders with runs that are ready to be submitted, and the errors of verbs."""

from pathlib import Path

import pytest

from conftest import one_line
from digit_recognizer import cli, ledger
from digit_recognizer.ledger import Row
from kaggle_server import KEY, TOKEN, submission

SUBMIT = ["submit", "--yes"]


def store_submission(home: Path, run: str, *, wrong: int, errors: int | None = None, expected: str = "") -> Path:
    """Store a submission as a run does, and return its file.

    Args:
        wrong: wrong rows of 28,000.
        errors: wrong rows of 4,200 on the holdout; None for a run without a score.
        expected: the expected accuracy.
    """
    path = home / "submissions" / f"{run}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    (home / "runs" / run).mkdir(parents=True, exist_ok=True)
    path.write_bytes(submission(wrong))
    score = {} if errors is None else {"holdout_errors": errors, "holdout_rows": 4200}
    ledger.record(path.parent, Row(run=run, file_sha256=ledger.digest(path), expected=expected, **score))
    return path


def ledger_row(home: Path, run: str = "standard-1") -> Row:
    """Return a row of the ledger."""
    return next(row for row in ledger.read(home / "submissions") if row.run == run)


def refused(words: list[str], capsys: pytest.CaptureFixture[str], status: int) -> str:
    """Run a verb that must fail with ``status``; return its error and hint, which must not contain secrets."""
    capsys.readouterr()
    assert cli.main(words) == status
    captured = capsys.readouterr()
    assert TOKEN not in captured.out + captured.err
    assert KEY not in captured.out + captured.err
    return one_line(captured.err)
