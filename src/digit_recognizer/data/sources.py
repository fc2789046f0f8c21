"""Find the competition's two tables in a folder or an archive, by name and by content, and read them within limits.

The files arrive in many forms: a browser's second copy, a subfolder, a zip in a zip, a web page saved as ``train.csv``.
What is unambiguous is used. Files that differ, and files that are no table, are refused by their paths. Nothing is
written under a name that an archive holds.
"""

import hashlib
import os
import shlex
import zlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from digit_recognizer import files
from digit_recognizer.data import archives
from digit_recognizer.errors import BadInput

OTHERS = 500  # files of other names in a folder that are looked into


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
        with archives.archive_errors(self.path):
            with self.path.open("rb", buffering=0) as file:
                if not file.read(4).startswith(
                    (*archives.ZIP, archives.GZIP)
                ):  # its size was checked when it was found
                    file.seek(0)
                    return file.readall()
            for index, text in enumerate(archives.open_texts(self.path)):
                if index == self.index:
                    return archives.read_limited(text.stream, self.where)
        raise BadInput(f"{self.where}: changed while it was read", hint="run again")


def find_tables(place: Path) -> dict[str, Source]:
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
                faults.append((archives.table_in_name(path.name), fault))
        if faults or {source.table for source in found} == set(archives.TABLES):
            break
    if not near and not far:
        found = _of_other_names(others)
    return {table: _chosen(table, found, faults, place) for table in archives.TABLES}


def has_tables(place: Path) -> bool:
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
        while block := file.read(archives.BLOCK // 4):  # stays in a core's cache
            size, crc = size + len(block), zlib.crc32(block, crc)
    return f"{size:x}-{crc:08x}"


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
            like = archives.table_in_name(path.name) is not None
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
    if archives.table_in_name(path.name) == "sample_submission":
        return
    with archives.archive_errors(path):
        for index, text in enumerate(archives.open_texts(path)):
            head = text.stream.peek(archives.HEAD)[: archives.HEAD]
            named = archives.table_in_name(text.name)
            table = named if named in archives.TABLES else _table_of(head)
            if table is None:
                raise BadInput(
                    f"{text.where}: expected a header that begins label,pixel0 or pixel0,pixel1",
                    hint=archives.DOWNLOAD_HINT,
                )
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
            if named == table or named not in archives.TABLES:
                raise fault
        if place.is_file() and found:
            raise BadInput(
                f"{place}: {found[0].table}.csv alone; expected a folder with train.csv and test.csv, or a zip of both",
                hint=f"name the folder, DATA={shlex.quote(str(place.parent))}",
            )
        only = f" beside {found[0]}" if found else ""
        raise BadInput(
            f"{place}: no {table}.csv in it{only}; expected train.csv and test.csv, or a zip",
            hint=archives.DOWNLOAD_HINT,
        )
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
