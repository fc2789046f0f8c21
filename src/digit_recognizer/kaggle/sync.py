"""Update the ledger from Kaggle's list of submissions."""

from pathlib import Path
from typing import Any

from digit_recognizer import console, hints, ledger, provenance, runs_table
from digit_recognizer.errors import KitError
from digit_recognizer.kaggle import credentials
from digit_recognizer.kaggle.client import Client, Submission
from digit_recognizer.ledger import Row

STAGES = {"": 0, "sending": 1, "pending": 2, "complete": 3, "error": 3}  # a submission's stage never decreases


def scores(home: Path) -> list[dict[str, Any]]:
    """Print the table of all runs, updated from Kaggle if there are credentials and a connection.

    Args:
        home: the folder of ``submissions`` and ``runs``.

    Returns:
        the runs as plain values, highest expected score first (see ``runs_table.as_json``).
    """
    submissions = home / "submissions"
    rows = ledger.read(submissions)
    if not rows:
        console.print_lines(f"no runs yet\nhint: `{hints.command('run')}` starts one")
        return []
    try:
        if account := credentials.find():
            with Client(account, tries=1) as client:
                rows = refresh(client, submissions)
    except KitError as error:
        console.print_lines(f"warning: not updated from Kaggle: {error}", error=True)
        if error.hint:
            console.print_lines(f"hint: {error.hint}", error=True)
    origins = {row.run: provenance.find_provenance(home, row.run, row) for row in rows}
    obstacles = {run: origin.why_not_submittable or origin.why_not_selected for run, origin in origins.items()}
    parts = [runs_table.render(rows, obstacles), runs_table.recipe_differences(home, rows)]
    console.print_lines("\n\n".join(filter(None, parts)))
    return runs_table.as_json(rows, obstacles)


def content_tag(row: Row) -> str:
    """Return the part of a submission's description that identifies the content of its file."""
    return f"[sha256 {row.file_sha256[:16]}]"


def refresh(client: Client, submissions: Path, candidate: Row | None = None) -> list[Row]:
    """Update the ledger from Kaggle's list and return its rows.

    Args:
        client: the account on Kaggle.
        submissions: the folder of the ledger.
        candidate: a row that is added to the ledger if Kaggle has a submission of its content.
    """
    listed = client.list_submissions()
    with ledger.changing(submissions) as rows:
        is_new = candidate and all(row.run != candidate.run for row in rows)
        if candidate and is_new and any(content_tag(candidate) in entry.description for entry in listed):
            rows.append(candidate)
        rows[:] = [merged(row, find_submission(row, listed)) for row in rows]
        return list(rows)


def find_submission(row: Row, listed: list[Submission]) -> Submission | None:
    """Return the submission of a row in Kaggle's list, which is newest first.

    A row that was not sent yet, or was rejected, is matched by content to later attempts: the newest that was not
    rejected, or else the newest.
    """
    if not row.sent and row.file_sha256:
        attempts = [
            entry
            for entry in listed
            if content_tag(row) in entry.description and is_later(entry.reference, row.reference)
        ]
        if attempts:
            return next((attempt for attempt in attempts if attempt.status != "error"), attempts[0])
    return next((entry for entry in listed if row.reference and entry.reference == row.reference), None)


def merged(row: Row, entry: Submission | None) -> Row:
    """Return the row updated by Kaggle's entry, unless the row is newer: it may have changed since the request."""
    if entry is None:
        return row
    if row.reference == entry.reference:
        if row.status == "sending" or STAGES.get(entry.status, 2) < STAGES.get(row.status, 2):
            return row
        return row.changed(status=entry.status, public_score=entry.public_score or row.public_score)
    if row.sent or not is_later(entry.reference, row.reference):
        return row
    return row.changed(reference=entry.reference, status=entry.status, public_score=entry.public_score)


def is_later(reference: str, other: str) -> bool:
    """Return whether a submission was made after another; Kaggle numbers them in ascending order."""
    return reference != other and (not other or (len(reference), reference) > (len(other), other))


def update_row(submissions: Path, run: str, entry: Submission) -> Row:
    """Update the row of a run in the ledger by Kaggle's entry, and return it."""
    with ledger.changing(submissions) as rows:
        index = next(i for i, row in enumerate(rows) if row.run == run)
        rows[index] = merged(rows[index], entry)
        return rows[index]
