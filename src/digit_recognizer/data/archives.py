"""Open the texts in a file, packed or not, within limits on size, nesting and number of members.

No file is written under a name that comes from an archive.
"""

import gzip
import io
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PureWindowsPath
from typing import IO, NamedTuple, cast

from digit_recognizer import files, hints
from digit_recognizer.errors import BadInput

TABLES = ("train", "test")
LIMIT = 512 << 20  # bytes of a file, packed or unpacked: train.csv has 77 MB, with each field quoted and padded 300 MB
DIRECTORY = 1 << 20  # bytes of a zip's list of members, enough for some 10,000
MEMBERS = 16  # members of a zip that are opened
NESTED = 3  # archives inside each other
HEAD = 1 << 14  # bytes of a file's beginning, more than a header line has
BLOCK = 1 << 20  # bytes read at a time
# Names of the competition's files after a download, a copy or an extraction, without the suffix of a copy:
# "train (1).csv", "Train - Copy.csv", "train 2.csv", "train.csv (1).zip".
COPY = re.compile(r"( ?-? ?copy)?( ?\(\d+\)|[ -]\d{1,2})?(?=\.|$)")
PACKED = "zip|gz|tgz|tar|7z|rar|bz2|xz|zst"
UNFINISHED = (".part", ".partial", ".crdownload", ".opdownload", ".download")
ENDING = rf"\.(csv|txt|{PACKED}|part|partial|crdownload|opdownload|download|html?|\d+)"
NAME = re.compile(
    rf"(?P<table>train|test|sample_submission)\.(csv|{PACKED})({ENDING})*"
    rf"|digit[-_ ]?recognizer({ENDING})*|unconfirmed( \d+)?\.crdownload"
)
# Errors raised for damaged archives.
DAMAGE = (
    zipfile.BadZipFile,
    gzip.BadGzipFile,
    EOFError,
    zlib.error,
    struct.error,
    ValueError,
    LookupError,
    OverflowError,
)
UNPACK = "unpack it, or make a zip of train.csv and test.csv"
DOWNLOAD_HINT = (
    "download digit-recognizer.zip again from https://www.kaggle.com/competitions/digit-recognizer/data, "
    f"or run `{hints.command('data', force=True)}`"
)
END = b"PK\5\6"  # the record at a zip's end
ZIP, GZIP = (b"PK\3\4", END), b"\x1f\x8b"  # their first bytes
FOREIGN = (  # offset, bytes found there, what the file is, how to fix it
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive", UNPACK),
    (0, b"Rar!\x1a\x07", "a RAR archive", UNPACK),
    (257, b"ustar", "a tar archive", UNPACK),
    (0, b"BZh", "a bzip2 file", UNPACK),
    (0, b"\xfd7zXZ\0", "an xz file", UNPACK),
    (0, b"\x28\xb5\x2f\xfd", "a zstd file", UNPACK),
    (0, b"version https://git-lfs", "a Git LFS pointer in place of the file", f"git lfs pull, or {DOWNLOAD_HINT}"),
)


class Text(NamedTuple):
    """A text whose file is open.

    Attributes:
        name: its file name.
        where: its file and, in an archive, its member, for messages.
        stream: the unpacked content.
        stated: length and CRC-32 as a zip states them, else None.
    """

    name: str
    where: str
    stream: io.BufferedReader
    stated: str | None


def table_from_name(name: str) -> str | None:
    """Return the table that a file name refers to, ``"any"`` for the competition's other names, None for others."""
    match = NAME.fullmatch(COPY.sub("", name.lower()))
    return (match["table"] or "any") if match else None


def open_texts(path: Path) -> Iterator[Text]:
    """Open each text in a file in turn; packed texts are unpacked while they are read."""
    if path.is_symlink() and not path.exists():
        raise BadInput(f"{path}: a link to {path.readlink()}, which does not exist", hint=DOWNLOAD_HINT)
    if not path.is_file():
        raise BadInput(f"{path}: expected a file, found a pipe or a device", hint="save it as a file first")
    if path.name.lower().endswith(UNFINISHED):
        raise BadInput(f"{path}: an incomplete download", hint=f"wait until it is complete, or {DOWNLOAD_HINT}")
    if path.stat().st_size > LIMIT:
        raise too_large(str(path))
    with path.open("rb", buffering=0) as file:
        yield from _unpacked(Text(path.name, str(path), _buffered(file), None))


def _unpacked(text: Text, depth: int = 0) -> Iterator[Text]:
    """Yield a text, or the texts in it if it is an archive."""
    head = text.stream.peek(HEAD)[:HEAD]
    if not head.startswith((*ZIP, GZIP)):
        _refuse_foreign(head, text.where)
        yield text
    elif depth == NESTED:
        raise BadInput(f"{text.where}: more than {NESTED} archives inside each other", hint=UNPACK)
    elif head.startswith(ZIP):
        yield from _members(text, depth)
    else:
        with gzip.GzipFile(fileobj=text.stream, mode="rb") as inner:
            yield from _unpacked(Text(text.name, text.where, _buffered(inner), None), depth + 1)


def _members(text: Text, depth: int) -> Iterator[Text]:
    """Yield the texts in a zip: those with the competition's names or, if there are none, all of a few."""
    file: IO[bytes] = text.stream
    if depth:  # the list of members is at the end of a zip
        file = io.BytesIO(read_limited(text.stream, text.where))
    file.seek(-min(file.seek(0, os.SEEK_END), 1 << 17), os.SEEK_END)
    tail = file.read()
    # The length of the list is checked before Python reads it, in both places where Python may find it. Zip64 records,
    # which no zip below 4 GB needs, are refused.
    ends = (tail[-22:], tail[max(tail.rfind(END), 0) :])
    too_long = any(end.startswith(END) and int.from_bytes(end[12:16], "little") > DIRECTORY for end in ends)
    if too_long or re.search(rb"(?s)PK\x06\x07.{16}PK\x05\x06", tail):
        raise BadInput(f"{text.where}: too many members in the zip", hint=DOWNLOAD_HINT)
    with zipfile.ZipFile(file) as archive:
        infos = [info for info in archive.infolist() if info.filename and not info.is_dir()]
        for info in infos:
            name = PureWindowsPath(info.filename)  # backslashes are separators too
            if name.root or name.drive or ".." in name.parts:
                raise BadInput(f"{text.where}: member {info.filename!r} points outside the folder", hint=DOWNLOAD_HINT)
        visible = [info for info in infos if not re.search(r"(^|[/\\])(\.[^/\\]|__MACOSX)", info.filename)]
        by_name = [(table_from_name(PureWindowsPath(info.filename).name), info) for info in visible]
        named = [info for table, info in by_name if table in TABLES]
        named = named or [info for table, info in by_name if table == "any"]
        chosen = named or visible
        if not 0 < len(chosen) <= MEMBERS:
            raise BadInput(
                f"{text.where}: expected train.csv and test.csv in the zip, found {len(named)} of them among "
                f"{len(infos):,} members",
                hint=DOWNLOAD_HINT,
            )
        for info in chosen:
            where = f"{text.where}: {info.filename}"
            if info.file_size > LIMIT:
                raise too_large(where)
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise BadInput(f"{where}: expected deflate compression, found another", hint=UNPACK)
            if info.flag_bits & 1:
                raise BadInput(f"{where}: encrypted", hint=DOWNLOAD_HINT)
            with archive.open(info) as inner:
                stated = f"{info.file_size:x}-{info.CRC:08x}"
                base = PureWindowsPath(info.filename).name
                yield from _unpacked(Text(base, where, _buffered(inner), stated), depth + 1)


def _buffered(stream: object) -> io.BufferedReader:
    """Return a stream whose beginning can be peeked at."""
    return io.BufferedReader(cast(io.RawIOBase, stream), HEAD)


def _refuse_foreign(head: bytes, where: str) -> None:
    """Refuse, by its first bytes, a file that is neither a text nor a supported archive."""
    for offset, mark, what, hint in FOREIGN:
        if head.startswith(mark, offset):
            raise BadInput(f"{where}: expected CSV, zip or gzip, found {what}", hint=hint)
    begins = head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
    if begins == b"<":
        raise BadInput(
            f"{where}: expected CSV, zip or gzip, found a web page (HTML)",
            hint=f"log in to Kaggle, then {DOWNLOAD_HINT}",
        )
    if begins == b"{":
        raise BadInput(
            f"{where}: expected CSV, zip or gzip, found JSON, as in Kaggle's error messages", hint=DOWNLOAD_HINT
        )
    if not begins:
        raise BadInput(f"{where}: empty; expected a header line and a row for each image", hint=DOWNLOAD_HINT)


def read_limited(stream: IO[bytes], where: str) -> bytes:
    """Read a stream of at most ``LIMIT`` bytes to its end."""
    content = io.BytesIO()
    while block := stream.read(BLOCK):
        content.write(block)
        if content.tell() > LIMIT:
            raise too_large(where)
    return content.getvalue()


def too_large(where: str) -> BadInput:
    """Return the error for a file that exceeds ``LIMIT``."""
    return BadInput(
        f"{where}: larger than {LIMIT >> 20} MB; the largest file of the competition has 77 MB", hint=DOWNLOAD_HINT
    )


@contextmanager
def archive_errors(path: Path) -> Iterator[None]:
    """Convert errors of damaged or unsupported archives, and of the file system, into ``BadInput``."""
    with files.explained(path):
        try:
            yield
        except DAMAGE as error:
            raise BadInput(f"{path}: damaged or truncated ({error})", hint=DOWNLOAD_HINT) from error
        except (RuntimeError, NotImplementedError) as error:  # unsupported by Python
            raise BadInput(f"{path}: cannot be unpacked ({error})", hint=UNPACK) from error
