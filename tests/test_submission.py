"""A file that is written passes the check; one with any fault does not, and every fault is named by line."""

import os
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from conftest import kit, one_line
from digit_recognizer import submission
from digit_recognizer.errors import BadInput

DIGITS = np.arange(50) % 10
GOOD = "ImageId,Label\n" + "".join(f"{i},{d}\n" for i, d in enumerate(DIGITS, 1))
LINES = GOOD.splitlines()


def faults(tmp_path: Path, text: str | bytes, rows: int = 50) -> list[str]:
    path = tmp_path / "file.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return submission.check(path, rows)


def test_what_is_written_passes_and_is_what_was_given(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.csv"
    submission.write(path, DIGITS)
    assert path.read_text() == GOOD
    assert submission.check(path, 50) == []
    assert list(path.parent.iterdir()) == [path]
    np.testing.assert_array_equal(pd.read_csv(path)["Label"], DIGITS)


def test_crlf_and_a_missing_last_line_end_pass(tmp_path: Path) -> None:
    assert faults(tmp_path, GOOD.replace("\n", "\r\n")) == []
    assert faults(tmp_path, GOOD.rstrip()) == []
    assert faults(tmp_path, GOOD.replace("\n", "\r\n").rstrip()) == []


def with_line(number: int, text: str) -> str:
    return "\n".join([*LINES[: number - 1], text, *LINES[number:], ""])


@pytest.mark.parametrize(
    ("text", "told"),
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
        (
            re.sub(r"\n(\d+),", lambda m: f"\n{int(m[1]) - 1},", GOOD),
            ["lines 2 to 51: first expected ImageId 1, found '0'"],
        ),
    ],
)
def test_every_fault_is_named(text: str | bytes, told: list[str], tmp_path: Path) -> None:
    found = faults(tmp_path, text)
    assert len(found) == len(told)
    for fault, expected in zip(found, told, strict=True):
        assert fault.startswith(expected)


def test_the_command_answers_by_line_and_status(tmp_path: Path) -> None:
    path = tmp_path / "file.csv"
    path.write_text(with_line(9, "8,a"))
    good = tmp_path / "good.csv"
    good.write_text(GOOD)
    bad = kit("check", "--file", path, "--rows", 50, cwd=tmp_path)
    assert bad.returncode == 2
    assert one_line(bad.stderr) == f"{path}, line 9: expected a Label from 0 to 9, found 'a'"
    passed = kit("check", "--file", good, "--rows", 50, cwd=tmp_path)
    assert (passed.returncode, passed.stderr) == (0, "")
    assert "expected 28,000 rows" in kit("check", "--file", good, cwd=tmp_path).stderr
    missing = kit("check", "--file", tmp_path / "none.csv", cwd=tmp_path)
    assert missing.returncode == 2
    assert "No such file" in one_line(missing.stderr)


def test_a_full_disk_leaves_the_old_file_and_no_part(tmp_path: Path) -> None:
    path = tmp_path / "file.csv"
    path.write_text("old")
    (tmp_path / f".file.csv.{os.getpid()}.part").symlink_to("/dev/full")
    with pytest.raises(BadInput, match="No space left on device; free some space there"):
        submission.write(path, DIGITS)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "submissions").write_text("")
    with pytest.raises(BadInput, match=r"File exists|Not a directory"):
        submission.write(tmp_path / "submissions" / "file.csv", DIGITS)
