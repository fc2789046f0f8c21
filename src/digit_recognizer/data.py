"""Find and read the competition's files: CSV, gzip or zip → uint8 images and labels.

``train.csv`` is a header ``label,pixel0,…,pixel783`` and a row an image; ``test.csv`` is the same without the label.
Pixels are integers from 0 (paper) to 255 (ink), row by row. Reading is strict: whatever is not exactly that is refused,
with file, line and column.
"""

import csv
import gzip
import hashlib
import io
import re
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
import numpy.typing as npt

from digit_recognizer import files
from digit_recognizer.errors import BadInput

SIDE = 28
CLASSES = 10
COMPETITION = "883625c3d3268d72"  # the fingerprint of the competition's own files
COLUMNS = {
    "test": tuple(f"pixel{i}" for i in range(SIDE * SIDE)),
    "train": ("label", *(f"pixel{i}" for i in range(SIDE * SIDE))),
}
ARCHIVE = "digit-recognizer.zip"
SAMPLE_MARK = "SAMPLE.txt"
CACHE_ENDING = ".3.npys"  # the number of the form that the entries have
CHUNK = 1 << 18  # bytes of text at a time, so that their arrays stay in a core's cache
THREADS = 4
INTEGER = re.compile(" *[0-9]{1,9} *")

Bytes = npt.NDArray[np.uint8]
Arrays = tuple[Bytes, Bytes, Bytes]  # images, labels, test_images


@dataclass(frozen=True)
class Data:
    """The competition's two tables.

    Attributes:
        images: uint8 (n, 28, 28), 0 to 255, the training images.
        labels: uint8 (n,), 0 to 9.
        test_images: uint8 (m, 28, 28), 0 to 255, the images to label.
        source: where they were read from.
        sample: True where these are the bundled sample's digits and not the competition's.
        fingerprint: checksum of the three arrays, 16 hexadecimal digits, the same however the files were packed.
    """

    images: Bytes
    labels: Bytes
    test_images: Bytes
    source: Path
    sample: bool
    fingerprint: str

    def __str__(self) -> str:
        rows = f"{len(self.labels):,} training and {len(self.test_images):,} test rows"
        if self.sample:
            return (
                f"the bundled sample, NOT the competition's files: {rows} "
                "(for the real job name its folder or zip with DATA=)"
            )
        return f"{self.source}: {rows}"


def read(given: Path | None, *, default: Path, cache: Path) -> Data:
    """Read training and test data from the first place that has them.

    Args:
        given: a folder or a zip named by the user; nothing else is looked at then.
        default: the folder looked into where none was given. Where it has no data either, the bundled sample is used.
        cache: folder for the parsed arrays and the sample. A cache entry is named by the content of the files it was
            made from, so it is not stale when they change.

    Raises:
        BadInput: no such place, files missing from it, or a file that is not in the competition's form.
    """
    place = given or default
    if given is None and not present(place):
        place = cache / "sample"
        write_sample(place)
    train, test = (_locate(place, name) for name in ("train", "test"))
    sample = (train.parent / SAMPLE_MARK).exists()
    with ThreadPoolExecutor(THREADS) as pool:
        key = "-".join(pool.map(_checksum, dict.fromkeys((train, test))))
    cached = cache / f"{key}{CACHE_ENDING}"
    if (found := _from_cache(cached)) is None:
        rows, test_rows = _table(train, "train"), _table(test, "test")
        arrays = (rows[:, 1:].copy().reshape(-1, SIDE, SIDE), rows[:, 0].copy(), test_rows.reshape(-1, SIDE, SIDE))
        found = arrays, _fingerprint(arrays)
        with files.replacing(cached, durable=False) as part, part.open("wb") as out:
            for array in arrays:
                np.save(out, array)
            out.write(found[1].encode())
    return Data(*found[0], source=place, sample=sample, fingerprint=found[1])


def write_sample(folder: Path) -> None:
    """Write scikit-learn's 1,797 digits of 8×8 pixels as ``train.csv`` and ``test.csv`` of the competition's form.

    They are enlarged to 20×20 and centred in 28×28, as the competition's own digits are; every fifth goes to the test
    file. The digits are E. Alpaydın and C. Kaynak's (UCI, 1998); they share nothing with the competition's.
    """
    if all((folder / name).exists() for name in ("train.csv", "test.csv", SAMPLE_MARK)):
        return
    from scipy.ndimage import zoom
    from sklearn.datasets import load_digits

    digits = load_digits()
    large = zoom(digits.images * (255 / 16), (1, 2.5, 2.5), order=3, grid_mode=True, mode="nearest")
    pixels = np.pad(large.clip(0, 255).round().astype(np.uint8), ((0, 0), (4, 4), (4, 4))).reshape(-1, SIDE * SIDE)
    in_test = np.arange(len(pixels)) % 5 == 4
    note = (
        "scikit-learn's bundled digits in the competition's form, to try the kit with; not the competition's files.\n"
    )
    files.write_bytes(folder / SAMPLE_MARK, note.encode())
    for name, rows in (
        ("train", np.column_stack((digits.target, pixels))[~in_test]),
        ("test", pixels[in_test]),
    ):
        text = io.StringIO()
        text.write(",".join(COLUMNS[name]) + "\n")
        np.savetxt(text, rows, fmt="%d", delimiter=",")
        files.write_bytes(folder / f"{name}.csv", text.getvalue().encode())


def present(place: Path) -> bool:
    """Whether a folder has any of the competition's files."""
    return any(_candidates(place, name) for name in COLUMNS)


def unpack(archive: Path, folder: Path) -> None:
    """Put ``train.csv`` and ``test.csv`` of a zip into ``folder``, each whole or not at all.

    Raises:
        BadInput: the zip is damaged, lacks one of the two, or has members that point outside.
    """
    texts = {f"{name}.csv": _text(archive, f"{name}.csv") for name in COLUMNS}
    for name, text in texts.items():
        files.write_bytes(folder / name, text)


def parse(text: bytes, table: str, file: str) -> Bytes:
    """Parse the whole text of a CSV file, many rows at a time in some threads.

    Args:
        text: UTF-8 with LF or CRLF line ends; the last line's end may be missing.
        table: ``"train"`` or ``"test"``, which says what columns are expected.
        file: the file's name, for messages.

    Returns:
        uint8 (rows, columns): for ``"train"`` the label, 0 to 9, and 784 pixels; for ``"test"`` the pixels.

    Raises:
        BadInput: naming file, line, column, what was expected and what was found.
    """
    text = text.removeprefix(b"\xef\xbb\xbf")
    if not text or text.isspace():
        raise BadInput(f"{file}: empty; expected a header line and a row for each image")
    start = text.find(b"\n") + 1 or len(text)
    _check_header(_decode(text[:start], 1, file).rstrip("\r\n"), table, file)
    end = len(text)
    while text[end - 1 : end] in (b"\r", b"\n"):
        end -= 1
    if end <= start:
        raise BadInput(f"{file}: a header and no rows; expected a row for each image")
    line_end = b"\r\n" if text[:start].endswith(b"\r\n") else b"\n"
    if not text.endswith(b"\n"):
        text += line_end
    chunks: list[memoryview] = []
    whole = memoryview(text)
    while start < end:
        stop = text.index(b"\n", min(start + CHUNK, end) - 1) + 1
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
    """Parse whole rows of one- to three-digit fields with array operations; None where anything else is in them."""
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
    # At each character the number that ends there: ones + tens + hundreds. Bytes, which overflow from 256 on, are three
    # times as fast as wider integers; an overflow leaves less than the hundred that the field began with.
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
    """Parse whole rows, the first on ``line``, field by field, quoted or padded ones too; refuse the first fault."""
    names = COLUMNS[table]
    rows = csv.reader(io.StringIO(_decode(chunk, line, file), newline=""))
    parsed = []
    try:
        for row in rows:
            if len(row) != len(names):
                found = f"{len(row)} fields" if row else "a blank line"
                raise BadInput(f"{file}, line {line}: expected {len(names)} fields, found {found}")
            for name, field in zip(names, row, strict=True):
                limit = CLASSES - 1 if name == "label" else 255
                if not (INTEGER.fullmatch(field) and int(field) <= limit):
                    expected = f"expected an integer from 0 to {limit}"
                    raise BadInput(f"{file}, line {line}, column {name}: {expected}, found {_shown(field)}")
            parsed.append(np.array([int(field) for field in row], np.uint8))
            line += 1
    except csv.Error as error:
        raise BadInput(f"{file}, line {line}: expected plain comma-separated fields, found {error}") from error
    return np.stack(parsed)


def _shown(field: str) -> str:
    if not field.strip():
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
            f"found byte 0x{text[error.start]:02x}; save the file as UTF-8"
        ) from error


def _check_header(header: str, table: str, file: str) -> None:
    expected = COLUMNS[table]
    found = tuple(name.strip(' "') for name in header.split(","))
    if found == expected:
        return
    other = "train" if table == "test" else "test"
    if found == COLUMNS[other]:
        fault = f"the columns of {other}.csv; are the two files swapped?"
    elif len(set(found)) < len(found):
        fault = f"column {_shown(next(name for i, name in enumerate(found) if name in found[:i]))} twice"
    elif set(found) < set(expected):
        fault = f"no column {next(name for name in expected if name not in found)!r}"
    elif set(found) > set(expected):
        fault = f"an extra column {_shown(next(name for name in found if name not in expected))}"
    else:
        place = next(i for i, pair in enumerate(zip(found, expected, strict=False)) if pair[0] != pair[1])
        fault = f"{_shown(found[place])} in place of {expected[place]!r} as column {place + 1}"
    raise BadInput(f"{file}, line 1: expected the header {expected[0]},{expected[1]},…,{expected[-1]}, found {fault}")


def _candidates(folder: Path, name: str) -> list[Path]:
    files_named = [folder / (name + ending) for ending in (".csv", ".csv.gz", ".csv.zip")]
    return [path for path in (*files_named, folder / ARCHIVE) if path.exists()]


def _locate(place: Path, name: str) -> Path:
    with files.explained(place):
        if not place.exists():
            raise BadInput(
                f"{place}: no such file or folder; expected a folder with train.csv and test.csv, or {ARCHIVE}"
            )
        if place.is_dir():
            next(place.iterdir(), None)
            found = _candidates(place, name)
            if not found:
                raise BadInput(f"{place}: no {name}.csv in it; expected {name}.csv, {name}.csv.gz or {ARCHIVE}")
            return found[0]
    if not zipfile.is_zipfile(place):
        raise BadInput(
            f"{place}: expected a folder or a whole zip, found another or a truncated file; download it again"
        )
    return place


def _checksum(path: Path) -> str:
    """Give length and CRC-32 of a file: four times as fast as a hash, and no edit within four bytes escapes it."""
    size = crc = 0
    with files.explained(path), path.open("rb", buffering=0) as file:
        while block := file.read(CHUNK):
            size, crc = size + len(block), zlib.crc32(block, crc)
    return f"{size:x}-{crc:08x}"


def _table(path: Path, table: str) -> Bytes:
    file = path.name if path.suffix == ".csv" else f"{path.name}: {table}.csv"
    with files.explained(path):
        return parse(_text(path, f"{table}.csv"), table, file)


def _text(path: Path, member: str) -> bytes:
    """Give the unpacked text of ``path``, which is a CSV file, a gzip, or a zip that holds ``member``."""
    damaged = f"{path}: damaged or truncated"
    try:
        if path.suffix == ".gz":
            return gzip.decompress(path.read_bytes())
        if path.suffix != ".zip":
            return path.read_bytes()
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            for name in names:
                if name.startswith(("/", "\\")) or PureWindowsPath(name).drive or ".." in PureWindowsPath(name).parts:
                    raise BadInput(
                        f"{path}: member {name!r} points outside the folder; download the zip from Kaggle again"
                    )
            found = [name for name in names if PurePosixPath(name).name == member and "__MACOSX" not in name]
            if len(found) != 1:
                raise BadInput(f"{path}: expected one {member} in it, found {len(found)} among {len(names)} members")
            return archive.read(found[0])
    except (EOFError, zlib.error, gzip.BadGzipFile, zipfile.BadZipFile) as error:
        raise BadInput(f"{damaged} ({error}); download it again") from error
    except (RuntimeError, NotImplementedError) as error:  # an encrypted member, or a packing that Python does not know
        raise BadInput(f"{path}: cannot be unpacked ({error}); download it again") from error


def _from_cache(path: Path) -> tuple[Arrays, str] | None:
    """Load a cache entry; None where there is none or it is damaged, since it can be made again."""
    try:
        with path.open("rb") as entry:
            arrays = (np.load(entry), np.load(entry), np.load(entry))
            fingerprint = entry.read().decode(errors="replace")
    except (OSError, ValueError, EOFError):
        return None
    return (arrays, fingerprint) if fingerprint == _fingerprint(arrays) else None


def _fingerprint(arrays: Arrays) -> str:
    """Give one checksum of the arrays' own; not against forgery, but at the speed of reading memory."""
    checksums = " ".join(f"{len(array)} {zlib.crc32(array.data):08x}" for array in arrays)
    return hashlib.blake2b(checksums.encode(), digest_size=8).hexdigest()
