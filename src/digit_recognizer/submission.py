"""Write the submission file, and check one: ``ImageId,Label``, ids from 1, a digit each."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from digit_recognizer import files
from digit_recognizer.errors import KitError

HEADER = "ImageId,Label"
ROWS = 28_000


def write(path: Path, digits: npt.NDArray[np.integer], *, also: Path | None = None) -> None:
    """Write digits, integers (n,) in the order of the test file, whole or not at all; read them back and check them.

    Args:
        path: the file; LF line ends.
        digits: 0 to 9.
        also: a second place for the same file.

    Raises:
        BadInput: the folder cannot be written.
        KitError: what was written has faults, as where the disk lies; it is not moved into place.
    """
    import pandas as pd

    table = pd.DataFrame({"ImageId": np.arange(1, len(digits) + 1), "Label": digits})
    for place in filter(None, (path, also)):
        with files.replacing(place) as part:
            table.to_csv(part, index=False, lineterminator="\n")
            if faults := check(part, len(digits)):
                raise KitError(f"{place}: written and read back with faults: {'; '.join(faults)}")


def check(path: Path, rows: int = ROWS) -> list[str]:
    """Name every fault of a submission file; no fault is an empty list.

    Args:
        path: the file. LF and CRLF line ends both pass, a mixture does not.
        rows: how many rows the test file has.

    Returns:
        A text for each fault, with its line; lines in a row with the same kind of fault share one text.

    Raises:
        BadInput: the file cannot be read.
    """
    with files.explained(path):
        content = path.read_bytes()
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        at = content.count(b"\n", 0, error.start) + 1
        return [f"line {at}: expected UTF-8 text, found byte 0x{content[error.start]:02x}"]
    lines = text.split("\n")
    if len(lines) > 1 and lines[-1] == "":
        lines.pop()
    returned = lines[0].endswith("\r")
    faults = []
    for number, line in enumerate(lines, start=1):
        if line.endswith("\r") != returned and (number < len(lines) or text.endswith("\n")):
            faults.append(_Fault(number, "line end", f"the line end of line 1, {_end(returned)}", _end(not returned)))
        faults += _faults_of_line(number, line.removesuffix("\r"), rows)
    if len(lines) <= rows:
        faults.append(_Fault(len(lines) + 1, "end", f"{rows:,} rows", f"the end of the file after {len(lines) - 1:,}"))
    return _merged(faults)


class _Fault(NamedTuple):
    line: int
    kind: str
    expected: str
    found: str


def _faults_of_line(number: int, line: str, rows: int) -> list[_Fault]:
    if number == 1:
        return [] if line == HEADER else [_Fault(number, "header", f"the header {HEADER}", _shown(line))]
    if number - 1 > rows:
        return [_Fault(number, "surplus", f"the end of the file after {rows:,} rows", _shown(line))]
    fields = line.split(",")
    if len(fields) != 2:
        return [_Fault(number, "fields", "an id and a label", _shown(line))]
    faults = []
    image, label = fields
    if image != str(number - 1):
        faults.append(_Fault(number, "id", f"ImageId {number - 1}", _shown(image)))
    if not (len(label) == 1 and label in "0123456789"):
        faults.append(_Fault(number, "label", "a Label from 0 to 9", _shown(label)))
    return faults


def _shown(field: str) -> str:
    return repr(field if len(field) <= 40 else field[:40] + "…") if field.strip() else "nothing"


def _end(returned: bool) -> str:
    return "CRLF" if returned else "LF"


def _merged(faults: list[_Fault]) -> list[str]:
    """Join faults of one kind on consecutive lines, and tell them in the order of their first lines."""
    spans: list[tuple[_Fault, int]] = []
    open_spans: dict[str, int] = {}  # kind → its last span
    for fault in faults:
        at = open_spans.get(fault.kind)
        if at is not None and spans[at][1] == fault.line - 1:
            spans[at] = (spans[at][0], fault.line)
        else:
            open_spans[fault.kind] = len(spans)
            spans.append((fault, fault.line))
    texts = []
    for first, last in spans:
        where, which = (f"line {first.line}", "") if last == first.line else (f"lines {first.line} to {last}", "first ")
        texts.append(f"{where}: {which}expected {first.expected}, found {first.found}")
    return texts
