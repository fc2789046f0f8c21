"""Submission files: writing, faults by line, warnings, and the verb check."""

import csv
import io
import os
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import damage
from conftest import FUZZ, call, kit, one_line
from digit_recognizer import submission
from digit_recognizer.errors import BadInput

DIGITS = np.arange(50) % 10
GOOD = "ImageId,Label\n" + "".join(f"{i},{d}\n" for i, d in enumerate(DIGITS, 1))
LINES = GOOD.splitlines()


def faults(tmp_path: Path, text: str | bytes, rows: int = 50) -> list[str]:
    path = tmp_path / "file.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return submission.check(path, rows)


def test_written_file_is_valid_and_has_the_given_digits(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.csv"
    submission.write(path, DIGITS)
    assert path.read_text() == GOOD
    assert submission.check(path, 50) == []
    assert list(path.parent.iterdir()) == [path]
    np.testing.assert_array_equal(pd.read_csv(path)["Label"], DIGITS)


def test_crlf_and_missing_last_line_end_are_valid(tmp_path: Path) -> None:
    assert faults(tmp_path, GOOD.replace("\n", "\r\n")) == []
    assert faults(tmp_path, GOOD.rstrip()) == []
    assert faults(tmp_path, GOOD.replace("\n", "\r\n").rstrip()) == []


def in_order(*order: int) -> str:
    """Return the valid file with its rows in this order, counted from 1."""
    return "\n".join([LINES[0], *(LINES[i] for i in order), ""])


BACKWARDS = tuple(range(50, 0, -1))
QUOTED = "ImageId,Label\n" + "".join(f'"{i}","{d}"\n' for i, d in enumerate(DIGITS, 1))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (GOOD, []),
        (QUOTED, ["quoted"]),
        (QUOTED.replace("ImageId,Label", '"ImageId","Label"').rstrip(), ["quoted"]),
        (QUOTED.replace("\n", "\r\n"), ["quoted"]),
        (GOOD.replace("ImageId", '"ImageId"'), ["quoted"]),
        (GOOD.replace("\n7,", '\n"7",'), ["quoted"]),
        (in_order(*BACKWARDS), ["order"]),
        (in_order(2, 1, *range(3, 51)), ["order"]),
        (in_order(*range(2, 51), 1).rstrip(), ["order"]),
        (in_order(*BACKWARDS).replace("\n7,", '\n"7",'), ["quoted", "order"]),
    ],
)
def test_what_kaggle_accepts_is_valid_with_a_warning(text: str, expected: list[str], tmp_path: Path) -> None:
    path = tmp_path / "file.csv"
    path.write_bytes(text.encode())
    assert submission.check(path, 50) == []
    _, warnings = submission.examine(path, 50)
    assert len(warnings) == len(expected)
    assert all(word in warning for word, warning in zip(expected, warnings, strict=True))
    done = call("check", "--file", path, "--rows", 50, cwd=tmp_path)
    assert (done.returncode, done.stderr.count("warning: ")) == (0, len(expected))


def with_line(number: int, text: str) -> str:
    return "\n".join([*LINES[: number - 1], text, *LINES[number:], ""])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ["line 1: expected the header ImageId,Label, found nothing", "line 2: expected 50 rows, found the end"]),
        (GOOD.replace("ImageId", "id"), ["line 1: expected the header ImageId,Label, found 'id,Label'"]),
        ("\ufeff" + GOOD, ["line 1: expected the header ImageId,Label, found '\\ufeffImageId,Label'"]),
        (with_line(7, "6,10"), ["line 7: expected a Label from 0 to 9, found '10'"]),
        (with_line(7, "6,"), ["line 7: expected a Label from 0 to 9, found nothing"]),
        (with_line(7, "6,7.0"), ["line 7: expected a Label from 0 to 9, found '7.0'"]),
        (with_line(7, "6,٣"), ["line 7: expected a Label from 0 to 9, found '٣'"]),
        (
            with_line(7, "7,x"),
            ["line 7: expected ImageId 6, found '7'", "line 7: expected a Label from 0 to 9, found 'x'"],
        ),
        (with_line(7, "6"), ["line 7: expected an id and a label, found '6'"]),
        (with_line(7, "6,1,1"), ["line 7: expected an id and a label, found '6,1,1'"]),
        (with_line(7, ""), ["line 7: expected an id and a label, found nothing"]),
        (with_line(7, "6,5\r"), ["line 7: expected the line end of line 1, LF, found CRLF"]),
        (GOOD + "51,1\n52,1\n", ["lines 52 to 53: first expected the end of the file after 50 rows, found '51,1'"]),
        ("\n".join(LINES[:41]) + "\n", ["line 42: expected 50 rows, found the end of the file after 40"]),
        (GOOD.encode()[:20] + b"\xe9" + GOOD.encode()[21:], ["line 3: expected UTF-8 text, found byte 0xe9"]),
        (GOOD.rstrip() + "\r", ["line 51: expected LF or nothing after the last row, found CR"]),
        (
            GOOD.replace("\n", "\r\n").rstrip() + "\r",
            ["line 51: expected CRLF or nothing after the last row, found CR"],
        ),
        (
            "ImageId,Label\r",
            ["line 1: expected LF or nothing after the last row, found CR", "line 2: expected 50 rows"],
        ),
        (GOOD + "\r", ["line 52: expected LF or nothing after", "line 52: expected the end of the file after 50 rows"]),
        (
            GOOD.replace("\n", "\r"),
            ["line 1: expected LF or", "line 1: expected the header", "line 2: expected 50 rows"],
        ),
        (with_line(7, "6,\r5"), ["line 7: expected a Label from 0 to 9, found '\\r5'"]),
        (with_line(7, '6,"5\r"'), ["line 7: expected a Label from 0 to 9, found '5\\r'"]),
        (with_line(7, "6,5\r\r").replace("\n", "\r\n"), ["line 7: expected a Label from 0 to 9, found '5\\r\\r'"]),
        (with_line(7, '"6,5"'), ["line 7: expected ImageId 6, found '\"6'", "line 7: expected a Label from 0 to 9"]),
        (with_line(7, '"6","5'), ["line 7: expected a Label from 0 to 9, found '\"5'"]),
        (with_line(7, '6,""5""'), ["line 7: expected a Label from 0 to 9, found '\"5\"'"]),
        (GOOD.replace("ImageId,Label", '"ImageId,Label"'), ["line 1: expected the header ImageId,Label"]),
        (GOOD.replace("ImageId,Label", "imageid,label"), ["line 1: expected the header ImageId,Label, found 'image"]),
        (GOOD.replace("ImageId,Label", "ImageId, Label"), ["line 1: expected the header ImageId,Label"]),
        (GOOD.replace("ImageId,Label", "ImageId;Label"), ["line 1: expected the header ImageId,Label"]),
        (with_line(7, "6, 5"), ["line 7: expected a Label from 0 to 9, found ' 5'"]),
        (with_line(7, "6 ,5"), ["line 7: expected ImageId 6, found '6 '"]),
        (with_line(7, "06,5"), ["line 7: expected ImageId 6, found '06'"]),
        (with_line(7, "6.0,5"), ["line 7: expected ImageId 6, found '6.0'"]),
        (with_line(7, "+6,5"), ["line 7: expected ImageId 6, found '+6'"]),
        (with_line(7, "9" * 5000 + ",5"), ["line 7: expected ImageId 6, found '9999"]),
        (with_line(7, "9,5"), ["line 7: expected ImageId 6, found '9', as on line 10"]),
        (
            in_order(*BACKWARDS[:-1], 9),
            [
                "line 51: expected each ImageId once, found '9', as on line 43",
                "line 52: expected a row of ImageId 1 before",
            ],
        ),
        (
            in_order(*BACKWARDS[:-1]),
            ["line 51: expected 50 rows, found the end", "line 51: expected a row of ImageId 1 before"],
        ),
        (
            in_order(*BACKWARDS).replace("\n50,", "\n0,"),
            [
                "line 2: expected an ImageId from 1 to 50, found '0'",
                "line 52: expected a row of ImageId 50 before, found none",
            ],
        ),
        (
            in_order(*[1] * 50),
            [
                "lines 3 to 51: first expected each ImageId once, found '1', as on line 2",
                "line 52: expected a row of ImageId 2",
            ],
        ),
        (
            re.sub(r"\n(\d+),", lambda m: f"\n{int(m[1]) - 1},", GOOD),
            ["lines 2 to 51: first expected ImageId 1, found '0'"],
        ),
    ],
)
def test_every_fault_is_reported(text: str | bytes, expected: list[str], tmp_path: Path) -> None:
    reported = faults(tmp_path, text)
    assert len(reported) == len(expected)
    for fault, start in zip(reported, expected, strict=True):
        assert fault.startswith(start)


def test_check_prints_faults_and_returns_their_status(tmp_path: Path) -> None:
    path = tmp_path / "file.csv"
    path.write_text(with_line(9, "8,a"))
    good = tmp_path / "good.csv"
    good.write_text(GOOD)
    bad = kit("check", "--file", path, "--rows", 50, cwd=tmp_path)
    assert bad.returncode == 2
    assert one_line(bad.stderr) == f"error: {path}, line 9: expected a Label from 0 to 9, found 'a'"
    passed = call("check", "--file", good, "--rows", 50, cwd=tmp_path)
    assert (passed.returncode, passed.stderr) == (0, "")
    assert "expected 28,000 rows" in call("check", "--file", good, cwd=tmp_path).stderr
    missing = call("check", "--file", tmp_path / "none.csv", cwd=tmp_path)
    assert missing.returncode == 2
    assert "No such file" in one_line(missing.stderr)


@pytest.mark.parametrize("rows", ["0", "-1", "-28000"])
def test_number_of_rows_must_be_positive(rows: str, tmp_path: Path) -> None:
    path = tmp_path / "file.csv"
    path.write_text(GOOD)
    done = call("check", "--file", path, f"--rows={rows}", cwd=tmp_path)
    assert done.returncode == 2
    assert re.search(f"rows: expected a whole number from 1 to .*, found {rows}", one_line(done.stderr))


def test_large_number_of_rows_needs_little_memory(tmp_path: Path) -> None:
    assert faults(tmp_path, GOOD, rows=10**15) == [
        "line 52: expected 1,000,000,000,000,000 rows, found the end of the file after 50"
    ]


@pytest.mark.parametrize("kind", ["fifo", "folder", "device", "large"])
def test_irregular_or_huge_file_is_refused_before_reading(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "file.csv"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.touch()
        os.truncate(path, 2 << 30)
    for words in (["check", "--file", path], ["submit", "--yes", "--file", path]):
        done = call(*words, cwd=tmp_path)
        assert done.returncode == 2
        assert re.search("expected a file, found a|larger than", one_line(done.stderr))


@pytest.mark.parametrize("damaged", [b"", b"\xff", b"{}", b"[]", b"[" * 10**5, b'{"identity": 3, "test_rows": "x"}'])
def test_damaged_run_json_is_ignored(damaged: bytes, tmp_path: Path) -> None:
    path = tmp_path / "submissions" / "run-1.csv"
    submission.write(path, np.arange(28_000) % 10)
    run_json = tmp_path / "runs" / "run-1" / "run.json"
    run_json.parent.mkdir(parents=True)
    run_json.write_bytes(damaged)
    done = call("check", "--file", path, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "cannot be submitted" not in done.stdout


@pytest.mark.parametrize(
    ("name", "run_json", "reason"),
    [
        ("sample-1", None, "sample run"),
        ("mine", '{"identity": {"sample": true}, "test_rows": 50}', "sample run"),
        ("part", '{"identity": {"sample": false}, "test_rows": 50}', "50 test rows"),
    ],
)
def test_check_states_why_a_file_cannot_be_submitted(
    name: str, run_json: str | None, reason: str, tmp_path: Path
) -> None:
    path = tmp_path / "submissions" / f"{name}.csv"
    submission.write(path, DIGITS)
    words: list[object] = ["--rows", 50]
    if run_json:
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "run.json").write_text(run_json)
        words = []
    done = call("check", "--file", path, *words, cwd=tmp_path)
    assert done.returncode == 0
    assert f"cannot be submitted: {reason}" in done.stdout


def accepted(text: bytes, rows: int) -> bool:
    """Return whether Python's CSV reader finds each id once, with a digit; nothing else may be valid."""
    try:
        header, *table = csv.reader(io.StringIO(text.decode(), newline=""), strict=True)
    except (ValueError, csv.Error):
        return False
    ids = {row[0] for row in table if len(row) == 2 and row[1] in tuple("0123456789")}
    return header == ["ImageId", "Label"] and len(table) == rows and ids == {str(i) for i in range(1, rows + 1)}


PIECE = st.sampled_from(
    [*"0123456789", ",", "\n", "\r\n", "\r", '"', '""', " ", "\t", "-", "+", ".", "1,2\n", '"3","4"\n',
     "ImageId,Label\n", '"ImageId","Label"\r\n', "\ufeff", "\x00", "\u2028", "\x85", "٣", "²"]
)  # fmt: skip


@st.composite
def almost_submissions(draw: st.DrawFn) -> bytes:
    """Draw a file of up to four rows in any order, often quoted, with up to three random edits."""
    order = draw(st.permutations([1, 2, 3, 4]))
    field, end = draw(st.sampled_from(["{}", '"{}"'])), draw(st.sampled_from(["\n", "\r\n"]))
    rows = [("ImageId", "Label"), *((i, draw(st.integers(0, 9))) for i in order)]
    text = end.join(",".join(map(field.format, row)) for row in rows) + draw(st.sampled_from(["", end]))
    for _ in range(draw(st.integers(0, 3))):
        start = draw(st.integers(0, len(text)))
        text = text[:start] + draw(PIECE | st.just("")) + text[start + draw(st.integers(0, 2)) :]
    return text.encode()


@pytest.mark.fuzz
@settings(max_examples=FUZZ, deadline=None)
@given(
    almost_submissions()
    | st.lists(PIECE, max_size=30).map(lambda pieces: "".join(pieces).encode())
    | st.binary()
    | damage.EDITS.map(lambda edits: damage.edited(b"ImageId,Label\n1,7\n2,0\n3,1\n4,9\n", edits))
)
@example(b"ImageId,Label\r\n1,1\r\n2,2\r\n3,3\r\n4,4\r")
@example(b'ImageId,Label\n"1","1"\n2,2\n3,3\n4,4\n')
@example(b'"ImageId,Label"\n1,1\n2,2\n3,3\n4,4\n')
def test_files_that_the_csv_reader_refuses_are_invalid(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.csv"
    path.write_bytes(content)
    reported, warnings = submission.examine(path, 4)
    assert reported or accepted(content, 4)
    assert all(re.match("lines? [0-9]", fault) and fault.isprintable() for fault in reported)
    assert not (reported and warnings)


def test_full_disk_keeps_the_old_file_and_no_partial_one(tmp_path: Path) -> None:
    path = tmp_path / "file.csv"
    path.write_text("old")
    (tmp_path / f".file.csv.{os.getpid()}.part").symlink_to("/dev/full")
    with pytest.raises(BadInput, match="No space left on device") as error:
        submission.write(path, DIGITS)
    assert error.value.hint == "free some space there"
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "submissions").write_text("")
    with pytest.raises(BadInput, match=r"File exists|Not a directory"):
        submission.write(tmp_path / "submissions" / "file.csv", DIGITS)
