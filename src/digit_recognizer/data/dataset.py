"""Find, read and cache the competition's two tables: CSV, gzip or zip → uint8 images and labels."""

import hashlib
import os
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from digit_recognizer import files, hints
from digit_recognizer.data import csv_reader, sources
from digit_recognizer.data.sample import SAMPLE_MARK, write_sample

COMPETITION_FINGERPRINT = "883625c3d3268d72"  # the fingerprint of the competition's files
SLUG = "digit-recognizer"  # the competition's name in Kaggle's addresses
ARCHIVE = f"{SLUG}.zip"
CACHE_ENDING = ".4.arrays"  # 4 is the version of the format
CACHE_HEAD = struct.Struct("<24sQQ")  # CACHE_MARK, training rows, test rows
CACHE_MARK = b"digit-recognizer arrays\n"
Arrays = tuple[csv_reader.Bytes, csv_reader.Bytes, csv_reader.Bytes]  # images, labels, test_images


@dataclass(frozen=True)
class Dataset:
    """The competition's two tables.

    Attributes:
        images: uint8 (n, 28, 28), 0 to 255, the training images.
        labels: uint8 (n,), 0 to 9.
        test_images: uint8 (m, 28, 28), 0 to 255.
        source: the folder or file that they were read from.
        sample: whether they are the bundled sample.
        fingerprint: checksum of the three arrays, 16 hexadecimal digits, independent of how the files are packed.
    """

    images: csv_reader.Bytes
    labels: csv_reader.Bytes
    test_images: csv_reader.Bytes
    source: Path
    sample: bool
    fingerprint: str

    def __str__(self) -> str:
        rows = f"{len(self.labels):,} training and {len(self.test_images):,} test rows"
        if self.sample:
            return (
                f"bundled sample, NOT the competition's files: {rows}\n"
                f"hint: for the competition's files, {hints.command('data')}, or pass {hints.option('data')}"
            )
        return f"{self.source}: {rows}"


def load(given: Path | None, *, default: Path, cache: Path) -> Dataset:
    """Load training and test data.

    Args:
        given: a folder or zip named by the user, the only place searched if given.
        default: the folder searched otherwise. If it has no data either, the bundled sample is used.
        cache: folder for the parsed arrays and the sample. Cache entries are named by the checksums of the files, so
            they never become stale.

    Raises:
        BadInput: the place does not exist, lacks a file, or has a file in another format.
    """
    place = given or default
    if given is None and not exists(place):
        place = cache / "sample"
        write_sample(place)
    found = sources.find_tables(place)
    train, test = found["train"], found["test"]
    with ThreadPoolExecutor(csv_reader.THREADS) as pool:
        key = "-".join(pool.map(sources.checksum, dict.fromkeys((train.path, test.path))))
    cached = cache / f"{key}{CACHE_ENDING}"
    if (entry := _from_cache(cached, key)) is None:
        rows, test_rows = _table(train), _table(test)
        arrays = (
            rows[:, 1:].copy().reshape(-1, csv_reader.SIDE, csv_reader.SIDE),
            rows[:, 0].copy(),
            test_rows.reshape(-1, csv_reader.SIDE, csv_reader.SIDE),
        )
        entry = arrays, _fingerprint(arrays)
        _to_cache(cached, key, *entry)
    arrays, fingerprint = entry
    source = Path(os.path.commonpath((train.path, test.path)))
    sample = (train.path.parent / SAMPLE_MARK).exists()
    return Dataset(*arrays, source=source, sample=sample, fingerprint=fingerprint)


def exists(place: Path) -> bool:
    """Whether a folder has files that look like the competition's, complete or not."""
    return sources.has_tables(place)


def extract(archive: Path, folder: Path) -> None:
    """Extract ``train.csv`` and ``test.csv`` from a zip into ``folder``, each atomically.

    Raises:
        BadInput: the zip is damaged or too large, lacks a file, or has members that point outside the folder.
    """
    texts = {name: source.text() for name, source in sources.find_tables(archive).items()}
    for name, text in texts.items():
        files.write_bytes(folder / f"{name}.csv", text)


def _table(source: sources.Source) -> csv_reader.Bytes:
    return csv_reader.parse(source.text(), source.table, str(source))


def _from_cache(path: Path, key: str) -> tuple[Arrays, str] | None:
    """Load a cache entry; None if there is none, or if it is damaged."""
    try:
        with path.open("rb", buffering=0) as entry:
            mark, rows, test_rows = CACHE_HEAD.unpack(entry.read(CACHE_HEAD.size))
            cells = csv_reader.SIDE * csv_reader.SIDE
            lengths = (rows * cells, rows, test_rows * cells)
            tail_length = len(_cache_tail(key, "0" * 16))
            if mark != CACHE_MARK or os.fstat(entry.fileno()).st_size != CACHE_HEAD.size + sum(lengths) + tail_length:
                return None
            content = np.empty(sum(lengths), np.uint8)
            entry.readinto(content.data)
            tail = entry.read()
    except (OSError, struct.error):
        return None
    images, labels, test_images = np.split(content, np.cumsum(lengths)[:2])
    arrays = (
        images.reshape(-1, csv_reader.SIDE, csv_reader.SIDE),
        labels,
        test_images.reshape(-1, csv_reader.SIDE, csv_reader.SIDE),
    )
    fingerprint = _fingerprint(arrays)
    return (arrays, fingerprint) if tail == _cache_tail(key, fingerprint) else None


def _to_cache(path: Path, key: str, arrays: Arrays, fingerprint: str) -> None:
    with files.replacing(path, durable=False) as part, part.open("wb") as out:
        out.write(CACHE_HEAD.pack(CACHE_MARK, len(arrays[0]), len(arrays[2])))
        for array in arrays:
            out.write(array.data)
        out.write(_cache_tail(key, fingerprint))


def _cache_tail(key: str, fingerprint: str) -> bytes:
    """Return the end of a cache entry: the checksums of its source files and of its arrays."""
    return f"\n{key} {fingerprint}\n".encode()


def _fingerprint(arrays: Arrays) -> str:
    """Return a checksum of the arrays; it is fast and detects damage, but is not cryptographic."""
    checksums = " ".join(f"{len(array)} {zlib.crc32(array.data):08x}" for array in arrays)
    return hashlib.blake2b(checksums.encode(), digest_size=8).hexdigest()
