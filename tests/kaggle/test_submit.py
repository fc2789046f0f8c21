"""Submitting: Kaggle's own client against a Kaggle on loopback, with everything going wrong that can."""

import base64
import io
import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conftest import ROOT, keep, kit, one_line, outside_make
from digit_recognizer import cli, ledger
from digit_recognizer.kaggle import client
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
    path.parent.mkdir(parents=True, exist_ok=True)
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
    assert "line 8: expected ImageId 7, found '8', as on line 9; and 1 more\nhint: make check FILE=bad.csv" in refused(
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
    assert "validation 0.99048 is worse than 0.99524 of standard-1, sent already\nhint: FORCE=1" in told
    assert cli.main([*SUBMIT, "--force"]) == 0
    (home / "other.csv").write_bytes(submission(50))
    assert "no validation score to compare" in refused([*SUBMIT, "--file", "other.csv"], capsys, 2)
    assert len(kaggle.submissions) == 2


@pytest.mark.parametrize("rows", [{"test_rows": 300}, {"train_rows": 900}, {"train_rows": 900, "test_rows": 300}, {}])
@pytest.mark.parametrize("where", ["ledger", "run.json", "file"])
def test_a_run_on_part_of_the_data_is_not_picked(
    where: str, rows: dict[str, int], home: Path, kaggle: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    path = ready(home, "part-1", wrong=0, errors=1)
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
    assert row(home, "part-1" if not rows else "standard-1").reference
    if not rows:
        return
    told = refused([*SUBMIT, "--force"], capsys, 2)
    assert "no run that was not sent yet, except 1 not made from the competition's whole files" in told
    assert cli.main(["scores"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("part-1")]
    if "test_rows" in rows:
        assert "cannot be submitted: 300 test rows" in line
        assert (
            "cannot be submitted: 300 test rows" in refused([*SUBMIT, "--run", "part-1"], capsys, 2)
            or where != "run.json"
        )
        assert len(kaggle.submissions) == 1
    else:
        assert "submitted only with --run: 900 training rows" in line
        assert cli.main([*SUBMIT, "--run", "part-1", "--no-wait"]) == 0


@pytest.mark.parametrize("damaged", [b"", b"\xff", b"{}", b"[]", b"[" * 10**5, b'{"identity": 3, "test_rows": "x"}'])
def test_a_damaged_note_of_the_run_does_not_stop_a_good_file(damaged: bytes, home: Path, kaggle: Server) -> None:
    (home / "runs" / "standard-1" / "run.json").write_bytes(damaged)
    assert cli.main([*SUBMIT, "--no-wait"]) == 0
    assert cli.main(["check", "--file", "submissions/standard-1.csv"]) == 0
    assert row(home).reference


def test_a_name_that_begins_with_sample_is_refused_whatever_its_note_says(
    home: Path, kaggle: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    ready(home, "sample-quick-1", wrong=5)
    keep(home / "runs" / "sample-quick-1" / "run.json", "damaged")
    assert "of a sample run, it can never" in refused([*SUBMIT, "--run", "sample-quick-1"], capsys, 2)
    assert not kaggle.submissions


@pytest.mark.parametrize("name", ["../standard-1", "", "a/b", "a\x1b[2J", "x" * 300])
def test_a_run_s_name_is_no_path(name: str, home: Path, kaggle: Server, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused([*SUBMIT, "--run", name], capsys, 2)
    assert "RUN: expected a plain file name" in said
    assert said.isprintable()
    assert not kaggle.submissions


@pytest.mark.parametrize(
    "name", [".hidden.csv", "a:b.csv", "end..csv", "a\x1b[2J.csv", "y" * 125 + ".csv", "\udcff.csv"]
)
def test_a_file_of_any_name_is_sent_and_recorded(
    name: str, home: Path, kaggle: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / name).write_bytes(submission(50))
    assert cli.main([*SUBMIT, "--no-wait", "--message", "caf\udce9 \x1b[2J", "--file", name]) == 0
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    (last,) = [row for row in ledger.read(home / "submissions") if row.reference]
    assert last.run == f"file-{last.file_sha256[:8]}"
    assert last.message == "caf\N{REPLACEMENT CHARACTER} \N{REPLACEMENT CHARACTER}[2J"
    assert "sent already" in refused([*SUBMIT, "--file", name], capsys, 2)


@pytest.mark.parametrize("kind", ["quoted", "shuffled"])
def test_what_kaggle_accepts_is_sent_with_a_warning(
    kind: str, home: Path, kaggle: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    header, *lines = submission(50).decode().splitlines()
    lines = lines[::-1] if kind == "shuffled" else [f'"{line}"'.replace(",", '","') for line in lines]
    (home / "other.csv").write_text("\n".join([header, *lines, ""]))
    assert cli.main([*SUBMIT, "--no-wait", "--file", "other.csv"]) == 0
    assert "which Kaggle accepts" in one_line(capsys.readouterr().err)
    assert kaggle.submissions[0]["content"] == (home / "other.csv").read_bytes()


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
    assert kaggle.calls.count(call) <= client.TRIES
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


@pytest.mark.slow
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


@pytest.mark.parametrize(
    ("words", "forgotten"), [([], True), (["--run", "standard-1"], False), (["--file", "copy.csv"], False)]
)
def test_what_kaggle_rejected_may_be_sent_again(
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
    assert "the earlier attempt, 50000002, ended in an error at Kaggle" in capsys.readouterr().out
    assert (row(home).reference, row(home).status, row(home).public_score) == ("50000003", "complete", "0.99643")
    assert "sent already, as 50000003" in refused([*SUBMIT, "--run", "standard-1"], capsys, 2)
    assert cli.main(["scores"]) == 0
    assert (row(home).reference, row(home).status) == ("50000003", "complete")
    assert len(kaggle.submissions) == 3


def test_a_second_attempt_whose_answer_is_lost_is_not_made_twice(
    home: Path, kaggle: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    kaggle.reject = "Evaluation Exception"
    refused(SUBMIT, capsys, 1)
    kaggle.reject = ""
    kaggle.fail("CreateSubmission", Fault(403))
    refused(SUBMIT, capsys, 1)
    assert (row(home).reference, row(home).status) == ("50000001", "error"), "refused: the failed attempt is the last"
    kaggle.fail("CreateSubmission", Fault())
    assert cli.main(SUBMIT) == 1
    assert (row(home).reference, row(home).status) == ("50000001", "sending")
    kaggle.fail("CreateSubmission", Fault(after=True))
    assert cli.main(SUBMIT) == 0, "the one in the list that was rejected is not taken for it"
    assert row(home).reference == "50000002"
    assert len(kaggle.submissions) == 2


def test_a_rejected_run_is_not_what_others_are_compared_with(home: Path, kaggle: Server) -> None:
    kaggle.reject = "Evaluation Exception"
    assert cli.main(SUBMIT) == 1
    kaggle.reject = ""
    ready(home, "quick-1", wrong=300, errors=40)
    assert cli.main([*SUBMIT, "--run", "quick-1"]) == 0


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
def test_a_list_that_is_older_than_the_ledger_changes_nothing_back(
    verb: list[str],
    newer: tuple[str, str],
    listed: str,
    after: tuple[str, str],
    home: Path,
    kaggle: Server,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ready(home, "other-1", wrong=9, errors=1)
    tag = f"[sha256 {row(home).file_sha256[:16]}]"
    one = {"ref": 50_000_001, "fileName": "a.csv", "totalBytes": 1, "date": "2026-11-21T10:00:00.000Z"}
    score = {"publicScore": "0.98"} if listed == "COMPLETE" else {}
    kaggle.submissions.append(
        one | {"description": tag, "status": listed, "asked": -9, "error": "", "content": b""} | score
    )
    list_them = client.Client.list_submissions

    def then_changed(client: client.Client) -> list[client.Submission]:
        found = list_them(client)
        status, score = newer
        if not row(home).reference:  # another process, between the list's coming and its use
            fields = {"reference": "50000001", "status": status, "public_score": score}
            ledger.update(home / "submissions", "standard-1", **fields)
        return found

    monkeypatch.setattr(client.Client, "list_submissions", then_changed)
    assert cli.main([*verb, "--no-wait"] if verb != ["scores"] else verb) == 0
    assert (row(home).reference, row(home).status, row(home).public_score) == ("50000001", *after)


def test_a_score_found_by_another_process_is_not_taken_back(
    home: Path, kaggle: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    send = client.Client.submit

    def and_scores(client: client.Client, token: str, description: str) -> str:
        reference = send(client, token, description)
        kaggle.submissions[0]["asked"] = 9
        assert cli.main(["scores"]) == 0
        assert row(home).status == "complete"
        return reference

    monkeypatch.setattr(client.Client, "submit", and_scores)
    assert cli.main([*SUBMIT, "--no-wait"]) == 0
    assert (row(home).status, row(home).public_score) == ("complete", "0.99643")


@pytest.mark.parametrize("status", ["strange", "\x1b[2J", "COMPLETE", "sending"])
def test_a_status_that_is_not_known_does_no_harm(
    status: str, home: Path, kaggle: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    ledger.record(home / "submissions", Row(run="old", status=status, reference="x", public_score="nan"))
    assert cli.main(["scores"]) == 0
    assert cli.main(SUBMIT) == 0
    assert "\x1b" not in capsys.readouterr().out


def left(home: Path, *runs: str, **fields: str) -> dict[str, bytes]:
    """What a kernel leaves of runs, by file name, made in another folder."""
    there = home.parent / f"{home.name}-kernel"
    for run in runs:
        ready(there, run, wrong=7, errors=9)
        ledger.update(there / "submissions", run, **fields)
        keep(there / "runs" / run / "run.json", {"test_rows": 28_000})
        keep(there / "runs" / run / "members" / "00" / "member.json", {})
    return {path.relative_to(there).as_posix(): path.read_bytes() for path in there.rglob("*.*") if path.is_file()}


def everything(home: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in home.rglob("*") if path.is_file() and path.name[0] != "."}


def bring(output: dict[str, bytes], folder: Path) -> None:
    for name, content in output.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


@pytest.mark.parametrize("status", ["COMPLETE", "ERROR"])
def test_what_a_kernel_left_comes_once_and_changes_nothing_that_is_there(
    status: str, home: Path, kaggle: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    kaggle.kernel_status = status
    kaggle.output = left(home, "a-1", reference="666", status="complete", public_score="1.0", message="planted")
    kaggle.output |= {"runs/a-1/evil.py": b"x", "runs/a-1/members/00/x.pkl": b"x", "runs/a-1/deep/er/x.json": b"x"}
    kaggle.output |= {"runs/b-2/run.json": b"x", "submissions/b-2.csv": b"x", "Makefile": b"x", "cache/x.json": b"x"}
    before = everything(home)
    assert cli.main(["output"]) == 0
    assert "a-1: in submissions/ and runs/" in capsys.readouterr().out
    assert {str(Path(name).relative_to(home)) for name in everything(home).keys() - before.keys()} == {
        "submissions/a-1.csv", "runs/a-1/run.json", "runs/a-1/members/00/member.json",
    }  # fmt: skip
    came = row(home, "a-1")
    assert (came.reference, came.status, came.public_score, came.message, came.holdout_errors) == ("", "", "", "", 9)
    ledger.update(home / "submissions", "a-1", status="sending", message="m")
    keep(home / "runs" / "a-1" / "run.json", "mine")
    there = everything(home)
    assert cli.main(["output"]) == 0
    assert everything(home) == there, "neither the status sending nor the run's folder is overwritten"
    ledger.update(home / "submissions", "a-1", status="pending", reference="7")
    there = everything(home)
    assert cli.main(["output"]) == 0
    assert everything(home) == there


@pytest.mark.parametrize(
    "name",
    [
        "../digit_recognizer", "..", "../../x", "/tmp/x", "a/b", "a\\b", ".hidden", "a\x1b[2J", "cache", "Cache",
        "studies", "compare.md", "compare.json", "error.log", "bench-20261122-105003", "bench.json", "ledger", "LEDGER",
        "sample-ledger",
    ],
)  # fmt: skip
def test_a_kernel_s_run_of_a_bad_name_is_refused_and_nothing_is_kept(
    name: str,
    home: Path,
    kaggle: Server,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    output = left(home, "a-1", "b-2")
    output["submissions/ledger.csv"] = output["submissions/ledger.csv"].replace(b"a-1", name.encode())
    places = {place: os.path.normpath(place.replace("a-1", name)) for place in output}
    output = {places[place]: content for place, content in output.items() if not places[place].startswith((".", "/"))}
    monkeypatch.setattr(client.Client, "download_kernel_output", lambda client, slug, folder: bring(output, folder))
    around = [sorted(place.iterdir()) for place in home.parents[:2]]
    before = everything(home)
    said = refused(["output"], capsys, 2)
    assert re.search("expected a plain file name|which the kit uses itself|csv, line 1: expected the header", said)
    assert "digit-recognizer-kit: " in said
    assert ".output-" not in said
    assert everything(home) == before
    assert [sorted(place.iterdir()) for place in home.parents[:2]] == around


@pytest.mark.parametrize("there", ["file", "run as file", "run as link", "row"])
def test_a_kernel_s_run_overwrites_nothing(
    there: str, home: Path, kaggle: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    kaggle.output = left(home, "a-1")
    if there == "file":
        (home / "submissions" / "a-1.csv").write_bytes(submission(8))
    elif there == "run as file":
        (home / "runs" / "a-1").write_text("x")
    elif there == "run as link":
        (home / "runs" / "a-1").symlink_to(home / "submissions")
    else:
        ledger.record(home / "submissions", Row(run="a-1", file_sha256="ab"))
    before = everything(home)
    refused(["output"], capsys, 2)
    assert everything(home) == before


@pytest.mark.parametrize("what", ["link", "folder as link", "submission as link", "fifo", "run as file"])
def test_what_is_no_file_of_a_run_is_refused_or_dropped(
    what: str, home: Path, kaggle: Server, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    output = left(home, "a-1")

    def brought(client: client.Client, slug: str, folder: Path) -> None:
        bring(output, folder)
        run = folder / "runs" / "a-1"
        if what == "link":
            (run / "test.npy").symlink_to("/etc/passwd")
        elif what == "folder as link":
            (run / "members" / "01").symlink_to("/etc")
        elif what == "submission as link":
            (folder / "submissions" / "a-1.csv").rename(folder / "b")
            (folder / "submissions" / "a-1.csv").symlink_to(folder / "b")
        elif what == "fifo":
            os.mkfifo(run / "test.npy")
        else:
            run.rename(folder / "c")
            run.touch()

    monkeypatch.setattr(client.Client, "download_kernel_output", brought)
    before = everything(home)
    if what == "fifo":
        assert cli.main(["output"]) == 0
        assert not (home / "runs" / "a-1" / "test.npy").exists()
    else:
        assert cli.main(["output"]) in (1, 2)
        one_line(capsys.readouterr().err)
        assert everything(home) == before


def test_a_kernel_s_ledger_of_another_form_is_named(
    home: Path, kaggle: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    for content in (b"\xff", b"x,y\n", b"run,oof_errors\na,x\n", b"run\na\na\n" + b"run,members\n"):
        kaggle.output = {"submissions/ledger.csv": content}
        assert "digit-recognizer-kit: submissions/ledger.csv" in refused(["output"], capsys, 2)
    kaggle.output = {"submissions/ledger.csv": b"run\na\n"}
    assert "did not come whole" in refused(["output"], capsys, 1)


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


@pytest.mark.slow
def test_two_terminals_send_once(home: Path, kaggle: Server) -> None:
    kaggle.fail("CreateSubmission", Fault(200, after=True, seconds=1.5, body={"message": "ok", "ref": 50_000_001}))
    words = [sys.executable, "-m", "digit_recognizer", *SUBMIT]
    started = [subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    errors = sorted(process.communicate(timeout=60)[1] for process in started)
    assert sorted(process.returncode for process in started) in ([0, 1], [0, 2]), errors
    assert "another `make submit` is at work" in errors[1] or "sent already" in errors[1]
    assert len(kaggle.submissions) == 1


@pytest.mark.parametrize("call", ["StartSubmissionUpload", "PUT", "CreateSubmission", "GetSubmission"])
@pytest.mark.slow
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


@pytest.mark.slow
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
    lines = [line for line in shown.splitlines() if line and not line.startswith("run ")]
    names = [line.split()[0] for line in lines[:5]]
    assert names == ["standard-1", "leaked", "broken", "alone", "sample-quick-1"], "what can be submitted comes first"
    by_run = dict(zip(names, lines, strict=False))
    assert by_run["leaked"].endswith("+0.00500  ! high")
    assert by_run["broken"].endswith("-0.01500  ! low")
    assert "most often a file made with leaked labels" in shown
    assert "!" not in by_run["alone"], "a blend may well be better than its members"
    assert "cannot be submitted: sample run" in by_run["sample-quick-1"]


def test_scores_fit_100_columns_and_show_no_escapes(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = home / "submissions"
    full = {"holdout_errors": 21, "holdout_rows": 4200}
    ledger.record(folder, Row(run="r" * 32, public_score="0.98", reference="5", **full))
    ledger.record(folder, Row(run="n" * 99, status="\x1b[2Jnew" + "y" * 99, reference="\x1b[31m", **full))
    ledger.record(folder, Row(run="sample-" + "s" * 80, oof_errors=1234, oof_rows=42000))
    ledger.record(folder, Row(run="q", status="\u202e", public_score="\x1b[2J", message="\x1b[2J"))
    ledger.record(folder, Row(run="part", train_rows=41_000, test_rows=28_000))
    ledger.record(folder, Row(run="small", train_rows=42_000, test_rows=1_000_000))
    assert cli.main(["scores"]) == 0
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 100
    assert all(line.isprintable() for line in shown.splitlines())
    assert f"\n{'n' * 99}\n" in shown, "a long name is shown whole, on a line of its own"


def test_scores_show_what_differs_between_recipes_of_one_name(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for run, digest, epochs in (("quick-1", "aa", 4), ("quick-2", "bb", 8), ("quick-3", "bb", 8), ("quick-4", "cc", 0)):
        ledger.record(home / "submissions", Row(run=run, recipe="quick", recipe_digest=digest, members="2"))
        note = {"identity": {"recipe": {"name": "quick", "epochs": epochs, "folds": 2}}}
        keep(home / "runs" / run / "run.json", note if epochs else "damaged")
    for run in ("best-1", "best-2"):
        ledger.record(home / "submissions", Row(run=run, recipe="best", recipe_digest="dd", members="2"))
    assert cli.main(["scores"]) == 0
    shown = capsys.readouterr().out
    assert shown.endswith(
        "\n\nrecipe quick is not the same in these runs:\n"
        "  quick-1: digest aa, 2 members blended, epochs 4\n"
        "  quick-2: digest bb, 2 members blended, epochs 8\n"
        "  quick-3: digest bb, 2 members blended, epochs 8\n"
        "  quick-4: digest cc, 2 members blended\n"
    )
    assert "recipe best" not in shown


@pytest.mark.parametrize("content", ["{", "\udcff", "[]", '{"username": 1}'])
def test_scores_do_not_need_the_credentials_file(
    content: str, home: Path, nobody: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = keep(nobody / ".kaggle" / "kaggle.json", "")
    path.write_bytes(content.encode(errors="surrogateescape"))
    assert cli.main(["scores"]) == 0
    shown = capsys.readouterr()
    assert "standard-1" in shown.out
    assert "not brought up to date: " in one_line(shown.err)
    assert "kaggle.json" in shown.err


def test_scores_with_credentials_but_no_network_says_so(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAGGLE_API_TOKEN", TOKEN)
    assert cli.main(["scores"]) == 0
    shown = capsys.readouterr()
    assert "standard-1" in shown.out
    assert "not brought up to date: Kaggle cannot be reached" in one_line(shown.err)


def test_scores_are_printed_without_heavy_imports(home: Path) -> None:
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
