"""Submit from a laptop: pick, check, compare, ask, send, wait, remember; and the table of what was run and sent."""

import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from digit_recognizer import competition, credentials, files, ledger, score, submission
from digit_recognizer.competition import Competition, Sent, Unclear
from digit_recognizer.errors import BadInput, KitError
from digit_recognizer.ledger import Row
from digit_recognizer.progress import Spinner

PUBLIC_ROWS = 7_000  # the public score is of part of the 28,000 test rows; Kaggle does not say how many: a quarter
LOOKS = (1.0, 2.0, 4.0)  # seconds before each look for a submission whose answer was lost
MESSAGE_LENGTH = 300
BLEND, SINGLE, TOO_LOW, TOO_HIGH = " b  ", " s  ", "  ! low", "  ! high"
NOTES = {
    BLEND: "b: the blend, on its holdout",
    SINGLE: "s: single members, out of fold; their blend is better",
    TOO_LOW: "! low: less than validation allows (99 %); a fault between the two, or a validation that leaks",
    TOO_HIGH: "! high: more than validation allows (99 %); most often a file made with leaked labels",
}


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
    _checked(home, row, path)
    entrance = competition.signed_in()
    with ExitStack() as stack:
        try:
            stack.enter_context(files.locked(submissions / ".submit.lock", wait=False))
        except BlockingIOError:
            raise KitError("another `make submit` is at work here; wait until it ends") from None
        door = stack.enter_context(entrance)
        row = _not_sent(door, submissions, row)
        sent = [other for other in ledger.read(submissions) if other.reference]
        print(f"{path.name}: good, {submission.ROWS:,} rows")
        print(table([row, *sent]))
        if not force:
            _compare(row, sent)
        left = door.left_today()
        if left <= 0:
            raise KitError("the day's submissions are used up; the count begins anew at 00:00 UTC")
        if not yes:
            _ask(f"send it to Kaggle ({left} left today)? [y/N] ")
        row = _send(door, submissions, row, path, message)
        print(f"sent: Kaggle's reference is {row.reference}", flush=True)
        if wait > 0:
            _await(door, submissions, row, wait)


def scores(home: Path) -> None:
    """Print the table of all runs, the best first, brought up to date from Kaggle where that is possible."""
    submissions = home / "submissions"
    rows = ledger.read(submissions)
    if rows and (person := credentials.find()):
        try:
            with Competition(person, tries=1) as door:
                rows = _caught_up(door, submissions)
        except KitError as error:
            print(f"not brought up to date: {error}", file=sys.stderr)
    print(table(rows) if rows else "no run yet; `make run` makes one")


def fetch(home: Path, door: Competition, slug: str) -> None:
    """Bring what the kernel ``slug`` left into ``submissions`` and ``runs``, and its rows into the ledger.

    Raises:
        KitError: the kernel has not ended, or left no run.
    """
    status, why = door.kernel_status(slug)
    if status not in ("complete", "error", "cancel_acknowledged"):
        raise KitError(f"{slug}: not done yet ({status}); `make status` tells when it is")
    with tempfile.TemporaryDirectory(dir=files.folder(home / "runs"), prefix=".output-") as folder:
        output = Path(folder)
        door.kernel_output(slug, output)
        finished = ledger.read(output / "submissions")
        if not finished:
            raise KitError(f"{slug}: left no finished run{f'; it failed: {why}' if why else ''}")
        for row in finished:
            came, path = output / "submissions" / f"{row.run}.csv", home / "submissions" / f"{row.run}.csv"
            if not came.exists() or ledger.digest(came) != row.file_sha256:
                raise KitError(f"{slug}: the submission of {row.run} did not come whole; run it again")
            files.write_bytes(path, came.read_bytes())
            run = home / "runs" / row.run
            if (output / "runs" / row.run).exists() and not run.exists():
                (output / "runs" / row.run).replace(run)
            ledger.record(home / "submissions", row)
            print(f"{row.run}: in submissions/ and runs/")
    print(table([row for row in ledger.read(home / "submissions") if row.run in {one.run for one in finished}]))


def table(rows: list[Row]) -> str:
    """Draw runs as a table, best validation first; a public score that validation does not allow is marked."""
    width = max(len("run"), *(len(row.run) for row in rows))
    lines = [f"{'run':{width}}  validation  wrong      95 % interval       public      gap"]
    for row in sorted(rows, key=_rank, reverse=True):
        figures = row.validation
        if figures:
            kind = BLEND if row.blend else SINGLE
            wrong = f"{figures.errors}/{figures.rows}"
            shown = f"{figures.accuracy:.5f}{kind}{wrong:<9}  {figures.low:.5f}–{figures.high:.5f}"
        else:
            shown = f"{'–':<9}  {'':<9}  {'':<15}"
        if row.public is not None:
            gap = f"{row.public - figures.accuracy:+.5f}" if figures else ""
            shown += f"  {row.public:.5f}  {gap}{_mark(row)}"
        else:
            shown += f"  {'a sample run' if row.sample else row.status or 'not sent'}"
        lines.append(f"{row.run:{width}}  {shown}".rstrip())
    text = "\n".join(lines)
    return "\n".join([text, *(note for mark, note in NOTES.items() if mark in text)])


def _mark(row: Row) -> str:
    validation = row.validation
    if not validation or row.public is None:
        return ""
    low, high = score.expected_public(validation, PUBLIC_ROWS)
    if not row.blend:  # how much better the blend is than its members is not known; half the errors is the most by far
        high = score.expected_public(score.score(validation.errors // 2, validation.rows), PUBLIC_ROWS)[1]
    return TOO_LOW if row.public < low else TOO_HIGH if row.public > high else ""


def _rank(row: Row) -> float:
    return row.validation.accuracy if row.validation else -1.0


def _picked(home: Path, file: Path | None, run: str | None) -> tuple[Row, Path]:
    """The row and file to send; the row is new where the ledger has none for the file."""
    submissions = home / "submissions"
    rows = ledger.read(submissions)
    if file and run:
        raise BadInput("FILE and RUN: expected one of the two, found both")
    if file or run:
        path = file or submissions / f"{run}.csv"
        name = path.stem
        if not path.exists():
            raise BadInput(f"{path}: no such file; `make scores` lists the runs")
        content = ledger.digest(path)
        row = next((row for row in rows if row.run == name), None)
        if row is None or row.file_sha256 != content:
            # The same content under another name is the same submission; another content is not the run's own.
            same = next((row for row in rows if row.file_sha256 == content), None)
            taken = row is not None
            row = same or Row(run=f"{name}-{content[:8]}" if taken else name, file_sha256=content)
        return row, path
    # Of the runs made here: the repository brings one along, of its own makers.
    mine = [row for row in rows if (home / "runs" / row.run).exists() and (submissions / f"{row.run}.csv").exists()]
    ready = [row for row in mine if not row.sample and not row.reference]
    if not ready:
        raise BadInput("no run that was not sent yet; `make run` makes one, FILE= names another file")
    best = max(ready, key=_rank)
    path = submissions / f"{best.run}.csv"
    if ledger.digest(path) != best.file_sha256:
        raise BadInput(f"{path}: not what its run wrote; if it is meant, name it with FILE=")
    print(f"the best run not yet sent: {best.run}")
    return best, path


def _checked(home: Path, row: Row, path: Path) -> None:
    note = home / "runs" / path.stem / "run.json"
    if (
        row.sample
        or path.name.startswith(ledger.SAMPLE)
        or (note.exists() and files.read_json(note)["identity"]["sample"])
    ):
        raise BadInput(f"{path}: of a sample run, it can never be submitted; make run with the competition's files")
    faults = submission.check(path)
    if faults:
        more = f" and {len(faults) - 1} more; make check FILE={path} lists them" if len(faults) > 1 else ""
        raise BadInput(f"{path}, {faults[0]}{more}")


def _tag(row: Row) -> str:
    """What a submission's description says of its content, so that Kaggle's list can be searched for it."""
    return f"[sha256 {row.file_sha256[:16]}]"


def _not_sent(door: Competition, submissions: Path, row: Row) -> Row:
    """Give the row, or refuse it where it or the same content is at Kaggle already."""
    for pause in (0.0, *LOOKS) if row.status == "sending" else (0.0,):  # a new one may be listed late
        time.sleep(pause)
        rows = _caught_up(door, submissions, also=row)
        same = [other for other in rows if other.file_sha256 == row.file_sha256]
        if sent := next((other for other in same if other.reference), None):
            result = f"public score {sent.public_score}" if sent.public_score else sent.status
            raise BadInput(f"{row.run}: sent already, as {sent.reference} ({sent.run}): {result}")
    return next((other for other in same if other.run == row.run), row)


def _caught_up(door: Competition, submissions: Path, also: Row | None = None) -> list[Row]:
    """Bring the ledger up to what Kaggle lists, and give its rows."""
    told = door.sent()
    by_reference = {one.reference: one for one in told}
    with ledger.changing(submissions) as rows:
        if also and any(_tag(also) in one.description for one in told) and all(row.run != also.run for row in rows):
            rows.append(also)
        for i, row in enumerate(rows):
            if row.reference:
                one = by_reference.get(row.reference)
            else:
                one = next((one for one in told if row.file_sha256 and _tag(row) in one.description), None)
            if one:
                rows[i] = _told(row, one)
        return list(rows)


def _told(row: Row, one: Sent) -> Row:
    return row.changed(reference=one.reference, status=one.status, public_score=one.public_score)


def _compare(row: Row, sent: list[Row]) -> None:
    best = max(sent, key=_rank, default=None)
    if best is None or best.validation is None:
        return
    if row.validation is None:
        raise BadInput(f"{row.run}: no validation score to compare with those sent; FORCE=1 sends it all the same")
    if row.validation.accuracy < best.validation.accuracy:
        raise BadInput(
            f"{row.run}: validation {row.validation.accuracy:.5f} is worse than {best.validation.accuracy:.5f} of "
            f"{best.run}, sent already; FORCE=1 sends it all the same"
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


def _send(door: Competition, submissions: Path, row: Row, path: Path, message: str) -> Row:
    # What was checked is what goes: a file changed since then is another file.
    if ledger.digest(path) != row.file_sha256:
        raise BadInput(f"{path}: changed meanwhile; run it again")
    if not message:
        message = row.run + (f", validation {row.validation.accuracy:.5f}" if row.validation else "")
    message = " ".join(message.split())[:MESSAGE_LENGTH]
    token = door.upload(path)
    with ledger.changing(submissions) as rows:
        if all(other.run != row.run for other in rows):
            rows.append(row)
    ledger.update(submissions, row.run, status="sending", message=message)
    try:
        reference = door.submit(token, f"{message} {_tag(row)}")
    except Unclear as error:
        print(f"{error}; looking whether it arrived", file=sys.stderr)
        reference = _arrived(door, row)
        if not reference:
            raise KitError(
                "Kaggle's answer was lost and its list does not show the submission; run the same command again: "
                "it looks there before it sends"
            ) from error
    except KitError:
        ledger.update(submissions, row.run, status="")
        raise
    return ledger.update(submissions, row.run, reference=reference, status="pending")


def _arrived(door: Competition, row: Row) -> str:
    for pause in LOOKS:
        time.sleep(pause)
        try:
            if one := next((one for one in door.sent() if _tag(row) in one.description), None):
                return one.reference
        except KitError:
            continue
    return ""


def _await(door: Competition, submissions: Path, row: Row, wait: float) -> None:
    spinner = Spinner("waiting for Kaggle's score")
    until, pause = time.monotonic() + wait, 0.5
    try:
        while (one := door.one(row.reference)).status == "pending":
            left = until - time.monotonic()
            if left <= 0:
                raise KitError(f"sent as {row.reference}, no score after {wait:.0f} s; `make scores` catches up")
            spinner.sleep(min(pause, left))
            pause = min(pause * 1.5, 15)
    finally:
        spinner.stop()
    row = ledger.update(submissions, row.run, status=one.status, public_score=one.public_score)
    if one.status != "complete":
        raise KitError(f"Kaggle rejected {row.reference}: {one.error or 'it does not say why'}")
    print(f"public score {row.public_score}")
    print(table([other for other in ledger.read(submissions) if other.reference]))
