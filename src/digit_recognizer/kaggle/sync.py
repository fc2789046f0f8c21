"""Bring the ledger up to date from Kaggle's list of submissions."""

from pathlib import Path

from digit_recognizer import console, ledger, provenance, runs_table
from digit_recognizer.errors import KitError
from digit_recognizer.kaggle import credentials
from digit_recognizer.kaggle.client import Client, Submission
from digit_recognizer.ledger import Row

STAGES = {"": 0, "sending": 1, "pending": 2, "complete": 3, "error": 3}  # a submission's status only goes up


def scores(home: Path) -> None:
    """Print the table of all runs, the best first, brought up to date from Kaggle where that is possible."""
    submissions = home / "submissions"
    rows = ledger.read(submissions)
    if not rows:
        print("no run yet; `make run` makes one")
        return
    try:
        if person := credentials.find():
            with Client(person, tries=1) as client:
                rows = refresh(client, submissions)
    except KitError as error:
        console.print_lines(f"not brought up to date: {error}", error=True)
        if error.hint:
            console.print_lines(f"hint: {error.hint}", error=True)
    made = {row.run: provenance.find_provenance(home, row.run, row) for row in rows}
    obstacles = {name: one.obstacle or one.doubt for name, one in made.items()}
    console.print_lines(
        "\n\n".join(filter(None, (runs_table.table(rows, obstacles), runs_table.recipe_differences(home, rows))))
    )


def content_tag(row: Row) -> str:
    """What a submission's description says of its content, so that Kaggle's list can be searched for it."""
    return f"[sha256 {row.file_sha256[:16]}]"


def refresh(client: Client, submissions: Path, also: Row | None = None) -> list[Row]:
    """Bring the ledger up to what Kaggle lists, and give its rows."""
    listed = client.list_submissions()
    with ledger.changing(submissions) as rows:
        if (
            also
            and any(content_tag(also) in one.description for one in listed)
            and all(row.run != also.run for row in rows)
        ):
            rows.append(also)
        rows[:] = [merged(row, find_submission(row, listed)) for row in rows]
        return list(rows)


def find_submission(row: Row, listed: list[Submission]) -> Submission | None:
    """What Kaggle lists of a row; of one that it has no good submission of, the newest attempt since, if there is."""
    if not row.sent and row.file_sha256:
        attempts = [
            one for one in listed if content_tag(row) in one.description and is_later(one.reference, row.reference)
        ]
        good = (one for one in attempts if one.status != "error")
        if attempts:
            return next(good, attempts[0])
    return next((one for one in listed if row.reference and one.reference == row.reference), None)


def merged(row: Row, one: Submission | None) -> Row:
    """The row with what Kaggle says, unless the row is newer: the list may have been fetched before it was changed."""
    if one is None:
        return row
    if row.reference == one.reference:
        if row.status == "sending" or STAGES.get(one.status, 2) < STAGES.get(row.status, 2):
            return row
        return row.changed(status=one.status, public_score=one.public_score or row.public_score)
    if row.sent or not is_later(one.reference, row.reference):
        return row
    return row.changed(reference=one.reference, status=one.status, public_score=one.public_score)


def is_later(reference: str, than: str) -> bool:
    """Whether a submission was made after another, by their numbers at Kaggle."""
    return reference != than and (not than or (len(reference), reference) > (len(than), than))


def update_row(submissions: Path, run: str, one: Submission) -> Row:
    with ledger.changing(submissions) as rows:
        at = next(i for i, row in enumerate(rows) if row.run == run)
        rows[at] = merged(rows[at], one)
        return rows[at]
