"""Parse the competition's CSV files strictly.

``train.csv`` has the header ``label,pixel0,…,pixel783`` and one row per image; ``test.csv`` has the same columns
without the label. Pixels are integers from 0 (background) to 255 (ink), row by row. Any other content is refused with
its file, line and column.
"""

import re
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from digit_recognizer.data import archives
from digit_recognizer.errors import BadInput

SIDE = 28
CLASSES = 10
COLUMNS = {
    "test": tuple(f"pixel{i}" for i in range(SIDE * SIDE)),
    "train": ("label", *(f"pixel{i}" for i in range(SIDE * SIDE))),
}
CHUNK = 1 << 18  # bytes of text per step; larger arrays would not fit the processor's cache
LINE = 1 << 16  # bytes, the longest line: 83 per field, where a quoted and padded one has 7
THREADS = 4
FIELD = re.compile(' *([0-9]{1,9}) *|" *([0-9]{1,9}) *" *')
BOM = b"\xef\xbb\xbf"
LINE_ENDS = "expected lines that end in LF or CRLF, found CR alone"
RESAVE = "save it as CSV in UTF-8, or download the file again"
DOWNLOAD = archives.DOWNLOAD_HINT
CORRECT = f"correct that line, or {DOWNLOAD}"
Bytes = npt.NDArray[np.uint8]


def parse(text: bytes, table: str, file: str) -> Bytes:
    """Parse the text of a CSV file in several threads.

    Args:
        text: UTF-8 with LF or CRLF line ends; the end of the last line may be missing.
        table: ``"train"`` or ``"test"``.
        file: the file's name, for messages.

    Returns:
        uint8 (rows, columns): for ``"train"`` the label, 0 to 9, and 784 pixels; for ``"test"`` the pixels.

    Raises:
        BadInput: with the file, line and column, the expected and the found content.
    """
    text = text.removeprefix(BOM)
    if not text or text.isspace():
        raise BadInput(f"{file}: empty; expected a header line and a row for each image", hint=DOWNLOAD)
    if text[:2] in (b"\xff\xfe", b"\xfe\xff") or 0 in text[:2]:
        raise BadInput(f"{file}: expected UTF-8 text, found UTF-16 or binary data", hint=RESAVE)
    start = text.find(b"\n", 0, LINE) + 1 or len(text)
    if b"\r" in text[: min(start, LINE)].removesuffix(b"\n").removesuffix(b"\r"):
        raise BadInput(f"{file}, line 1: {LINE_ENDS}", hint=RESAVE)
    if start > LINE:
        raise BadInput(f"{file}, line 1: longer than {LINE:,} bytes; expected the header", hint=DOWNLOAD)
    _check_header(_decode(text[:start], 1, file).rstrip("\r\n"), table, file)
    end = len(text)
    while text[end - 1 : end] == b"\n":
        end -= 2 if text[end - 2 : end - 1] == b"\r" else 1
    if end <= start:
        raise BadInput(f"{file}: a header and no rows; expected a row for each image", hint=DOWNLOAD)
    line_end = b"\r\n" if text[:start].endswith(b"\r\n") else b"\n"
    if not text.endswith(b"\n"):
        text += b"\r\n" if text.endswith(b"\r") else line_end  # keep a CR at the end in its field
    chunks: list[memoryview] = []
    whole = memoryview(text)
    while start < end:
        stop = text.index(b"\n", min(start + CHUNK, end) - 1) + 1
        if stop - start > CHUNK + LINE:
            line = text.count(b"\n", 0, stop - 1) + 1
            raise BadInput(
                f"{file}, line {line}: longer than {LINE:,} bytes; expected {len(COLUMNS[table])} fields", hint=CORRECT
            )
        chunks.append(whole[start:stop])
        start = stop
    with ThreadPoolExecutor(THREADS) as pool:
        parsed = list(pool.map(lambda chunk: _parse_plain(chunk, table, line_end), chunks))
    tables = []
    line = 2
    for chunk, values in zip(chunks, parsed, strict=True):
        tables.append(_parse_any(bytes(chunk), line, table, file) if values is None else values)
        line += len(tables[-1])
    return np.concatenate(tables)


def _parse_plain(chunk: memoryview, table: str, line_end: bytes) -> Bytes | None:
    """Parse complete rows of fields of one to three digits with array operations; None if there is anything else.

    Libraries are slower (see docs/architecture.md), and accept more: signs, blank lines, missing fields.
    """
    columns = len(COLUMNS[table])
    characters = np.frombuffer(chunk, np.uint8)
    digits = characters - np.uint8(ord("0"))
    is_digit = digits < 10
    ends = np.flatnonzero(is_digit[:-1] > is_digit[1:])  # the last digit of each field
    rows = np.count_nonzero(characters == ord("\n"))
    commas = np.count_nonzero(characters == ord(","))
    if (
        len(ends) != rows * columns
        or commas != rows * (columns - 1)
        or np.count_nonzero(is_digit) + commas + rows * len(line_end) != len(characters)
        or any(
            (characters[ends[columns - 1 :: columns] + i] != character).any() for i, character in enumerate(line_end, 1)
        )
    ):
        return None
    # For each character, the number that ends there: ones + tens + hundreds. 8-bit integers are three times as fast as
    # wider ones. They overflow from 256 on, and the result is then below the hundreds of the field.
    digits *= is_digit
    three = is_digit[2:] & is_digit[1:-1] & is_digit[:-2]
    hundreds = digits[:-2] * three
    numbers = digits.copy()
    numbers[1:] += digits[:-1] * np.uint8(10)
    numbers[2:] += hundreds * np.uint8(100)
    if (three[1:] & three[:-1]).any() or hundreds.max() > 2 or (three & (numbers[2:] < 100)).any():
        return None
    values = numbers.take(ends).reshape(rows, columns)
    return None if table == "train" and values[:, 0].max() >= CLASSES else values


def _parse_any(chunk: bytes, line: int, table: str, file: str) -> Bytes:
    """Parse complete rows field by field, also quoted and padded fields, and refuse the first fault.

    Args:
        chunk: the text of the rows.
        line: the line number of the first row.
        table, file: as in ``parse``.
    """
    names = COLUMNS[table]
    parsed = []
    for number, text in enumerate(_decode(chunk, line, file).split("\n")[:-1]):
        where = f"{file}, line {line + number}"
        text = text.removesuffix("\r")
        if "\r" in text:
            raise BadInput(f"{where}: {LINE_ENDS}", hint=RESAVE)
        fields = text.split(",")
        if len(fields) != len(names):
            found = f"{len(fields)} fields" if text.strip() else "a blank line"
            unclosed = " and a quote that is not closed" if text.count('"') % 2 else ""
            raise BadInput(f"{where}: expected {len(names)} fields, found {found}{unclosed}", hint=CORRECT)
        row = []
        for name, field in zip(names, fields, strict=True):
            limit = CLASSES - 1 if name == "label" else 255
            match = FIELD.fullmatch(field)
            value = int(match[1] or match[2]) if match else -1
            if not 0 <= value <= limit:
                expected = f"expected an integer from 0 to {limit}"
                raise BadInput(f"{where}, column {name}: {expected}, found {_shown(field)}", hint=CORRECT)
            row.append(value)
        parsed.append(np.array(row, np.uint8))
    return np.stack(parsed)


def _shown(field: str) -> str:
    if not field.strip(" "):
        return "nothing"
    return repr(field if len(field) <= 20 else field[:20] + "…")


def _decode(text: bytes, line: int, file: str) -> str:
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError as error:
        before = text[: error.start]
        column = before[before.rfind(b"\n") + 1 :].count(b",") + 1
        raise BadInput(
            f"{file}, line {line + before.count(10)}, column {column}: expected UTF-8 text, "
            f"found byte 0x{text[error.start]:02x}",
            hint=RESAVE,
        ) from error


def _check_header(header: str, table: str, file: str) -> None:
    expected = COLUMNS[table]
    names = tuple(_unquoted(name) for name in header.split(","))
    if names == expected:
        return
    fault, hint = _header_fault(header, names, table)
    form = f"{expected[0]},{expected[1]},…,{expected[-1]}"
    raise BadInput(f"{file}, line 1: expected the header {form}, found {fault}", hint=hint)


def _unquoted(name: str) -> str:
    name = name.strip(" ")
    return name[1:-1].strip(" ") if len(name) > 1 and name[0] == name[-1] == '"' else name


def _header_fault(header: str, found: tuple[str, ...], table: str) -> tuple[str, str]:
    """Describe a wrong header by its probable origin, and return the fix."""
    expected = COLUMNS[table]
    other = "train" if table == "test" else "test"
    if found == COLUMNS[other]:
        return f"the columns of {other}.csv", "the two files may be swapped: rename them"
    counted = range(1, SIDE + 1)
    if found[-SIDE * SIDE :] == tuple(f"{row}x{column}" for row in counted for column in counted):
        return "1x1,…,28x28: the CSV form of MNIST, another data set", DOWNLOAD
    if all(FIELD.fullmatch(name) for name in found):
        return "numbers: the header is missing", "restore the header as line 1, or download the file again"
    if len(found) == 1 and (mark := next((mark for mark in ";\t|" if mark in header), "")):
        return f"names separated by {mark!r}", "save it with commas between fields"
    if found[: len(expected)] == expected and not any(found[len(expected) :]):
        return "a comma at the end", "remove the last comma of each line, or download the file again"
    if found[-len(expected) :] == expected:
        before = found[: -len(expected)]
        what = f"an index column {before[0][:20]!r}" if len(before) == 1 else f"{len(before)} extra columns"
        return f"{what} before {expected[0]!r}", "save it without them, in pandas with to_csv(…, index=False)"
    if len(set(found)) < len(found):
        fault = f"column {_shown(next(name for i, name in enumerate(found) if name in found[:i]))} twice"
    elif set(found) < set(expected):
        fault = f"no column {next(name for name in expected if name not in found)!r}"
    elif set(found) > set(expected):
        fault = f"an extra column {_shown(next(name for name in found if name not in expected))}"
    else:
        place = next(i for i, pair in enumerate(zip(found, expected, strict=False)) if pair[0] != pair[1])
        fault = f"{_shown(found[place])} in place of {expected[place]!r} as column {place + 1}"
    return fault, DOWNLOAD
