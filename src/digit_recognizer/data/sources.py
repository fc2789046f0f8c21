"""Find the competition's two tables in a folder or an archive, by name and content.

Downloads come in many forms: a browser's second copy, a subfolder, a zip in a zip, a web page saved as ``train.csv``.
Unambiguous files are used. Files that differ from each other and files of another format are refused with their paths.
"""

import hashlib
import os
import zlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from digit_recognizer import files, hints
from digit_recognizer.data import archives
from digit_recognizer.errors import BadInput

MAX_OTHER_FILES = 500  # files with other names in a folder that are opened


@dataclass(frozen=True)
class Source:
    """The location of a table's text.

    Attributes:
        table: ``"train"`` or ``"test"``.
        path: the file.
        where: the file and, in an archive, the member, for messages.
        index: the index of the text among those in the file.
        head: the first bytes.
        stated: length and CRC-32 if a zip states them.
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
        """Read the whole unpacked text.

        Raises:
            BadInput: it is damaged, or larger than ``LIMIT``.
        """
        with archives.archive_errors(self.path):
            with self.path.open("rb", buffering=0) as file:
                if not file.read(4).startswith((*archives.ZIP, archives.GZIP)):  # the size was checked before
                    file.seek(0)
                    return file.readall()
            for index, text in enumerate(archives.open_texts(self.path)):
                if index == self.index:
                    return archives.read_limited(text.stream, self.where)
        raise BadInput(f"{self.where}: changed during reading", hint="rerun the command")


def find_tables(place: Path) -> dict[str, Source]:
    """Find both tables in a folder with its subfolders and archives, or in one archive.

    Raises:
        BadInput: the place does not exist, or a table is missing, damaged, of another format, or ambiguous.
    """
    with files.explained(place):
        if not place.exists():
            raise BadInput(
                f"{place}: no such file or folder; expected a folder with train.csv and test.csv, or a zip of both",
                hint=f"check the path of {hints.option('data')}",
            )
        near, far, others = _list_files(place) if place.is_dir() else ([place], [], [])
    found: list[Source] = []
    faults: list[tuple[str | None, BadInput]] = []
    for paths in (near, far):
        for path in paths:
            try:
                for source in _open_sources(path):
                    found.append(source)  # kept even if a later one is refused
            except BadInput as fault:
                faults.append((archives.table_from_name(path.name), fault))
        if faults or {source.table for source in found} == set(archives.TABLES):
            break
    if not near and not far:
        found = _sources_by_header(others)
    return {table: _select_source(table, found, faults, place) for table in archives.TABLES}


def has_tables(place: Path) -> bool:
    """Whether a folder has files that look like the competition's, complete or not."""
    with files.explained(place):
        if not os.path.lexists(place):  # a broken link is an error
            return False
        near, far, others = _list_files(place)
    return bool(near or far or _sources_by_header(others))


def checksum(path: Path) -> str:
    """Return the length and CRC-32 of a file, four times as fast as a cryptographic hash."""
    size = crc = 0
    with files.explained(path), path.open("rb", buffering=0) as file:
        while block := file.read(archives.BLOCK // 4):  # stays in a core's cache
            size, crc = size + len(block), zlib.crc32(block, crc)
    return f"{size:x}-{crc:08x}"


def _list_files(place: Path) -> tuple[list[Path], list[Path], list[Path]]:
    """List a folder: files with the competition's names, such files in other subfolders, and all other files.

    Subfolders with the competition's names, such as ``digit-recognizer (1)``, count as the folder itself.
    """
    near: list[Path] = []
    far: list[Path] = []
    others: list[Path] = []

    def walk(folder: Path, named: list[Path], depth: int) -> None:
        for path in sorted(folder.iterdir()):
            if path.name.startswith(".") or path.name == "__MACOSX":
                continue
            has_known_name = archives.table_from_name(path.name) is not None
            if not path.is_dir():
                (named if has_known_name else others).append(path)
            elif has_known_name and depth:
                walk(path, named, depth - 1)
            elif depth:
                with suppress(OSError):
                    walk(path, far, depth - 1)

    walk(place, near, depth=2)
    return near, far, others


def _open_sources(path: Path) -> Iterator[Source]:
    """Yield the tables in a file that has one of the competition's names or was named by the user."""
    if archives.table_from_name(path.name) == "sample_submission":
        return
    with archives.archive_errors(path):
        for index, text in enumerate(archives.open_texts(path)):
            head = text.stream.peek(archives.HEAD)[: archives.HEAD]
            named = archives.table_from_name(text.name)
            table = named if named in archives.TABLES else _table_from_header(head)
            if table is None:
                raise BadInput(
                    f"{text.where}: expected a header that begins label,pixel0 or pixel0,pixel1",
                    hint=archives.DOWNLOAD_HINT,
                )
            yield Source(table, path, text.where, index, head, text.stated)


def _sources_by_header(paths: Iterable[Path]) -> list[Source]:
    """Return the tables in files with other names, recognised by their headers."""
    found = []
    for path in list(paths)[:MAX_OTHER_FILES]:
        with suppress(BadInput):
            found += [source for source in _open_sources(path) if _table_from_header(source.head)]
    return found


def _table_from_header(head: bytes) -> str | None:
    """Return the table whose header begins like this; None if neither does."""
    names = [name.strip(b' "') for name in head.removeprefix(b"\xef\xbb\xbf").split(b",", 2)[:2]]
    if names == [b"label", b"pixel0"]:
        return "train"
    return "test" if names == [b"pixel0", b"pixel1"] else None


def _select_source(table: str, found: list[Source], faults: list[tuple[str | None, BadInput]], place: Path) -> Source:
    """Return the source of a table, of which there may be identical copies."""
    sources = [source for source in found if source.table == table]
    if not sources:
        for named, fault in faults:
            if named == table or named not in archives.TABLES:
                raise fault
        if place.is_file() and found:
            raise BadInput(
                f"{place}: only {found[0].table}.csv; expected a folder with train.csv and test.csv, or a zip of both",
                hint=f"name the folder: {hints.option('data', place.parent)}",
            )
        only = f" beside {found[0]}" if found else ""
        raise BadInput(
            f"{place}: no {table}.csv{only}; expected train.csv and test.csv, or a zip",
            hint=archives.DOWNLOAD_HINT,
        )
    digits = [source for source in sources if b"pixel0" in source.head.partition(b"\n")[0]] or sources
    first, *copies = sorted(digits, key=lambda source: (source.packed, len(source.where), source.where))
    for copy in copies:
        if not _equal_texts(first, copy):
            raise BadInput(
                f"{first} and {copy}: two different files for {table}.csv; expected one",
                hint="remove or rename the one that is not the competition's",
            )
    return first


def _equal_texts(first: Source, second: Source) -> bool:
    """Whether two texts are equal except for their line ends."""
    if _cheap_checksum(first) == _cheap_checksum(second):
        return True
    digests = []
    for source in (first, second):
        text = source.text().removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").rstrip(b"\n")
        digests.append(hashlib.blake2b(text).digest())
    return digests[0] == digests[1]


def _cheap_checksum(source: Source) -> str:
    """Return a text's checksum if that needs no unpacking, else a unique text."""
    if source.stated:
        return source.stated
    return f"{source.where}, {source.index}" if source.packed else checksum(source.path)
