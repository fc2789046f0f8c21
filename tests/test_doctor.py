"""The findings of ``doctor``: text, layout, number of faults."""

import os
from pathlib import Path

import pytest

from conftest import keep
from digit_recognizer import cli, doctor
from digit_recognizer.doctor import Finding
from kaggle_server import KEY, TOKEN, USER, Fault, Server


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run in an empty folder on a wide terminal, without the check that imports TensorFlow."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "1000")
    monkeypatch.setattr(doctor, "WIDTHS", (40, 1000))
    monkeypatch.setattr(doctor, "find_devices", lambda: Finding(doctor.OK, "none"))


def examine(capsys: pytest.CaptureFixture[str]) -> tuple[int, list[str]]:
    """Return the number of faults, and the lines of findings that are not ``ok`` except that of the missing data."""
    findings = doctor.examine(Path.cwd(), None)
    count = sum(finding.mark == doctor.WRONG for finding in findings.values())
    assert doctor.status(findings) == min(1, count)
    text = capsys.readouterr().out
    assert TOKEN not in text
    assert KEY not in text
    lines = [" ".join(line.split()) for line in text.splitlines() if not line.startswith("ok  ")]
    data = next(index for index, line in enumerate(lines) if line.startswith("– data"))
    return count, lines[:data] + lines[data + 2 :]


def test_findings_of_the_account_are_printed(kaggle: Server, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor"]) == 0
    text = capsys.readouterr().out
    for line in (
        f"ok  account      {USER}",
        "ok  rules        accepted",
        "ok  today        5 submissions left",
        "ok  quota        GPU 25.5 of 30 h left this week",
        "ok  credentials  token from KAGGLE_API_TOKEN",
        "–   data         no files in data/, so runs use the bundled sample",
    ):
        assert f"{line}\n" in text
    kaggle.entered = False
    assert cli.main(["doctor"]) == 1
    hint = f"hint: join the competition at {doctor.RULES_PAGE}"
    assert f"!!  rules        not accepted\n    {hint}\n" in capsys.readouterr().out


def test_missing_data_and_credentials_are_not_faults(capsys: pytest.CaptureFixture[str]) -> None:
    count, lines = examine(capsys)
    assert count == 0
    assert lines[0].startswith("– credentials none")
    assert lines[1].startswith("hint: ")


@pytest.mark.parametrize("width", [20, 60, 80, 500])
def test_findings_fit_the_terminal(width: int) -> None:
    address = "https://www.kaggle.com/competitions/digit-recognizer/rules"
    finding = Finding(doctor.WRONG, "word " * 30, f"join the competition at {address}")
    lines = doctor.render("credentials", finding, width).splitlines()
    assert lines[0].startswith("!!  credentials  word word")
    assert all(line.startswith(" " * 17 + "word") for line in lines[1:] if "word" in line)
    assert max(len(line) for line in lines if address not in line) <= max(width, 40)
    assert f"    {address}" in lines or width > 60


@pytest.mark.parametrize(
    ("call", "fault", "message", "hint"),
    [
        ("IntrospectToken", Fault(407), "requires a user name and a password: 407", "set http_proxy to"),
        ("IntrospectToken", Fault(200, headers={"Content-Type": "text/html"}), "received a web page", "log in there"),
        ("IntrospectToken", Fault(200, {"active": False}), "Kaggle rejected the token", "create a new one"),
        (
            "IntrospectToken",
            Fault(200, {"active": True, "username": "a\x1b[2J"}),
            "cannot read Kaggle's response",
            "check https://",
        ),
    ],
)
def test_failed_call_for_the_account_is_one_fault(
    call: str, fault: Fault, message: str, hint: str, kaggle: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    kaggle.fail(call, fault, always=True)
    count, lines = examine(capsys)
    assert count == 1
    assert len(lines) == 2
    assert lines[0].startswith("!! account ")
    assert message in lines[0]
    assert lines[1].startswith("hint: ")
    assert hint in lines[1]
    assert all(text.isprintable() for text in lines)


def test_unusable_credentials_are_a_fault_with_a_hint(
    kaggle: Server, nobody: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KAGGLE_API_TOKEN")
    path = keep(nobody / ".kaggle" / "kaggle.json", {"username": USER, "key": KEY}, mode=0o644)
    count, lines = examine(capsys)
    assert count == 1
    assert lines[0] == f"!! credentials {path}: other users of this machine can read it"
    assert lines[1].startswith(f"hint: chmod 600 {path}; if that has no effect")
    path.chmod(0o600)
    assert examine(capsys) == (0, [])
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", os.devnull + "/nothing")
    assert examine(capsys) == (0, []), "certificates are not used on loopback"


def test_expired_token_is_reported_with_its_source(
    kaggle: Server, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAGGLE_API_TOKEN", "expired-secret")
    monkeypatch.setenv("KAGGLE_USERNAME", USER)
    monkeypatch.setenv("KAGGLE_KEY", KEY)
    assert cli.main(["doctor"]) == 1
    text = capsys.readouterr().out
    assert "Kaggle rejected the token from KAGGLE_API_TOKEN: expired or wrong" in text
    assert "or remove this one to use another source" in text
    assert "expired-secret" not in text
    monkeypatch.delenv("KAGGLE_API_TOKEN")
    assert cli.main(["doctor"]) == 0
    assert "key from KAGGLE_USERNAME and KAGGLE_KEY" in capsys.readouterr().out


def test_unexpected_exception_is_a_fault_on_one_line(
    kaggle: Server, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> Finding:
        raise RuntimeError("first\nsecond \x1b[2J")

    monkeypatch.setattr(doctor, "find_devices", fail)
    assert examine(capsys) == (1, ["!! devices RuntimeError: first second \N{REPLACEMENT CHARACTER}[2J"])


@pytest.mark.slow
def test_devices_are_named(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    finding = doctor.find_devices()
    assert finding.mark == doctor.OK
    assert "workers with" in finding.text
