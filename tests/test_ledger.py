"""The ledger: what is written is read back, whoever writes at the same time."""

import subprocess
import sys
from pathlib import Path

import pytest

from digit_recognizer import ledger
from digit_recognizer.errors import BadInput
from digit_recognizer.ledger import Row

FULL = Row(
    run="standard-1", recipe="standard", members="4", oof_errors=68, oof_rows=15120, holdout_errors=21,
    holdout_rows=4200, file_sha256="ab" * 32, reference="5", status="complete", message='a "quoted", late\nnight',
)  # fmt: skip


def test_rows_come_back_as_they_were(tmp_path: Path) -> None:
    assert ledger.read(tmp_path) == []
    ledger.record(tmp_path, FULL)
    ledger.record(tmp_path, Row(run="bare"))
    assert ledger.read(tmp_path) == [FULL, Row(run="bare")]
    text = (tmp_path / "ledger.csv").read_text()
    assert text.startswith("run,time,recipe,")
    assert "\r" not in text


def test_a_run_has_one_row_and_what_was_sent_stays(tmp_path: Path) -> None:
    ledger.record(tmp_path, Row(run="a", status=""))
    ledger.record(tmp_path, Row(run="a", members="2"))
    assert ledger.update(tmp_path, "a", reference="7", status="pending").members == "2"
    ledger.record(tmp_path, Row(run="a", members="3"))
    assert ledger.read(tmp_path) == [Row(run="a", members="2", reference="7", status="pending")]


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda text: text.replace("run,time", "run,when"), "line 1: expected the header run,time,…,message"),
        (lambda text: text + "b,c\n", "line 3: expected 18 fields, found 2"),
        (lambda text: text.replace(",21,4200,", ",many,4200,"), "column holdout_errors: expected a count of rows"),
        (lambda text: text + '"open', "expected CSV in UTF-8"),
        (lambda text: "", "line 1: expected the header"),
    ],
)
def test_another_form_is_refused_and_left_as_it_is(damage: object, told: str, tmp_path: Path) -> None:
    path = tmp_path / "ledger.csv"
    ledger.record(tmp_path, FULL.changed(message="one line"))
    damaged = damage(path.read_text())  # type: ignore[operator]
    path.write_text(damaged)
    with pytest.raises(BadInput, match=told):
        ledger.record(tmp_path, Row(run="b"))
    assert path.read_text() == damaged


def test_twenty_processes_at_once_lose_nothing(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from digit_recognizer import ledger\n"
        "for i in range(5): ledger.record(Path(sys.argv[1]), ledger.Row(run=f'{sys.argv[2]}-{i}'))"
    )
    started = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path), str(n)]) for n in range(20)]
    assert [process.wait(timeout=60) for process in started] == [0] * 20
    assert sorted(row.run for row in ledger.read(tmp_path)) == sorted(f"{n}-{i}" for n in range(20) for i in range(5))
