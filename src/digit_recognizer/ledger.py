"""The ledger, ``submissions/ledger.csv``: what was run, what it scored, what was sent, what Kaggle said.

One row a run, in plain CSV that a person can read and commit. Every change is made under a lock and writes the file
anew, whole, so that several processes lose nothing of each other's.
"""

import csv
import dataclasses
import hashlib
import io
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from digit_recognizer import files, score
from digit_recognizer.errors import BadInput
from digit_recognizer.score import Score

if TYPE_CHECKING:
    from digit_recognizer.ensemble import Scores
    from digit_recognizer.runs import Run

NAME = "ledger.csv"
SAMPLE = "sample-"
COUNTS = ("oof_errors", "oof_rows", "holdout_errors", "holdout_rows")


@dataclass(frozen=True, kw_only=True)
class Row:
    """A run and its submission; a text is empty and a count None where it is not known.

    Attributes:
        run: the run's name; for a file that no run made, the file's own.
        time: when it was done, ISO 8601.
        recipe, recipe_digest: the recipe's name, and what tells two of that name apart.
        commit, data: git commit and data fingerprint.
        members: networks in the blend.
        oof_errors, oof_rows, oof_accuracy: single members on the rows they left out.
        holdout_errors, holdout_rows, holdout_accuracy: the blend on rows that nobody saw.
        file_sha256: digest of the submission file.
        reference: Kaggle's number of the submission; a row with one was sent.
        status: empty, ``sending``, or Kaggle's own ``pending``, ``complete`` or ``error``.
        public_score: as Kaggle tells it.
        message: sent along with the file.
    """

    run: str
    time: str = ""
    recipe: str = ""
    recipe_digest: str = ""
    commit: str = ""
    data: str = ""
    members: str = ""
    oof_errors: int | None = None
    oof_rows: int | None = None
    oof_accuracy: str = ""
    holdout_errors: int | None = None
    holdout_rows: int | None = None
    holdout_accuracy: str = ""
    file_sha256: str = ""
    reference: str = ""
    status: str = ""
    public_score: str = ""
    message: str = ""

    @property
    def sample(self) -> bool:
        """Whether it is of the bundled sample, and can never be submitted."""
        return self.run.startswith(SAMPLE)

    @property
    def blend(self) -> Score | None:
        """The blend's score on the holdout."""
        return _score(self.holdout_errors, self.holdout_rows)

    @property
    def validation(self) -> Score | None:
        """What the run is ranked by: the blend's score, or where there was no holdout its members' out-of-fold one."""
        return self.blend or _score(self.oof_errors, self.oof_rows)

    @property
    def public(self) -> float | None:
        """The public score as a number from 0 to 1."""
        try:
            return float(self.public_score)
        except ValueError:
            return None

    def changed(self, **fields: Any) -> "Row":
        """Give this row with some fields replaced."""
        return dataclasses.replace(self, **fields)


FIELDS = tuple(field.name for field in dataclasses.fields(Row))


def of_run(run: "Run", scores: "Scores", file: Path) -> Row:
    """The row of a run that has written its submission ``file``."""
    about = files.read_json(run.folder / "run.json")
    identity, holdout = about["identity"], scores.holdout
    return Row(
        run=run.name,
        time=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        recipe=identity["recipe"]["name"],
        recipe_digest=identity["recipe_digest"],
        commit=about["commit"] or "",
        data=identity["data"],
        members=str(scores.members),
        oof_errors=scores.oof.errors,
        oof_rows=scores.oof.rows,
        oof_accuracy=f"{scores.oof.accuracy:.5f}",
        holdout_errors=holdout.errors if holdout else None,
        holdout_rows=holdout.rows if holdout else None,
        holdout_accuracy=f"{holdout.accuracy:.5f}" if holdout else "",
        file_sha256=digest(file),
    )


def digest(file: Path) -> str:
    """SHA-256 of a submission file, in hexadecimal."""
    with files.explained(file):
        return hashlib.sha256(file.read_bytes()).hexdigest()


def read(folder: Path) -> list[Row]:
    """Read the ledger of a ``submissions`` folder, in its own order; where there is none it is empty.

    Raises:
        BadInput: the file cannot be read or has another form.
    """
    path = folder / NAME
    if not path.exists():
        return []
    with files.explained(path):
        content = path.read_bytes()
    try:
        lines = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True)
        header = tuple(next(lines, ()))
        if header != FIELDS:
            expected = f"expected the header {FIELDS[0]},{FIELDS[1]},…,{FIELDS[-1]}"
            raise BadInput(f"{path}, line 1: {expected}, found {','.join(header) or 'nothing'}")
        return [_row(path, lines.line_num, fields) for fields in lines if fields]
    except (UnicodeDecodeError, csv.Error) as error:
        raise BadInput(f"{path}: expected CSV in UTF-8, found another ({error}); take it back from git") from error


def record(folder: Path, row: Row) -> None:
    """Add a row; a row of the same run that is there gives way, but for what was sent of it."""
    with changing(folder) as rows:
        before = next((i for i, old in enumerate(rows) if old.run == row.run), None)
        if before is None:
            rows.append(row)
        elif not rows[before].reference:
            rows[before] = row


def update(folder: Path, run: str, **fields: Any) -> Row:
    """Replace some fields of a run's row, which is made where there is none, and give it."""
    with changing(folder) as rows:
        if not any(row.run == run for row in rows):
            rows.append(Row(run=run))
        at = next(i for i, row in enumerate(rows) if row.run == run)
        rows[at] = rows[at].changed(**fields)
        return rows[at]


@contextmanager
def changing(folder: Path) -> Iterator[list[Row]]:
    """Give the rows to be changed in place, while no other process can; then write them."""
    with files.locked(folder / f".{NAME}.lock"):
        rows = read(folder)
        before = list(rows)
        yield rows
        if rows != before:
            text = io.StringIO()
            lines = csv.writer(text, lineterminator="\n")
            lines.writerow(FIELDS)
            lines.writerows(dataclasses.astuple(row) for row in rows)
            files.write_bytes(folder / NAME, text.getvalue().encode())


def _row(path: Path, line: int, fields: list[str]) -> Row:
    if len(fields) != len(FIELDS):
        raise BadInput(f"{path}, line {line}: expected {len(FIELDS)} fields, found {len(fields)}")
    values: dict[str, Any] = dict(zip(FIELDS, fields, strict=True))
    for name in COUNTS:
        if values[name] and not values[name].isdecimal():
            raise BadInput(f"{path}, line {line}, column {name}: expected a count of rows, found {values[name]!r}")
        values[name] = int(values[name]) if values[name] else None
    return Row(**values)


def _score(errors: int | None, rows: int | None) -> Score | None:
    return score.score(errors, rows) if errors is not None and rows else None
