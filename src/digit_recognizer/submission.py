"""Write and check the submission file: ``ImageId,Label``, ids from 1, one digit per row."""

import re
import stat
from itertools import count, pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from digit_recognizer import files
from digit_recognizer.errors import BadInput, KitError

HEADER = "ImageId,Label"
ROWS = 28_000
DIGITS = {b"%d" % digit for digit in range(10)}
LIMIT = 10_000_000  # bytes; a file of 28,000 rows has 240,000


def write(path: Path, digits: npt.NDArray[np.integer], *, copy_to: Path | None = None) -> None:
    """Write a submission atomically, read it back, and check it.

    Args:
        path: the file; LF line ends.
        digits: integers (n,), 0 to 9, in the order of the test file.
        copy_to: a second path for the same file.

    Raises:
        BadInput: the folder cannot be written.
        KitError: the file read back has faults; it is not moved into place.
    """
    import pandas as pd

    table = pd.DataFrame({"ImageId": np.arange(1, len(digits) + 1), "Label": digits})
    for target in filter(None, (path, copy_to)):
        with files.replacing(target) as part:
            table.to_csv(part, index=False, lineterminator="\n")
            if faults := check(part, len(digits)):
                raise KitError(
                    f"{target}: faults after writing: {'; '.join(faults)}",
                    hint="check the disk, then run again",
                )


def why_not_submittable(*, sample: bool, test_rows: int | None) -> str:
    """Return why a submission made from such data cannot be submitted; empty for the competition's or unknown data."""
    if sample:
        return "cannot be submitted: sample run"
    return f"cannot be submitted: {test_rows:,} test rows" if test_rows not in (None, ROWS) else ""


def check(path: Path, rows: int = ROWS) -> list[str]:
    """Return every fault of a submission file; an empty list if there is none.

    Args:
        path: the file, with LF or CRLF line ends, not mixed.
        rows: number of rows of the test file.

    Returns:
        a text per fault, with its line; consecutive lines with the same kind of fault share one text.

    Raises:
        BadInput: the file cannot be read.
    """
    return examine(path, rows)[0]


def examine(path: Path, rows: int = ROWS) -> tuple[list[str], list[str]]:
    """Return the faults of ``check``, and warnings: what Kaggle accepts although this project does not write it.

    Warnings are quoted fields, and rows in another order if each ImageId occurs once.
    """
    content = read(path, rows)
    if _canonical(content, rows):
        return [], []
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        number = content.count(b"\n", 0, error.start) + 1
        return [f"line {number}: expected UTF-8 text, found byte 0x{content[error.start]:02x}"], []
    lines = text.split("\n")
    no_last_end = lines[-1] != ""  # the last line may have no line end
    if len(lines) > 1 and not no_last_end:
        lines.pop()
    crlf = lines[0].endswith("\r") and "\n" in text
    faults, fields, quoted = [], [], False
    for number, line in enumerate(lines, start=1):
        if no_last_end and number == len(lines):
            if line.endswith("\r"):
                faults.append(_Fault(number, "line end", f"{_end(crlf)} or nothing after the last row", "CR"))
        elif line.endswith("\r") != crlf:
            faults.append(_Fault(number, "line end", f"the line end of line 1, {_end(crlf)}", _end(not crlf)))
        unquoted = [_unquoted(field) for field in line.removesuffix("\r").split(",")]
        quoted = quoted or any(had_quotes for _, had_quotes in unquoted)
        fields.append([field for field, _ in unquoted])
    shuffled = _shuffled(fields[1 : rows + 1], rows)
    lines_of_id: dict[str, list[int]] = {}  # ImageId → numbers of its lines
    for number, row in enumerate(fields[1 : rows + 1], start=2):
        lines_of_id.setdefault(row[0], []).append(number)
    for number, (line, row) in enumerate(zip(lines, fields, strict=True), start=1):
        faults += _faults_of_line(number, line.removesuffix("\r"), row, rows, lines_of_id, shuffled)
    if len(lines) <= rows:
        faults.append(_Fault(len(lines) + 1, "end", f"{rows:,} rows", f"the end of the file after {len(lines) - 1:,}"))
    missing = next(image for image in count(1) if str(image) not in lines_of_id)
    if shuffled and missing <= rows:
        faults.append(_Fault(len(lines) + 1, "missing", f"a row of ImageId {missing} before", "none"))
    warnings = ["quoted fields, which Kaggle accepts"] * quoted
    warnings += ["rows not in the order of their ImageId, which Kaggle accepts"] * shuffled
    return _merged(faults), [] if faults else warnings


def read(path: Path, rows: int = ROWS) -> bytes:
    """Return the bytes of a submission file of about ``rows`` rows.

    Raises:
        BadInput: it cannot be read, is not a regular file, or is far larger than a submission.
    """
    limit = max(LIMIT, 32 * rows)
    with files.explained(path):
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            kind = "folder" if path.is_dir() else "device or pipe"
            raise BadInput(f"{path}: expected a file, found a {kind}", hint="name a submission file")
        if status.st_size > limit:
            raise BadInput(
                f"{path}: larger than {limit:,} bytes, the limit for {rows:,} rows", hint="name a submission file"
            )
        with path.open("rb") as file:
            return file.read(status.st_size + 1)


def _canonical(content: bytes, rows: int) -> bool:
    """Whether these are bytes that ``write`` writes; ten times as fast as the search for faults."""
    header, *lines = content.removesuffix(b"\n").split(b"\n")
    return (
        header == HEADER.encode()
        and len(lines) == rows
        and {line[-1:] for line in lines} <= DIGITS
        and [line[:-1] for line in lines] == [b"%d," % image for image in range(1, rows + 1)]
    )


class _Fault(NamedTuple):
    line: int
    kind: str
    expected: str
    found: str


def _unquoted(field: str) -> tuple[str, bool]:
    """Return a field without its quotes, and whether it had any."""
    quoted = len(field) > 1 and field[0] == field[-1] == '"'
    return (field[1:-1], True) if quoted else (field, False)


def _shuffled(table: list[list[str]], rows: int) -> bool:
    """Whether the rows are treated as being in another order than that of their ids.

    This holds if each id occurs once, but not in order; or if there are faults, and fewer than half of the rows follow
    the id of the row before, so that faults are not attributed to the order.
    """
    ids = [int(row[0]) if re.fullmatch("[1-9][0-9]{0,17}", row[0]) else 0 for row in table]
    if ids and len(set(ids)) == rows and min(ids) == 1 and max(ids) == rows:
        return ids != sorted(ids)
    return 2 * sum(after == before + 1 for before, after in pairwise([0, *ids])) < len(ids)


def _faults_of_line(
    number: int, line: str, fields: list[str], rows: int, lines_of_id: dict[str, list[int]], shuffled: bool
) -> list[_Fault]:
    if number == 1:
        header = ",".join(fields) == HEADER
        return [] if header else [_Fault(number, "header", f"the header {HEADER}", _shown(line))]
    if number - 1 > rows:
        return [_Fault(number, "surplus", f"the end of the file after {rows:,} rows", _shown(line))]
    if len(fields) != 2:
        return [_Fault(number, "fields", "an id and a label", _shown(line))]
    faults = []
    image, label = fields
    others = [other for other in lines_of_id[image] if other != number]
    found = _shown(image) + (f", as on line {others[0]}" if others else "")
    if not shuffled:
        if image != str(number - 1):
            faults.append(_Fault(number, "id", f"ImageId {number - 1}", found))
    elif not (re.fullmatch("[1-9][0-9]*", image) and len(image) < 19 and int(image) <= rows):
        faults.append(_Fault(number, "id", f"an ImageId from 1 to {rows}", _shown(image)))
    elif others and others[0] < number:
        faults.append(_Fault(number, "repeated id", "each ImageId once", found))
    if not (len(label) == 1 and label in "0123456789"):
        faults.append(_Fault(number, "label", "a Label from 0 to 9", _shown(label)))
    return faults


def _shown(field: str) -> str:
    return repr(field if len(field) <= 40 else field[:40] + "…") if field.strip() else "nothing"


def _end(crlf: bool) -> str:
    return "CRLF" if crlf else "LF"


def _merged(faults: list[_Fault]) -> list[str]:
    """Merge faults of one kind on consecutive lines, in the order of their first lines."""
    spans: list[tuple[_Fault, int]] = []
    open_spans: dict[str, int] = {}  # kind → its last span
    for fault in faults:
        index = open_spans.get(fault.kind)
        if index is not None and spans[index][1] == fault.line - 1:
            spans[index] = (spans[index][0], fault.line)
        else:
            open_spans[fault.kind] = len(spans)
            spans.append((fault, fault.line))
    texts = []
    for first, last in spans:
        if last == first.line:
            location = f"line {first.line}: expected"
        else:
            location = f"lines {first.line} to {last}: first expected"
        texts.append(f"{location} {first.expected}, found {first.found}")
    return texts
