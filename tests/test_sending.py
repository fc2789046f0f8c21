"""Submitting: Kaggle's own client against a Kaggle on loopback, with everything going wrong that can."""

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
from digit_recognizer import cli, competition, ledger
from digit_recognizer.ledger import Row
from kaggle_server import KEY, LOGIN, TOKEN, USER, Fault, Server, submission

SUBMIT = ["submit", "--yes"]
real_sleep = time.sleep


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a run that is ready to be sent, in which time passes fast."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(time, "sleep", lambda seconds: real_sleep(seconds / 50))
    ready(tmp_path, "standard-1", wrong=100, errors=20)
    return tmp_path


def ready(home: Path, run: str, *, wrong: int, errors: int | None = None) -> Path:
    """Leave a submission as a run does: ``wrong`` of 28,000 rows, with ``errors`` of 4,200 on its holdout."""
    path = home / "submissions" / f"{run}.csv"
    path.parent.mkdir(exist_ok=True)
    (home / "runs" / run).mkdir(parents=True, exist_ok=True)
    path.write_bytes(submission(wrong))
    held = {} if errors is None else {"holdout_errors": errors, "holdout_rows": 4200}
    ledger.record(path.parent, Row(run=run, file_sha256=ledger.digest(path), **held))
    return path


def row(home: Path, run: str = "standard-1") -> Row:
    return next(row for row in ledger.read(home / "submissions") if row.run == run)


def test_a_run_that_was_not_made_here_is_sent_only_if_it_is_named(
    home: Path, kaggle: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    ready(home, "best-1", wrong=50, errors=10)
    (home / "runs" / "best-1").rmdir()
    assert cli.main([*SUBMIT, "--no-wait"]) == 0
    assert "the best run not yet sent: standard-1" in capsys.readouterr().out
    assert cli.main([*SUBMIT, "--run", "best-1", "--no-wait"]) == 0
    assert row(home, "best-1").reference


def test_the_best_run_is_sent_and_its_score_kept(
    home: Path, kaggle: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    ready(home, "quick-1", wrong=300, errors=40)
    assert cli.main([*SUBMIT, "--message", "first  try"]) == 0
    shown = capsys.readouterr().out
    assert "the best run not yet sent: standard-1" in shown
    assert "public score 0.99643" in shown
    sent = row(home)
    assert (sent.reference, sent.status, sent.public_score) == ("50000001", "complete", "0.99643")
    assert sent.message == "first try"
    assert row(home, "quick-1").status == ""
    (there,) = kaggle.submissions
    assert there["fileName"] == "standard-1.csv"
    assert there["content"] == (home / "submissions" / "standard-1.csv").read_bytes()
    assert there["description"] == f"first try [sha256 {sent.file_sha256[:16]}]"


def test_the_message_tells_the_run_and_its_score(home: Path, kaggle: Server) -> None:
    assert cli.main(SUBMIT) == 0
    assert kaggle.submissions[0]["description"].startswith("standard-1, validation 0.99524 [sha256 ")


def refused(words: list[str], capsys: pytest.CaptureFixture[str], status: int) -> str:
    """Run a verb that must fail; the one line that it says on standard error."""
    capsys.readouterr()
    assert cli.main(words) == status
    shown = capsys.readouterr()
    assert TOKEN not in shown.out + shown.err
    assert KEY not in shown.out + shown.err
    return one_line(shown.err)


def test_what_is_not_to_be_sent_is_refused(home: Path, kaggle: Server, capsys: pytest.CaptureFixture[str]) -> None:
    good = home / "submissions" / "standard-1.csv"
    bad = home / "bad.csv"
    bad.write_bytes(good.read_bytes().replace(b"\n7,", b"\n8,", 1).replace(b"\n9,", b"\n10,", 1))
    assert "line 8: expected ImageId 7, found '8' and 1 more; make check" in refused(
        [*SUBMIT, "--file", "bad.csv"], capsys, 2
    )
    assert "no such file" in refused([*SUBMIT, "--run", "standard-7"], capsys, 2)
    assert "found both" in refused([*SUBMIT, "--run", "a", "--file", "b"], capsys, 2)
    ready(home, "sample-quick-1", wrong=5)
    assert "of a sample run, it can never" in refused([*SUBMIT, "--run", "sample-quick-1"], capsys, 2)
    copy = home / "mine.csv"
    (home / "runs" / "mine").mkdir(parents=True)
    (home / "runs" / "mine" / "run.json").write_text('{"identity": {"sample": true}}')
    copy.write_bytes(good.read_bytes())
    (home / "submissions" / "mine.csv").write_bytes(good.read_bytes())
    assert "of a sample run, it can never" in refused([*SUBMIT, "--run", "mine"], capsys, 2)
    assert not kaggle.calls


def test_the_run_s_file_must_be_what_the_run_wrote(
    home: Path, kaggle: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "submissions" / "standard-1.csv").write_bytes(submission(3))
    assert "not what its run wrote" in refused(SUBMIT, capsys, 2)
    # Named, it goes, under a name that does not claim the run's score.
    assert cli.main([*SUBMIT, "--run", "standard-1"]) == 0
    assert row(home).reference == ""
    assert ledger.read(home / "submissions")[-1].run.startswith("standard-1-")


def test_a_file_of_no_run_is_sent_and_remembered(home: Path, kaggle: Server) -> None:
    (home / "other.csv").write_bytes(submission(50))
    assert cli.main([*SUBMIT, "--file", "other.csv"]) == 0
    assert row(home, "other").public_score == "0.99821"


def test_a_file_is_sent_once(home: Path, kaggle: Server, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(SUBMIT) == 0
    assert "sent already, as 50000001" in refused([*SUBMIT, "--run", "standard-1"], capsys, 2)
    (home / "copy.csv").write_bytes(submission(100))
    assert "sent already, as 50000001" in refused([*SUBMIT, "--file", "copy.csv", "--force"], capsys, 2)
    assert "no run that was not sent yet" in refused(SUBMIT, capsys, 2)
    (home / "submissions" / "ledger.csv").unlink()  # Kaggle's list remembers
    assert "sent already, as 50000001" in refused([*SUBMIT, "--run", "standard-1"], capsys, 2)
    assert len(kaggle.submissions) == 1
    assert row(home).public_score == "0.99643"


def test_a_worse_run_needs_force(home: Path, kaggle: Server, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(SUBMIT) == 0
    ready(home, "quick-1", wrong=300, errors=40)
    told = refused(SUBMIT, capsys, 2)
    assert "validation 0.99048 is worse than 0.99524 of standard-1, sent already; FORCE=1" in told
    assert cli.main([*SUBMIT, "--force"]) == 0
    (home / "other.csv").write_bytes(submission(50))
    assert "no validation score to compare" in refused([*SUBMIT, "--file", "other.csv"], capsys, 2)
    assert len(kaggle.submissions) == 2


def test_a_day_used_up_is_refused_before_the_upload(
    home: Path, kaggle: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    kaggle.limit = 0
    assert "the day's submissions are used up" in refused(SUBMIT, capsys, 1)
    assert "StartSubmissionUpload" not in kaggle.calls


def test_without_an_answer_nothing_is_sent(
    home: Path, kaggle: Server, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO())
    assert "nobody here to ask" in refused(["submit"], capsys, 2)
    ours, theirs = pty.openpty()
    with os.fdopen(theirs) as terminal:
        for answer, status in ((b"n\n", 1), (b"\n", 1), (b"y\n", 0)):
            monkeypatch.setattr("sys.stdin", terminal)
            os.write(ours, answer)
            assert cli.main(["submit"]) == status
            assert len(kaggle.submissions) == (status == 0)


@pytest.mark.parametrize(
    ("call", "fault", "told"),
    [
        ("ListSubmissions", Fault(401), "Kaggle does not know the token from KAGGLE_API_TOKEN: expired or wrong"),
        ("ListSubmissions", Fault(403), "accept the competition's rules at https://www.kaggle.com/competitions/"),
        ("ListSubmissions", Fault(404), "does not find it (404: as asked)"),
        ("ListSubmissions", Fault(429), "asks for fewer calls (429)"),
        ("ListSubmissions", Fault(429, headers={"Retry-After": "3600"}), "wait 3600 s and run it again"),
        ("ListSubmissions", Fault(500), "Kaggle failed (500: as asked)\nhint: run it again later"),
        ("ListSubmissions", Fault(), "Kaggle cannot be reached"),
        ("GetSubmissionLimits", Fault(500), "Kaggle failed (500"),
        ("StartSubmissionUpload", Fault(403), "accept the competition's rules"),
        ("StartSubmissionUpload", Fault(503), "Kaggle failed (503"),
        ("PUT", Fault(500), "Kaggle failed (500"),
        ("PUT", Fault(503), "Kaggle failed (503"),
        ("PUT", Fault(), "Kaggle cannot be reached"),
        ("CreateSubmission", Fault(400, {"code": 400, "message": "Submission not allowed"}), "Submission not allowed"),
        ("CreateSubmission", Fault(403), "accept the competition's rules"),
        (
            "CreateSubmission",
            Fault(200, {"message": "Could not submit", "ref": 0}),
            "took no submission: Could not submit",
        ),
        ("CreateSubmission", Fault(200, {"code": 403, "message": "no"}), "accept the competition's rules"),
    ],
)
def test_a_refusal_ends_in_one_line_and_counts_as_not_sent(
    call: str, fault: Fault, told: str, home: Path, kaggle: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    before = row(home)
    kaggle.fail(call, fault, always=True)
    assert told in refused(SUBMIT, capsys, 1)
    assert not kaggle.submissions
    assert kaggle.calls.count(call) <= competition.TRIES
    after = row(home)
    assert after.changed(message="") == before
    kaggle.faults.clear()
    assert cli.main(SUBMIT) == 0
    assert len(kaggle.submissions) == 1


@pytest.mark.parametrize(
    "call", ["ListSubmissions", "GetSubmissionLimits", "StartSubmissionUpload", "PUT", "GetSubmission"]
)
@pytest.mark.parametrize("fault", [Fault(429, headers={"Retry-After": "1"}), Fault(500), Fault(503), Fault()])
def test_what_passes_is_tried_again(call: str, fault: Fault, home: Path, kaggle: Server) -> None:
    kaggle.fail(call, fault, fault)
    assert cli.main(SUBMIT) == 0
    assert len(kaggle.submissions) == 1
    assert row(home).status == "complete"


@pytest.mark.parametrize("fault", [Fault(after=True), Fault(500, after=True), Fault(503, after=True)])
def test_an_answer_lost_after_the_upload_is_found_in_the_list(
    fault: Fault, home: Path, kaggle: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    kaggle.fail("CreateSubmission", fault)
    assert cli.main(SUBMIT) == 0
    assert "looking whether it arrived" in capsys.readouterr().err
    assert len(kaggle.submissions) == 1
    assert row(home).reference == "50000001"


def test_a_submission_that_may_have_arrived_is_not_sent_again(
    home: Path, kaggle: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    kaggle.fail("CreateSubmission", Fault(after=True))
    kaggle.listed = False
    assert cli.main(SUBMIT) == 1
    assert "it looks there before it sends" in capsys.readouterr().err
    assert (row(home).status, row(home).reference) == ("sending", "")
    kaggle.listed = True
    assert "sent already, as 50000001" in refused(SUBMIT, capsys, 2)
    assert len(kaggle.submissions) == 1


def test_a_submission_that_did_not_arrive_is_sent_by_the_next_call(home: Path, kaggle: Server) -> None:
    kaggle.fail("CreateSubmission", Fault(), Fault(500))
    assert cli.main(SUBMIT) == 1
    assert row(home).status == "sending"
    kaggle.faults.clear()
    assert cli.main(SUBMIT) == 0
    assert len(kaggle.submissions) == 1


def test_a_score_that_never_comes(home: Path, kaggle: Server, capsys: pytest.CaptureFixture[str]) -> None:
    kaggle.polls = None
    told = refused([*SUBMIT, "--wait", "1"], capsys, 1)
    assert "sent as 50000001, no score after 1 s; `make scores` catches up" in told
    assert (row(home).reference, row(home).status) == ("50000001", "pending")
    kaggle.polls = 0
    assert cli.main(["scores"]) == 0
    assert "0.99643" in capsys.readouterr().out
    assert row(home).public_score == "0.99643"


def test_no_wait_leaves_at_once(home: Path, kaggle: Server) -> None:
    assert cli.main([*SUBMIT, "--no-wait"]) == 0
    assert row(home).status == "pending"
    assert "GetSubmission" not in kaggle.calls


def test_a_rejected_file_shows_kaggle_s_reason(home: Path, kaggle: Server, capsys: pytest.CaptureFixture[str]) -> None:
    kaggle.reject = "ImageId must be\nunique"
    assert "Kaggle rejected 50000001: ImageId must be unique" in refused(SUBMIT, capsys, 1)
    assert row(home).status == "error"


def test_a_login_opens_the_door_and_a_lost_one_is_named(
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
    told = refused([*SUBMIT, "--force", "--file", str(ready(home, "other-1", wrong=9))], capsys, 1)
    assert f"Kaggle does not know the login from {path}: expired or wrong" in told
    assert LOGIN not in told


def test_two_terminals_send_once(home: Path, kaggle: Server) -> None:
    kaggle.fail("CreateSubmission", Fault(200, after=True, seconds=1.5, body={"message": "ok", "ref": 50_000_001}))
    words = [sys.executable, "-m", "digit_recognizer", *SUBMIT]
    started = [subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    errors = sorted(process.communicate(timeout=60)[1] for process in started)
    assert sorted(process.returncode for process in started) in ([0, 1], [0, 2]), errors
    assert "another `make submit` is at work" in errors[1] or "sent already" in errors[1]
    assert len(kaggle.submissions) == 1


@pytest.mark.parametrize("call", ["StartSubmissionUpload", "PUT", "CreateSubmission", "GetSubmission"])
def test_interrupted_anywhere_and_called_again_it_is_sent_once(call: str, home: Path, kaggle: Server) -> None:
    kaggle.fail(call, Fault(500, after=True, seconds=3))
    words = [sys.executable, "-m", "digit_recognizer", *SUBMIT]
    process = subprocess.Popen(
        words,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # tests in the background ignore it
    )
    deadline = time.monotonic() + 30
    while call not in kaggle.calls and time.monotonic() < deadline:
        real_sleep(0.02)
    real_sleep(0.3)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "interrupted; the same command looks at Kaggle's list before it sends again" in one_line(said)
    kaggle.faults.clear()
    done = kit(*SUBMIT, cwd=home)
    assert done.returncode in (0, 2), done.stderr
    assert len(kaggle.submissions) == 1
    assert row(home).reference == "50000001"


def test_as_a_user_types_it(home: Path, kaggle: Server, nobody: Path) -> None:
    words = ["make", "-f", ROOT / "Makefile", "-o", ".venv/run.stamp", f"KIT={sys.executable} -m digit_recognizer"]
    done = subprocess.run(
        [*words, "submit", "YES=1"], env=outside_make() | dict(os.environ), capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "sent: Kaggle's reference is 50000001\nwaiting for Kaggle's score\npublic score 0.99643\n" in done.stdout
    assert not list(nobody.iterdir()), "no folder is made in an empty home"


def test_scores_ranks_marks_and_needs_no_network(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = home / "submissions"
    ledger.record(folder, Row(run="leaked", holdout_errors=21, holdout_rows=4200, public_score="1.00000"))
    ledger.record(folder, Row(run="broken", holdout_errors=21, holdout_rows=4200, public_score="0.98"))
    ledger.record(folder, Row(run="alone", oof_errors=420, oof_rows=42000, public_score="0.99600"))
    ledger.record(folder, Row(run="sample-quick-1", holdout_errors=1, holdout_rows=144))
    assert cli.main(["scores"]) == 0
    shown = capsys.readouterr().out
    names = [line.split()[0] for line in shown.splitlines()[1:6]]
    assert names == ["standard-1", "leaked", "broken", "sample-quick-1", "alone"]
    by_run = dict(zip(names, shown.splitlines()[1:6], strict=True))
    assert by_run["leaked"].endswith("+0.00500  ! high")
    assert by_run["broken"].endswith("-0.01500  ! low")
    assert "most often a file made with leaked labels" in shown
    assert "!" not in by_run["alone"], "a blend may well be better than its members"
    assert "a sample run" in by_run["sample-quick-1"]


def test_scores_with_credentials_but_no_network_says_so(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAGGLE_API_TOKEN", TOKEN)
    assert cli.main(["scores"]) == 0
    shown = capsys.readouterr()
    assert "standard-1" in shown.out
    assert "not brought up to date: Kaggle cannot be reached" in one_line(shown.err)


@pytest.mark.timed
def test_scores_of_500_runs_take_under_half_a_second(home: Path) -> None:
    with ledger.changing(home / "submissions") as rows:
        rows += [Row(run=f"quick-{i}", holdout_errors=i, holdout_rows=4200) for i in range(500)]
    times = []
    for _ in range(5):
        began = time.monotonic()
        done = kit("scores", cwd=home)
        times.append(time.monotonic() - began)
        assert done.stdout.count("quick-") == 500
    assert min(times) < 0.5, times
    code = "import sys; from digit_recognizer import cli; cli.main(['scores']); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.split()
    assert not {"tensorflow", "keras", "pandas", "kagglesdk", "requests"} & set(loaded)


@pytest.mark.parametrize("kind", ["token", "key"])
def test_a_secret_that_kaggle_echoes_is_not_shown(
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
    told = refused(SUBMIT, capsys, 1)
    assert "bad: " in told
    assert sent not in told


def test_doctor_tells_what_is_and_what_is_wrong(home: Path, kaggle: Server, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor"]) == 0
    shown = capsys.readouterr().out
    for found in (f"account      {USER}", "rules        accepted", "5 submissions left", "token from KAGGLE_API_TOKEN"):
        assert found in shown
    kaggle.entered = False
    assert cli.main(["doctor"]) == 1
    assert (
        "!!  rules        not accepted\n                 hint: join the competition at https://"
        in capsys.readouterr().out
    )


def test_doctor_names_an_expired_token_and_the_source_that_it_hides(
    home: Path, kaggle: Server, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAGGLE_API_TOKEN", "expired-secret")
    monkeypatch.setenv("KAGGLE_USERNAME", USER)
    monkeypatch.setenv("KAGGLE_KEY", KEY)
    assert cli.main(["doctor"]) == 1
    shown = capsys.readouterr().out
    assert "Kaggle does not know the token from KAGGLE_API_TOKEN: expired or wrong" in shown
    assert "or remove this one to use another source" in shown
    assert "expired-secret" not in shown
    monkeypatch.delenv("KAGGLE_API_TOKEN")
    assert cli.main(["doctor"]) == 0
    assert "key from KAGGLE_USERNAME and KAGGLE_KEY" in capsys.readouterr().out
