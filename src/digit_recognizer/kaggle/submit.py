"""Submit from a laptop: select, check, compare, confirm, send, wait, record."""

import hashlib
import os
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from digit_recognizer import console, files, ledger, provenance, runs_table, submission
from digit_recognizer.console import Spinner
from digit_recognizer.errors import BadInput, KitError, printable
from digit_recognizer.kaggle import sync
from digit_recognizer.kaggle.client import Client, Submission, UnknownOutcome, connect
from digit_recognizer.ledger import Row

LOOKS = (1.0, 2.0, 4.0)  # seconds before each look for a submission whose answer was lost
MESSAGE_LENGTH = 300
COMPETITION = "make run with the competition's files: DATA= names them"


def submit(
    home: Path, *, file: Path | None, run: str | None, message: str, yes: bool, force: bool, wait: float
) -> None:
    """Send a submission to Kaggle, wait for its score and keep both in the ledger.

    Args:
        home: the folder of ``submissions`` and ``runs``.
        file, run: what to send; with neither, the run not yet sent that has the best validation score.
        message: goes along with it; empty for one that tells the run and its score.
        yes: send without asking.
        force: send even what validation says is worse than what was sent.
        wait: longest time to wait for the score, seconds; 0 does not wait.

    Raises:
        BadInput: there is nothing to send, or the file is not one to send.
        KitError: Kaggle refuses, rejects it, or cannot be reached.
    """
    submissions = home / "submissions"
    row, path = _picked(home, file, run)
    warnings = _checked(home, row, path)
    connection = connect()
    with ExitStack() as stack:
        try:
            stack.enter_context(files.locked(submissions / ".submit.lock", wait=False))
        except BlockingIOError:
            raise KitError("another `make submit` is at work here", hint="wait until it ends") from None
        client = stack.enter_context(connection)
        row = _not_sent(client, submissions, row)
        sent = [other for other in ledger.read(submissions) if other.sent]
        console.print_lines(f"{path.name}: good, {submission.ROWS:,} rows")
        for warning in warnings:
            console.print_lines(f"warning: {path.name}: {warning}", error=True)
        if row.status == "error":
            console.print_lines(
                f"the earlier attempt, {row.reference}, ended in an error at Kaggle; this is another one"
            )
        console.print_lines(runs_table.table([row, *sent]))
        if not force:
            _compare(row, sent)
        left = client.submissions_left_today()
        if left <= 0:
            raise KitError("the day's submissions are used up", hint="the count begins anew at 00:00 UTC")
        if not yes:
            _ask(f"send it to Kaggle ({left} left today)? [y/N] ")
        row = _send(client, submissions, row, path, message)
        console.print_lines(f"sent: Kaggle's reference is {row.reference}")
        if wait > 0:
            _await(client, submissions, row, wait)


def _picked(home: Path, file: Path | None, run: str | None) -> tuple[Row, Path]:
    """The row and file to send; the row is new where the ledger has none for the file."""
    submissions = home / "submissions"
    rows = ledger.read(submissions)
    if file and run is not None:
        raise BadInput("FILE and RUN: expected one of the two, found both")
    if file or run is not None:
        path = file or submissions / f"{files.safe_name(run or '', 'RUN')}.csv"
        if not os.path.lexists(path):
            raise BadInput(f"{path}: no such file", hint="`make scores` lists the runs")
        content = hashlib.sha256(submission.read(path)).hexdigest()
        name = _name(path, content)
        row = next((row for row in rows if row.run == name), None)
        if row is None or row.file_sha256 != content:
            # The same content under another name is the same submission; another content is not the run's own.
            same = next((row for row in rows if row.file_sha256 == content), None)
            taken = row is not None
            row = same or Row(run=f"{name[:100]}-{content[:8]}" if taken else name, file_sha256=content)
        return row, path
    # Of the runs made here: the repository brings one along, of its own makers.
    mine = [row for row in rows if (home / "runs" / row.run).exists() and (submissions / f"{row.run}.csv").is_file()]
    made = {row.run: provenance.find_provenance(home, row.run, row) for row in mine if not row.sent}
    ready = [row for row in mine if row.run in made and not (made[row.run].obstacle or made[row.run].doubt)]
    if not ready:
        others = f", except {len(made)} not made from the competition's whole files" if made else ""
        raise BadInput(
            f"no run that was not sent yet{others}", hint="`make run` makes one, RUN= or FILE= names another file"
        )
    best = max(ready, key=runs_table.rank)
    path = submissions / f"{best.run}.csv"
    if ledger.digest(path) != best.file_sha256:
        raise BadInput(f"{path}: not what its run wrote", hint="if it is meant, name it with FILE=")
    console.print_lines(f"the best run not yet sent: {best.run}")
    return best, path


def _name(path: Path, content: str) -> str:
    """The name that the ledger gives a file: its own, where that can be part of a path."""
    try:
        return files.safe_name(path.stem, "file")
    except BadInput:
        return f"file-{content[:8]}"


def _checked(home: Path, row: Row, path: Path) -> list[str]:
    """Refuse a file that cannot be submitted; the warnings of one that can."""
    made = provenance.find_provenance(home, path.stem)
    if row.sample or path.name.startswith(ledger.SAMPLE) or made.sample:
        raise BadInput(f"{path}: of a sample run, it can never be submitted", hint=COMPETITION)
    faults, warnings = submission.examine(path)
    if faults:
        if made.obstacle and not submission.check(path, made.test_rows or submission.ROWS):
            raise BadInput(f"{path}: {made.obstacle}, not the competition's {submission.ROWS:,}", hint=COMPETITION)
        more = f"; and {len(faults) - 1} more" if len(faults) > 1 else ""
        raise BadInput(f"{path}, {faults[0]}{more}", hint=f"make check FILE={path} lists them" if more else "")
    return warnings


def _not_sent(client: Client, submissions: Path, row: Row) -> Row:
    """Give the row as it is now, or refuse it where it or the same content is at Kaggle already."""
    row = next((other for other in ledger.read(submissions) if other.run == row.run), row)
    for pause in (0.0, *LOOKS) if row.status == "sending" else (0.0,):  # a new one may be listed late
        time.sleep(pause)
        rows = sync.refresh(client, submissions, also=row)
        same = [other for other in rows if other.file_sha256 == row.file_sha256]
        if sent := next((other for other in same if other.sent), None):
            result = f"public score {sent.public_score}" if sent.public_score else sent.status
            raise BadInput(f"{row.run}: sent already, as {sent.reference} ({sent.run}): {result}")
    return next((other for other in same if other.run == row.run), row)


def _compare(row: Row, sent: list[Row]) -> None:
    best = max(sent, key=runs_table.rank, default=None)
    if best is None or best.validation is None:
        return
    if row.validation is None:
        raise BadInput(
            f"{row.run}: no validation score to compare with those sent", hint="FORCE=1 sends it all the same"
        )
    if row.validation.accuracy < best.validation.accuracy:
        raise BadInput(
            f"{row.run}: validation {row.validation.accuracy:.5f} is worse than {best.validation.accuracy:.5f} of "
            f"{best.run}, sent already",
            hint="FORCE=1 sends it all the same",
        )


def _ask(question: str) -> None:
    if not sys.stdin.isatty():
        raise BadInput("nobody here to ask whether to send it; YES=1 answers")
    try:
        answer = input(question)
    except EOFError:
        answer = ""
    if answer.strip().lower() not in ("y", "yes"):
        raise KitError("not sent")


def _send(client: Client, submissions: Path, row: Row, path: Path, message: str) -> Row:
    # What was checked is what goes: a file changed since then is another file.
    if ledger.digest(path) != row.file_sha256:
        raise BadInput(f"{path}: changed since it was checked", hint="run the same command again")
    if not message:
        message = row.run + (f", validation {row.validation.accuracy:.5f}" if row.validation else "")
    message = printable(" ".join(message.split()))[:MESSAGE_LENGTH]
    token = client.upload(path)
    with ledger.changing(submissions) as rows:
        if all(other.run != row.run for other in rows):
            rows.append(row)
    # The reference of a failed attempt is kept: that of a later attempt has a higher number.
    row = ledger.update(submissions, row.run, status="sending", message=message)
    try:
        reference = client.submit(token, f"{message} {sync.content_tag(row)}")
    except UnknownOutcome as error:
        console.print_lines(f"{error}; looking whether it arrived", error=True)
        reference = _arrived(client, row)
        if not reference:
            raise KitError(
                "Kaggle's answer was lost and its list does not show the submission",
                hint="run the same command again: it looks there before it sends",
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
    one = Submission(reference=reference, file="", description="", status="pending", public_score="", error="")
    return sync.update_row(submissions, row.run, one)


def _arrived(client: Client, row: Row) -> str:
    for pause in LOOKS:
        time.sleep(pause)
        try:
            one = sync.find_submission(row, client.list_submissions())
        except KitError:
            continue
        if one and one.reference != row.reference:
            return one.reference
    return ""


def _await(client: Client, submissions: Path, row: Row, wait: float) -> None:
    spinner = Spinner("waiting for Kaggle's score")
    until, pause = time.monotonic() + wait, 0.5
    try:
        while (one := client.get_submission(row.reference)).status == "pending":
            left = until - time.monotonic()
            if left <= 0:
                raise KitError(f"sent as {row.reference}, no score after {wait:.0f} s; `make scores` catches up")
            spinner.sleep(min(pause, left))
            pause = min(pause * 1.5, 15)
    finally:
        spinner.stop()
    row = sync.update_row(submissions, row.run, one)
    if one.status != "complete":
        raise KitError(
            f"Kaggle rejected {row.reference}: {one.error or 'it does not say why'}",
            hint="the same file may be submitted again",
        )
    console.print_lines(f"public score {row.public_score}")
    console.print_lines(runs_table.table([other for other in ledger.read(submissions) if other.sent]))
