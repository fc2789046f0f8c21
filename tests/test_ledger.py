"""The ledger: reading, writing, older and newer formats, faults, parallel processes."""

import csv
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import damage
from conftest import FUZZ, ROOT
from digit_recognizer import ledger
from digit_recognizer.errors import BadInput
from digit_recognizer.evaluation import metrics
from digit_recognizer.ledger import Row

FULL = Row(
    run="standard-1", recipe="standard", members="4", oof_errors=68, oof_rows=15120, holdout_errors=21,
    holdout_rows=4200, file_sha256="ab" * 32, reference="5", status="complete", message='a "quoted", late\nnight',
    train_rows=42000, test_rows=28000, oof_distinct=15120,
    expected="0.99641", expected_low="0.99502", expected_high="0.99752",
)  # fmt: skip


def test_rows_are_read_as_written(tmp_path: Path) -> None:
    assert ledger.read(tmp_path) == []
    ledger.record(tmp_path, FULL)
    ledger.record(tmp_path, Row(run="bare"))
    assert ledger.read(tmp_path) == [FULL, Row(run="bare")]
    text = (tmp_path / "ledger.csv").read_text()
    assert text.startswith("run,time,recipe,")
    assert "\r" not in text


@pytest.mark.parametrize(
    ("fields", "estimate", "interval"),
    [
        ({"expected": "0.99641", "expected_low": "0.99502", "expected_high": "0.99752"}, 0.99641, (0.99502, 0.99752)),
        ({"expected": "0,99641", "expected_low": "0,9", "expected_high": "1"}, 0.99641, (0.9, 1)),
        ({}, 0.995, (0.99237, 0.99673)),  # a row of an earlier version
        ({"expected": "nan", "expected_low": "0.99"}, 0.995, (0.99237, 0.99673)),
    ],
)
def test_rank_is_the_expected_accuracy_and_else_that_of_validation(
    fields: dict[str, str], estimate: float, interval: tuple[float, float]
) -> None:
    row = Row(run="a", holdout_errors=21, holdout_rows=4200, **fields)
    assert row.estimate == pytest.approx(estimate)
    assert row.interval == pytest.approx(interval, abs=1e-5)
    assert Row(run="b").estimate is Row(run="b").interval is None


def test_run_has_one_row_and_a_submitted_row_stays(tmp_path: Path) -> None:
    ledger.record(tmp_path, Row(run="a", status=""))
    ledger.record(tmp_path, Row(run="a", members="2"))
    assert ledger.update(tmp_path, "a", reference="7", status="pending").members == "2"
    ledger.record(tmp_path, Row(run="a", members="3"))
    assert ledger.read(tmp_path) == [Row(run="a", members="2", reference="7", status="pending")]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text.replace("run,time", "name,time"), "line 1: expected the header run,time,…,expected_high"),
        (lambda text: text.replace("run,time", "run,run"), "line 1: expected each column once, found run twice"),
        (lambda text: text.replace(",time,", ",,"), "line 2: expected a column name, found none for 'now'"),
        (lambda text: text + "b,c\n", "line 3: expected 24 fields, found 2"),
        (lambda text: text + "<<<<<<< HEAD\n", "line 3: expected 24 fields, found 1"),
        (lambda text: text.replace(",21,4200,", ",many,4200,"), "column holdout_errors: expected a count of rows"),
        (lambda text: text.replace(",21,4200,", ",-1,4200,"), "column holdout_errors: expected a count of rows"),
        (lambda text: text.replace(",21,4200,", ",٣,4200,"), "column holdout_errors: expected a count of rows"),
        (lambda text: text.replace(",21,", f",{'9' * 5000},"), "column holdout_errors: expected a count of rows"),
        (lambda text: text.replace(",4200,", f",{'9' * 10},"), "column holdout_rows: expected a count of rows"),
        (lambda text: text.replace(",21,", ",4201,"), "line 2, column holdout_errors: expected at most the 4200 of"),
        (lambda text: text.replace(",68,", ",15121,"), "line 2, column oof_errors: expected at most the 15120 of"),
        (lambda text: text + '"open', "line 3: expected CSV in UTF-8"),
        (lambda text: text + '"a"b\n', "line 3: expected CSV in UTF-8"),
        (lambda text: text.replace("one", "\udcff"), "expected CSV in UTF-8"),
        (lambda text: "", "line 1: expected the header"),
        (lambda text: text.replace("standard-1", "../standard-1"), "line 2, column run: expected a plain file name"),
        (lambda text: text.replace("standard-1", ""), "line 2, column run: expected a plain file name"),
        (lambda text: text.replace("standard-1", "a\x1b[2J"), "line 2, column run: expected a plain file name"),
    ],
)
def test_faulty_ledger_is_refused_and_left_unchanged(damage: object, message: str, tmp_path: Path) -> None:
    path = tmp_path / "ledger.csv"
    ledger.record(tmp_path, FULL.changed(message="one line", time="now"))
    damaged = damage(path.read_text()).encode(errors="surrogateescape")  # type: ignore[operator]
    path.write_bytes(damaged)
    with pytest.raises(BadInput, match=message) as error:
        ledger.record(tmp_path, Row(run="b"))
    assert "\n" not in str(error.value)
    assert path.read_bytes() == damaged


def test_unsafe_run_name_is_not_written(tmp_path: Path) -> None:
    ledger.record(tmp_path, FULL)
    with pytest.raises(BadInput, match="run: expected a plain file name"):
        ledger.record(tmp_path, Row(run="../b"))
    assert ledger.read(tmp_path) == [FULL]


OLD = """run,time,recipe,recipe_digest,commit,data,members,oof_errors,oof_rows,oof_accuracy,holdout_errors,\
holdout_rows,holdout_accuracy,file_sha256,reference,status,public_score,message
quick-1,2026-11-22T02:53:22+0000,quick,6b60,14f6,8836,2,31,7980,0.99612,13,2100,0.99381,c878,50000001,complete,0.99,hi
"""
OLD_ROW = Row(
    run="quick-1", time="2026-11-22T02:53:22+0000", recipe="quick", recipe_digest="6b60", commit="14f6", data="8836",
    members="2", oof_errors=31, oof_rows=7980, oof_accuracy="0.99612", holdout_errors=13, holdout_rows=2100,
    holdout_accuracy="0.99381", file_sha256="c878", reference="50000001", status="complete", public_score="0.99",
    message="hi",
)  # fmt: skip


def reordered(text: str) -> str:
    return "".join(",".join(reversed(line.split(","))) + "\n" for line in text.splitlines())


@pytest.mark.parametrize(
    "text",
    [
        OLD,
        reordered(OLD),
        "\ufeff" + OLD,
        OLD.replace(",", ";"),
        OLD.replace(",", "\t"),
        "\ufeff" + OLD.replace(",", ";").replace("\n", "\r\n"),
        OLD.replace("\n", "\r"),
        OLD.rstrip("\n"),
        OLD.replace("\n", ",,\n"),  # columns without a name
        OLD + "," * 17 + "\n\n",  # rows without a field
        OLD.replace("run,time", " run ,time"),
        '"' + OLD.replace("\n", '"\n"').replace(",", '","').rstrip('"'),
    ],
)
def test_formats_of_spreadsheets_and_older_versions_are_read(text: str, tmp_path: Path) -> None:
    (tmp_path / "ledger.csv").write_text(text, newline="")
    assert ledger.read(tmp_path) == [OLD_ROW]
    ledger.record(tmp_path, Row(run="b"))
    assert ledger.read(tmp_path) == [OLD_ROW, Row(run="b")]
    written = (tmp_path / "ledger.csv").read_text().splitlines()
    header, line = OLD.splitlines()
    new = "train_rows,test_rows,oof_distinct,expected,expected_low,expected_high"
    assert written[:2] == [f"{header},{new}", f"{line},,,,,,"]


def test_ledger_of_the_repository_is_read(tmp_path: Path) -> None:
    rows = ledger.read(ROOT / "submissions")
    assert {"standard-20261125-151702", "quick-20261125-142523"} <= {row.run for row in rows}


def test_only_the_run_column_is_required(tmp_path: Path) -> None:
    (tmp_path / "ledger.csv").write_text("run\na\nb\n")
    assert ledger.read(tmp_path) == [Row(run="a"), Row(run="b")]


def test_unknown_columns_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "ledger.csv"
    path.write_text("private_score,run,status,=sum\n0.9,a,complete,\n,b,,'=1\n")
    ledger.update(tmp_path, "b", status="sending")
    ledger.record(tmp_path, Row(run="c"))
    (a, b, c) = csv.DictReader(path.open())
    assert (a["private_score"], a["status"], a["'=sum"]) == ("0.9", "complete", "")
    assert (b["private_score"], b["status"], b["'=sum"]) == ("", "sending", "'=1")
    assert (c["private_score"], c["run"], c["'=sum"]) == ("", "c", "")
    ledger.record(tmp_path, Row(run="c", members="2"))
    assert [dict(row.extra) for row in ledger.read(tmp_path)][:2] == [
        {"private_score": "0.9", "=sum": ""},
        {"private_score": "", "=sum": "=1"},
    ]


@pytest.mark.parametrize(
    "text", ["=1+1", "+1", "-1", "@x", "\tx", "\rx", "'=1", "''@", "=", "'", "''", "'a", " =1", "a=1"]
)
def test_formulas_are_escaped(text: str, tmp_path: Path) -> None:
    ledger.record(tmp_path, Row(run="a", message=text, commit=text))
    ledger.record(tmp_path, Row(run="=b", status=text))
    for fields in csv.reader((tmp_path / "ledger.csv").open(newline="")):
        assert not any(field.startswith(("=", "+", "-", "@", "\t", "\r")) for field in fields)
    a, b = ledger.read(tmp_path)
    assert (a.message, a.commit, b.run, b.status) == (text, text, "=b", text)


@pytest.mark.parametrize(
    ("first", "second", "kept"),
    [
        (Row(run="a", members="2"), Row(run="a", members="2"), Row(run="a", members="2")),
        (
            Row(run="a", file_sha256="f"),
            Row(run="a", file_sha256="f", reference="7"),
            Row(run="a", file_sha256="f", reference="7"),
        ),
        (
            Row(run="a", file_sha256="f", reference="7"),
            Row(run="a", file_sha256="f"),
            Row(run="a", file_sha256="f", reference="7"),
        ),
        (Row(run="a", members="2"), Row(run="a", members="3"), None),
        (Row(run="a", file_sha256="f"), Row(run="a", file_sha256="g", reference="7"), None),
        (Row(run="a", file_sha256="f", reference="8"), Row(run="a", file_sha256="f", reference="7"), None),
        (Row(run="a", file_sha256="f", status="sending"), Row(run="a", file_sha256="f"), None),
    ],
)
def test_two_rows_of_a_run_are_merged_or_refused(first: Row, second: Row, kept: Row | None, tmp_path: Path) -> None:
    path = tmp_path / "ledger.csv"
    ledger.record(tmp_path, second)
    last = path.read_text().splitlines()[1]
    path.unlink()
    ledger.record(tmp_path, first)
    ledger.record(tmp_path, Row(run="between"))
    path.write_text(path.read_text() + last + "\n")
    if kept is None:
        with pytest.raises(BadInput, match=r"ledger.csv, line 2 and line 4: expected one row of run a, found two"):
            ledger.read(tmp_path)
    else:
        assert ledger.read(tmp_path) == [kept, Row(run="between")]
        ledger.update(tmp_path, "between", status="x")
        assert path.read_text().count("\na,") == 1


def test_row_in_submission_stays(tmp_path: Path) -> None:
    sending = Row(run="a", members="2", status="sending", message="m")
    ledger.record(tmp_path, sending)
    ledger.record(tmp_path, Row(run="a", members="2"))
    assert ledger.read(tmp_path) == [sending]


def test_sample_rows_have_their_own_file(tmp_path: Path) -> None:
    main, samples = tmp_path / "ledger.csv", tmp_path / "sample-ledger.csv"
    main.write_text(OLD)
    ledger.record(tmp_path, Row(run="sample-quick-1", members="2"))
    assert main.read_text() == OLD, "a sample run does not change the committed file"
    assert [row.run for row in ledger.read(tmp_path)] == ["quick-1", "sample-quick-1"]
    before = samples.read_bytes()
    ledger.record(tmp_path, Row(run="b"))
    assert samples.read_bytes() == before
    ledger.update(tmp_path, "sample-quick-1", members="3")
    assert [row.run for row in ledger.read(tmp_path)] == ["quick-1", "b", "sample-quick-1"]
    assert "sample" not in main.read_text()
    assert subprocess.run(["git", "check-ignore", "-q", "submissions/sample-ledger.csv"], cwd=ROOT).returncode == 0


def test_sample_rows_in_the_main_file_move(tmp_path: Path) -> None:
    main = tmp_path / "ledger.csv"
    main.write_text("run,members\nsample-a,1\nb,2\n")
    assert [row.run for row in ledger.read(tmp_path)] == ["sample-a", "b"]
    ledger.record(tmp_path, Row(run="sample-c"))
    assert "sample" not in main.read_text()
    assert [row.run for row in ledger.read(tmp_path)] == ["b", "sample-a", "sample-c"]


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "1e400", "", "none", "2", "-0.5", "NaN"])
def test_invalid_public_score_is_none(text: str) -> None:
    assert Row(run="a", public_score=text).public is None
    assert Row(run="a", public_score="0.99643").public == Row(run="a", public_score="0,99643").public == 0.99643


def test_unreadable_ledger_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ledger.csv").mkdir()
    with pytest.raises(BadInput, match=r"ledger.csv: Is a directory"):
        ledger.read(tmp_path)
    (tmp_path / "submissions").touch()
    with pytest.raises(BadInput, match="submissions"):
        ledger.read(tmp_path / "submissions")


TEXT = st.text() | st.text("=+-@'\t\r\n\",; a", max_size=8)
NAME = st.from_regex("[=+@a-z0-9-][a-z0-9 '=-]{0,20}[a-z0-9]", fullmatch=True)
COUNT = st.none() | st.integers(0, 10**9 - 1)
TEXTS = [name for name in ledger.FIELDS if name != "run" and name not in ledger.COUNTS]


@st.composite
def any_rows(draw: st.DrawFn) -> list[Row]:
    """Draw rows of different runs with any texts and counts, all with the same unknown columns."""
    extra = draw(st.lists(st.from_regex("x[=a-z\"',;]{0,5}y", fullmatch=True), max_size=2, unique=True))
    rows = []
    for name in draw(st.lists(NAME, max_size=4, unique=True)):
        counts = {name: draw(COUNT) for name in ledger.COUNTS}
        for errors, limit in ledger.PARTS:
            known = [count for count in (counts[errors], counts[limit]) if count is not None]
            counts[limit] = max(known, default=None)
        texts = {name: draw(TEXT) for name in TEXTS}
        rows.append(Row(run=name, extra=tuple((column, draw(TEXT)) for column in extra), **counts, **texts))
    return rows


@pytest.mark.fuzz
@settings(max_examples=FUZZ, deadline=None)
@given(any_rows())
def test_any_rows_are_read_as_written(tmp_path_factory: pytest.TempPathFactory, rows: list[Row]) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    with ledger.changing(folder) as kept:
        kept += rows
    read = ledger.read(folder)
    assert sorted(read, key=lambda row: row.run) == sorted(rows, key=lambda row: row.run)
    for row in read:
        assert row.public is None or 0 <= row.public <= 1
        assert row.validation is None or 0 <= row.validation.low <= row.validation.high <= 1


HEADER = ",".join(ledger.FIELDS)
STORED = [
    Row(run="wide-1", recipe="wide", holdout_errors=9, holdout_rows=2100, public_score="0.99650", reference="7"),
    Row(run="李 2", message='=a, "b"', file_sha256="ab", expected="0.99", expected_low="0.98", extra=(("x", "y"),)),
]
PIECES = st.sampled_from(
    [*ledger.FIELDS, *",;\t\n\r\"'=-", '\n"', '","', "a", "7", "9" * 5000, "\ufeff", "\x00", "٣", HEADER]
)


@pytest.mark.fuzz
@settings(max_examples=FUZZ, deadline=None)
@given(
    st.binary()
    | st.lists(PIECES, max_size=40).map(lambda pieces: "".join(pieces).encode())
    | st.lists(PIECES, max_size=40).map(lambda pieces: f"{HEADER}\n{','.join(pieces)}\n".encode())
    | damage.EDITS.map(lambda edits: damage.edited(ledger._text(STORED).encode(), edits))
    | st.lists(st.sampled_from(["", "a", "1", "99", "=", "x y"]), min_size=20, max_size=40).map(
        lambda fields: f"{HEADER}\nb{','.join(fields)}\n".encode()
    )
)
@example(b"run\n\xff\n")
@example(b'run,message\na,"' + b"x" * 200_000 + b'"\n')
def test_any_content_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "ledger.csv").write_bytes(content)
    try:
        rows = ledger.read(folder)
    except BadInput as error:
        assert str(error).startswith(f"{folder}")
        assert "\n" not in str(error)
        return
    ledger.record(folder, Row(run="new"))
    again = [row for row in ledger.read(folder) if row.run != "new"]
    assert {row.run: row for row in rows if row.run != "new"} == {row.run: row for row in again}


@pytest.mark.slow
def test_parallel_processes_lose_no_rows(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from digit_recognizer import ledger\n"
        "for i in range(5): ledger.record(Path(sys.argv[1]), ledger.Row(run=f'{sys.argv[2]}-{i}'))"
    )
    started = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path), str(n)]) for n in range(20)]
    assert [process.wait(timeout=60) for process in started] == [0] * 20
    assert sorted(row.run for row in ledger.read(tmp_path)) == sorted(f"{n}-{i}" for n in range(20) for i in range(5))


def test_interval_depends_on_distinct_rows(tmp_path: Path) -> None:
    ledger.record(tmp_path, Row(run="a", oof_errors=40, oof_rows=4000, oof_distinct=400))
    (row,) = ledger.read(tmp_path)
    assert row.validation == metrics.score(40, 4000, distinct=400)
    assert row.validation != metrics.score(40, 4000)
