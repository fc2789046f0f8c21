"""Write the submission file, and check one: ``ImageId,Label``, ids from 1, a digit each."""

import itertools
from pathlib import Path

import numpy as np
import numpy.typing as npt

from digit_recognizer import files

HEADER = "ImageId,Label"
ROWS = 28_000


def write(path: Path, digits: npt.NDArray[np.integer]) -> None:
    """Write digits, integers (n,) in the order of the test file, whole or not at all; LF line ends.

    Raises:
        BadInput: the folder cannot be written.
    """
    import pandas as pd

    table = pd.DataFrame({"ImageId": np.arange(1, len(digits) + 1), "Label": digits})
    with files.replacing(path) as part:
        table.to_csv(part, index=False, lineterminator="\n")


def check(path: Path, rows: int = ROWS) -> list[str]:
    """Name every fault of a submission file; no fault is an empty list.

    Args:
        path: the file. LF and CRLF line ends both pass, a mixture does not.
        rows: how many rows the test file has.

    Returns:
        A text for each fault, with its line; lines in a row with the same fault share one text.

    Raises:
        BadInput: the file cannot be read.
    """
    with files.explained(path):
        content = path.read_bytes()
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        return [f"line {line}: expected UTF-8 text, found byte 0x{content[error.start]:02x}"]
    if not text.strip():
        return [f"line 1: expected the header {HEADER}, found nothing"]
    ends = "\r\n" if text.partition("\n")[0].endswith("\r") else "\n"
    lines = text.split("\n")
    if lines[-1] == "":
        lines.pop()
    faults = []
    for number, line in enumerate(lines, start=1):
        whole = line.endswith("\r") == (ends == "\r\n") or (number == len(lines) and not text.endswith("\n"))
        if not whole:
            faults.append((number, f"expected the line end of line 1, {ends!r}, found another"))
        fault = _fault(number, line.removesuffix("\r"), rows)
        if fault:
            faults.append((number, fault))
    found = len(lines) - 1
    if found < rows:
        faults.append((len(lines) + 1, f"expected {rows:,} rows, found the end of the file after {found:,}"))
    return _merged(faults)


def _fault(number: int, line: str, rows: int) -> str | None:
    if number == 1:
        return None if line == HEADER else f"expected the header {HEADER}, found {_shown(line)}"
    if number - 1 > rows:
        return f"expected the end of the file after {rows:,} rows, found more"
    if not line.strip():
        return "expected an id and a label, found a blank line"
    fields = line.split(",")
    if len(fields) != 2:
        return f"expected an id and a label, found {_count(len(fields))}"
    image, label = fields
    if image != str(number - 1):
        return f"expected ImageId {number - 1}, found {_shown(image)}"
    if not (len(label) == 1 and label in "0123456789"):
        return f"expected a Label from 0 to 9, found {_shown(label)}"
    return None


def _count(fields: int) -> str:
    return "1 field" if fields == 1 else f"{fields} fields"


def _shown(field: str) -> str:
    return repr(field if len(field) <= 40 else field[:40] + "…") if field else "nothing"


def _merged(faults: list[tuple[int, str]]) -> list[str]:
    """Join faults of the same text on consecutive lines."""
    texts = []
    for text, group in itertools.groupby(enumerate(sorted(faults)), key=lambda at: (at[1][1], at[1][0] - at[0])):
        numbers = [number for _, (number, _) in group]
        first, last = numbers[0], numbers[-1]
        texts.append(f"line {first}: {text[0]}" if first == last else f"lines {first} to {last}: {text[0]}")
    return texts
