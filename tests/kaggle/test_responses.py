"""Kaggle's responses: messages and hints for refusals, values in unexpected formats, terminal escapes, secrets."""

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conftest import keep, one_line
from digit_recognizer import cli
from digit_recognizer.errors import KitError
from digit_recognizer.kaggle.client import Client, UnknownOutcome, connect
from kaggle_server import KERNEL, KEY, LOGIN, METADATA, TOKEN, USER, Fault, Server

RULES = "accept the competition's rules at https://www.kaggle.com/competitions/digit-recognizer/rules"
PHONE = "verify your phone number at https://www.kaggle.com/settings"
PUSH = "`digit-recognizer push` creates the kernel"


def push(client: Client, folder: Path) -> str:
    (folder / "kernel.py").touch()
    return client.push_kernel(folder / "kernel.py", METADATA)


def list_one_submission(kaggle: Server, **changes: object) -> None:
    """Replace the server's submissions by one with these fields; ``...`` removes a field."""
    fields = {"ref": 50_000_001, "status": "COMPLETE", "publicScore": "0.99", "date": "2026-11-21T10:00:00.000Z"}
    submission = {name: value for name, value in (fields | changes).items() if value is not ...}
    kaggle._ListSubmissions = lambda request: {"submissions": [submission], "nextPageToken": ""}  # type: ignore
    kaggle._GetSubmission = lambda request: submission  # type: ignore


@pytest.mark.parametrize(
    ("call", "status", "message", "hint"),
    [
        ("DownloadDataFiles", 403, "You must accept this competition's rules", RULES),
        ("DownloadDataFiles", 403, "", RULES),
        ("DownloadDataFiles", 403, "Please verify your identity by PHONE first", PHONE),
        ("SaveKernel", 403, "Phone verification is required for GPUs", PHONE),
        ("SaveKernel", 403, "Permission 'kernels.create' was denied", ""),
        ("SaveKernel", 404, "no such competition", ""),
        ("GetKernelSessionStatus", 403, "Permission 'kernels.get' was denied", PUSH),
        ("GetKernelSessionStatus", 404, "Not found", PUSH),
        ("ListKernelSessionOutput", 403, "Permission denied", PUSH),
        ("GET", 403, "the signature has expired", ""),  # storage
        ("GET", 404, "no such object", ""),
        ("GET", 401, "no", ""),
    ],
)
def test_hint_matches_the_refused_call(
    call: str, status: int, message: str, hint: str, tmp_path: Path, kaggle: Server
) -> None:
    kaggle.fail(call, Fault(status, {"code": status, "message": message}), always=True)
    kaggle.pack(train_csv=b"")
    calls: dict[str, Callable[[Client], object]] = {
        "DownloadDataFiles": lambda client: client.download_data(tmp_path),
        "GET": lambda client: client.download_data(tmp_path),
        "SaveKernel": lambda client: push(client, tmp_path),
        "GetKernelSessionStatus": lambda client: client.kernel_status(KERNEL),
        "ListKernelSessionOutput": lambda client: client.download_kernel_output(KERNEL, tmp_path),
    }
    with connect() as client, pytest.raises(KitError) as refused:
        calls[call](client)
    assert f"({status}: {message})".replace(": )", ")") in str(refused.value)
    assert refused.value.hint.startswith(hint)
    assert bool(refused.value.hint) == bool(hint)


@pytest.mark.parametrize(
    "changes",
    [
        {"ref": 0},
        {"ref": ...},
        {"ref": None},
        {"ref": -1},
        {"ref": "abc"},
        {"ref": 1.5},
        {"ref": True},
        {"ref": "9" * 400},
        {"ref": "\x1b[2J"},
        {"status": "QUEUED"},
        {"status": 7},
        {"status": None},
        {"status": ["COMPLETE"]},
        {"date": "yesterday"},
        {"date": 5},
    ],
)
def test_malformed_submission_is_reported_in_one_line_without_retries(changes: dict[str, Any], kaggle: Server) -> None:
    list_one_submission(kaggle, **changes)
    with connect() as client:
        for call in (client.list_submissions, lambda: client.get_submission("50000001")):
            with pytest.raises(KitError, match="cannot read Kaggle's response") as refused:
                call()
            assert str(refused.value).isprintable()
            assert len(str(refused.value)) < 200
    assert kaggle.calls == ["ListSubmissions", "GetSubmission"]


@pytest.mark.parametrize("score", ["0.99643", "0", "1", "1.0", "0.5", ".99", 0.99643, 1])
def test_public_score_from_0_to_1_is_kept(score: object, kaggle: Server) -> None:
    list_one_submission(kaggle, publicScore=score)
    with connect() as client:
        assert client.get_submission("50000001").public_score == str(score)
        assert client.list_submissions()[0].public_score == str(score)


@pytest.mark.parametrize("score", ["", None, ...])
def test_missing_public_score_is_empty(score: object, kaggle: Server) -> None:
    list_one_submission(kaggle, publicScore=score)
    with connect() as client:
        assert client.get_submission("50000001").public_score == ""


@pytest.mark.parametrize(
    "score", ["abc", "N/A", "nan", "inf", "1e999", "9" * 400, "1.5", "-0.1", "0.9\x1b[2J", "٠.٩", "0,99", [1], True, 2]
)
def test_malformed_public_score_is_empty_in_the_list_and_an_error_alone(score: object, kaggle: Server) -> None:
    list_one_submission(kaggle, publicScore=score)
    with connect() as client:
        assert client.list_submissions()[0].public_score == ""
        with pytest.raises(KitError, match="cannot read Kaggle's response \\(publicScore") as refused:
            client.get_submission("50000001")
        assert str(refused.value).isprintable()


@pytest.mark.parametrize("count", ["many", None, [], {}, "9" * 5000])
def test_malformed_count_of_submissions_is_reported(count: object, kaggle: Server) -> None:
    kaggle._GetSubmissionLimits = lambda request: {"numAllowedNow": count}  # type: ignore
    with connect() as client, pytest.raises(KitError, match="cannot read Kaggle's response"):
        client.submissions_left_today()


@pytest.mark.parametrize("status", ["PAUSED_BY_MAGIC", 3, None, ["RUNNING"]])
def test_unknown_kernel_status_is_reported(status: Any, kaggle: Server) -> None:
    kaggle.kernel_status = status
    with connect() as client, pytest.raises(KitError, match="cannot read Kaggle's response"):
        client.kernel_status(KERNEL)


@pytest.mark.parametrize("name", ["", "ada/x", "ada lovelace", "\x1b[31mada", "адa", None, 7, "a" * 200, ["ada"]])
def test_malformed_user_name_is_reported(name: object, kaggle: Server) -> None:
    kaggle._IntrospectToken = lambda request: {"active": True, "username": name}  # type: ignore
    with connect() as client, pytest.raises(KitError, match="cannot read Kaggle's response") as refused:
        client.username()
    assert str(refused.value).isprintable()


@pytest.mark.parametrize("reference", ["abc", -1, "9" * 400, True, ["x"]])
def test_submission_with_a_malformed_reference_has_an_unknown_outcome(reference: object, kaggle: Server) -> None:
    kaggle._CreateSubmission = lambda request: {"ref": reference, "message": "Successfully submitted"}  # type: ignore
    with connect() as client, pytest.raises(UnknownOutcome, match="cannot read Kaggle's response"):
        client.submit("blob", "description")


def test_list_without_an_end_is_an_error(kaggle: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("digit_recognizer.kaggle.client.PAGES", 30)
    pages = iter(range(10**9))
    kaggle._ListSubmissions = lambda request: {"submissions": [], "nextPageToken": f"{next(pages)}"}  # type: ignore
    with connect() as client, pytest.raises(KitError, match="more than 30 pages"):
        client.list_submissions()
    kaggle._ListSubmissions = lambda request: {"submissions": [], "nextPageToken": f"{next(pages) % 2}"}  # type: ignore
    with connect() as client:
        assert client.list_submissions() == [], "a repeated page ends the list"


@pytest.mark.parametrize(
    "text", ["\x1b[2J\x1b[31mred", "\x1b]0;title\x07", "\r\x1b[Kgone", "\x9b31m", "a\x00b", "\u202egnp.exe", "\x08\x08"]
)
def test_terminal_escapes_in_texts_from_kaggle_are_replaced(
    text: str, tmp_path: Path, kaggle: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    digest = "[sha256 0123456789abcdef]"
    list_one_submission(kaggle, fileName=f"f{text}", description=f"d{text} {digest}", errorDescription=f"e{text}")
    kaggle.kernel_failure = f"failed{text}"
    kaggle._SaveKernel = lambda request: {"url": f"https://www.kaggle.com/code/x{text}", "versionNumber": 1}  # type: ignore
    with connect() as client:
        submission = client.list_submissions()[0]
        texts = {"f": submission.file, "d": submission.description, "e": submission.error}
        texts |= {"https://": push(client, tmp_path), "failed": client.kernel_status(KERNEL)[1]}
    assert all(text.startswith(start) and text.isprintable() for start, text in texts.items())
    assert submission.description.endswith(f" {digest}")
    kaggle.fail("GetKernelSessionStatus", Fault(400, {"code": 400, "message": f"bad{text}"}))
    assert cli.main(["status"]) == 1
    assert all(line.isprintable() for line in one_line(capsys.readouterr().err).splitlines())


def test_long_description_is_not_truncated(kaggle: Server) -> None:
    list_one_submission(kaggle, description=f"{'x' * 300} [sha256 0123456789abcdef]")
    with connect() as client:
        assert client.list_submissions()[0].description.endswith(" [sha256 0123456789abcdef]")


@pytest.mark.parametrize("part", [slice(None), slice(0, 12), slice(5, 20), slice(-9, None), slice(1, -1)])
@pytest.mark.parametrize("kind", ["token", "key", "pair", "login"])
def test_no_part_of_a_secret_is_shown(
    kind: str,
    part: slice,
    nobody: Path,
    kaggle: Server,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pair = base64.b64encode(f"{USER}:{KEY}".encode()).decode()
    secret = {"token": TOKEN, "key": KEY, "pair": pair, "login": LOGIN}[kind]
    if kind != "token":
        monkeypatch.delenv("KAGGLE_API_TOKEN")
        login = {"refresh_token": LOGIN, "username": USER}
        key = {"username": USER, "key": KEY}
        name = "credentials.json" if kind == "login" else "kaggle.json"
        keep(nobody / ".kaggle" / name, login if kind == "login" else key)
    message = f"bad x{secret[part]}y, again {secret[part]}"
    kaggle.fail("GetKernelSessionStatus", Fault(400, {"code": 400, "message": message}))
    assert cli.main(["status"]) == 1
    output = capsys.readouterr()
    assert "(400: bad " in one_line(output.err)
    assert "…" in output.err
    assert secret[part] not in output.err + output.out
    assert not any(secret[i : i + 8] in output.err for i in range(len(secret) - 7))
