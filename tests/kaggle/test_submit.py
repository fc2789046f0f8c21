"""Submissions through Kaggle's client to a fake server, with failures at each call."""

import base64
import io
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conftest import ROOT, keep, kit, one_line, outside_make
from digit_recognizer import cli, hints, ledger
from digit_recognizer.kaggle import client
from kaggle_server import KEY, LOGIN, TOKEN, USER, Fault, Server, submission
from submissions import SUBMIT, ledger_row, refused, store_submission

real_sleep = time.sleep


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a run that is ready to be submitted; pauses are shortened."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(time, "sleep", lambda seconds: real_sleep(seconds / 50))
    store_submission(tmp_path, "standard-1", wrong=100, errors=20)
    return tmp_path


def test_run_of_another_folder_is_sent_only_by_name(
    home: Path, kaggle: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    store_submission(home, "best-1", wrong=50, errors=10)
    (home / "runs" / "best-1").rmdir()
    assert cli.main([*SUBMIT, "--no-wait"]) == 0
    assert "best run not sent yet: standard-1" in capsys.readouterr().out
    assert cli.main([*SUBMIT, "--run", "best-1", "--no-wait"]) == 0
    assert ledger_row(home, "best-1").reference


def test_best_run_is_sent_and_its_score_recorded(
    home: Path, kaggle: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    store_submission(home, "quick-1", wrong=300, errors=40)
    assert cli.main([*SUBMIT, "--message", "first  try"]) == 0
    output = capsys.readouterr().out
    assert "best run not sent yet: standard-1" in output
    assert "public score: 0.99643" in output
    sent = ledger_row(home)
    assert (sent.reference, sent.status, sent.public_score) == ("50000001", "complete", "0.99643")
    assert sent.message == "first try"
    assert ledger_row(home, "quick-1").status == ""
    (received,) = kaggle.submissions
    assert received["fileName"] == "standard-1.csv"
    assert received["content"] == (home / "submissions" / "standard-1.csv").read_bytes()
    assert received["description"] == f"first try [sha256 {sent.file_sha256[:16]}]"


def test_default_message_has_run_and_score(home: Path, kaggle: Server) -> None:
    assert cli.main(SUBMIT) == 0
    assert kaggle.submissions[0]["description"].startswith("standard-1, expected 0.99524 [sha256 ")


def test_invalid_files_and_sample_runs_are_refused(
    home: Path, kaggle: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    good = home / "submissions" / "standard-1.csv"
    bad = home / "bad.csv"
    bad.write_bytes(good.read_bytes().replace(b"\n7,", b"\n8,", 1).replace(b"\n9,", b"\n10,", 1))
    error = refused([*SUBMIT, "--file", "bad.csv"], capsys, 2)
    assert "line 8: expected ImageId 7, found '8', as on line 9; and 1 more\n" in error
    assert "hint: `digit-recognizer check --file bad.csv` lists all faults" in error
    assert "no such file" in refused([*SUBMIT, "--run", "standard-7"], capsys, 2)
    assert "found both" in refused([*SUBMIT, "--run", "a", "--file", "b"], capsys, 2)
    store_submission(home, "sample-quick-1", wrong=5)
    assert "cannot be submitted: sample run" in refused([*SUBMIT, "--run", "sample-quick-1"], capsys, 2)
    copy = home / "mine.csv"
    (home / "runs" / "mine").mkdir(parents=True)
    (home / "runs" / "mine" / "run.json").write_text('{"identity": {"sample": true}}')
    copy.write_bytes(good.read_bytes())
    (home / "submissions" / "mine.csv").write_bytes(good.read_bytes())
    assert "cannot be submitted: sample run" in refused([*SUBMIT, "--run", "mine"], capsys, 2)
    assert not kaggle.calls


def test_changed_file_is_sent_only_by_name_and_without_the_score_of_its_run(
    home: Path, kaggle: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "submissions" / "standard-1.csv").write_bytes(submission(3))
    assert "changed since its run wrote it" in refused(SUBMIT, capsys, 2)
    # Sent under another name, so that it does not get the score of the run.
    assert cli.main([*SUBMIT, "--run", "standard-1"]) == 0
    assert ledger_row(home).reference == ""
    assert ledger.read(home / "submissions")[-1].run.startswith("standard-1-")


def test_file_without_a_run_is_sent_and_recorded(home: Path, kaggle: Server) -> None:
    (home / "other.csv").write_bytes(submission(50))
    assert cli.main([*SUBMIT, "--file", "other.csv"]) == 0
    assert ledger_row(home, "other").public_score == "0.99821"


def test_file_is_sent_once(home: Path, kaggle: Server, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(SUBMIT) == 0
    assert "sent already, as 50000001" in refused([*SUBMIT, "--run", "standard-1"], capsys, 2)
    (home / "copy.csv").write_bytes(submission(100))
    assert "sent already, as 50000001" in refused([*SUBMIT, "--file", "copy.csv", "--force"], capsys, 2)
    assert "no run that was not sent yet" in refused(SUBMIT, capsys, 2)
    (home / "submissions" / "ledger.csv").unlink()  # Kaggle's list still has the submission
    assert "sent already, as 50000001" in refused([*SUBMIT, "--run", "standard-1"], capsys, 2)
    assert len(kaggle.submissions) == 1
    assert ledger_row(home).public_score == "0.99643"


def test_expected_score_selects_the_run_before_the_holdout(
    home: Path, kaggle: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    store_submission(home, "best-1", wrong=60, errors=21, expected="0.99690")  # the holdout ties with standard-1
    store_submission(home, "quick-1", wrong=300, errors=10, expected="0.99400")
    assert cli.main(SUBMIT) == 0
    assert "best run not sent yet: best-1" in capsys.readouterr().out
    error = refused([*SUBMIT, "--run", "quick-1"], capsys, 2)
    assert "expected score 0.99400 is lower than 0.99690 of best-1" in error


def test_worse_run_needs_force(home: Path, kaggle: Server, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(SUBMIT) == 0
    store_submission(home, "quick-1", wrong=300, errors=40)
    error = refused(SUBMIT, capsys, 2)
    assert "expected score 0.99048 is lower than 0.99524 of standard-1, sent already\n" in error
    assert error.endswith("hint: to send it anyway, pass --force")
    assert cli.main([*SUBMIT, "--force"]) == 0
    (home / "other.csv").write_bytes(submission(50))
    assert "no expected score to compare" in refused([*SUBMIT, "--file", "other.csv"], capsys, 2)
    assert len(kaggle.submissions) == 2


@pytest.mark.parametrize("rows", [{"test_rows": 300}, {"train_rows": 900}, {"train_rows": 900, "test_rows": 300}, {}])
@pytest.mark.parametrize("where", ["ledger", "run.json", "file"])
def test_run_on_part_of_the_data_is_not_selected(
    where: str, rows: dict[str, int], home: Path, kaggle: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    path = store_submission(home, "part-1", wrong=0, errors=1)
    if where == "ledger":
        ledger.update(home / "submissions", "part-1", **rows)
    elif where == "run.json":
        keep(home / "runs" / "part-1" / "run.json", {"identity": {"sample": False}} | rows)
    else:
        keep(home / "runs" / "part-1" / "run.json", "damaged")
        rows = {name: count for name, count in rows.items() if name == "test_rows"}
    if rows.get("test_rows"):
        path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:301]))
        ledger.update(home / "submissions", "part-1", file_sha256=ledger.digest(path))
    assert cli.main([*SUBMIT, "--no-wait"]) == 0
    assert ledger_row(home, "part-1" if not rows else "standard-1").reference
    if not rows:
        return
    error = refused([*SUBMIT, "--force"], capsys, 2)
    assert "no run that was not sent yet, except 1 not made from the competition's complete files" in error
    assert cli.main(["scores"]) == 0
    lines = capsys.readouterr().out.splitlines()
    reason = lines[lines.index("part-1") + 1]
    if "test_rows" in rows:
        assert "cannot be submitted: 300 test rows" in reason
        assert (
            "cannot be submitted: 300 test rows" in refused([*SUBMIT, "--run", "part-1"], capsys, 2)
            or where != "run.json"
        )
        assert len(kaggle.submissions) == 1
    else:
        assert "900 training rows" in reason
        assert cli.main([*SUBMIT, "--run", "part-1", "--no-wait"]) == 0


@pytest.mark.parametrize("damaged", [b"", b"\xff", b"{}", b"[]", b"[" * 10**5, b'{"identity": 3, "test_rows": "x"}'])
def test_damaged_run_json_does_not_prevent_submission(damaged: bytes, home: Path, kaggle: Server) -> None:
    (home / "runs" / "standard-1" / "run.json").write_bytes(damaged)
    assert cli.main([*SUBMIT, "--no-wait"]) == 0
    assert cli.main(["check", "--file", "submissions/standard-1.csv"]) == 0
    assert ledger_row(home).reference


def test_name_that_begins_with_sample_is_refused_with_damaged_run_json(
    home: Path, kaggle: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    store_submission(home, "sample-quick-1", wrong=5)
    keep(home / "runs" / "sample-quick-1" / "run.json", "damaged")
    assert "cannot be submitted: sample run" in refused([*SUBMIT, "--run", "sample-quick-1"], capsys, 2)
    assert not kaggle.submissions


@pytest.mark.parametrize("name", ["../standard-1", "", "a/b", "a\x1b[2J", "x" * 300])
def test_run_name_must_not_be_a_path(name: str, home: Path, kaggle: Server, capsys: pytest.CaptureFixture[str]) -> None:
    error = refused([*SUBMIT, "--run", name], capsys, 2)
    assert "--run: expected a plain file name" in error
    assert error.isprintable()
    assert not kaggle.submissions


@pytest.mark.parametrize(
    "name", [".hidden.csv", "a:b.csv", "end..csv", "a\x1b[2J.csv", "y" * 125 + ".csv", "\udcff.csv"]
)
def test_file_of_any_name_is_sent_and_recorded(
    name: str, home: Path, kaggle: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / name).write_bytes(submission(50))
    assert cli.main([*SUBMIT, "--no-wait", "--message", "caf\udce9 \x1b[2J", "--file", name]) == 0
    output = capsys.readouterr().out
    assert "\x1b" not in output
    (last,) = [row for row in ledger.read(home / "submissions") if row.reference]
    assert last.run == f"file-{last.file_sha256[:8]}"
    assert last.message == "caf\N{REPLACEMENT CHARACTER} \N{REPLACEMENT CHARACTER}[2J"
    assert "sent already" in refused([*SUBMIT, "--file", name], capsys, 2)


@pytest.mark.parametrize("kind", ["quoted", "shuffled"])
def test_unusual_valid_file_is_sent_with_a_warning(
    kind: str, home: Path, kaggle: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    header, *lines = submission(50).decode().splitlines()
    lines = lines[::-1] if kind == "shuffled" else [f'"{line}"'.replace(",", '","') for line in lines]
    (home / "other.csv").write_text("\n".join([header, *lines, ""]))
    assert cli.main([*SUBMIT, "--no-wait", "--file", "other.csv"]) == 0
    assert "which Kaggle accepts" in one_line(capsys.readouterr().err)
    assert kaggle.submissions[0]["content"] == (home / "other.csv").read_bytes()


def test_used_up_daily_limit_is_reported_before_the_upload(
    home: Path, kaggle: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    kaggle.limit = 0
    assert "no submissions left today" in refused(SUBMIT, capsys, 1)
    assert "StartSubmissionUpload" not in kaggle.calls


def test_nothing_is_sent_without_confirmation(
    home: Path, kaggle: Server, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO())
    error = refused(["submit"], capsys, 2)
    assert error.endswith("cannot prompt: stdin is not a terminal\nhint: to send without a prompt, pass --yes")
    monkeypatch.setenv(hints.CALLER_VARIABLE, "make")
    assert refused(["submit"], capsys, 2).endswith("pass YES=1")
    ours, theirs = pty.openpty()
    with os.fdopen(theirs) as terminal:
        for answer, status in ((b"n\n", 1), (b"\n", 1), (b"y\n", 0)):
            monkeypatch.setattr("sys.stdin", terminal)
            capsys.readouterr()
            os.write(ours, answer)
            assert cli.main(["submit"]) == status
            assert len(kaggle.submissions) == (status == 0)
            assert ("error: cancelled\n" in capsys.readouterr().err) == (status == 1)


@pytest.mark.parametrize(
    ("call", "fault", "message"),
    [
        ("ListSubmissions", Fault(401), "Kaggle rejected the token from KAGGLE_API_TOKEN: expired or wrong"),
        ("ListSubmissions", Fault(403), "accept the competition's rules at https://www.kaggle.com/competitions/"),
        ("ListSubmissions", Fault(404), "not found (404: as asked)"),
        ("ListSubmissions", Fault(429), "rate limit exceeded (429)"),
        ("ListSubmissions", Fault(429, headers={"Retry-After": "3600"}), "run the command again in 3600 s"),
        ("ListSubmissions", Fault(500), "Kaggle: server error (500: as asked)\nhint: run the command again later"),
        ("ListSubmissions", Fault(), "Kaggle cannot be reached"),
        ("GetSubmissionLimits", Fault(500), "Kaggle: server error (500"),
        ("StartSubmissionUpload", Fault(403), "accept the competition's rules"),
        ("StartSubmissionUpload", Fault(503), "Kaggle: server error (503"),
        ("PUT", Fault(500), "Kaggle: server error (500"),
        ("PUT", Fault(503), "Kaggle: server error (503"),
        ("PUT", Fault(), "Kaggle cannot be reached"),
        ("CreateSubmission", Fault(400, {"code": 400, "message": "Submission not allowed"}), "Submission not allowed"),
        ("CreateSubmission", Fault(403), "accept the competition's rules"),
        (
            "CreateSubmission",
            Fault(200, {"message": "Could not submit", "ref": 0}),
            "did not accept the submission: Could not submit",
        ),
        ("CreateSubmission", Fault(200, {"code": 403, "message": "no"}), "accept the competition's rules"),
    ],
)
def test_refused_call_is_reported_and_does_not_count_as_sent(
    call: str, fault: Fault, message: str, home: Path, kaggle: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    before = ledger_row(home)
    kaggle.fail(call, fault, always=True)
    assert message in refused(SUBMIT, capsys, 1)
    assert not kaggle.submissions
    assert kaggle.calls.count(call) <= client.TRIES
    after = ledger_row(home)
    assert after.changed(message="") == before
    kaggle.faults.clear()
    assert cli.main(SUBMIT) == 0
    assert len(kaggle.submissions) == 1


@pytest.mark.parametrize(
    "call", ["ListSubmissions", "GetSubmissionLimits", "StartSubmissionUpload", "PUT", "GetSubmission"]
)
@pytest.mark.parametrize("fault", [Fault(429, headers={"Retry-After": "1"}), Fault(500), Fault(503), Fault()])
def test_temporary_failure_is_retried(call: str, fault: Fault, home: Path, kaggle: Server) -> None:
    kaggle.fail(call, fault, fault)
    assert cli.main(SUBMIT) == 0
    assert len(kaggle.submissions) == 1
    assert ledger_row(home).status == "complete"


@pytest.mark.parametrize("fault", [Fault(after=True), Fault(500, after=True), Fault(503, after=True)])
def test_submission_with_lost_response_is_found_in_the_list(
    fault: Fault, home: Path, kaggle: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    kaggle.fail("CreateSubmission", fault)
    assert cli.main(SUBMIT) == 0
    assert "looking for the submission in Kaggle's list" in capsys.readouterr().err
    assert len(kaggle.submissions) == 1
    assert ledger_row(home).reference == "50000001"


def test_submission_that_may_have_arrived_is_not_sent_again(
    home: Path, kaggle: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    kaggle.fail("CreateSubmission", Fault(after=True))
    kaggle.listed = False
    assert cli.main(SUBMIT) == 1
    assert "it looks at the list before it sends" in capsys.readouterr().err
    assert (ledger_row(home).status, ledger_row(home).reference) == ("sending", "")
    kaggle.listed = True
    assert "sent already, as 50000001" in refused(SUBMIT, capsys, 2)
    assert len(kaggle.submissions) == 1


def test_submission_that_did_not_arrive_is_sent_by_the_next_call(home: Path, kaggle: Server) -> None:
    kaggle.fail("CreateSubmission", Fault(), Fault(500))
    assert cli.main(SUBMIT) == 1
    assert ledger_row(home).status == "sending"
    kaggle.faults.clear()
    assert cli.main(SUBMIT) == 0
    assert len(kaggle.submissions) == 1


def test_missing_score_is_reported_after_the_wait(
    home: Path, kaggle: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    kaggle.polls = None
    error = refused([*SUBMIT, "--wait", "0.2"], capsys, 1)
    assert "submission 50000001 was sent; no score after 0.2 s\nhint: `digit-recognizer scores` shows" in error
    assert (ledger_row(home).reference, ledger_row(home).status) == ("50000001", "pending")
    kaggle.polls = 0
    assert cli.main(["scores"]) == 0
    assert "0.99643" in capsys.readouterr().out
    assert ledger_row(home).public_score == "0.99643"


def test_no_wait_returns_after_sending(home: Path, kaggle: Server) -> None:
    assert cli.main([*SUBMIT, "--no-wait"]) == 0
    assert ledger_row(home).status == "pending"
    assert "GetSubmission" not in kaggle.calls


def test_rejected_file_shows_the_reason(home: Path, kaggle: Server, capsys: pytest.CaptureFixture[str]) -> None:
    kaggle.reject = "ImageId must be\nunique"
    assert "Kaggle rejected submission 50000001: ImageId must be unique" in refused(SUBMIT, capsys, 1)
    assert ledger_row(home).status == "error"


@pytest.mark.parametrize(
    ("words", "forgotten"), [([], True), (["--run", "standard-1"], False), (["--file", "copy.csv"], False)]
)
def test_rejected_file_may_be_sent_again(
    words: list[str], forgotten: bool, home: Path, kaggle: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "copy.csv").write_bytes(submission(100))
    for _ in range(2):
        kaggle.reject = "Evaluation Exception"
        assert "Kaggle rejected" in refused(SUBMIT, capsys, 1)
    kaggle.reject = ""
    if forgotten:
        ledger.update(home / "submissions", "standard-1", reference="", status="", message="")
    capsys.readouterr()
    assert cli.main([*SUBMIT, *words]) == 0
    assert "the earlier submission of this file, 50000002, was rejected by Kaggle" in capsys.readouterr().out
    sent = ledger_row(home)
    assert (sent.reference, sent.status, sent.public_score) == ("50000003", "complete", "0.99643")
    assert "sent already, as 50000003" in refused([*SUBMIT, "--run", "standard-1"], capsys, 2)
    assert cli.main(["scores"]) == 0
    assert (ledger_row(home).reference, ledger_row(home).status) == ("50000003", "complete")
    assert len(kaggle.submissions) == 3


def test_second_attempt_with_lost_response_is_not_repeated(
    home: Path, kaggle: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    kaggle.reject = "Evaluation Exception"
    refused(SUBMIT, capsys, 1)
    kaggle.reject = ""
    kaggle.fail("CreateSubmission", Fault(403))
    refused(SUBMIT, capsys, 1)
    assert (ledger_row(home).reference, ledger_row(home).status) == ("50000001", "error")
    kaggle.fail("CreateSubmission", Fault())
    assert cli.main(SUBMIT) == 1
    assert (ledger_row(home).reference, ledger_row(home).status) == ("50000001", "sending")
    kaggle.fail("CreateSubmission", Fault(after=True))
    assert cli.main(SUBMIT) == 0, "the rejected submission in the list is not a match"
    assert ledger_row(home).reference == "50000002"
    assert len(kaggle.submissions) == 2


def test_rejected_runs_are_excluded_from_the_comparison(home: Path, kaggle: Server) -> None:
    kaggle.reject = "Evaluation Exception"
    assert cli.main(SUBMIT) == 1
    kaggle.reject = ""
    store_submission(home, "quick-1", wrong=300, errors=40)
    assert cli.main([*SUBMIT, "--run", "quick-1"]) == 0


@pytest.mark.parametrize("kind", ["token", "key"])
def test_echoed_secret_is_not_printed(
    kind: str,
    home: Path,
    kaggle: Server,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if kind == "key":
        monkeypatch.delenv("KAGGLE_API_TOKEN")
        monkeypatch.setenv("KAGGLE_USERNAME", USER)
        monkeypatch.setenv("KAGGLE_KEY", KEY)
    sent = base64.b64encode(f"{USER}:{KEY}".encode()).decode()
    echo = f"{KEY} Basic {sent}" if kind == "key" else f"Bearer {TOKEN}"
    kaggle.fail("ListSubmissions", Fault(400, {"code": 400, "message": f"bad: {echo}"}))
    error = refused(SUBMIT, capsys, 1)
    assert "bad: " in error
    assert sent not in error


def test_login_is_used_and_an_expired_one_is_reported(
    home: Path, kaggle: Server, nobody: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KAGGLE_API_TOKEN")
    kept = {"refresh_token": LOGIN, "username": USER, "access_token": "old", "access_token_expiration": ""}
    ended = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(time.time() - 60))
    path = keep(nobody / ".kaggle" / "credentials.json", kept | {"access_token_expiration": ended})
    before = path.read_bytes()
    assert cli.main(SUBMIT) == 0
    assert len(kaggle.submissions) == 1
    assert path.read_bytes() == before
    kaggle.fail("GenerateAccessToken", Fault(401), always=True)
    error = refused([*SUBMIT, "--force", "--file", str(store_submission(home, "other-1", wrong=9))], capsys, 1)
    assert f"Kaggle rejected the login from {path}: expired or wrong" in error
    assert LOGIN not in error


@pytest.mark.slow
def test_two_processes_send_once(home: Path, kaggle: Server) -> None:
    kaggle.fail("CreateSubmission", Fault(200, after=True, seconds=1.5, body={"message": "ok", "ref": 50_000_001}))
    words = [sys.executable, "-m", "digit_recognizer", *SUBMIT]
    started = [subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    errors = sorted(process.communicate(timeout=60)[1] for process in started)
    assert sorted(process.returncode for process in started) in ([0, 1], [0, 2]), errors
    assert "another `digit-recognizer submit` is running" in errors[1] or "sent already" in errors[1]
    assert len(kaggle.submissions) == 1


@pytest.mark.parametrize("call", ["StartSubmissionUpload", "PUT", "CreateSubmission", "GetSubmission"])
@pytest.mark.slow
def test_interrupted_submission_is_sent_once(call: str, home: Path, kaggle: Server) -> None:
    kaggle.fail(call, Fault(500, after=True, seconds=3))
    words = [sys.executable, "-m", "digit_recognizer", *SUBMIT]
    process = subprocess.Popen(
        words,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # background processes ignore it
    )
    deadline = time.monotonic() + 30
    while call not in kaggle.calls and time.monotonic() < deadline:
        real_sleep(0.02)
    real_sleep(0.3)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "interrupted; rerun the command: it looks at Kaggle's list before it sends again" in one_line(error)
    kaggle.faults.clear()
    done = kit(*SUBMIT, cwd=home)
    assert done.returncode in (0, 2), done.stderr
    assert len(kaggle.submissions) == 1
    assert ledger_row(home).reference == "50000001"


@pytest.mark.slow
def test_make_submit_prints_reference_and_score(home: Path, kaggle: Server, nobody: Path) -> None:
    words = ["make", "-f", ROOT / "Makefile", "-o", ".venv/run.stamp", f"KIT={sys.executable} -m digit_recognizer"]
    done = subprocess.run(
        [*words, "submit", "YES=1"], env=outside_make() | dict(os.environ), capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "sent: submission 50000001\nwaiting for Kaggle's score\npublic score: 0.99643\n" in done.stdout
    assert not list(nobody.iterdir()), "no folder is created in an empty home"
