"""Submit from a laptop: pick, check, compare, confirm, send, wait, record; and the table of what was run and sent."""

import hashlib
import os
import re
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from digit_recognizer import competition, credentials, files, ledger, score, submission
from digit_recognizer.competition import Competition, Sent, Unclear
from digit_recognizer.errors import BadInput, KitError, printable
from digit_recognizer.ledger import Row
from digit_recognizer.progress import Spinner

PUBLIC_ROWS = 7_000  # the public score is of part of the 28,000 test rows; Kaggle does not say how many: a quarter
TRAIN_ROWS = 42_000  # of the competition's train.csv
LOOKS = (1.0, 2.0, 4.0)  # seconds before each look for a submission whose answer was lost
MESSAGE_LENGTH = 300
COMPETITION = "make run with the competition's files: DATA= names them"
WIDTH = 100  # columns of the tables
STAGES = {"": 0, "sending": 1, "pending": 2, "complete": 3, "error": 3}  # a submission's status only goes up
# What the kit itself keeps in runs/ and submissions/, beside the runs; and bench-<time>.
RESERVED = {"cache", "studies", "compare.md", "compare.json", "error.log", "ledger", "sample-ledger"}
# What a run leaves in its folder; of a kernel's output nothing else is kept.
LEFT = re.compile(r"(members/\d+/)?([\w-]+\.(json|npy|png|keras|html|md|txt|csv|log)|lock)")
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
    warnings = _checked(home, row, path)
    connection = competition.signed_in()
    with ExitStack() as stack:
        try:
            stack.enter_context(files.locked(submissions / ".submit.lock", wait=False))
        except BlockingIOError:
            raise KitError("another `make submit` is at work here", hint="wait until it ends") from None
        client = stack.enter_context(connection)
        row = _not_sent(client, submissions, row)
        sent = [other for other in ledger.read(submissions) if other.sent]
        _print(f"{path.name}: good, {submission.ROWS:,} rows")
        for warning in warnings:
            _print(f"warning: {path.name}: {warning}", error=True)
        if row.status == "error":
            _print(f"the earlier attempt, {row.reference}, ended in an error at Kaggle; this is another one")
        _print(table([row, *sent]))
        if not force:
            _compare(row, sent)
        left = client.left_today()
        if left <= 0:
            raise KitError("the day's submissions are used up", hint="the count begins anew at 00:00 UTC")
        if not yes:
            _ask(f"send it to Kaggle ({left} left today)? [y/N] ")
        row = _send(client, submissions, row, path, message)
        _print(f"sent: Kaggle's reference is {row.reference}")
        if wait > 0:
            _await(client, submissions, row, wait)


def scores(home: Path) -> None:
    """Print the table of all runs, the best first, brought up to date from Kaggle where that is possible."""
    submissions = home / "submissions"
    rows = ledger.read(submissions)
    if not rows:
        print("no run yet; `make run` makes one")
        return
    try:
        if person := credentials.find():
            with Competition(person, tries=1) as client:
                rows = _caught_up(client, submissions)
    except KitError as error:
        _print(f"not brought up to date: {error}", error=True)
        if error.hint:
            _print(f"hint: {error.hint}", error=True)
    made = {row.run: made_from(home, row.run, row) for row in rows}
    obstacles = {name: one.obstacle or one.doubt for name, one in made.items()}
    _print("\n\n".join(filter(None, (table(rows, obstacles), _differences(home, rows)))))


def fetch(home: Path, client: Competition, slug: str) -> None:
    """Bring what the kernel ``slug`` left into ``submissions`` and ``runs``, and its rows into the ledger.

    Nothing that is there already is overwritten, and nothing but a run's own files is kept.

    Raises:
        BadInput: what it left is in the way of what is there, or is not what a run leaves.
        KitError: the kernel has not ended, or left no run.
    """
    status, why = client.kernel_status(slug)
    if status not in ("complete", "error", "cancel_acknowledged"):
        raise KitError(f"{slug}: not done yet ({status}); `make status` tells when it is")
    with tempfile.TemporaryDirectory(dir=files.folder(home / "runs"), prefix=".output-") as folder:
        output = Path(folder)
        client.kernel_output(slug, output)
        try:
            rows = ledger.read(output / "submissions")
        except BadInput as error:
            raise BadInput(f"{slug}: {str(error).replace(f'{output}/', '')}", hint="run the kernel again") from None
        if not rows:
            raise KitError(f"{slug}: left no finished run{f'; it failed: {why}' if why else ''}")
        for row in rows:  # all are checked before the first is kept
            _check_fetched(home, output, slug, row)
        for row in rows:
            file, run = home / "submissions" / f"{row.run}.csv", home / "runs" / row.run
            if not file.exists():
                files.write_bytes(file, (output / "submissions" / file.name).read_bytes())
            if (output / "runs" / row.run).exists() and not run.exists():
                (output / "runs" / row.run).replace(run)
            # What a run records of itself; whether it was submitted is known here, not there.
            ledger.record(home / "submissions", row.changed(reference="", status="", public_score="", message=""))
            _print(f"{row.run}: in submissions/ and runs/")
    names = {row.run for row in rows}
    kept = [row for row in ledger.read(home / "submissions") if row.run in names]
    _print(table(kept, {row.run: made_from(home, row.run, row).obstacle for row in kept}))


def _check_fetched(home: Path, output: Path, slug: str, row: Row) -> None:
    """Refuse a run of a kernel that would overwrite something, and drop of its folder what is not a run's."""
    name = row.run  # safe as part of a path, as all names that the ledger gives
    file, run = home / "submissions" / f"{name}.csv", home / "runs" / name
    came, folder = output / "submissions" / f"{name}.csv", output / "runs" / name
    if name.casefold() in RESERVED or name.casefold().startswith("bench"):
        raise BadInput(f"{slug}: left a run of the name {name}, which the kit uses itself")
    if came.is_symlink() or not came.is_file() or ledger.digest(came) != row.file_sha256:
        raise KitError(f"{slug}: the submission of {name} did not come whole; run it again")
    if os.path.lexists(file) and (not file.is_file() or ledger.digest(file) != row.file_sha256):
        raise BadInput(f"{file}: is there already, with other content than {slug} left", hint="move it away")
    if any(old.run == name and old.file_sha256 != row.file_sha256 for old in ledger.read(home / "submissions")):
        raise BadInput(f"{slug}: left another submission of {name} than the ledger has", hint="remove one of them")
    if os.path.lexists(run) and (run.is_symlink() or not run.is_dir()):
        raise BadInput(f"{run}: is there already and is no run's folder", hint="move it away")
    if os.path.lexists(folder) and (folder.is_symlink() or not folder.is_dir()):
        raise BadInput(f"{slug}: left something else than a folder as runs/{name}")
    if folder.exists():
        for path in sorted(folder.rglob("*"), reverse=True):  # what is in a folder comes before it
            if path.is_symlink():
                raise BadInput(f"{slug}: left a link, runs/{path.relative_to(output / 'runs').as_posix()}")
            if path.is_dir():
                if not any(path.iterdir()):
                    path.rmdir()
            elif not (path.is_file() and LEFT.fullmatch(path.relative_to(folder).as_posix())):
                path.unlink()


@dataclass(frozen=True)
class MadeFrom:
    """The files that a run was made from, as far as is known.

    Attributes:
        sample: whether they are the bundled sample.
        train_rows, test_rows: of them; None where that is not known.
    """

    sample: bool
    train_rows: int | None
    test_rows: int | None

    @property
    def obstacle(self) -> str:
        """Why its submission cannot be submitted; empty for the competition's."""
        return submission.obstacle(sample=self.sample, test_rows=self.test_rows)

    @property
    def doubt(self) -> str:
        """Why it is submitted only if it is named; empty for a run of all training rows."""
        if self.train_rows not in (None, TRAIN_ROWS):
            return f"submitted only by RUN=: {self.train_rows:,} training rows"
        return ""


def made_from(home: Path, run: str, row: Row | None = None) -> MadeFrom:
    """Find out what a run was made from: by its ledger row, its ``run.json``, or the length of its submission.

    A ``run.json`` that is missing or damaged tells nothing; a name that begins with ``sample-`` is enough.
    """
    about = {} if row and row.train_rows and row.test_rows else _about(home, run)
    sample = run.startswith(ledger.SAMPLE) or _dictionary(about.get("identity")).get("sample") is True
    train_rows = (row and row.train_rows) or _count(about.get("train_rows"))
    test_rows = (row and row.test_rows) or _count(about.get("test_rows"))
    file = home / "submissions" / f"{run}.csv"
    if row and not test_rows and not sample and file.is_file():
        with suppress(BadInput):
            test_rows = _count(len(submission.read(file).splitlines()) - 1)
    return MadeFrom(sample, train_rows, test_rows)


def _about(home: Path, run: str) -> dict[str, Any]:
    try:
        return files.read_json(home / "runs" / run / "run.json")
    except BadInput:
        return {}


def _dictionary(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _count(value: Any) -> int | None:
    return value if type(value) is int and value > 0 else None


def _print(text: str, *, error: bool = False) -> None:
    """Print lines that may hold texts from Kaggle or names, without their control characters."""
    print("\n".join(map(printable, text.split("\n"))), file=sys.stderr if error else sys.stdout, flush=True)


def table(rows: list[Row], obstacles: dict[str, str] | None = None) -> str:
    """Draw runs as a table, best validation first; a public score that validation does not allow is marked.

    Args:
        rows: the runs.
        obstacles: run → why it is not submitted, or an empty text; those that are not come last, in a table of theirs.
    """
    obstacles = obstacles or {}
    ranked = sorted(rows, key=_rank, reverse=True)
    parts = []
    if whole := [row for row in ranked if not obstacles.get(row.run)]:
        title = f"{'validation':11}{'wrong':11}{'95 % interval':17}{'public':9}gap"
        parts.append(_drawn(title, whole, _cells))
    if rest := [row for row in ranked if obstacles.get(row.run)]:
        title = f"{'validation':11}{'wrong':11}not to be submitted"
        parts.append(_drawn(title, rest, lambda row: f"{_wrong(row)}{obstacles[row.run]}"))
    text = "\n\n".join(parts)
    return "\n".join([text, *(note for mark, note in NOTES.items() if mark in text)])


def _drawn(title: str, rows: list[Row], cells: Callable[[Row], str]) -> str:
    """A table with the run's name before ``cells``; a name that is too long for that has a line of its own."""
    drawn = [(row.run, cells(row).rstrip()) for row in rows]
    room = WIDTH - 2 - max(len(title), *(len(text) for _, text in drawn))
    width = max((len(name) for name, _ in drawn if len(name) <= room), default=3)
    lines = [f"{'run':{width}}  {title}"]
    for name, text in drawn:
        if len(name) > width:
            lines.append(name)
            name = ""
        lines.append(f"{name:{width}}  {text}")
    return "\n".join(lines)


def _wrong(row: Row) -> str:
    figures = row.validation
    if not figures:
        return f"{'–':22}"
    counts = f"{figures.errors}/{figures.rows}"
    return f"{figures.accuracy:.5f}{BLEND if row.blend else SINGLE}{counts:11}"


def _cells(row: Row) -> str:
    figures = row.validation
    shown = _wrong(row) + (f"{figures.low:.5f}–{figures.high:.5f}  " if figures else f"{'':17}")
    if row.public is None:
        return shown + (row.status[:20] or "not sent")
    gap = f"{row.public - figures.accuracy:+.5f}" if figures else ""
    return f"{shown}{row.public:.5f}  {gap}{_mark(row)}"


def _differences(home: Path, rows: list[Row]) -> str:
    """Tell what differs between runs that have a recipe of one name, and not the same recipe."""
    parts = []
    for name in sorted({row.recipe for row in rows if row.recipe}):
        runs = [row for row in rows if row.recipe == name]
        if len({row.recipe_digest for row in runs}) == 1:
            continue
        recipes = [_dictionary(_dictionary(_about(home, row.run).get("identity")).get("recipe")) for row in runs]
        known = [one for one in recipes if one]
        fields = [
            field
            for field in dict.fromkeys(field for one in known for field in one)
            if len({repr(one.get(field)) for one in known}) > 1
        ]
        parts.append(f"recipe {name} is not the same in these runs:")
        for row, own in zip(runs, recipes, strict=True):
            shown = [f"digest {row.recipe_digest}", f"{row.members} members blended" if row.members else ""]
            shown += [f"{field} {own[field]}" for field in fields if field in own]
            line = f"{row.run}: {', '.join(filter(None, shown))}"
            parts += textwrap.wrap(line, WIDTH, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False)
    return "\n".join(parts)


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
    made = {row.run: made_from(home, row.run, row) for row in mine if not row.sent}
    ready = [row for row in mine if row.run in made and not (made[row.run].obstacle or made[row.run].doubt)]
    if not ready:
        others = f", except {len(made)} not made from the competition's whole files" if made else ""
        raise BadInput(
            f"no run that was not sent yet{others}", hint="`make run` makes one, RUN= or FILE= names another file"
        )
    best = max(ready, key=_rank)
    path = submissions / f"{best.run}.csv"
    if ledger.digest(path) != best.file_sha256:
        raise BadInput(f"{path}: not what its run wrote", hint="if it is meant, name it with FILE=")
    _print(f"the best run not yet sent: {best.run}")
    return best, path


def _name(path: Path, content: str) -> str:
    """The name that the ledger gives a file: its own, where that can be part of a path."""
    try:
        return files.safe_name(path.stem, "file")
    except BadInput:
        return f"file-{content[:8]}"


def _checked(home: Path, row: Row, path: Path) -> list[str]:
    """Refuse a file that cannot be submitted; the warnings of one that can."""
    made = made_from(home, path.stem)
    if row.sample or path.name.startswith(ledger.SAMPLE) or made.sample:
        raise BadInput(f"{path}: of a sample run, it can never be submitted", hint=COMPETITION)
    faults, warnings = submission.examine(path)
    if faults:
        if made.obstacle and not submission.check(path, made.test_rows or submission.ROWS):
            raise BadInput(f"{path}: {made.obstacle}, not the competition's {submission.ROWS:,}", hint=COMPETITION)
        more = f"; and {len(faults) - 1} more" if len(faults) > 1 else ""
        raise BadInput(f"{path}, {faults[0]}{more}", hint=f"make check FILE={path} lists them" if more else "")
    return warnings


def _tag(row: Row) -> str:
    """What a submission's description says of its content, so that Kaggle's list can be searched for it."""
    return f"[sha256 {row.file_sha256[:16]}]"


def _not_sent(client: Competition, submissions: Path, row: Row) -> Row:
    """Give the row as it is now, or refuse it where it or the same content is at Kaggle already."""
    row = next((other for other in ledger.read(submissions) if other.run == row.run), row)
    for pause in (0.0, *LOOKS) if row.status == "sending" else (0.0,):  # a new one may be listed late
        time.sleep(pause)
        rows = _caught_up(client, submissions, also=row)
        same = [other for other in rows if other.file_sha256 == row.file_sha256]
        if sent := next((other for other in same if other.sent), None):
            result = f"public score {sent.public_score}" if sent.public_score else sent.status
            raise BadInput(f"{row.run}: sent already, as {sent.reference} ({sent.run}): {result}")
    return next((other for other in same if other.run == row.run), row)


def _caught_up(client: Competition, submissions: Path, also: Row | None = None) -> list[Row]:
    """Bring the ledger up to what Kaggle lists, and give its rows."""
    listed = client.sent()
    with ledger.changing(submissions) as rows:
        if also and any(_tag(also) in one.description for one in listed) and all(row.run != also.run for row in rows):
            rows.append(also)
        rows[:] = [_updated(row, _found(row, listed)) for row in rows]
        return list(rows)


def _found(row: Row, listed: list[Sent]) -> Sent | None:
    """What Kaggle lists of a row; of one that it has no good submission of, the newest attempt since, if there is."""
    if not row.sent and row.file_sha256:
        attempts = [one for one in listed if _tag(row) in one.description and _later(one.reference, row.reference)]
        good = (one for one in attempts if one.status != "error")
        if attempts:
            return next(good, attempts[0])
    return next((one for one in listed if row.reference and one.reference == row.reference), None)


def _updated(row: Row, one: Sent | None) -> Row:
    """The row with what Kaggle says, unless the row is newer: the list may have been fetched before it was changed."""
    if one is None:
        return row
    if row.reference == one.reference:
        if row.status == "sending" or STAGES.get(one.status, 2) < STAGES.get(row.status, 2):
            return row
        return row.changed(status=one.status, public_score=one.public_score or row.public_score)
    if row.sent or not _later(one.reference, row.reference):
        return row
    return row.changed(reference=one.reference, status=one.status, public_score=one.public_score)


def _later(reference: str, than: str) -> bool:
    """Whether a submission was made after another, by their numbers at Kaggle."""
    return reference != than and (not than or (len(reference), reference) > (len(than), than))


def _update(submissions: Path, run: str, one: Sent) -> Row:
    with ledger.changing(submissions) as rows:
        at = next(i for i, row in enumerate(rows) if row.run == run)
        rows[at] = _updated(rows[at], one)
        return rows[at]


def _compare(row: Row, sent: list[Row]) -> None:
    best = max(sent, key=_rank, default=None)
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


def _send(client: Competition, submissions: Path, row: Row, path: Path, message: str) -> Row:
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
        reference = client.submit(token, f"{message} {_tag(row)}")
    except Unclear as error:
        _print(f"{error}; looking whether it arrived", error=True)
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
    one = Sent(reference=reference, file="", description="", status="pending", public_score="", error="")
    return _update(submissions, row.run, one)


def _arrived(client: Competition, row: Row) -> str:
    for pause in LOOKS:
        time.sleep(pause)
        try:
            one = _found(row, client.sent())
        except KitError:
            continue
        if one and one.reference != row.reference:
            return one.reference
    return ""


def _await(client: Competition, submissions: Path, row: Row, wait: float) -> None:
    spinner = Spinner("waiting for Kaggle's score")
    until, pause = time.monotonic() + wait, 0.5
    try:
        while (one := client.one(row.reference)).status == "pending":
            left = until - time.monotonic()
            if left <= 0:
                raise KitError(f"sent as {row.reference}, no score after {wait:.0f} s; `make scores` catches up")
            spinner.sleep(min(pause, left))
            pause = min(pause * 1.5, 15)
    finally:
        spinner.stop()
    row = _update(submissions, row.run, one)
    if one.status != "complete":
        raise KitError(
            f"Kaggle rejected {row.reference}: {one.error or 'it does not say why'}",
            hint="the same file may be submitted again",
        )
    _print(f"public score {row.public_score}")
    _print(table([other for other in ledger.read(submissions) if other.sent]))
