"""Find the competition's two tables in a folder or an archive, by name and by content, and read them within limits.

The files arrive in many forms: a browser's second copy, a subfolder, a zip in a zip, a web page saved as ``train.csv``.
What is unambiguous is used. Files that differ, and files that are no table, are refused by their paths. Nothing is
written under a name that an archive holds.
"""

import gzip
import hashlib
import io
import os
import re
import shlex
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import IO, NamedTuple, cast

from digit_recognizer import files
from digit_recognizer.errors import BadInput

TABLES = ("train", "test")
LIMIT = 512 << 20  # bytes of a file, packed or unpacked: train.csv has 77 MB, with each field quoted and padded 300 MB
DIRECTORY = 1 << 20  # bytes of a zip's list of members, some 10,000, each of which takes memory
MEMBERS = 16  # members of a zip that are looked into
NESTED = 3  # archives within each other
OTHERS = 500  # files of other names in a folder that are looked into
HEAD = 1 << 14  # bytes of a file's beginning, more than a header line has
BLOCK = 1 << 20  # bytes read at a time

# Names that the competition's files have after a browser, a file manager or an unpacker, without the mark of a copy:
# "train (1).csv", "Train - Copy.csv", "train 2.csv", "train.csv (1).zip".
COPY = re.compile(r"( ?-? ?copy)?( ?\(\d+\)|[ -]\d{1,2})?(?=\.|$)")
PACKED = "zip|gz|tgz|tar|7z|rar|bz2|xz|zst"
UNFINISHED = (".part", ".partial", ".crdownload", ".opdownload", ".download")
ENDING = rf"\.(csv|txt|{PACKED}|part|partial|crdownload|opdownload|download|html?|\d+)"
NAME = re.compile(
    rf"(?P<table>train|test|sample_submission)\.(csv|{PACKED})({ENDING})*"
    rf"|digit[-_ ]?recognizer({ENDING})*|unconfirmed( \d+)?\.crdownload"
)

# What reading a damaged archive raises.
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
AGAIN = (
    "download digit-recognizer.zip again from https://www.kaggle.com/competitions/digit-recognizer/data, or make data"
)
END = b"PK\5\6"  # the record at a zip's end
ZIP, GZIP = (b"PK\3\4", END), b"\x1f\x8b"  # what they begin with
FOREIGN = (  # offset, bytes found there, what the file is, how to fix it
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive", UNPACK),
    (0, b"Rar!\x1a\x07", "a RAR archive", UNPACK),
    (257, b"ustar", "a tar archive", UNPACK),
    (0, b"BZh", "a bzip2 file", UNPACK),
    (0, b"\xfd7zXZ\0", "an xz file", UNPACK),
    (0, b"\x28\xb5\x2f\xfd", "a zstd file", UNPACK),
    (0, b"version https://git-lfs", "a Git LFS pointer in place of the file", f"git lfs pull, or {AGAIN}"),
)


@dataclass(frozen=True)
class Source:
    """Where the text of one table lies.

    Attributes:
        table: ``"train"`` or ``"test"``.
        path: the file.
        where: the file and, in an archive, the member: for messages.
        index: the text's number among those in the file.
        head: its first bytes.
        stated: its length and CRC-32 where a zip states them.
    """

    table: str
    path: Path
    where: str
    index: int
    head: bytes
    stated: str | None

    def __str__(self) -> str:
        return self.where

    @property
    def packed(self) -> bool:
        """Whether it is a member of an archive."""
        return self.where != str(self.path)

    def text(self) -> bytes:
        """Read the whole text, unpacked.

        Raises:
            BadInput: it is damaged, or larger than ``LIMIT``.
        """
        with _explained(self.path):
            with self.path.open("rb", buffering=0) as file:
                if not file.read(4).startswith((*ZIP, GZIP)):  # its size was checked when it was found
                    file.seek(0)
                    return file.readall()
            for index, text in enumerate(_texts(self.path)):
                if index == self.index:
                    return _limited(text.stream, self.where)
        raise BadInput(f"{self.where}: changed while it was read", hint="run again")


class _Text(NamedTuple):
    """A text while its file is open."""

    name: str
    where: str
    stream: io.BufferedReader
    stated: str | None


def find(place: Path) -> dict[str, Source]:
    """Find both tables in a folder, its subfolders and archives, or in one archive.

    Raises:
        BadInput: no such place, a table that is missing, no table or damaged, or two of them that differ.
    """
    with files.explained(place):
        if not place.exists():
            raise BadInput(
                f"{place}: no such file or folder; expected a folder with train.csv and test.csv, or a zip of both",
                hint="check the path after DATA=",
            )
        near, far, others = _listed(place) if place.is_dir() else ([place], [], [])
    found: list[Source] = []
    faults: list[tuple[str | None, BadInput]] = []
    for paths in (near, far):
        for path in paths:
            try:
                for source in _sources(path):
                    found.append(source)  # also where a later one is at fault
            except BadInput as fault:
                faults.append((_named(path.name), fault))
        if faults or {source.table for source in found} == set(TABLES):
            break
    if not near and not far:
        found = _of_other_names(others)
    return {table: _chosen(table, found, faults, place) for table in TABLES}


def present(place: Path) -> bool:
    """Whether a folder has anything that looks like the competition's files, whole or not."""
    with files.explained(place):
        if not os.path.lexists(place):  # a broken link is an error, not an empty folder
            return False
        near, far, others = _listed(place)
    return bool(near or far or _of_other_names(others))


def checksum(path: Path) -> str:
    """Give length and CRC-32 of a file: four times as fast as a hash, and no edit within four bytes escapes it."""
    size = crc = 0
    with files.explained(path), path.open("rb", buffering=0) as file:
        while block := file.read(BLOCK // 4):  # stays in a core's cache
            size, crc = size + len(block), zlib.crc32(block, crc)
    return f"{size:x}-{crc:08x}"


def _named(name: str) -> str | None:
    """Of which table a file's name speaks; ``"any"`` for the competition's other names, None for foreign ones."""
    match = NAME.fullmatch(COPY.sub("", name.lower()))
    return (match["table"] or "any") if match else None


def _listed(place: Path) -> tuple[list[Path], list[Path], list[Path]]:
    """Give a folder's files: those named as the competition's, those so named in other subfolders, and all others.

    Subfolders named as the competition's files, such as ``digit-recognizer (1)``, count as the folder itself.
    """
    near: list[Path] = []
    far: list[Path] = []
    others: list[Path] = []

    def walk(folder: Path, named: list[Path], depth: int) -> None:
        for path in sorted(folder.iterdir()):
            if path.name.startswith(".") or path.name == "__MACOSX":
                continue
            like = _named(path.name) is not None
            if not path.is_dir():
                (named if like else others).append(path)
            elif like and depth:
                walk(path, named, depth - 1)
            elif depth:
                with suppress(OSError):
                    walk(path, far, depth - 1)

    walk(place, near, depth=2)
    return near, far, others


def _sources(path: Path) -> Iterator[Source]:
    """Give the tables in a file that is named as the competition's, or by the user."""
    if _named(path.name) == "sample_submission":
        return
    with _explained(path):
        for index, text in enumerate(_texts(path)):
            head = text.stream.peek(HEAD)[:HEAD]
            named = _named(text.name)
            table = named if named in TABLES else _table_of(head)
            if table is None:
                raise BadInput(f"{text.where}: expected a header that begins label,pixel0 or pixel0,pixel1", hint=AGAIN)
            yield Source(table, path, text.where, index, head, text.stated)


def _of_other_names(paths: Iterable[Path]) -> list[Source]:
    """Give the tables, recognised by their headers, in files of any names."""
    found = []
    for path in list(paths)[:OTHERS]:
        with suppress(BadInput):
            found += [source for source in _sources(path) if _table_of(source.head)]
    return found


def _table_of(head: bytes) -> str | None:
    """Which table has a header that begins so."""
    names = [name.strip(b' "') for name in head.removeprefix(b"\xef\xbb\xbf").split(b",", 2)[:2]]
    if names == [b"label", b"pixel0"]:
        return "train"
    return "test" if names == [b"pixel0", b"pixel1"] else None


def _chosen(table: str, found: list[Source], faults: list[tuple[str | None, BadInput]], place: Path) -> Source:
    """Give the source of a table, of which there may be copies."""
    sources = [source for source in found if source.table == table]
    if not sources:
        for named, fault in faults:
            if named == table or named not in TABLES:
                raise fault
        if place.is_file() and found:
            raise BadInput(
                f"{place}: {found[0].table}.csv alone; expected a folder with train.csv and test.csv, or a zip of both",
                hint=f"name the folder, DATA={shlex.quote(str(place.parent))}",
            )
        only = f" beside {found[0]}" if found else ""
        raise BadInput(f"{place}: no {table}.csv in it{only}; expected train.csv and test.csv, or a zip", hint=AGAIN)
    digits = [source for source in sources if b"pixel0" in source.head.partition(b"\n")[0]] or sources
    first, *copies = sorted(digits, key=lambda source: (source.packed, len(source.where), source.where))
    for copy in copies:
        if not _same(first, copy):
            raise BadInput(
                f"{first} and {copy}: two files for {table}.csv, which differ; expected one",
                hint="remove or rename the one that is not the competition's",
            )
    return first


def _same(one: Source, other: Source) -> bool:
    """Whether two texts are the same but for their line ends."""
    if _quick(one) == _quick(other):
        return True
    digests = []
    for source in (one, other):
        text = source.text().removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").rstrip(b"\n")
        digests.append(hashlib.blake2b(text).digest())
    return digests[0] == digests[1]


def _quick(source: Source) -> str:
    """Give a text's checksum if that takes no unpacking, and otherwise what equals no other's."""
    if source.stated:
        return source.stated
    return f"{source.where}, {source.index}" if source.packed else checksum(source.path)


def _texts(path: Path) -> Iterator[_Text]:
    """Open each text in a file in turn; what is packed in it is unpacked while it is read."""
    if path.is_symlink() and not path.exists():
        raise BadInput(f"{path}: a link to {path.readlink()}, which does not exist", hint=AGAIN)
    if not path.is_file():
        raise BadInput(f"{path}: expected a file, found a pipe or a device", hint="save it as a file first")
    if path.name.lower().endswith(UNFINISHED):
        raise BadInput(f"{path}: an unfinished download", hint=f"wait until it is complete, or {AGAIN}")
    if path.stat().st_size > LIMIT:
        raise _too_large(str(path))
    with path.open("rb", buffering=0) as file:
        yield from _unpacked(_Text(path.name, str(path), _buffered(file), None))


def _unpacked(text: _Text, depth: int = 0) -> Iterator[_Text]:
    """Give a text as it is, or those in it where it is an archive."""
    head = text.stream.peek(HEAD)[:HEAD]
    if not head.startswith((*ZIP, GZIP)):
        _refuse_foreign(head, text.where)
        yield text
    elif depth == NESTED:
        raise BadInput(f"{text.where}: more than {NESTED} archives within each other", hint=UNPACK)
    elif head.startswith(ZIP):
        yield from _members(text, depth)
    else:
        with gzip.GzipFile(fileobj=text.stream, mode="rb") as inner:
            yield from _unpacked(_Text(text.name, text.where, _buffered(inner), None), depth + 1)


def _members(text: _Text, depth: int) -> Iterator[_Text]:
    """Give the texts in a zip, those named as the competition's or, where there are none, all of a few."""
    file: IO[bytes] = text.stream
    if depth:  # a zip is read from its end, where the list of members is
        file = io.BytesIO(_limited(text.stream, text.where))
    file.seek(-min(file.seek(0, os.SEEK_END), 1 << 17), os.SEEK_END)
    tail = file.read()
    # The list's length is looked at before Python reads it, in both places where Python may look for it. The larger
    # kind of record, which no zip below 4 GB needs, is refused.
    ends = (tail[-22:], tail[max(tail.rfind(END), 0) :])
    long = any(end.startswith(END) and int.from_bytes(end[12:16], "little") > DIRECTORY for end in ends)
    if long or re.search(rb"(?s)PK\x06\x07.{16}PK\x05\x06", tail):
        raise BadInput(f"{text.where}: a zip with too many members to be the competition's", hint=AGAIN)
    with zipfile.ZipFile(file) as archive:
        infos = [info for info in archive.infolist() if info.filename and not info.is_dir()]
        for info in infos:
            name = PureWindowsPath(info.filename)  # backslashes are separators too
            if name.root or name.drive or ".." in name.parts:
                raise BadInput(f"{text.where}: member {info.filename!r} points outside the folder", hint=AGAIN)
        visible = [info for info in infos if not re.search(r"(^|[/\\])(\.[^/\\]|__MACOSX)", info.filename)]
        speaking = [(_named(PureWindowsPath(info.filename).name), info) for info in visible]
        named = [info for table, info in speaking if table in TABLES]
        named = named or [info for table, info in speaking if table == "any"]
        chosen = named or visible
        if not 0 < len(chosen) <= MEMBERS:
            raise BadInput(
                f"{text.where}: expected train.csv and test.csv in the zip, found {len(named)} such among "
                f"{len(infos):,} members",
                hint=AGAIN,
            )
        for info in chosen:
            where = f"{text.where}: {info.filename}"
            if info.file_size > LIMIT:
                raise _too_large(where)
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise BadInput(f"{where}: packed in a way other than deflate", hint=UNPACK)
            if info.flag_bits & 1:
                raise BadInput(f"{where}: encrypted", hint=AGAIN)
            with archive.open(info) as inner:
                stated = f"{info.file_size:x}-{info.CRC:08x}"
                base = PureWindowsPath(info.filename).name
                yield from _unpacked(_Text(base, where, _buffered(inner), stated), depth + 1)


def _buffered(stream: object) -> io.BufferedReader:
    """Give a stream whose beginning can be looked at."""
    return io.BufferedReader(cast(io.RawIOBase, stream), HEAD)


def _refuse_foreign(head: bytes, where: str) -> None:
    """Refuse by its beginning what is neither text of a table nor an archive that can be read."""
    for offset, mark, what, hint in FOREIGN:
        if head.startswith(mark, offset):
            raise BadInput(f"{where}: expected CSV, zip or gzip, found {what}", hint=hint)
    begins = head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
    if begins == b"<":
        raise BadInput(
            f"{where}: expected CSV, zip or gzip, found a web page (HTML)", hint=f"log in to Kaggle, then {AGAIN}"
        )
    if begins == b"{":
        raise BadInput(f"{where}: expected CSV, zip or gzip, found JSON, as Kaggle's error messages are", hint=AGAIN)
    if not begins:
        raise BadInput(f"{where}: empty; expected a header line and a row for each image", hint=AGAIN)


def _limited(stream: IO[bytes], where: str) -> bytes:
    """Read a stream to its end, which must come within ``LIMIT``."""
    content = io.BytesIO()
    while block := stream.read(BLOCK):
        content.write(block)
        if content.tell() > LIMIT:
            raise _too_large(where)
    return content.getvalue()


def _too_large(where: str) -> BadInput:
    return BadInput(f"{where}: larger than {LIMIT >> 20} MB; the competition's largest file has 77 MB", hint=AGAIN)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn what reading a damaged or foreign archive raises, and the system's refusals, into a ``BadInput``."""
    with files.explained(path):
        try:
            yield
        except DAMAGE as error:
            raise BadInput(f"{path}: damaged or truncated ({error})", hint=AGAIN) from error
        except (RuntimeError, NotImplementedError) as error:  # a form that Python does not read
            raise BadInput(f"{path}: cannot be unpacked ({error})", hint=UNPACK) from error
