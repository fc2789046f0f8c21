"""The client's calls against a server on loopback: the account, submissions, kernels."""

import time
from pathlib import Path

import pytest

from conftest import keep
from digit_recognizer.errors import BadInput, KitError
from digit_recognizer.kaggle.client import Client, UnknownOutcome, connect
from kaggle_server import KERNEL, KEY, LOGIN, METADATA, USER, Fault, Server, submission

real_sleep = time.sleep


@pytest.fixture(autouse=True)
def short_pauses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(time, "sleep", lambda seconds: real_sleep(seconds / 1000))


def submit(client: Client, file: Path, description: str) -> str:
    return client.submit(client.upload(file), description)


def test_connect_without_credentials_is_refused_with_a_hint(kaggle: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KAGGLE_API_TOKEN")
    with pytest.raises(BadInput, match="no Kaggle credentials") as refused:
        connect()
    assert "https://www.kaggle.com/settings" in refused.value.hint
    assert not kaggle.calls


@pytest.mark.parametrize("kind", ["token", "key", "login"])
def test_user_name_belongs_to_the_credentials(
    kind: str, nobody: Path, kaggle: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind != "token":
        monkeypatch.delenv("KAGGLE_API_TOKEN")
    if kind == "key":
        keep(nobody / ".kaggle" / "kaggle.json", {"username": USER, "key": KEY})
    if kind == "login":
        keep(nobody / ".kaggle" / "credentials.json", {"refresh_token": LOGIN})
    with connect() as client:
        assert client.username() == USER


@pytest.mark.parametrize("kind", ["token", "key", "login"])
def test_wrong_credentials_are_named_with_their_source(
    kind: str, nobody: Path, kaggle: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAGGLE_API_TOKEN", "KGAT_wrong" if kind == "token" else "")
    source = "KAGGLE_API_TOKEN"
    if kind == "key":
        source = str(keep(nobody / ".kaggle" / "kaggle.json", {"username": USER, "key": "wrong"}))
    if kind == "login":
        source = str(keep(nobody / ".kaggle" / "credentials.json", {"refresh_token": "wrong"}))
    with pytest.raises(KitError) as refused, connect() as client:
        client.username()
    assert str(refused.value) == f"Kaggle rejected the {kind} from {source}: expired or wrong"
    assert "create a new one at https://www.kaggle.com/settings" in refused.value.hint


def test_submissions_are_uploaded_counted_and_listed_newest_first(tmp_path: Path, kaggle: Server) -> None:
    (tmp_path / "first.csv").write_bytes(submission(10))
    (tmp_path / "second.csv").write_bytes(submission(280))
    with connect() as client:
        assert client.has_joined()
        assert client.submissions_left_today() == 5
        first = submit(client, tmp_path / "first.csv", "the first")
        second = submit(client, tmp_path / "second.csv", "the second")
        assert client.submissions_left_today() == 3
        assert client.get_submission(second).status == "complete"
        newest, oldest = client.list_submissions()
    assert (newest.reference, newest.file, newest.description) == (second, "second.csv", "the second")
    assert (newest.status, newest.public_score, newest.error) == ("complete", "0.99000", "")
    assert (oldest.reference, oldest.status, oldest.public_score) == (first, "pending", "")


def test_all_pages_of_submissions_are_listed(kaggle: Server) -> None:
    date = "2026-11-21T10:00:00.000Z"
    kaggle.submissions = [
        {"ref": number, "status": "COMPLETE", "publicScore": "0.9", "date": date, "asked": 0}
        for number in range(250, 0, -1)
    ]
    with connect() as client:
        assert [item.reference for item in client.list_submissions()] == [str(number) for number in range(250, 0, -1)]
    assert kaggle.calls.count("ListSubmissions") == 3


def test_account_that_has_not_joined_is_reported(kaggle: Server) -> None:
    kaggle.entered = False
    with connect() as client:
        assert not client.has_joined()


@pytest.mark.parametrize("fault", [Fault(308), Fault(503), Fault()])
def test_incomplete_upload_is_repeated(fault: Fault, tmp_path: Path, kaggle: Server) -> None:
    (tmp_path / "file.csv").write_bytes(submission(0))
    kaggle.fail("PUT", fault)
    with connect() as client:
        token = client.upload(tmp_path / "file.csv")
    assert kaggle.uploads[token] == submission(0)
    assert kaggle.calls == ["StartSubmissionUpload", "PUT"] * 2


def test_response_without_a_reference_is_no_submission(kaggle: Server) -> None:
    kaggle._CreateSubmission = lambda request: {"message": "Could not submit to competition", "ref": 0}  # type: ignore
    with connect() as client, pytest.raises(KitError, match="did not accept the submission: Could not submit") as error:
        client.submit("blob", "description")
    assert not isinstance(error.value, UnknownOutcome)


def test_pushed_kernel_has_its_metadata_and_returns_its_page(tmp_path: Path, kaggle: Server) -> None:
    (tmp_path / "kernel.py").write_text("print()")
    with connect() as client:
        page = client.push_kernel(tmp_path / "kernel.py", METADATA | {"machine_shape": "NvidiaTeslaT4"})
    assert page == f"https://www.kaggle.com/code/{KERNEL}"
    (kernel,) = kaggle.kernels
    assert (kernel["text"], kernel["slug"], kernel["newTitle"]) == ("print()", KERNEL, METADATA["title"])
    assert kernel["machineShape"] == "NvidiaTeslaT4"


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        ({"error": "source too long"}, "source too long"),
        ({"invalidCompetitionSources": ["x"]}, "competition not found"),
    ],
)
def test_kernel_that_is_not_saved_is_an_error(
    response: dict[str, object], reason: str, tmp_path: Path, kaggle: Server
) -> None:
    kaggle._SaveKernel = lambda request: response  # type: ignore
    (tmp_path / "kernel.py").touch()
    with connect() as client, pytest.raises(KitError, match=f"did not accept the kernel: {reason}"):
        client.push_kernel(tmp_path / "kernel.py", METADATA)


def test_kernel_status_is_in_lower_case_with_its_reason(kaggle: Server) -> None:
    kaggle.kernel_status, kaggle.kernel_failure = "ERROR", "out of\nmemory"
    with connect() as client:
        assert client.kernel_status(KERNEL) == ("error", "out of memory")
