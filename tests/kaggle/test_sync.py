"""Updates of the ledger from Kaggle's list, and the verb ``scores``."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from conftest import keep, one_line
from digit_recognizer import cli, ledger
from digit_recognizer.kaggle import client
from digit_recognizer.ledger import Row
from kaggle_server import TOKEN, Server
from submissions import SUBMIT, ledger_row, store_submission

real_sleep = time.sleep


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a run that is ready to be submitted; pauses are shortened."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(time, "sleep", lambda seconds: real_sleep(seconds / 50))
    store_submission(tmp_path, "standard-1", wrong=100, errors=20)
    return tmp_path


@pytest.mark.parametrize("verb", [["scores"], [*SUBMIT, "--run", "other-1"]])
@pytest.mark.parametrize(
    ("newer", "listed", "after"),
    [
        (("complete", "0.99"), "PENDING", ("complete", "0.99")),
        (("error", ""), "PENDING", ("error", "")),
        (("sending", ""), "ERROR", ("sending", "")),
        (("pending", ""), "COMPLETE", ("complete", "0.98")),
        (("pending", ""), "ERROR", ("error", "")),
        (("strange", ""), "COMPLETE", ("complete", "0.98")),
        (("complete", "0.99"), "COMPLETE", ("complete", "0.98")),
    ],
)
def test_list_older_than_the_ledger_is_ignored(
    verb: list[str],
    newer: tuple[str, str],
    listed: str,
    after: tuple[str, str],
    home: Path,
    kaggle: Server,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store_submission(home, "other-1", wrong=9, errors=1)
    tag = f"[sha256 {ledger_row(home).file_sha256[:16]}]"
    entry = {"ref": 50_000_001, "fileName": "a.csv", "totalBytes": 1, "date": "2026-11-21T10:00:00.000Z"}
    score = {"publicScore": "0.98"} if listed == "COMPLETE" else {}
    kaggle.submissions.append(
        entry | {"description": tag, "status": listed, "asked": -9, "error": "", "content": b""} | score
    )
    list_submissions = client.Client.list_submissions

    def list_and_change_ledger(client: client.Client) -> list[client.Submission]:
        listed = list_submissions(client)
        status, score = newer
        if not ledger_row(home).reference:  # as another process may do before the list is used
            fields = {"reference": "50000001", "status": status, "public_score": score}
            ledger.update(home / "submissions", "standard-1", **fields)
        return listed

    monkeypatch.setattr(client.Client, "list_submissions", list_and_change_ledger)
    assert cli.main([*verb, "--no-wait"] if verb != ["scores"] else verb) == 0
    assert (ledger_row(home).reference, ledger_row(home).status, ledger_row(home).public_score) == ("50000001", *after)


def test_score_recorded_by_another_process_is_kept(home: Path, kaggle: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    send = client.Client.submit

    def send_and_update(client: client.Client, token: str, description: str) -> str:
        reference = send(client, token, description)
        kaggle.submissions[0]["asked"] = 9
        assert cli.main(["scores"]) == 0
        assert ledger_row(home).status == "complete"
        return reference

    monkeypatch.setattr(client.Client, "submit", send_and_update)
    assert cli.main([*SUBMIT, "--no-wait"]) == 0
    assert (ledger_row(home).status, ledger_row(home).public_score) == ("complete", "0.99643")


@pytest.mark.parametrize("status", ["strange", "\x1b[2J", "COMPLETE", "sending"])
def test_unknown_status_is_accepted(
    status: str, home: Path, kaggle: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    ledger.record(home / "submissions", Row(run="old", status=status, reference="x", public_score="nan"))
    assert cli.main(["scores"]) == 0
    assert cli.main(SUBMIT) == 0
    assert "\x1b" not in capsys.readouterr().out


@pytest.mark.parametrize("content", ["{", "\udcff", "[]", '{"username": 1}'])
def test_scores_are_printed_despite_damaged_credentials(
    content: str, home: Path, nobody: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = keep(nobody / ".kaggle" / "kaggle.json", "")
    path.write_bytes(content.encode(errors="surrogateescape"))
    assert cli.main(["scores"]) == 0
    captured = capsys.readouterr()
    assert "standard-1" in captured.out
    assert "warning: not updated from Kaggle: " in one_line(captured.err)
    assert "kaggle.json" in captured.err


def test_scores_report_a_missing_connection(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAGGLE_API_TOKEN", TOKEN)
    assert cli.main(["scores"]) == 0
    captured = capsys.readouterr()
    assert "standard-1" in captured.out
    assert "warning: not updated from Kaggle: Kaggle cannot be reached" in one_line(captured.err)


def test_scores_are_printed_without_heavy_imports(home: Path) -> None:
    code = "import sys; from digit_recognizer import cli; cli.main(['scores']); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.split()
    assert not {"tensorflow", "keras", "pandas", "kagglesdk", "requests"} & set(loaded)


def test_scores_without_runs_name_the_next_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["scores"]) == 0
    assert capsys.readouterr().out == "no runs yet\nhint: `digit-recognizer run` starts one\n"
