"""Reading: what is accepted comes out right, what is not is refused with its place."""

import gzip
import io
import os
import re
import shutil
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from conftest import csv_text, kit, one_line
from digit_recognizer import data
from digit_recognizer.errors import BadInput

TRAIN, TEST = csv_text("train"), csv_text("test")


def read(place: Path | None, tmp_path: Path) -> data.Data:
    return data.read(place, default=tmp_path / "data", cache=tmp_path / "cache")


def field(text: bytes, line: int, column: int, value: str) -> bytes:
    """Replace one field; lines from 1, columns from 0."""
    lines = text.decode().split("\n")
    fields = lines[line - 1].split(",")
    fields[column] = value
    lines[line - 1] = ",".join(fields)
    return "\n".join(lines).encode("utf-8", "surrogateescape")


def test_values_are_those_that_pandas_reads(folder: Path, tmp_path: Path) -> None:
    found = read(folder, tmp_path)
    train, test = pd.read_csv(folder / "train.csv"), pd.read_csv(folder / "test.csv")
    assert found.images.dtype == found.labels.dtype == found.test_images.dtype == np.uint8
    np.testing.assert_array_equal(found.labels, train["label"])
    np.testing.assert_array_equal(found.images.reshape(-1, 784), train.drop(columns="label"))
    np.testing.assert_array_equal(found.test_images.reshape(-1, 784), test)


def test_every_packing_gives_the_same_data(folder: Path, tmp_path: Path) -> None:
    texts = {name: (folder / name).read_bytes() for name in ("train.csv", "test.csv")}
    places = [folder]
    crlf, bare, gz, each, whole = (tmp_path / name for name in ("crlf", "bare", "gz", "each", "whole"))
    for place in (crlf, bare, gz, each, whole):
        place.mkdir()
        places.append(place)
    with zipfile.ZipFile(whole / "digit-recognizer.zip", "w") as both:
        for name, text in texts.items():
            (crlf / name).write_bytes(text.replace(b"\n", b"\r\n"))
            (bare / name).write_bytes(b"\xef\xbb\xbf" + text.replace(b"\n", b"\r\n").rstrip())
            (gz / f"{name}.gz").write_bytes(gzip.compress(text))
            with zipfile.ZipFile(each / f"{name}.zip", "w") as one:
                one.writestr(name, text)
            both.writestr(f"digit-recognizer/{name}", text)
    places.append(whole / "digit-recognizer.zip")
    assert len({read(place, tmp_path).fingerprint for place in places}) == 1


def test_quoted_and_padded_fields_are_read_too() -> None:
    lines = TRAIN.decode().split("\n")
    lines[2] = ",".join(f' "{f}" ' if i % 2 else f" {f}" for i, f in enumerate(lines[2].split(","))).replace(' "', '"')
    np.testing.assert_array_equal(data.parse("\n".join(lines).encode(), "train", "t"), data.parse(TRAIN, "train", "t"))


HEADER_FAULTS = {
    "missing": (lambda names: names[:5] + names[6:], "no column 'pixel4'"),
    "extra": (lambda names: [*names, "id"], "an extra column 'id'"),
    "renamed": (lambda names: [*names[:5], "px", *names[6:]], "'px' in place of 'pixel4' as column 6"),
    "doubled": (lambda names: [*names[:5], names[4], *names[5:]], "column 'pixel3' twice"),
    "reordered": (
        lambda names: [*names[:5], names[6], names[5], *names[7:]],
        "'pixel5' in place of 'pixel4' as column 6",
    ),
    "swapped": (lambda names: names[1:], "the columns of test.csv; are the two files swapped?"),
}


@pytest.mark.parametrize("case", HEADER_FAULTS)
def test_a_wrong_header_is_named(case: str) -> None:
    change, told = HEADER_FAULTS[case]
    header, _, rest = TRAIN.decode().partition("\n")
    text = ",".join(change(header.split(","))) + "\n" + rest
    with pytest.raises(
        BadInput, match=re.escape(f"train.csv, line 1: expected the header label,pixel0,…,pixel783, found {told}")
    ):
        data.parse(text.encode(), "train", "train.csv")


def test_swapped_files_are_told_from_both_sides() -> None:
    with pytest.raises(BadInput, match=r"found the columns of train\.csv; are the two files swapped\?"):
        data.parse(TRAIN, "test", "test.csv")


TEXT_FAULTS = {
    "empty": (b"", "t.csv: empty"),
    "blank": (b"\r\n\r\n", "t.csv: empty"),
    "header only": (TRAIN.split(b"\n")[0], "t.csv: a header and no rows"),
    "header and line end": (TRAIN.split(b"\n")[0] + b"\r\n", "t.csv: a header and no rows"),
    "no label": (field(TRAIN, 4, 0, ""), "t.csv, line 4, column label: expected an integer from 0 to 9, found nothing"),
    "label 10": (field(TRAIN, 4, 0, "10"), "line 4, column label: expected an integer from 0 to 9, found '10'"),
    "label -1": (field(TRAIN, 31, 0, "-1"), "line 31, column label: expected an integer from 0 to 9, found '-1'"),
    "negative": (field(TRAIN, 2, 3, "-1"), "line 2, column pixel2: expected an integer from 0 to 255, found '-1'"),
    "256": (field(TRAIN, 2, 784, "256"), "line 2, column pixel783: expected an integer from 0 to 255, found '256'"),
    "wraps in 64 bits": (field(TRAIN, 2, 1, str(2**64 + 5)), "line 2, column pixel0: expected an integer"),
    "12.5": (field(TRAIN, 5, 9, "12.5"), "line 5, column pixel8: expected an integer from 0 to 255, found '12.5'"),
    "NaN": (field(TRAIN, 5, 9, "NaN"), "line 5, column pixel8: expected an integer from 0 to 255, found 'NaN'"),
    "text": (field(TRAIN, 5, 9, "ink"), "line 5, column pixel8: expected an integer from 0 to 255, found 'ink'"),
    "Arabic digit": (field(TRAIN, 5, 9, "٣"), "line 5, column pixel8: expected an integer"),
    "short row": (field(TRAIN, 7, 784, "1").replace(b",1\n", b"\n", 1), "expected 785 fields, found 784"),
    "long row": (field(TRAIN, 7, 784, "1,2"), "line 7: expected 785 fields, found 786"),
    "blank row": (TRAIN.replace(b"\n", b"\n\n", 2), "line 2: expected 785 fields, found a blank line"),
    "torn row": (TRAIN[:-500], "line 31: expected 785 fields, found"),
    "not UTF-8": (field(TRAIN, 6, 2, "\udce9"), "line 6, column 3: expected UTF-8 text, found byte 0xe9; save"),
    "UTF-16": (TRAIN.decode().encode("utf-16"), "line 1, column 1: expected UTF-8 text, found byte 0xff"),
    "NUL": (field(TRAIN, 3, 2, "\0"), "line 3, column pixel1: expected an integer"),
}


@pytest.mark.parametrize("case", TEXT_FAULTS)
def test_a_wrong_text_is_refused_with_its_place(case: str) -> None:
    text, told = TEXT_FAULTS[case]
    with pytest.raises(BadInput) as refused:
        data.parse(text, "train", "t.csv")
    assert told in str(refused.value)
    one_line(str(refused.value))


@given(at=st.integers(0, len(TRAIN) - 1), byte=st.integers(0, 255))
@example(at=TRAIN.index(b"\n") + 1, byte=ord(","))
@example(at=len(TRAIN) - 1, byte=ord("7"))
@settings(max_examples=300, deadline=None)
def test_one_changed_byte_is_read_as_pandas_reads_it_or_refused(at: int, byte: int) -> None:
    text = TRAIN[:at] + bytes([byte]) + TRAIN[at + 1 :]
    try:
        values = data.parse(text, "train", "t.csv")
    except BadInput as refused:
        one_line(str(refused))
        return
    expected = pd.read_csv(io.BytesIO(text), dtype=np.int64, skip_blank_lines=False)
    np.testing.assert_array_equal(values, expected)


def test_a_fault_deep_in_a_large_file_has_the_right_line() -> None:
    rows = TRAIN.split(b"\n", 1)[1]
    text = TRAIN + rows * 60
    assert len(text) > 3 * data.CHUNK
    lines = text.split(b"\n")
    assert len(data.parse(text, "train", "t.csv")) == len(lines) - 2
    lines[1500] = lines[1500].rpartition(b",")[0] + b",999"
    with pytest.raises(BadInput, match=r"line 1501, column pixel783: .* found '999'"):
        data.parse(b"\n".join(lines), "train", "t.csv")


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: -path.stat().st_size // 3])


def zip_with(*names: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        with zipfile.ZipFile(folder / "made.zip", "w") as archive:
            for name in names:
                archive.writestr(name, csv_text("train" if "train" in name else "test"))
        return folder / "made.zip"

    return make


def damaged_zip(folder: Path) -> Path:
    path = zip_with("train.csv", "test.csv")(folder)
    content = bytearray(path.read_bytes())
    content[5000] ^= 1
    path.write_bytes(content)
    return path


def truncated_zip(folder: Path) -> Path:
    path = zip_with("train.csv", "test.csv")(folder)
    truncated(path)
    return path


def truncated_gzip(folder: Path) -> Path:
    text = (folder / "train.csv").read_bytes()
    (folder / "train.csv").unlink()
    (folder / "train.csv.gz").write_bytes(gzip.compress(text))
    truncated(folder / "train.csv.gz")
    return folder


def without_test(folder: Path) -> Path:
    (folder / "test.csv").unlink()
    return folder


def directory_for_file(folder: Path) -> Path:
    (folder / "train.csv").unlink()
    (folder / "train.csv").mkdir()
    return folder


PLACE_FAULTS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "no such folder": (lambda folder: folder / "none", "no such file or folder"),
    "no test.csv": (without_test, "no test.csv in it"),
    "a CSV file": (lambda folder: folder / "train.csv", "expected a folder or a whole zip"),
    "truncated zip": (truncated_zip, "truncated"),
    "damaged zip": (damaged_zip, "damaged or truncated (Bad CRC-32"),
    "truncated gzip": (truncated_gzip, "damaged or truncated"),
    "zip without the member": (zip_with("train.csv", "other.csv"), "expected one test.csv in it, found 0 among 2"),
    "zip with two": (zip_with("train.csv", "a/test.csv", "b/test.csv"), "expected one test.csv in it, found 2"),
    "zip that climbs out": (zip_with("train.csv", "../test.csv"), "member '../test.csv' points outside the folder"),
    "zip with a root": (zip_with("train.csv", "/test.csv"), "member '/test.csv' points outside the folder"),
    "zip with a drive": (zip_with("train.csv", "test.csv", r"C:\x"), r"member 'C:\\x' points outside the folder"),
    "a folder named train.csv": (directory_for_file, "train.csv: Is a directory"),
}


@pytest.mark.parametrize("case", PLACE_FAULTS)
def test_a_wrong_place_is_refused_and_nothing_is_written(case: str, folder: Path, tmp_path: Path) -> None:
    make, told = PLACE_FAULTS[case]
    place = make(folder)
    with pytest.raises(BadInput) as refused:
        read(place, tmp_path)
    assert told in one_line(str(refused.value))
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("case", ["truncated zip", "zip that climbs out"])
def test_a_user_is_told_in_one_line(case: str, folder: Path, tmp_path: Path) -> None:
    make, told = PLACE_FAULTS[case]
    home = tmp_path / "home"
    home.mkdir()
    done = kit("run", "--data", make(folder), "--recipe", "quick", cwd=home)
    assert (done.returncode, done.stdout) == (2, "")
    assert one_line(done.stderr).startswith("error: ")
    assert told in done.stderr
    assert not list(home.iterdir())


@pytest.fixture
def ordinary_user() -> Iterator[Path]:
    """A folder of an ordinary user's, in whose name the test goes on: permissions do not bind root."""
    home = Path(tempfile.mkdtemp())
    for table in ("train", "test"):
        (home / f"{table}.csv").write_bytes(csv_text(table))
    root = os.geteuid() == 0
    if root:
        for path in (home, *home.iterdir()):
            os.chown(path, 65534, 65534)
        os.seteuid(65534)
    yield home
    if root:
        os.seteuid(0)
    home.chmod(0o700)
    shutil.rmtree(home)


@pytest.mark.parametrize(("closed", "mode"), [(".", 0o000), ("train.csv", 0o000), (".", 0o500)])
def test_what_may_not_be_read_or_written_is_refused(closed: str, mode: int, ordinary_user: Path) -> None:
    (ordinary_user / closed).chmod(mode)
    with pytest.raises(BadInput, match="Permission denied; change its permissions or name another"):
        data.read(ordinary_user, default=ordinary_user, cache=ordinary_user / "cache")


def test_a_cache_entry_is_used_and_never_stale(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = read(folder, tmp_path)
    changed = field((folder / "train.csv").read_bytes(), 2, 0, "7")
    with monkeypatch.context() as patch:
        patch.setattr(data, "parse", None)  # a second parsing would fail
        assert read(folder, tmp_path).fingerprint == first.fingerprint
    (folder / "train.csv").write_bytes(changed)
    assert read(folder, tmp_path).labels[0] == 7


def test_a_damaged_cache_entry_is_made_again(folder: Path, tmp_path: Path) -> None:
    first = read(folder, tmp_path)
    (entry,) = (tmp_path / "cache").glob("*.npys")
    whole = entry.read_bytes()
    for damage in (whole[:-1000], whole[:5000] + bytes(100) + whole[5100:], b"", b"junk"):
        entry.write_bytes(damage)
        assert read(folder, tmp_path).fingerprint == first.fingerprint


def test_the_default_folder_is_used_where_it_has_data(folder: Path, tmp_path: Path) -> None:
    folder.rename(tmp_path / "data")
    assert not read(None, tmp_path).sample


def test_without_data_the_sample_is_used_and_marked(tmp_path: Path) -> None:
    found = read(None, tmp_path)
    assert found.sample
    assert "NOT the competition's" in str(found)
    assert (len(found.labels), len(found.test_images)) == (1438, 359)
    assert np.bincount(found.labels).min() > 100
    assert found.images.max() == 255
    assert not found.images[:, :4].any(), "four empty rows above, as the competition's digits have"
    # Named by hand it is still the sample.
    assert read(tmp_path / "cache" / "sample", tmp_path).sample


def test_the_competition_files_are_read_whole(competition: Path, tmp_path: Path) -> None:
    found = read(competition, tmp_path)
    assert found.images.shape == (42000, 28, 28)
    assert found.test_images.shape == (28000, 28, 28)
    assert np.bincount(found.labels).tolist() == [4132, 4684, 4177, 4351, 4072, 3795, 4137, 4401, 4063, 4188]


@pytest.mark.timed
def test_reading_is_faster_than_pandas_and_the_cache_a_blink(competition: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(competition) as archive:
        archive.extractall(tmp_path / "files")
    ratios, cached = [], []
    for attempt in range(5):
        seconds = []
        for step in (
            lambda: [pd.read_csv(tmp_path / "files" / f"{name}.csv") for name in ("train", "test")],
            *[lambda: data.read(tmp_path / "files", default=tmp_path, cache=tmp_path / f"cache{attempt}")] * 2,  # noqa: B023
        ):
            began = time.perf_counter()
            step()
            seconds.append(time.perf_counter() - began)
        ratios.append(seconds[1] / seconds[0])
        cached.append(seconds[2])
    print(f"\nshares of pandas' time {np.round(ratios, 2)}, cached {min(cached):.2f} s")
    assert np.median(ratios) < 0.5
    assert min(cached) < 0.3
