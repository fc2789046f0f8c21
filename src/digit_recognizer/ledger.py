"""The ledger, ``submissions/ledger.csv``: what was run, what it scored, what was submitted, and Kaggle's answers.

It has one row per run, in plain CSV that can be read and committed. Each change holds a lock and rewrites the file
atomically, so that parallel processes lose no rows. Sample runs have a file of their own, ``sample-ledger.csv``, which
is not committed.

Columns are identified by name, in any order: missing ones take their defaults, and unknown ones, of later versions, are
kept. A field that a spreadsheet would treat as a formula is written with a leading ``'``.
"""

import csv
import dataclasses
import hashlib
import io
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from digit_recognizer import files
from digit_recognizer.errors import BadInput, printable
from digit_recognizer.evaluation import metrics
from digit_recognizer.evaluation.metrics import Score

if TYPE_CHECKING:
    from digit_recognizer.evaluation.scores import Scores
    from digit_recognizer.runs import Run

NAME = "ledger.csv"
SAMPLE = "sample-"
COUNTS = ("oof_errors", "oof_rows", "holdout_errors", "holdout_rows", "train_rows", "test_rows", "oof_distinct")
PARTS = (("oof_errors", "oof_rows"), ("oof_distinct", "oof_rows"), ("holdout_errors", "holdout_rows"))
RESTORE = "correct it there, or restore the file, for example from git"
FORMULA = re.compile("'*[=+\\-@\t\r]")  # the beginning of a formula in a spreadsheet, escaped or not


@dataclass(frozen=True, kw_only=True)
class Row:
    """A run and its submission; unknown texts are empty and unknown counts are None.

    Attributes:
        run: the run's name; for a file from elsewhere, the file's name.
        time: when it was recorded, ISO 8601.
        recipe, recipe_digest: the recipe's name, and a digest of its fields.
        commit, data: git commit and data fingerprint.
        members: networks in the blend.
        oof_errors, oof_rows, oof_accuracy: single members on their validation rows.
        holdout_errors, holdout_rows, holdout_accuracy: the blend on the holdout.
        file_sha256: digest of the submission file.
        reference: Kaggle's id of the submission; set once it was submitted.
        status: empty, ``sending``, or Kaggle's ``pending``, ``complete`` or ``error``.
        public_score: as returned by Kaggle.
        message: the description of the submission.
        train_rows, test_rows: rows of the data that the run was made from.
        oof_distinct: number of distinct rows in ``oof_rows``.
        expected: the expected accuracy on the test rows (see ``evaluation/expected_score.py``).
        expected_low, expected_high: its 90 % interval on all test rows.
        extra: columns of later versions, with their texts.
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
    train_rows: int | None = None
    test_rows: int | None = None
    oof_distinct: int | None = None
    expected: str = ""
    expected_low: str = ""
    expected_high: str = ""
    extra: tuple[tuple[str, str], ...] = ()

    @property
    def sent(self) -> bool:
        """Whether Kaggle has it; False if its submission failed, even while it is submitted again."""
        return bool(self.reference) and self.status not in ("error", "sending")

    @property
    def sample(self) -> bool:
        """Whether it is a sample run, which cannot be submitted."""
        return self.run.startswith(SAMPLE)

    @property
    def blend(self) -> Score | None:
        """The blend's score on the holdout."""
        return _score(self.holdout_errors, self.holdout_rows)

    @property
    def out_of_fold(self) -> Score | None:
        """The out-of-fold score of single members."""
        return _score(self.oof_errors, self.oof_rows, self.oof_distinct)

    @property
    def validation(self) -> Score | None:
        """The validation score: the blend's on the holdout, or else the out-of-fold score of its members."""
        return self.blend or self.out_of_fold

    @property
    def estimate(self) -> float | None:
        """The accuracy that ranks the run: the expected one, or in rows of earlier versions that of validation."""
        expected = _share(self.expected)
        return expected if expected is not None or self.validation is None else self.validation.accuracy

    @property
    def interval(self) -> tuple[float, float] | None:
        """The interval of ``estimate``: 90 % if that is the expected accuracy, else 95 %."""
        low, high = _share(self.expected_low), _share(self.expected_high)
        if _share(self.expected) is not None and low is not None and high is not None:
            return low, high
        return (self.validation.low, self.validation.high) if self.validation else None

    @property
    def public(self) -> float | None:
        """The public score as a number from 0 to 1; None for anything else."""
        return _share(self.public_score)

    def changed(self, **fields: Any) -> "Row":
        """Return this row with some fields replaced."""
        return dataclasses.replace(self, **fields)


FIELDS = tuple(field.name for field in dataclasses.fields(Row) if field.name != "extra")


def of_run(run: "Run", scores: "Scores", file: Path) -> Row:
    """Return the row of a run that has written its submission ``file``."""
    about = files.read_json(run.folder / "run.json")
    identity, holdout = about["identity"], scores.holdout
    return Row(
        run=run.name,
        time=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        recipe=identity["recipe"]["name"],
        recipe_digest=identity["recipe_digest"] + ("-truncated" if scores.truncated else ""),
        commit=about["commit"] or "",
        data=identity["data"],
        members=str(scores.members + scores.full_members),
        oof_errors=scores.oof.errors,
        oof_rows=scores.oof.rows,
        oof_accuracy=f"{scores.oof.accuracy:.5f}",
        holdout_errors=holdout.errors if holdout else None,
        holdout_rows=holdout.rows if holdout else None,
        holdout_accuracy=f"{holdout.accuracy:.5f}" if holdout else "",
        file_sha256=digest(file),
        train_rows=about.get("train_rows"),
        test_rows=about.get("test_rows"),
        oof_distinct=scores.oof_distinct,
        expected=f"{scores.expected.accuracy:.5f}",
        expected_low=f"{scores.expected.low:.5f}",
        expected_high=f"{scores.expected.high:.5f}",
    )


def digest(file: Path) -> str:
    """Return the SHA-256 of a submission file, in hexadecimal."""
    with files.explained(file):
        if not file.is_file():  # a pipe would block
            raise BadInput(f"{file}: expected a file, found none")
        with file.open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest()


def read(folder: Path) -> list[Row]:
    """Read the ledger of a ``submissions`` folder, in its own order; empty if there is none.

    Raises:
        BadInput: a file cannot be read or has another format, a run's name is unsafe as a part of a path, or two rows
            of a run contradict each other.
    """
    # A row is written to the samples' file before it is removed from the other, so this order misses none.
    return _merged([*_rows(folder / NAME), *_rows(folder / (SAMPLE + NAME))])


def record(folder: Path, row: Row) -> None:
    """Add a row, or replace the row of the same run unless that was submitted."""
    with changing(folder) as rows:
        index = next((i for i, old in enumerate(rows) if old.run == row.run), None)
        if index is None:
            rows.append(row)
        elif not (rows[index].reference or rows[index].status):
            rows[index] = row.changed(extra=row.extra or rows[index].extra)


def update(folder: Path, run: str, **fields: Any) -> Row:
    """Replace some fields of a run's row, which is created if missing, and return the row."""
    with changing(folder) as rows:
        if not any(row.run == run for row in rows):
            rows.append(Row(run=run))
        index = next(i for i, row in enumerate(rows) if row.run == run)
        rows[index] = rows[index].changed(**fields)
        return rows[index]


@contextmanager
def changing(folder: Path) -> Iterator[list[Row]]:
    """Yield the rows to be changed in place, under a lock, then write them.

    Raises:
        BadInput: the ledger cannot be read or written, or a run's name is unsafe as a part of a path.
    """
    with files.locked(folder / f".{NAME}.lock"):
        rows_by_file = {path: _rows(path) for path in (folder / NAME, folder / (SAMPLE + NAME))}
        rows = _merged([located_row for located_rows in rows_by_file.values() for located_row in located_rows])
        yield rows
        for path, before in reversed(rows_by_file.items()):
            content = [row for row in rows if row.sample == path.name.startswith(SAMPLE)]
            if content != [row for _, row in before]:
                files.write_bytes(path, _text(content).encode(errors="replace"))


def _text(rows: list[Row]) -> str:
    """Return the rows as CSV, which ``_rows`` reads."""
    extra = tuple(dict.fromkeys(column for row in rows for column, _ in row.extra))
    lines = [FIELDS + extra]
    for row in rows:
        files.safe_name(row.run, "run")
        values = ("" if (value := getattr(row, name)) is None else str(value) for name in FIELDS)
        lines.append((*values, *(dict(row.extra).get(column, "") for column in extra)))
    return "".join(",".join(map(_quoted, line)) + "\n" for line in lines)


def _quoted(field: str) -> str:
    if FORMULA.match(field):
        field = "'" + field
    return '"' + field.replace('"', '""') + '"' if set(field) & set('",;\t\r\n') else field


def _rows(path: Path) -> list[tuple[str, Row]]:
    """Return the rows of a file, each with its location; the separators that spreadsheets write are accepted."""
    with files.explained(path):
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return []
    line = 0
    try:
        text = content.decode("utf-8-sig")
        header = re.split("[\\r\\n]", text, maxsplit=1)[0]
        lines = csv.reader(
            io.StringIO(text, newline=""),
            strict=True,
            delimiter=max(",;\t", key=lambda separator: header.count(separator)),
        )
        columns = [_unescaped(column).strip() for column in next(lines, [])]
        if "run" not in columns:
            expected = f"expected the header {FIELDS[0]},{FIELDS[1]},…,{FIELDS[-1]}"
            raise BadInput(
                f"{path}, line 1: {expected}, found {printable(','.join(columns)[:60]) or 'nothing'}", hint=RESTORE
            )
        if repeated := next((column for column in columns if column and columns.count(column) > 1), None):
            raise BadInput(
                f"{path}, line 1: expected each column once, found {printable(repeated[:60])} twice", hint=RESTORE
            )
        rows = []
        for fields in lines:
            line = lines.line_num
            if any(fields):
                rows.append((f"{path}, line {line}", _row(f"{path}, line {line}", columns, fields)))
    except (UnicodeDecodeError, csv.Error) as error:
        location = f"{path}, line {line + 1}" if isinstance(error, csv.Error) else path
        raise BadInput(f"{location}: expected CSV in UTF-8, found another format ({error})", hint=RESTORE) from error
    return rows


def _unescaped(field: str) -> str:
    return field[1:] if field.startswith("'") and FORMULA.match(field) else field


def _row(location: str, columns: list[str], fields: list[str]) -> Row:
    if len(fields) != len(columns):
        raise BadInput(f"{location}: expected {len(columns)} fields, found {len(fields)}", hint=RESTORE)
    values: dict[str, Any] = {}
    extra = []
    for column, field in zip(columns, map(_unescaped, fields), strict=True):
        if column in COUNTS:
            if not re.fullmatch("[0-9]{0,9}", field):
                raise BadInput(
                    f"{location}, column {column}: expected a count of rows, found {field[:60]!r}", hint=RESTORE
                )
            values[column] = int(field) if field else None
        elif column in FIELDS:
            values[column] = field
        elif column:
            extra.append((column, field))
        elif field:
            raise BadInput(f"{location}: expected a column name, found none for {field[:60]!r}", hint=RESTORE)
    files.safe_name(values["run"], f"{location}, column run", hint=RESTORE)
    for errors, rows in PARTS:
        count, limit = values.get(errors), values.get(rows)
        if count is not None and limit is not None and count > limit:
            raise BadInput(
                f"{location}, column {errors}: expected at most the {limit} of {rows}, found {count}", hint=RESTORE
            )
    return Row(**values, extra=tuple(extra))


def _merged(located_rows: list[tuple[str, Row]]) -> list[Row]:
    """Merge rows of the same run: of two rows with the same submission file, the submitted one is kept."""
    rows: dict[str, tuple[str, Row]] = {}
    for location, row in located_rows:
        first, other = rows.setdefault(row.run, (location, row))
        if row == other:
            continue
        if row.file_sha256 != other.file_sha256 or bool(row.reference) == bool(other.reference):
            file, line = location.rsplit(", ", 1)
            second = line if first.startswith(f"{file}, ") else location
            raise BadInput(
                f"{first} and {second}: expected one row of run {row.run}, found two that differ",
                hint="remove one of them",
            )
        rows[row.run] = (first, row if row.reference else other)
    return [row for _, row in rows.values()]


def _score(errors: int | None, rows: int | None, distinct: int | None = None) -> Score | None:
    return metrics.score(errors, rows, distinct=distinct) if errors is not None and rows else None


def _share(text: str) -> float | None:
    """Return a text as a number from 0 to 1; None for anything else."""
    try:
        value = float(text.replace(",", "."))  # some spreadsheets write a decimal comma
    except ValueError:
        return None
    return value if 0 <= value <= 1 else None
