"""What ``doctor`` prints of credentials and of the account."""

import os
from pathlib import Path

import pytest

from conftest import keep
from digit_recognizer import doctor
from kaggle_server import KEY, TOKEN, USER, Fault, Server


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty folder, and none of the checks that need TensorFlow."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(doctor, "_devices", lambda: "none looked at")


def wrong(capsys: pytest.CaptureFixture[str]) -> tuple[int, list[str]]:
    """How many things are wrong, and the lines of those."""
    count = doctor.examine(Path.cwd(), None)
    shown = capsys.readouterr().out
    assert TOKEN not in shown
    assert KEY not in shown
    lines = [line for line in shown.splitlines() if not line.startswith("ok  ")]
    return count, [" ".join(line.split()) for line in lines]


def test_a_hint_stands_below_what_is_wrong(kaggle: Server, capsys: pytest.CaptureFixture[str]) -> None:
    assert wrong(capsys) == (0, [])
    kaggle.entered = False
    assert wrong(capsys) == (
        1,
        ["!! rules not accepted", f"hint: join the competition at {doctor.RULES_PAGE}"],
    )


@pytest.mark.parametrize(
    ("call", "fault", "line", "hint"),
    [
        ("IntrospectToken", Fault(407), "requires a user name and a password: 407", "into http_proxy"),
        ("IntrospectToken", Fault(200, headers={"Content-Type": "text/html"}), "a web page came", "sign in"),
        ("IntrospectToken", Fault(200, {"active": False}), "Kaggle does not know the token", "make a new one"),
        ("IntrospectToken", Fault(200, {"active": True, "username": "a\x1b[2J"}), "cannot be read", "see https://"),
    ],
)
def test_an_account_that_cannot_be_looked_at_is_named_once(
    call: str, fault: Fault, line: str, hint: str, kaggle: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    kaggle.fail(call, fault, always=True)
    count, lines = wrong(capsys)
    assert count == 1
    assert len(lines) == 2
    assert lines[0].startswith("!! account ")
    assert line in lines[0]
    assert lines[1].startswith("hint: ")
    assert hint in lines[1]
    assert all(text.isprintable() for text in lines)


def test_credentials_that_cannot_be_used_are_named_with_a_hint(
    kaggle: Server, nobody: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KAGGLE_API_TOKEN")
    path = keep(nobody / ".kaggle" / "kaggle.json", {"username": USER, "key": KEY}, mode=0o644)
    count, lines = wrong(capsys)
    assert count == 1
    assert lines[0] == f"!! credentials {path}: other users of this machine can read it"
    assert lines[1].startswith(f"hint: chmod 600 {path}; where that has no effect")
    path.chmod(0o600)
    assert wrong(capsys) == (0, [])
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", os.devnull + "/nothing")
    assert wrong(capsys) == (0, []), "no certificate is looked at on loopback"


def test_an_error_of_any_kind_is_one_line(
    kaggle: Server, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> str:
        raise RuntimeError("first\nsecond \x1b[2J")

    monkeypatch.setattr(doctor, "_devices", broken)
    count, lines = wrong(capsys)
    assert count == 1
    assert lines == ["!! devices RuntimeError: first second \N{REPLACEMENT CHARACTER}[2J"]
