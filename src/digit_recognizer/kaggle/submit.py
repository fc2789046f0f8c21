"""Submit a file: select, check, compare with earlier submissions, confirm, send, wait for the score, record."""

import hashlib
import os
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from digit_recognizer import console, files, hints, ledger, provenance, runs_table, submission
from digit_recognizer.console import Spinner
from digit_recognizer.errors import BadInput, KitError, printable
from digit_recognizer.kaggle import sync
from digit_recognizer.kaggle.client import Client, Submission, UnknownOutcome, connect
from digit_recognizer.ledger import Row

LOOKUP_PAUSES = (1.0, 2.0, 4.0)  # seconds before each look at Kaggle's list for a submission whose response was lost
MESSAGE_LENGTH = 300  # characters


def submit(
    home: Path, *, file: Path | None, run: str | None, message: str, yes: bool, force: bool, wait: float
) -> None:
    """Send a submission to Kaggle, wait for its score, and record both in the ledger.

    Args:
        home: the folder of ``submissions`` and ``runs``.
        file, run: the file to send, or the run whose file to send; with neither, the best run not sent yet.
        message: the description of the submission; if empty, run and expected score.
        yes: send without a prompt.
        force: send even if the expected score is lower than that of an earlier submission.
        wait: longest time to wait for the score, in seconds; 0 does not wait.

    Raises:
        BadInput: there is no file to send, or it is not valid.
        KitError: Kaggle refuses or rejects the file or cannot be reached, or the prompt was declined.
    """
    submissions = home / "submissions"
    row, path = _select(home, file, run)
    warnings = _check_file(home, row, path)
    connection = connect()
    with ExitStack() as stack:
        try:
            stack.enter_context(files.locked(submissions / ".submit.lock", wait=False))
        except BlockingIOError:
            raise KitError(
                f"another `{hints.command('submit')}` is running in this folder", hint="wait until it ends"
            ) from None
        client = stack.enter_context(connection)
        row = _refuse_duplicate(client, submissions, row)
        sent = [other for other in ledger.read(submissions) if other.sent]
        console.print_lines(f"{path.name}: valid, {submission.ROWS:,} rows")
        for warning in warnings:
            console.print_lines(f"warning: {path.name}: {warning}", error=True)
        if row.status == "error":
            console.print_lines(f"the earlier submission of this file, {row.reference}, was rejected by Kaggle")
        console.print_lines(runs_table.render([row, *sent]))
        if not force:
            _refuse_worse(row, sent)
        left = client.submissions_left_today()
        if left <= 0:
            raise KitError("no submissions left today", hint="Kaggle resets the count at 00:00 UTC")
        if not yes:
            _confirm(f"send it to Kaggle ({left} submissions left today)? [y/N] ")
        row = _send(client, submissions, row, path, message)
        console.print_lines(f"sent: submission {row.reference}")
        if wait > 0:
            _wait_for_score(client, submissions, row, wait)
        else:
            console.print_lines(f"next: `{hints.command('scores')}` shows its score")


def _select(home: Path, file: Path | None, run: str | None) -> tuple[Row, Path]:
    """Return the row and the file to send; the row is new if the ledger has none for the file."""
    submissions = home / "submissions"
    rows = ledger.read(submissions)
    if file and run is not None:
        options = f"{hints.option('file')} and {hints.option('run')}"
        raise BadInput(f"{options}: expected one of the two, found both", hint="remove one of them")
    if file or run is not None:
        path = file or submissions / f"{files.safe_name(run or '', hints.option('run'))}.csv"
        if not os.path.lexists(path):
            raise BadInput(f"{path}: no such file", hint=f"`{hints.command('scores')}` lists the runs")
        return _row_of_file(rows, path), path
    # Only runs of this folder: the repository's ledger also has a run of its authors.
    local = [row for row in rows if (home / "runs" / row.run).exists() and (submissions / f"{row.run}.csv").is_file()]
    origins = {row.run: provenance.find_provenance(home, row.run, row) for row in local if not row.sent}
    selectable = {run for run, origin in origins.items() if not (origin.why_not_submittable or origin.why_not_selected)}
    ready = [row for row in local if row.run in selectable]
    if not ready:
        others = f", except {len(origins)} not made from the competition's complete files" if origins else ""
        raise BadInput(
            f"no run that was not sent yet{others}",
            hint=f"`{hints.command('run')}` makes one; {hints.option('run')} or {hints.option('file')} selects another",
        )
    best = max(ready, key=runs_table.rank)
    path = submissions / f"{best.run}.csv"
    if ledger.digest(path) != best.file_sha256:
        raise BadInput(
            f"{path}: changed since its run wrote it", hint=f"to send it anyway, pass {hints.option('file', path)}"
        )
    console.print_lines(f"best run not sent yet: {best.run}")
    return best, path


def _row_of_file(rows: list[Row], path: Path) -> Row:
    """Return the ledger's row of a file's content, or a new one."""
    content = hashlib.sha256(submission.read(path)).hexdigest()
    try:
        name = files.safe_name(path.stem, "file")
    except BadInput:
        name = f"file-{content[:8]}"
    named = next((row for row in rows if row.run == name), None)
    if named and named.file_sha256 == content:
        return named
    # The same content under another name is the same submission. Other content must not get the score of the named run.
    same = next((row for row in rows if row.file_sha256 == content), None)
    return same or Row(run=f"{name[:100]}-{content[:8]}" if named else name, file_sha256=content)


def _check_file(home: Path, row: Row, path: Path) -> list[str]:
    """Refuse a file that is not valid for the competition; return the warnings of a valid one."""
    hint = f"`{hints.command('run', data='digit-recognizer.zip')}` trains on the competition's files"
    origin = provenance.find_provenance(home, path.stem)
    if row.sample or path.name.startswith(ledger.SAMPLE) or origin.sample:
        raise BadInput(f"{path}: cannot be submitted: sample run", hint=hint)
    faults, warnings = submission.examine(path)
    if faults:
        if origin.why_not_submittable and not submission.check(path, origin.test_rows or submission.ROWS):
            raise BadInput(f"{path}: {origin.why_not_submittable}, expected {submission.ROWS:,}", hint=hint)
        more = f"; and {len(faults) - 1} more" if len(faults) > 1 else ""
        raise BadInput(f"{path}, {faults[0]}{more}", hint=f"`{hints.command('check', file=path)}` lists all faults")
    return warnings


def _refuse_duplicate(client: Client, submissions: Path, row: Row) -> Row:
    """Return the current row; ``BadInput`` if Kaggle has a submission of the same content."""
    row = next((other for other in ledger.read(submissions) if other.run == row.run), row)
    for pause in (0.0, *LOOKUP_PAUSES) if row.status == "sending" else (0.0,):  # Kaggle may list a new one late
        time.sleep(pause)
        rows = sync.refresh(client, submissions, candidate=row)
        same = [other for other in rows if other.file_sha256 == row.file_sha256]
        if sent := next((other for other in same if other.sent), None):
            result = f"public score {sent.public_score}" if sent.public_score else sent.status
            raise BadInput(
                f"{row.run}: sent already, as {sent.reference} ({sent.run}): {result}",
                hint=f"`{hints.command('scores')}` shows all submissions",
            )
    return next((other for other in same if other.run == row.run), row)


def _refuse_worse(row: Row, sent: list[Row]) -> None:
    """Refuse a row whose expected score is unknown or lower than the best that was sent."""
    best = max(sent, key=runs_table.rank, default=None)
    if best is None or best.estimate is None:
        return
    hint = f"to send it anyway, pass {hints.option('force', True)}"
    if row.estimate is None:
        raise BadInput(f"{row.run}: no expected score to compare with earlier submissions", hint=hint)
    if row.estimate < best.estimate:
        raise BadInput(
            f"{row.run}: expected score {row.estimate:.5f} is lower than {best.estimate:.5f} of "
            f"{best.run}, sent already",
            hint=hint,
        )


def _confirm(question: str) -> None:
    """Prompt for a confirmation; ``KitError`` if it is declined."""
    if not sys.stdin.isatty():
        raise BadInput(
            "cannot prompt: stdin is not a terminal", hint=f"to send without a prompt, pass {hints.option('yes', True)}"
        )
    try:
        answer = input(question)
    except EOFError:
        answer = ""
    if answer.strip().lower() not in ("y", "yes"):
        raise KitError("cancelled", hint="nothing was sent")


def _send(client: Client, submissions: Path, row: Row, path: Path, message: str) -> Row:
    """Upload and submit a file, record it in the ledger, and return its row."""
    if ledger.digest(path) != row.file_sha256:
        raise BadInput(f"{path}: changed since it was checked", hint="rerun the command")
    if not message:
        message = row.run + (f", expected {row.estimate:.5f}" if row.estimate is not None else "")
    message = printable(" ".join(message.split()))[:MESSAGE_LENGTH]
    token = client.upload(path)
    with ledger.changing(submissions) as rows:
        if all(other.run != row.run for other in rows):
            rows.append(row)
    # The reference of a rejected attempt is kept: later attempts have higher numbers.
    row = ledger.update(submissions, row.run, status="sending", message=message)
    try:
        reference = client.submit(token, f"{message} {sync.content_tag(row)}")
    except UnknownOutcome as error:
        console.print_lines(f"{error}; looking for the submission in Kaggle's list", error=True)
        reference = _find_sent(client, row)
        if not reference:
            raise KitError(
                "Kaggle's response was lost, and its list does not have the submission yet",
                hint="rerun the command: it looks at the list before it sends",
            ) from error
    except KitError:
        with ledger.changing(submissions) as rows:
            rows[:] = [
                other.changed(status="error" if other.reference else "")
                if other.run == row.run and other.status == "sending"
                else other
                for other in rows
            ]
        raise
    entry = Submission(reference=reference, file="", description="", status="pending", public_score="", error="")
    return sync.update_row(submissions, row.run, entry)


def _find_sent(client: Client, row: Row) -> str:
    """Return the reference of a submission whose response was lost; empty if Kaggle does not list it."""
    for pause in LOOKUP_PAUSES:
        time.sleep(pause)
        try:
            entry = sync.find_submission(row, client.list_submissions())
        except KitError:
            continue
        if entry and entry.reference != row.reference:
            return entry.reference
    return ""


def _wait_for_score(client: Client, submissions: Path, row: Row, wait: float) -> None:
    """Wait until Kaggle has scored a submission, record and print the score; ``KitError`` if it takes too long."""
    spinner = Spinner("waiting for Kaggle's score")
    deadline, pause = time.monotonic() + wait, 0.5
    try:
        while (entry := client.get_submission(row.reference)).status == "pending":
            left = deadline - time.monotonic()
            if left <= 0:
                raise KitError(
                    f"submission {row.reference} was sent; no score after {wait:g} s",
                    hint=f"`{hints.command('scores')}` shows the score when Kaggle has it",
                )
            spinner.sleep(min(pause, left))
            pause = min(pause * 1.5, 15)
    finally:
        spinner.stop()
    row = sync.update_row(submissions, row.run, entry)
    if entry.status != "complete":
        raise KitError(
            f"Kaggle rejected submission {row.reference}: {entry.error or 'without a reason'}",
            hint="correct the file if it is at fault, then rerun the command; the same file may be sent again",
        )
    console.print_lines(f"public score: {row.public_score}")
    console.print_lines(runs_table.render([other for other in ledger.read(submissions) if other.sent]))
