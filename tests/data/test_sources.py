"""Finding: what is unambiguous is used, however it is named and packed; all else is refused by its path."""

import bz2
import gzip
import io
import lzma
import os
import re
import struct
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings

import damage
from conftest import FUZZ, csv_text, kit, one_line
from digit_recognizer import cli
from digit_recognizer.data import archives, csv_reader, dataset, sources
from digit_recognizer.errors import BadInput, printable

TRAIN, TEST = csv_text("train"), csv_text("test")
OTHER = csv_text("train", seed=1)
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:b35cc952c291f03d\nsize 76775041\n"
HTML = b"\xef\xbb\xbf\r\n<!DOCTYPE html><html><title>Kaggle: Sign in</title></html>"
TITANIC = b"PassengerId,Survived,Pclass\n1,0,3\n"


def zipped(packing: int = zipfile.ZIP_DEFLATED, **members: bytes) -> bytes:
    """A zip; in the members' names ``__`` is a dot."""
    return packed({name.replace("__", "."): content for name, content in members.items()}, packing)


def packed(members: dict[str, bytes], packing: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", packing) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return out.getvalue()


def tarred(mode: str, name: str = "train.csv") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:  # type: ignore[call-overload]
        info = tarfile.TarInfo(name)
        info.size = len(TRAIN)
        archive.addfile(info, io.BytesIO(TRAIN))
    return out.getvalue()


def changed(archive: bytes, local: int, central: int, field: bytes) -> bytes:
    """Change a field of all members in both places where a zip describes them."""
    for mark, offset in ((b"PK\3\4", local), (b"PK\1\2", central)):
        at = -1
        while (at := archive.find(mark, at + 1)) >= 0:
            archive = archive[: at + offset] + field + archive[at + offset + len(field) :]
    return archive


def stating(archive: bytes, size: int) -> bytes:
    """State another unpacked size for all members."""
    return changed(archive, 22, 24, struct.pack("<I", size))


BOTH = zipped(train__csv=TRAIN, test__csv=TEST, sample_submission__csv=b"ImageId,Label\n1,0\n")


def placed(folder: Path, content: dict[str, bytes]) -> Path:
    for name, text in content.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(text)
    return folder


def read(place: Path | None, tmp_path: Path) -> dataset.Dataset:
    return dataset.load(place, default=tmp_path / "data", cache=tmp_path / "cache")


def crlf(text: bytes) -> bytes:
    return text.replace(b"\n", b"\r\n")


def bare(text: bytes) -> bytes:
    return b"\xef\xbb\xbf" + crlf(text).rstrip()


PACKED: dict[str, dict[str, bytes]] = {
    "plain": {"train.csv": TRAIN, "test.csv": TEST},
    "CRLF": {"train.csv": crlf(TRAIN), "test.csv": crlf(TEST)},
    "a mark first, no line end last": {"train.csv": bare(TRAIN), "test.csv": bare(TEST)},
    "gzip": {"train.csv.gz": gzip.compress(TRAIN), "test.csv.gz": gzip.compress(TEST)},
    "gzip in pieces": {"train.csv.gz": gzip.compress(TRAIN[:500]) + gzip.compress(TRAIN[500:]), "test.csv": TEST},
    "a zip each": {"train.csv.zip": zipped(train__csv=TRAIN), "test.csv.zip": zipped(test__csv=TEST)},
    "Kaggle's zip": {"digit-recognizer.zip": BOTH},
    "stored": {"digit-recognizer.zip": zipped(zipfile.ZIP_STORED, train__csv=TRAIN, test__csv=TEST)},
    "a folder in the zip": {"digit-recognizer.zip": packed({"d/train.csv": TRAIN, "d/e/test.csv": TEST, "d/": b""})},
    "a dot in the zip": {"digit-recognizer.zip": packed({"./train.csv": TRAIN, "./test.csv": TEST})},
    "a note in the zip": {
        "digit-recognizer.zip": packed({"digit-recognizer.txt": b"Hello", "train.csv": TRAIN, "test.csv": TEST})
    },
    "macOS's files beside": {
        "digit-recognizer.zip": packed({"train.csv": TRAIN, "__MACOSX/._train.csv": b"\0", "test.csv": TEST}),
        "._train.csv": b"\0\5\x16\7",
        ".DS_Store": b"\0",
    },
    "backslashes in the zip": {
        "digit-recognizer.zip": packed({"digit-recognizer\\train.csv": TRAIN, "digit-recognizer\\test.csv": TEST})
    },
    "a zip in a zip": {"digit-recognizer.zip": packed({"digit-recognizer.zip": BOTH})},
    "zips in a zip": {"digit-recognizer.zip": packed({"train.csv.zip": zipped(train__csv=TRAIN), "test.csv": TEST})},
    "gzips in a zip": {
        "digit-recognizer.zip": packed({"train.csv.gz": gzip.compress(TRAIN), "test.csv.gz": gzip.compress(TEST)})
    },
    "a zip in a gzip": {"digit-recognizer.zip.gz": gzip.compress(BOTH)},
    "a zip in a zip in a zip": {
        "digit-recognizer.zip": packed({"x/digit-recognizer.zip": packed({"train.zip": BOTH})})
    },
    # Named as something else than it is.
    "a zip named train.csv": {"train.csv": zipped(train__csv=TRAIN), "test.csv": TEST},
    "the whole zip named train.csv": {"train.csv": BOTH},
    "a gzip named train.csv": {"train.csv": gzip.compress(TRAIN), "test.csv": gzip.compress(TEST)},
    "text named gzip": {"train.csv.gz": TRAIN, "test.csv.gz": TEST},
    "text named zip": {"train.csv.zip": TRAIN, "test.zip": TEST},
    "a gzip named zip": {"train.csv.zip": gzip.compress(TRAIN), "test.csv.zip": gzip.compress(TEST)},
    "a zip named gzip": {"digit-recognizer.gz": BOTH},
    # Where browsers and people put them.
    "a subfolder": {"digit-recognizer/train.csv": TRAIN, "digit-recognizer/test.csv": TEST},
    "a subfolder of another name": {"kaggle/train.csv": TRAIN, "kaggle/test.csv": TEST},
    "two folders down": {
        "competitions/digit-recognizer/train.csv": TRAIN,
        "competitions/digit-recognizer/test.csv": TEST,
    },
    "a folder each": {"train/train.csv": TRAIN, "test/test.csv": TEST},
    "a folder named as the file": {"train.csv/train.csv": TRAIN, "test.csv/test.csv": TEST},
    "a zip in a subfolder": {"downloads/digit-recognizer.zip": BOTH},
    "second copies": {"train (1).csv": TRAIN, "test (2).csv": TEST},
    "a second zip": {"digit-recognizer (1).zip": BOTH},
    "a second zip of a file": {
        "train.csv (1).zip": zipped(train__csv=TRAIN),
        "test.csv(1).zip": zipped(test__csv=TEST),
    },
    "a second folder": {"digit-recognizer (1)/train.csv": TRAIN, "digit-recognizer (1)/test.csv": TEST},
    "a file manager's copies": {"train - Copy.csv": TRAIN, "test copy 2.csv": TEST},
    "numbered copies": {"train 2.csv": TRAIN, "test-1.csv": TEST},
    "wget's copies": {"digit-recognizer.zip.1": BOTH},
    "capitals": {"Train.csv": TRAIN, "TEST.CSV": TEST},
    "capitals in a zip": {"Digit-Recognizer.ZIP": packed({"Train.CSV": TRAIN, "TEST.csv": TEST})},
    "underscores": {"digit_recognizer.zip": BOTH},
    "ending twice": {"train.csv.csv": TRAIN, "test.csv.csv": TEST},
    "ending hidden": {"train.csv.txt": TRAIN, "test.csv.txt": TEST},
    "other names": {"archive.zip": BOTH, "notes.txt": b"label", "photo.png": b"\x89PNG"},
    "other names for text": {"mnist-train.csv": TRAIN, "mnist-test.csv": TEST},
    "other names in a zip": {"digit-recognizer.zip": packed({"digits/a.csv": TRAIN, "digits/b.csv": TEST})},
    # Several of the same content.
    "the zip and its files": {"train.csv": TRAIN, "test.csv": TEST, "digit-recognizer.zip": BOTH},
    "the zip and its folder": {"digit-recognizer.zip": BOTH, "digit-recognizer/train.csv": TRAIN},
    "other line ends": {"train.csv": TRAIN, "test.csv": TEST, "digit-recognizer.zip": zipped(train__csv=crlf(TRAIN))},
    "the same twice": {
        "train.csv": TRAIN,
        "train (1).csv": TRAIN,
        "test.csv": TEST,
        "test.csv.gz": gzip.compress(TEST),
    },
    "the same twice in a zip": {
        "digit-recognizer.zip": packed({"a/train.csv": TRAIN, "b/train.csv": TRAIN, "test.csv": TEST})
    },
    "one in each": {"train.csv": TRAIN, "digit-recognizer.zip": BOTH},
    # Beside what is no table, which cannot be meant.
    "an incomplete download beside": {
        "train.csv": TRAIN,
        "test.csv": TEST,
        "digit-recognizer (1).zip.crdownload": BOTH[:99],
    },
    "a web page beside": {"train.csv": HTML, "train (1).csv": TRAIN, "test.csv": TEST},
    "another competition's zip beside": {"digit-recognizer.zip": BOTH, "titanic.zip": zipped(train__csv=TITANIC)},
    "another competition's folder beside": {
        "digit-recognizer/train.csv": TRAIN,
        "digit-recognizer/test.csv": TEST,
        "titanic/train.csv": TITANIC,
        "titanic/test.csv": TITANIC,
    },
    "a file of a year beside": {"train.csv": TRAIN, "test.csv": TEST, "train-2024.csv": OTHER, "train.csv.bak": OTHER},
    "a part of the data in a subfolder": {"train.csv": TRAIN, "test.csv": TEST, "small/train.csv": OTHER},
}


@pytest.mark.parametrize("case", PACKED)
def test_unambiguous_files_are_used(case: str, tmp_path: Path) -> None:
    place = placed(tmp_path / "data", PACKED[case])
    found = read(None, tmp_path)
    assert found.fingerprint == "1d915a49d5f4c0e4"
    assert not found.sample
    assert found.source.is_relative_to(place)
    assert dataset.exists(place)
    again = read(place, tmp_path)
    assert (again.fingerprint, again.source) == (found.fingerprint, found.source)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("digit-recognizer.zip", BOTH),
        ("files.zip", BOTH),
        ("train.csv", BOTH),
        ("no-ending", BOTH),
        ("both.gz", gzip.compress(BOTH)),
        ("other names.zip", packed({"a.csv": TRAIN, "b.csv": TEST})),
    ],
)
def test_archive_may_have_any_name(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    assert read(tmp_path / name, tmp_path).fingerprint == "1d915a49d5f4c0e4"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for a sample that several tests read."""
    return tmp_path_factory.mktemp("cache")


UNRELATED: dict[str, dict[str, bytes]] = {
    "empty": {},
    "a note": {"README.md": b"put the files here"},
    "pictures": {"test/1.png": b"\x89PNG", "train/1.png": b"\x89PNG"},
    "code": {"train.py": b"import this", "test.txt": b"label,pixel", "train.log": b"", "testing.csv": b"a,b\n"},
    "other data": {"titanic.csv": TITANIC, "titanic.zip": zipped(train__csv=TITANIC, test__csv=TITANIC)},
    "hidden files": {".train.csv": TRAIN, ".git/train.csv": TRAIN, "__MACOSX/train.csv": TRAIN},
    "an incomplete download of ours": {".0123456789abcdef-digit-recognizer.zip": BOTH[:99]},
    "an empty folder": {"digit-recognizer/.keep": b""},
    "damaged archives": {"a.zip": BOTH[:99], "b.gz": b"\x1f\x8b\x08junk"},
}


@pytest.mark.parametrize("case", UNRELATED)
def test_unrelated_folder_gives_the_sample(case: str, tmp_path: Path, cache: Path) -> None:
    (tmp_path / "data").mkdir()
    placed(tmp_path / "data", UNRELATED[case])
    assert not dataset.exists(tmp_path / "data")
    assert dataset.load(None, default=tmp_path / "data", cache=cache).sample


NO_TABLE = "expected CSV, zip or gzip, found"
REFUSED: dict[str, tuple[dict[str, bytes], str, str]] = {  # files, the message's beginning, a part of the hint
    "train.csv alone": ({"train.csv": TRAIN}, "data: no test.csv beside data/train.csv", "data --force"),
    "test.csv alone": ({"test (1).csv": TEST}, "data: no train.csv beside data/test (1).csv", "data --force"),
    "sample_submission.csv alone": ({"sample_submission.csv": b"ImageId,Label\n"}, "data: no train.csv;", ""),
    "a zip of one": (
        {"digit-recognizer.zip": zipped(train__csv=TRAIN)},
        "data: no test.csv beside data/digit-recognizer.zip: train.csv",
        "",
    ),
    "a zip of neither": (
        {"digit-recognizer.zip": packed({f"{i}.png": b"" for i in range(1000)})},
        "data/digit-recognizer.zip: expected train.csv and test.csv in the zip, found 0 of them among 1,000 members",
        "download",
    ),
    "an empty zip": ({"digit-recognizer.zip": packed({})}, "data/digit-recognizer.zip: expected train.csv and", ""),
    "an LFS pointer": (
        {"train.csv": LFS, "test.csv": LFS},
        f"data/train.csv: {NO_TABLE} a Git LFS pointer",
        "git lfs pull",
    ),
    "an LFS pointer for the zip": (
        {"digit-recognizer.zip": LFS},
        f"data/digit-recognizer.zip: {NO_TABLE} a Git LFS",
        "",
    ),
    "an LFS pointer and a part of the data": (
        {"train.csv": LFS, "test.csv": LFS, "small/train.csv": TRAIN, "small/test.csv": TEST},
        f"data/train.csv: {NO_TABLE} a Git LFS pointer",
        "",
    ),
    "a web page": ({"train.csv": TRAIN, "test.csv": HTML}, f"data/test.csv: {NO_TABLE} a web page", "log in to Kaggle"),
    "a web page, bare": ({"digit-recognizer.zip": b"<html>"}, f"data/digit-recognizer.zip: {NO_TABLE} a web page", ""),
    "a saved page": ({"digit-recognizer.html": HTML}, f"data/digit-recognizer.html: {NO_TABLE} a web page", ""),
    "a web page in a zip": (
        {"digit-recognizer.zip": zipped(train__csv=HTML, test__csv=TEST)},
        f"data/digit-recognizer.zip: train.csv: {NO_TABLE} a web page",
        "",
    ),
    "Kaggle's error": ({"digit-recognizer.zip": b'{"code":403}'}, f"data/digit-recognizer.zip: {NO_TABLE} JSON", ""),
    "Chrome's unfinished": (
        {"digit-recognizer.zip.crdownload": BOTH},
        "data/digit-recognizer.zip.crdownload: an incomplete",
        "wait",
    ),
    "Chrome's unnamed": (
        {"Unconfirmed 12345.crdownload": BOTH},
        "data/Unconfirmed 12345.crdownload: an incomplete",
        "wait",
    ),
    "Firefox's unfinished": (
        {"train.csv.part": TRAIN, "train.csv": b"", "test.csv": TEST},
        "data/train.csv: empty",
        "download",
    ),
    "half unfinished": ({"train.csv": TRAIN, "test.csv.part": TEST}, "data/test.csv.part: an incomplete download", ""),
    "7z": (
        {"digit-recognizer.7z": b"7z\xbc\xaf\x27\x1c\0\4"},
        f"data/digit-recognizer.7z: {NO_TABLE} a 7z archive",
        "unpack it",
    ),
    "7z named zip": (
        {"digit-recognizer.zip": b"7z\xbc\xaf\x27\x1c"},
        f"data/digit-recognizer.zip: {NO_TABLE} a 7z",
        "",
    ),
    "RAR": ({"train.rar": b"Rar!\x1a\x07\1\0"}, f"data/train.rar: {NO_TABLE} a RAR archive", "unpack it"),
    "tar": ({"digit-recognizer.tar": tarred("w")}, f"data/digit-recognizer.tar: {NO_TABLE} a tar archive", "unpack it"),
    "tar.gz": (
        {"digit-recognizer.tar.gz": tarred("w:gz")},
        f"data/digit-recognizer.tar.gz: {NO_TABLE} a tar",
        "unpack it",
    ),
    "tgz": ({"digit-recognizer.tgz": tarred("w:gz")}, f"data/digit-recognizer.tgz: {NO_TABLE} a tar archive", ""),
    "tar named train.csv": ({"train.csv": tarred("w"), "test.csv": TEST}, f"data/train.csv: {NO_TABLE} a tar", ""),
    "tar in a zip": (
        {"digit-recognizer.zip": packed({"train.tar": tarred("w")})},
        "data/digit-recognizer.zip: train.tar:",
        "",
    ),
    "bzip2": ({"train.csv.bz2": bz2.compress(TRAIN)}, f"data/train.csv.bz2: {NO_TABLE} a bzip2 file", "unpack it"),
    "xz": ({"train.csv.xz": lzma.compress(TRAIN)}, f"data/train.csv.xz: {NO_TABLE} an xz file", "unpack it"),
    "empty files": ({"train.csv": b"", "test.csv": b" \n"}, "data/train.csv: empty", "download"),
    "a truncated zip": ({"digit-recognizer.zip": BOTH[:-99]}, "data/digit-recognizer.zip: damaged or truncated", ""),
    "a damaged zip": (
        {"digit-recognizer.zip": BOTH[:5000] + bytes([BOTH[5000] ^ 1]) + BOTH[5001:]},
        "data/digit-recognizer.zip: damaged or truncated",
        "download",
    ),
    "an empty folder named train.csv": (
        {"train.csv/.keep": b"", "test.csv": TEST},
        "data: no train.csv beside data/test.csv",
        "download",
    ),
    "a truncated gzip": (
        {"train.csv.gz": gzip.compress(TRAIN)[:-99], "test.csv": TEST},
        "data/train.csv.gz: damaged or truncated",
        "download",
    ),
    "another competition's": (
        {"train.csv": TITANIC, "test.csv": TITANIC},
        "data/train.csv, line 1: expected the header",
        "",
    ),
    "another competition's folder": (
        {"titanic/train.csv": TITANIC, "titanic/test.csv": TITANIC},
        "data/titanic/train.csv, line 1: expected the header",
        "",
    ),
    "a wrong row in a subfolder's zip": (
        {"x/digit-recognizer.zip": zipped(train__csv=TRAIN.replace(b"\n0,", b"\n10,", 1), test__csv=TEST)},
        "data/x/digit-recognizer.zip: train.csv, line 2, column label: expected an integer from 0 to 9, found '10'",
        "",
    ),
    "copies that differ": (
        {"train.csv": TRAIN, "train (1).csv": OTHER, "test.csv": TEST},
        "data/train.csv and data/train (1).csv: two different files for train.csv",
        "remove or rename",
    ),
    "a zip that differs": (
        {"train.csv": OTHER, "test.csv": TEST, "digit-recognizer.zip": BOTH},
        "data/train.csv and data/digit-recognizer.zip: train.csv: two different files for train.csv",
        "remove or rename",
    ),
    "a subfolder that differs": (
        {"train.csv": TRAIN, "test.csv": TEST, "digit-recognizer/train.csv": OTHER},
        "data/train.csv and data/digit-recognizer/train.csv: two different files for train.csv",
        "",
    ),
    "subfolders that differ": (
        {"a/train.csv": TRAIN, "b/train.csv": OTHER, "a/test.csv": TEST},
        "data/a/train.csv and data/b/train.csv: two different files",
        "",
    ),
    "one table here and both of others elsewhere": (
        {"train.csv": TRAIN, "small/train.csv": OTHER, "small/test.csv": TEST},
        "data/train.csv and data/small/train.csv: two different files",
        "",
    ),
    "members that differ": (
        {"digit-recognizer.zip": packed({"a/train.csv": TRAIN, "b/train.csv": OTHER, "test.csv": TEST})},
        "data/digit-recognizer.zip: a/train.csv and data/digit-recognizer.zip: b/train.csv: two different files",
        "",
    ),
    "packed members that differ": (
        {
            "digit-recognizer.zip": packed({"a/train.gz": gzip.compress(TRAIN), "b/train.gz": gzip.compress(OTHER)}),
            "test.csv": TEST,
        },
        "data/digit-recognizer.zip: a/train.gz and data/digit-recognizer.zip: b/train.gz: two different files",
        "",
    ),
    "a truncated copy": (
        {"train.csv": TRAIN, "train (1).csv": TRAIN[:-999], "test.csv": TEST},
        "data/train.csv and data/train (1).csv: two different files",
        "",
    ),
    "an edited file beside the zip": (
        {"train.csv": b"," + TRAIN, "digit-recognizer.zip": BOTH},
        "data/train.csv and data/digit-recognizer.zip: train.csv: two different files",
        "",
    ),
    "swapped": (
        {"train.csv": TEST, "test.csv": TRAIN},
        "data/train.csv, line 1: expected the header label,pixel0,…,pixel783, found the columns of test.csv",
        "swapped",
    ),
    "too deep": (
        {"digit-recognizer.zip": packed({"train.zip": packed({"train.zip": packed({"train.zip": BOTH})})})},
        "data/digit-recognizer.zip: train.zip: train.zip: train.zip: more than 3 archives inside each other",
        "",
    ),
    "many tables": (
        {"digit-recognizer.zip": packed({f"{i}/train.csv": TRAIN for i in range(17)})},
        "data/digit-recognizer.zip: expected train.csv and test.csv in the zip, found 17 of them",
        "",
    ),
    "an encrypted zip": (
        {"digit-recognizer.zip": changed(BOTH, 6, 8, b"\1\0")},
        "data/digit-recognizer.zip: train.csv: encrypted",
        "download",
    ),
    "bzip2 in a zip": (
        {"digit-recognizer.zip": zipped(zipfile.ZIP_BZIP2, train__csv=TRAIN, test__csv=TEST)},
        "data/digit-recognizer.zip: train.csv: expected deflate compression",
        "unpack it",
    ),
}
REFUSED |= {
    f"a zip with {name}": (
        {"digit-recognizer.zip": packed({name: TRAIN, "test.csv": TEST})},
        f"data/digit-recognizer.zip: member {name!r} points outside the folder",
        "download",
    )
    for name in ("../train.csv", "/train.csv", "..\\train.csv", "\\train.csv", "C:\\x", "a/../../train.csv")
}


@pytest.mark.parametrize("case", REFUSED)
def test_unusable_files_are_refused_with_their_paths(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content, expected, hint = REFUSED[case]
    placed(tmp_path / "data", content)
    monkeypatch.chdir(tmp_path)
    assert dataset.exists(Path("data"))
    for given_place in (None, Path("data")):
        with pytest.raises(BadInput) as refused:
            dataset.load(given_place, default=Path("data"), cache=Path("cache"))
        assert one_line(str(refused.value)).startswith(expected)
        assert hint in one_line(refused.value.hint)
        assert refused.value.hint
        assert not Path("cache").exists(), "neither the sample nor a cache entry is written"


def test_single_table_hints_at_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(placed(tmp_path, {"my data/train.csv": TRAIN, "my data/test.csv.gz": gzip.compress(TEST)}))
    for name, table in (("train.csv", "train"), ("test.csv.gz", "test")):
        with pytest.raises(
            BadInput, match=re.escape(f"my data/{name}: only {table}.csv; expected a folder")
        ) as refused:
            read(Path("my data") / name, tmp_path)
        assert refused.value.hint == "name the folder: --data 'my data'"


@pytest.mark.parametrize("place", ["a\0b", "\0", "x" * 5000, "\udcff", "none", "none/train.csv"])
def test_impossible_path_is_refused(place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(BadInput):
        read(Path(place), tmp_path)
    assert cli.main(["compare", "--data", place]) == 2
    shown = one_line(capsys.readouterr().err)
    assert shown.startswith("error: ") and shown.replace("\n", "").isprintable()


def test_broken_links_are_named(tmp_path: Path) -> None:
    (tmp_path / "data").symlink_to(tmp_path / "disk")
    with pytest.raises(BadInput, match=re.escape(str(tmp_path / "data"))):
        read(None, tmp_path)
    (tmp_path / "disk").mkdir()
    assert read(None, tmp_path).sample
    (tmp_path / "data" / "train.csv").symlink_to(tmp_path / "gone.csv")
    with pytest.raises(BadInput, match=r"data/train\.csv: a link to .*gone\.csv, which does not exist"):
        read(None, tmp_path)
    placed(tmp_path, {"gone.csv": TRAIN, "disk/test.csv": TEST})
    assert not read(None, tmp_path).sample


def test_pipe_is_refused_without_waiting(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    os.mkfifo(tmp_path / "data" / "train.csv")
    for place in (None, tmp_path / "data" / "train.csv"):
        with pytest.raises(BadInput, match=r"train\.csv: expected a file, found a pipe or a device"):
            read(place, tmp_path)


# What takes more than it should.


@pytest.fixture
def limit(monkeypatch: pytest.MonkeyPatch) -> int:
    """A limit that a test can pass, a little above the size of the small files."""
    monkeypatch.setattr(archives, "LIMIT", 1 << 20)
    return 1 << 20


BOMB = TRAIN + b"\n" * (1 << 20)
BOMBS: dict[str, dict[str, bytes]] = {
    "a file": {"train.csv": BOMB, "test.csv": TEST},
    "gzip": {"train.csv.gz": gzip.compress(BOMB), "test.csv": TEST},
    "gzip in gzip": {"train.csv.gz": gzip.compress(gzip.compress(BOMB)), "test.csv": TEST},
    "gzip in pieces": {"train.csv.gz": gzip.compress(TRAIN) + gzip.compress(bytes(1 << 18)) * 4, "test.csv": TEST},
    "zip": {"digit-recognizer.zip": zipped(train__csv=BOMB, test__csv=TEST)},
    "zip in zip": {"digit-recognizer.zip": packed({"digit-recognizer.zip": zipped(train__csv=BOMB, test__csv=TEST)})},
    "zip of a large zip": {
        "digit-recognizer.zip": packed({"train.zip": zipped(zipfile.ZIP_STORED, train__csv=BOMB), "test.csv": TEST})
    },
    "gzip in zip": {"digit-recognizer.zip": packed({"train.csv.gz": gzip.compress(BOMB), "test.csv": TEST})},
}


@pytest.mark.parametrize("case", BOMBS)
def test_files_above_the_limit_are_refused(case: str, tmp_path: Path, limit: int) -> None:
    place = placed(tmp_path / "data", BOMBS[case])
    with pytest.raises(BadInput, match=r"larger than 1 MB; the largest file of the competition has 77 MB") as refused:
        read(place, tmp_path)
    one_line(str(refused.value))
    (archive,) = [path for path in place.iterdir() if path.name != "test.csv"]
    with pytest.raises(BadInput):
        dataset.extract(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("size", [0, 1, len(TRAIN), 1 << 19, 1 << 20, (1 << 32) - 1])
def test_zip_with_a_wrong_size_is_refused(size: int, tmp_path: Path, limit: int) -> None:
    place = placed(tmp_path / "data", {"digit-recognizer.zip": stating(zipped(train__csv=BOMB, test__csv=TEST), size)})
    with pytest.raises(BadInput) as refused:
        read(place, tmp_path)
    assert "larger than" in one_line(str(refused.value)) or "damaged or truncated" in str(refused.value)


@pytest.mark.slow
def test_memory_is_bounded_for_any_archive(tmp_path: Path) -> None:
    """A gzip of 1 GB, a zip of 256 MB that states 1,000 bytes, a line of 32 MB; the limit is set to 64 MB."""
    placed(tmp_path, {"gz/train.csv.gz": gzip.compress(bytes(1 << 24)) * 64, "gz/test.csv": TEST})
    large = zipped(train__csv=TRAIN.partition(b"\n")[0] + bytes(1 << 28), test__csv=TEST)
    placed(tmp_path, {"zip/digit-recognizer.zip": stating(large, 1000)})
    placed(tmp_path, {"line/train.csv": TRAIN + b"1," * (1 << 24), "line/test.csv": TEST})
    script = """
import resource, sys
from pathlib import Path
from digit_recognizer.data import dataset
from digit_recognizer.data import csv_reader
from digit_recognizer.data import sample
from digit_recognizer.data import archives
from digit_recognizer.data import sources
from digit_recognizer.errors import BadInput
archives.LIMIT = 1 << 26
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for place in sys.argv[1:]:
    try:
        dataset.load(Path(place), default=Path(place), cache=Path(place) / "cache")
        sys.exit("accepted")
    except BadInput as error:
        print(error)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
sys.exit(f"{peak >> 10} MB" if peak > 180 << 10 else 0)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, *(str(tmp_path / name) for name in ("gz", "zip", "line"))],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(done.stdout.splitlines()) == 3


@pytest.mark.parametrize("larger", [False, True])
def test_zip_with_millions_of_members_is_refused_early(larger: bool, tmp_path: Path) -> None:
    """The list's stated length decides; a record of the larger kind, for zips above 4 GB, may state another."""
    content = bytearray(BOTH)
    end = content.rfind(b"PK\5\6")
    if larger:
        record = b"PK\6\6" + struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, 10**7, 10**7, 46 * 10**7, 0)
        content[end:end] = record + b"PK\6\7" + struct.pack("<IQI", 0, end, 1)
    else:
        content[end + 12 : end + 16] = struct.pack("<I", 46 * 10**7)
    with pytest.raises(BadInput, match="too many members in the zip"):
        read(placed(tmp_path / "data", {"digit-recognizer.zip": bytes(content)}), tmp_path)


FEW_ROWS = csv_text("train", 2)
DAMAGED = {
    "zip": packed({"train.csv": FEW_ROWS}),
    "stored": packed({"train.csv": FEW_ROWS}, zipfile.ZIP_STORED),
    "gzip": gzip.compress(FEW_ROWS),
    "zip in zip": packed({"digit-recognizer.zip": packed({"train.csv": FEW_ROWS})}),
}


@pytest.mark.fuzz
@pytest.mark.parametrize("kind", DAMAGED)
@given(edits=damage.EDITS)
@settings(max_examples=FUZZ, deadline=None)
def test_damaged_archive_is_read_correctly_or_refused(
    kind: str, edits: list[damage.Edit], tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = damage.edited(DAMAGED[kind], edits)
    place = placed(tmp_path_factory.getbasetemp() / kind, {"digit-recognizer.zip": content, "test.csv": TEST})
    try:
        source = sources.find_tables(place)["train"]
        values = csv_reader.parse(source.text(), "train", str(source))
    except BadInput as refused:
        one_line(printable(str(refused)))
        assert refused.hint
    else:
        np.testing.assert_array_equal(values, csv_reader.parse(FEW_ROWS, "train", "train.csv"))


def test_extract_writes_both_files_or_none(tmp_path: Path) -> None:
    archive = placed(tmp_path, {".part-digit-recognizer.zip": BOTH}) / ".part-digit-recognizer.zip"
    dataset.extract(archive, tmp_path / "data")
    assert {path.name: path.read_bytes() for path in (tmp_path / "data").iterdir()} == {
        "train.csv": TRAIN,
        "test.csv": TEST,
    }
    for content in (HTML, b"", TRAIN, BOTH[:-30], zipped(train__csv=TRAIN)):
        archive.write_bytes(content)
        with pytest.raises(BadInput):
            dataset.extract(archive, tmp_path / "other")
        assert not (tmp_path / "other").exists()


def test_command_prints_one_error_and_a_hint(tmp_path: Path) -> None:
    placed(tmp_path, {"data/train.csv": LFS, "data/test.csv": TEST})
    done = kit("run", "--recipe", "quick", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    error, hint = done.stderr.splitlines()
    assert (
        error
        == f"error: {tmp_path}/data/train.csv: expected CSV, zip or gzip, found a Git LFS pointer in place of the file"
    )
    assert hint.startswith("hint: git lfs pull, or download")
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
