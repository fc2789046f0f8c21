"""Reading: what is accepted comes out right, what is not is refused with its place."""

import io
import itertools
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import damage
from conftest import FUZZ, csv_text, one_line
from digit_recognizer.data import csv_reader, dataset, sample
from digit_recognizer.errors import BadInput

TRAIN, TEST = csv_text("train"), csv_text("test")


def read(place: Path | None, tmp_path: Path) -> dataset.Dataset:
    return dataset.load(place, default=tmp_path / "data", cache=tmp_path / "cache")


def field(text: bytes, line: int, column: int, value: str) -> bytes:
    """Replace one field; lines from 1, columns from 0."""
    lines = text.decode().split("\n")
    fields = lines[line - 1].split(",")
    fields[column] = value
    lines[line - 1] = ",".join(fields)
    return "\n".join(lines).encode("utf-8", "surrogateescape")


def test_values_match_pandas(folder: Path, tmp_path: Path) -> None:
    found = read(folder, tmp_path)
    train, test = pd.read_csv(folder / "train.csv"), pd.read_csv(folder / "test.csv")
    assert found.images.dtype == found.labels.dtype == found.test_images.dtype == np.uint8
    np.testing.assert_array_equal(found.labels, train["label"])
    np.testing.assert_array_equal(found.images.reshape(-1, 784), train.drop(columns="label"))
    np.testing.assert_array_equal(found.test_images.reshape(-1, 784), test)


def test_quoted_and_padded_fields_are_read() -> None:
    lines = TRAIN.decode().split("\n")
    lines[2] = ",".join(f' "{f}" ' if i % 2 else f" {f}" for i, f in enumerate(lines[2].split(","))).replace(' "', '"')
    np.testing.assert_array_equal(
        csv_reader.parse("\n".join(lines).encode(), "train", "t"), csv_reader.parse(TRAIN, "train", "t")
    )


HEADER_FAULTS = {
    "missing": (lambda names: names[:5] + names[6:], "no column 'pixel4'"),
    "extra": (lambda names: [*names, "id"], "an extra column 'id'"),
    "renamed": (lambda names: [*names[:5], "px", *names[6:]], "'px' in place of 'pixel4' as column 6"),
    "doubled": (lambda names: [*names[:5], names[4], *names[5:]], "column 'pixel3' twice"),
    "reordered": (
        lambda names: [*names[:5], names[6], names[5], *names[7:]],
        "'pixel5' in place of 'pixel4' as column 6",
    ),
    "swapped": (lambda names: names[1:], "the columns of test.csv"),
    "index column": (lambda names: ["", *names], "an index column '' before 'label'"),
    "named index column": (lambda names: ["Unnamed: 0", *names], "an index column 'Unnamed: 0' before 'label'"),
    "quoted index column": (lambda names: ['""', *names], "an index column '' before 'label'"),
    "saved twice": (lambda names: ["Unnamed: 0.1", "Unnamed: 0", *names], "2 extra columns before 'label'"),
    "trailing comma": (lambda names: [*names, ""], "a comma at the end"),
    "trailing commas": (lambda names: [*names, "", " ", '""'], "a comma at the end"),
    "no header": (lambda names: ["5", *["0"] * 784], "numbers: the header is missing"),
    "no header, quoted": (lambda names: ['"5"', *[" 12 "] * 784], "numbers: the header is missing"),
    "another data set": (
        lambda names: ["label", *(f"{row}x{column}" for row in range(1, 29) for column in range(1, 29))],
        "1x1,…,28x28: the CSV form of MNIST, another data set",
    ),
    "semicolons": (lambda names: [";".join(names)], "names separated by ';'"),
    "tabs": (lambda names: ["\t".join(names)], r"names separated by '\t'"),
    "capital": (lambda names: ["Label", *names[1:]], "'Label' in place of 'label' as column 1"),
    "a quote not closed": (lambda names: ['"label', *names[1:]], "'\"label' in place of 'label' as column 1"),
    "400 digits": (lambda names: ["9" * 400, *names[1:]], f"'{'9' * 20}…' in place of 'label' as column 1"),
    "another competition's": (lambda names: ["PassengerId", "Survived"], "'PassengerId' in place of 'label'"),
}


@pytest.mark.parametrize("case", HEADER_FAULTS)
def test_wrong_header_is_described(case: str) -> None:
    change, expected = HEADER_FAULTS[case]
    header, _, rest = TRAIN.decode().partition("\n")
    text = ",".join(change(header.split(","))) + "\n" + rest
    with pytest.raises(
        BadInput, match=re.escape(f"train.csv, line 1: expected the header label,pixel0,…,pixel783, found {expected}")
    ) as refused:
        csv_reader.parse(text.encode(), "train", "train.csv")
    one_line(str(refused.value))
    assert refused.value.hint


def test_swapped_files_are_recognised() -> None:
    with pytest.raises(BadInput, match=r"found the columns of train\.csv$") as refused:
        csv_reader.parse(TRAIN, "test", "test.csv")
    assert "swapped" in refused.value.hint


@pytest.mark.parametrize("header", ['"label"', " label ", ' "label" ', '" label "'])
def test_header_may_be_quoted_and_padded(header: str) -> None:
    text = TRAIN.replace(b"label", header.encode(), 1)
    np.testing.assert_array_equal(csv_reader.parse(text, "train", "t"), csv_reader.parse(TRAIN, "train", "t"))


PIXEL = "expected an integer from 0 to 255"
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
    "400 digits": (field(TRAIN, 2, 1, "1" * 400), f"line 2, column pixel0: {PIXEL}, found '{'1' * 20}…'"),
    "5,000 zeros": (field(TRAIN, 2, 1, "0" * 5000), f"line 2, column pixel0: {PIXEL}, found '{'0' * 20}…'"),
    "digit after a quote": (field(TRAIN, 3, 1, '"1"0'), f"line 3, column pixel0: {PIXEL}, found '\"1\"0'"),
    "digits around quotes": (field(TRAIN, 3, 784, '"5"6'), f"line 3, column pixel783: {PIXEL}, found '\"5\"6'"),
    "label in pieces": (field(TRAIN, 3, 0, '"0"7'), "line 3, column label: expected an integer from 0 to 9"),
    "quote inside": (field(TRAIN, 31, 4, '1"0'), f"line 31, column pixel3: {PIXEL}, found '1\"0'"),
    "doubled quotes": (field(TRAIN, 3, 4, '""5""'), f'line 3, column pixel3: {PIXEL}, found \'""5""\''),
    "empty quotes": (field(TRAIN, 3, 4, '""'), f"line 3, column pixel3: {PIXEL}, found '\"\"'"),
    "quotes side by side": (field(TRAIN, 3, 4, '"1""2"'), f"line 3, column pixel3: {PIXEL}"),
    "single quotes": (field(TRAIN, 3, 4, "'5'"), f"line 3, column pixel3: {PIXEL}"),
    "space inside": (field(TRAIN, 3, 4, "1 0"), f"line 3, column pixel3: {PIXEL}, found '1 0'"),
    "tab": (field(TRAIN, 3, 4, "\t5"), f"line 3, column pixel3: {PIXEL}, found '\\t5'"),
    "no-break space": (field(TRAIN, 3, 4, "\xa05"), f"line 3, column pixel3: {PIXEL}, found '\\xa05'"),
    "quote not closed": (field(TRAIN, 3, 4, '"5'), f"line 3, column pixel3: {PIXEL}, found '\"5'"),
    "quotes around a comma": (field(TRAIN, 3, 4, '"5,6"'), "line 3: expected 785 fields, found 786"),
    "quotes around lines": (
        field(TRAIN, 9, 4, '"5\n6"'),
        "line 9: expected 785 fields, found 5 fields and a quote that is not closed",
    ),
    "plus": (field(TRAIN, 3, 4, "+5"), f"line 3, column pixel3: {PIXEL}, found '+5'"),
    "underscore": (field(TRAIN, 3, 4, "1_0"), f"line 3, column pixel3: {PIXEL}, found '1_0'"),
    "exponent": (field(TRAIN, 3, 4, "1e2"), f"line 3, column pixel3: {PIXEL}, found '1e2'"),
    "short row": (field(TRAIN, 7, 784, "1").replace(b",1\n", b"\n", 1), "expected 785 fields, found 784"),
    "long row": (field(TRAIN, 7, 784, "1,2"), "line 7: expected 785 fields, found 786"),
    "long row before a short row": (
        TRAIN.replace(b"\n1,", b",1\n", 1),
        "line 2: expected 785 fields, found 786",
    ),
    "blank row": (TRAIN.replace(b"\n", b"\n\n", 2), "line 2: expected 785 fields, found a blank line"),
    "blank row among the last": (TRAIN + b" \n", "line 32: expected 785 fields, found a blank line"),
    "torn row": (TRAIN[:-500], "line 31: expected 785 fields, found"),
    "not UTF-8": (field(TRAIN, 6, 2, "\udce9"), "line 6, column 3: expected UTF-8 text, found byte 0xe9"),
    "UTF-16": (TRAIN.decode().encode("utf-16"), "t.csv: expected UTF-8 text, found UTF-16"),
    "UTF-16 without a mark": (TRAIN.decode().encode("utf-16-le"), "t.csv: expected UTF-8 text, found UTF-16"),
    "UTF-16, big end first": (TRAIN.decode().encode("utf-16-be"), "t.csv: expected UTF-8 text, found UTF-16"),
    "zeros": (bytes(9999), "t.csv: expected UTF-8 text, found UTF-16 or binary data"),
    "NUL": (field(TRAIN, 3, 2, "\0"), "line 3, column pixel1: expected an integer"),
    "CR alone": (TRAIN.replace(b"\n", b"\r"), "t.csv, line 1: expected lines that end in LF or CRLF, found CR alone"),
    "CR alone, long": (TRAIN.replace(b"\n", b"\r") * 20, "t.csv, line 1: expected lines that end in LF or CRLF"),
    "CR alone in rows": (
        TRAIN.replace(b"\n", b"\r").replace(b"\r", b"\n", 1),
        "t.csv, line 2: expected lines that end in LF or CRLF, found CR alone",
    ),
    "CR at the end": (TRAIN.rstrip() + b"\r", "line 31: expected lines that end in LF or CRLF, found CR alone"),
    "CR CR LF in a row": (TRAIN.replace(b"\n", b"\r\r\n", 9).replace(b"\r\r", b"", 8), "line 9: expected lines that"),
    "CR CR LF": (TRAIN.replace(b"\n", b"\r\r\n"), "t.csv, line 1: expected lines that end in LF or CRLF"),
    "long header": (b"label," * 20_000, "t.csv, line 1: longer than 65,536 bytes; expected the header"),
    "long row of fields": (TRAIN + b"1," * 200_000, "t.csv, line 32: longer than 65,536 bytes; expected 785 fields"),
    "long quote": (TRAIN + b'"' + b"\x80" * 400_000, "t.csv, line 32: longer than 65,536 bytes; expected 785 fields"),
}


@pytest.mark.parametrize("case", TEXT_FAULTS)
def test_fault_is_refused_with_line_and_column(case: str) -> None:
    text, expected = TEXT_FAULTS[case]
    with pytest.raises(BadInput) as refused:
        csv_reader.parse(text, "train", "t.csv")
    assert expected in str(refused.value)
    one_line(str(refused.value))


@pytest.mark.fuzz
@given(at=st.integers(0, len(TRAIN) - 1), byte=st.integers(0, 255))
@example(at=TRAIN.index(b"\n") + 1, byte=ord(","))
@example(at=len(TRAIN) - 1, byte=ord("7"))
@settings(max_examples=FUZZ, deadline=None)
def test_changed_byte_is_read_like_pandas_or_refused(at: int, byte: int) -> None:
    text = TRAIN[:at] + bytes([byte]) + TRAIN[at + 1 :]
    try:
        values = csv_reader.parse(text, "train", "t.csv")
    except BadInput as refused:
        one_line(str(refused))
        return
    expected = pd.read_csv(io.BytesIO(text), dtype=np.int64, skip_blank_lines=False)
    np.testing.assert_array_equal(values, expected)


def reading(text: bytes, table: str = "train") -> list[list[int]] | None:
    """What a text of a table means, written apart from the parser; None where it is to be refused."""
    try:
        lines = re.split("\r?\n", text.removeprefix(b"\xef\xbb\xbf").decode())
    except UnicodeDecodeError:
        return None
    while lines and not lines[-1]:
        lines.pop()
    if len(lines) < 2:
        return None
    columns = csv_reader.COLUMNS[table]
    for name, found in itertools.zip_longest(columns, lines[0].split(",")):
        if found is None or not re.fullmatch(f' *{name} *| *" *{name} *" *', found or ""):
            return None
    rows = []
    for line in lines[1:]:
        fields = [re.fullmatch('(?P<quote>"?) *([0-9]{1,9}) *(?P=quote) *', field) for field in line.split(",")]
        row = [int(field[2]) for field in fields if field]
        wrong_label = table == "train" and row and row[0] > 9
        if len(row) != len(columns) or len(fields) != len(columns) or wrong_label or max(row) > 255:
            return None
        rows.append(row)
    return rows


NUMBERS = ["0", "7", "10", "255", "256", "999", "007", "0" * 9, "0" * 10, "1" * 400, "-1", "+1", "1e2", "1 0", "٣"]
QUOTED = ['"', '""', '"5"', '"5" ', ' "5"', '" 5 "', '"1"0', '"5"6', '"1""0"', '"1\n2"', '"label"', '"pixel0"']
OTHERS = ["", " ", " 5", "5 ", ",", ",,", "\n", "\n\n", "\r", "\r\n", "\t", "\0", "\ufeff", "\udce9", "label"]
PIECES = st.sampled_from(NUMBERS) | st.sampled_from(QUOTED) | st.sampled_from(OTHERS) | st.text(max_size=6)
PLACES = st.integers(0, 2), st.sampled_from([0, 1, 2, 400, 783, 784]) | st.integers(0, 784)
SMALL = csv_text("train", rows=2).decode().split("\n")
THREE_ROWS = {table: csv_text(table, rows=3) for table in csv_reader.COLUMNS}


@pytest.mark.fuzz
@given(
    edits=st.lists(st.tuples(*PLACES, PIECES, st.booleans()), max_size=4),
    line_end=st.sampled_from(["\n", "\r\n", "\r"]) | st.just("\n"),
    end=st.sampled_from(["", "\n", "\r\n", "\r", "\n\n", "\n \n", "\r\n\r\n"]),
    mark=st.booleans(),
    cut=st.none() | st.integers(0, 13_000),
)
@settings(max_examples=FUZZ, deadline=None)
def test_parser_agrees_with_independent_parser(
    edits: list[tuple[int, int, str, bool]], line_end: str, end: str, mark: bool, cut: int | None
) -> None:
    lines = [line.split(",") for line in SMALL[:3]]
    for line, column, piece, whole in edits:
        lines[line][column] = piece if whole else lines[line][column] + piece
    text = line_end.join(",".join(fields) for fields in lines) + end
    content = (b"\xef\xbb\xbf" * mark + text.encode("utf-8", "surrogateescape"))[:cut]
    expected = reading(content)
    if expected is None:
        with pytest.raises(BadInput) as refused:
            csv_reader.parse(content, "train", "t.csv")
        one_line(str(refused.value))
    else:
        assert csv_reader.parse(content, "train", "t.csv").tolist() == expected


@pytest.mark.fuzz
@given(table=st.sampled_from(["train", "test"]), edits=damage.EDITS, chunk=st.sampled_from([1, 3000, csv_reader.CHUNK]))
@settings(max_examples=FUZZ, deadline=None)
def test_damaged_table_is_read_correctly_or_refused(table: str, edits: list[damage.Edit], chunk: int) -> None:
    content = damage.edited(THREE_ROWS[table], edits)
    expected = reading(content, table)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csv_reader, "CHUNK", chunk)
        if expected is None:
            with pytest.raises(BadInput) as refused:
                csv_reader.parse(content, table, "t.csv")
            one_line(str(refused.value))
            assert refused.value.hint
        else:
            assert csv_reader.parse(content, table, "t.csv").tolist() == expected


@pytest.mark.fuzz
@given(
    edits=st.lists(st.tuples(*PLACES, PIECES, st.booleans()), max_size=3),
    line_end=st.sampled_from(["\n", "\r\n"]),
    first=st.sampled_from(["\n", "\r\n"]),
    table=st.sampled_from(["train", "test"]),
)
@example(edits=[], line_end="\n", first="\n", table="train")
@example(edits=[], line_end="\r\n", first="\r\n", table="test")
@example(edits=[(1, 5, "999", True)], line_end="\n", first="\n", table="train")
@example(edits=[(1, 5, str(2**64 + 5), True)], line_end="\n", first="\n", table="train")
@example(edits=[(1, 0, "10", True)], line_end="\n", first="\n", table="train")
@settings(max_examples=FUZZ, deadline=None)
def test_fast_parser_returns_what_the_row_parser_returns(
    edits: list[tuple[int, int, str, bool]], line_end: str, first: str, table: str
) -> None:
    skipped = 1 if table == "test" else 0
    lines = [line.split(",")[skipped:] for line in SMALL[1:3]]
    for line, column, piece, whole in edits:
        fields = lines[line % 2]
        column = min(column, len(fields) - 1)
        fields[column] = piece if whole else fields[column] + piece
    text = "".join(",".join(fields) + line_end for fields in lines)
    chunk = text.encode("utf-8", "surrogateescape")
    values = csv_reader._parse_plain(chunk, table, first.encode())
    if values is not None:
        np.testing.assert_array_equal(values, csv_reader._parse_any(chunk, 2, table, "t.csv"))
    elif not edits:
        assert line_end != first, "plain text is not left to the row parser"


def test_fault_in_a_large_file_has_the_right_line() -> None:
    rows = TRAIN.split(b"\n", 1)[1]
    text = TRAIN + rows * 60
    assert len(text) > 3 * csv_reader.CHUNK
    lines = text.split(b"\n")
    assert len(csv_reader.parse(text, "train", "t.csv")) == len(lines) - 2
    lines[1500] = lines[1500].rpartition(b",")[0] + b",999"
    with pytest.raises(BadInput, match=r"line 1501, column pixel783: .* found '999'"):
        csv_reader.parse(b"\n".join(lines), "train", "t.csv")


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
def test_unreadable_and_unwritable_files_are_refused(closed: str, mode: int, ordinary_user: Path) -> None:
    (ordinary_user / closed).chmod(mode)
    with pytest.raises(BadInput, match="Permission denied") as refused:
        dataset.load(ordinary_user, default=ordinary_user, cache=ordinary_user / "cache")
    assert refused.value.hint == "change its permissions or name another"


def test_cache_entry_is_used_and_never_stale(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = read(folder, tmp_path)
    changed = field((folder / "train.csv").read_bytes(), 2, 0, "7")
    with monkeypatch.context() as patch:
        patch.setattr(csv_reader, "parse", None)  # a second parsing would fail
        assert read(folder, tmp_path).fingerprint == first.fingerprint
    (folder / "train.csv").write_bytes(changed)
    assert read(folder, tmp_path).labels[0] == 7


@pytest.fixture
def entry(folder: Path, tmp_path: Path) -> Path:
    """A good cache entry."""
    read(folder, tmp_path)
    (entry,) = (tmp_path / "cache").iterdir()
    return entry


def same(found: dataset.Dataset, expected: dataset.Dataset) -> bool:
    arrays = zip(
        (found.images, found.labels, found.test_images),
        (expected.images, expected.labels, expected.test_images),
        strict=True,
    )
    return all(np.array_equal(one, other) for one, other in arrays) and found.fingerprint == expected.fingerprint


CACHE_DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "truncated": lambda whole: whole[:-1000],
    "one byte short": lambda whole: whole[:-1],
    "one byte long": lambda whole: whole + b"\0",
    "zeroed": lambda whole: whole[:5000] + bytes(100) + whole[5100:],
    "zeroed tail": lambda whole: whole[:-5000] + bytes(5000),
    "empty": lambda whole: b"",
    "junk": lambda whole: b"junk",
    "head alone": lambda whole: whole[: dataset.CACHE_HEAD.size],
    "twice": lambda whole: whole + whole,
    "rows exchanged": lambda whole: whole.replace(whole[1000:1784], whole[3000:3784], 1),
    "counts exchanged": lambda whole: whole[:24] + whole[32:40] + whole[24:32] + whole[40:],
    "huge counts": lambda whole: whole[:24] + b"\xff" * 16 + whole[40:],
    "of another form": lambda whole: b"\x93NUMPY" + whole[6:],
}


@pytest.mark.parametrize("case", CACHE_DAMAGE)
def test_damaged_cache_entry_is_rebuilt(case: str, entry: Path, folder: Path, tmp_path: Path) -> None:
    whole = entry.read_bytes()
    first = read(folder, tmp_path)
    entry.write_bytes(CACHE_DAMAGE[case](whole))
    assert same(read(folder, tmp_path), first)
    assert entry.read_bytes() == whole, "the entry is good again"


def test_flipped_bits_of_a_cache_entry_are_detected(folder: Path, tmp_path: Path) -> None:
    for table in ("train", "test"):
        (folder / f"{table}.csv").write_bytes(csv_text(table, rows=2))
    first = read(folder, tmp_path)
    (entry,) = (tmp_path / "cache").iterdir()
    whole, key = entry.read_bytes(), entry.name.removesuffix(dataset.CACHE_ENDING)
    assert dataset._from_cache(entry, key)
    with entry.open("r+b", buffering=0) as file:
        for bit in (*range(3072), *range(len(whole) * 8 - 768, len(whole) * 8)):
            at = bit // 8
            os.pwrite(file.fileno(), bytes([whole[at] ^ 1 << bit % 8]), at)
            assert dataset._from_cache(entry, key) is None, bit
            os.pwrite(file.fileno(), whole[at : at + 1], at)
        os.pwrite(file.fileno(), b"\xff", 100)
    assert same(read(folder, tmp_path), first)
    assert entry.read_bytes() == whole


def test_cache_entry_under_another_name_is_not_used(entry: Path, folder: Path, tmp_path: Path) -> None:
    (folder / "train.csv").write_bytes(csv_text("train", seed=5))
    expected = dataset.load(folder, default=tmp_path, cache=tmp_path / "another")
    (other,) = (tmp_path / "another").iterdir()
    shutil.copy(entry, tmp_path / "cache" / other.name)
    assert same(read(folder, tmp_path), expected)


def test_fingerprint_is_stable(folder: Path, tmp_path: Path) -> None:
    """Runs are resumed by it, so it stays the same whatever the form of the cache."""
    assert read(folder, tmp_path).fingerprint == "1d915a49d5f4c0e4"


def test_read_only_cache_is_used(ordinary_user: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = ordinary_user / "cache"
    first = dataset.load(ordinary_user, default=ordinary_user, cache=cache)
    cache.chmod(0o500)
    monkeypatch.setattr(csv_reader, "parse", None)  # a second parsing would fail
    assert same(dataset.load(ordinary_user, default=ordinary_user, cache=cache), first)
    cache.chmod(0o700)


def test_unreadable_cache_entry_is_rebuilt(ordinary_user: Path) -> None:
    cache = ordinary_user / "cache"
    first = dataset.load(ordinary_user, default=ordinary_user, cache=cache)
    (entry,) = cache.iterdir()
    entry.chmod(0)
    assert same(dataset.load(ordinary_user, default=ordinary_user, cache=cache), first)
    assert entry.read_bytes()


def test_folder_in_place_of_a_cache_entry_is_named(entry: Path, folder: Path, tmp_path: Path) -> None:
    entry.unlink()
    (entry / "x").mkdir(parents=True)
    with pytest.raises(BadInput, match=re.escape(f"{entry}: ")) as refused:
        read(folder, tmp_path)
    one_line(str(refused.value))


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("train.csv", lambda text: text[:-300]),
        (sample.SAMPLE_MARK, None),
    ],
)
def test_damaged_sample_is_rebuilt(name: str, damage: Callable[[bytes], bytes] | None, tmp_path: Path) -> None:
    first = read(None, tmp_path)
    file = tmp_path / "cache" / "sample" / name
    whole = file.read_bytes()
    if damage:
        file.write_bytes(damage(whole))
    else:
        file.unlink()
    found = read(None, tmp_path)
    assert same(found, first) and found.sample
    assert file.read_bytes() == whole


def test_default_folder_is_used_if_it_has_data(folder: Path, tmp_path: Path) -> None:
    folder.rename(tmp_path / "data")
    assert not read(None, tmp_path).sample


def test_sample_is_used_without_data_and_marked(tmp_path: Path) -> None:
    found = read(None, tmp_path)
    assert found.sample
    assert "NOT the competition's" in str(found)
    assert (len(found.labels), len(found.test_images)) == (1438, 359)
    assert np.bincount(found.labels).min() > 100
    assert found.images.max() == 255
    assert not found.images[:, :4].any(), "four empty rows above, as the competition's digits have"
    # Named by hand it is still the sample.
    assert read(tmp_path / "cache" / "sample", tmp_path).sample


def test_competition_files_are_read_completely(competition: Path, tmp_path: Path) -> None:
    found = read(competition, tmp_path)
    assert found.images.shape == (42000, 28, 28)
    assert found.test_images.shape == (28000, 28, 28)
    assert np.bincount(found.labels).tolist() == [4132, 4684, 4177, 4351, 4072, 3795, 4137, 4401, 4063, 4188]
