"""Retries of calls: pauses, limits, and calls that are never repeated."""

import email.utils
import re
import time
from pathlib import Path

import pytest

from digit_recognizer.errors import KitError
from digit_recognizer.kaggle.client import TRIES, Client, UnknownOutcome, connect
from kaggle_server import KERNEL, METADATA, Fault, Server

CALL = "GetKernelSessionStatus"
BODY_STATUS = Fault(200, {"code": 503, "message": "unavailable"})


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Record pauses instead of waiting."""
    recorded: list[float] = []
    monkeypatch.setattr("digit_recognizer.kaggle.retry.time.sleep", recorded.append)
    return recorded


def kernel_status() -> str:
    with connect() as client:
        return client.kernel_status(KERNEL)[0]


@pytest.mark.parametrize("fault", [Fault(429), Fault(500), Fault(502), Fault(503), Fault(), BODY_STATUS])
def test_transient_failure_is_retried_with_growing_pauses(fault: Fault, kaggle: Server, pauses: list[float]) -> None:
    kaggle.fail(CALL, *[fault] * (TRIES - 1))
    assert kernel_status() == "complete"
    assert kaggle.calls.count(CALL) == TRIES
    assert pauses == [1, 2, 4]


@pytest.mark.parametrize("fault", [Fault(429), Fault(500), Fault(), BODY_STATUS])
def test_last_try_ends_in_an_error(fault: Fault, kaggle: Server) -> None:
    kaggle.fail(CALL, fault, always=True)
    with pytest.raises(KitError, match=r"rate limit exceeded|server error|cannot be reached"):
        kernel_status()
    assert kaggle.calls.count(CALL) == TRIES


@pytest.mark.parametrize("fault", [Fault(400), Fault(403), Fault(404), Fault(200, {"code": 400, "message": "no"})])
def test_refusal_is_not_retried(fault: Fault, kaggle: Server) -> None:
    kaggle.fail(CALL, fault, always=True)
    with pytest.raises(KitError):
        kernel_status()
    assert kaggle.calls.count(CALL) == 1


def test_retry_after_sets_the_pause(kaggle: Server, pauses: list[float]) -> None:
    date = email.utils.formatdate(time.time() + 30, usegmt=True)
    faults = [Fault(status, headers={"Retry-After": value}) for status, value in ((429, "7"), (503, "60"), (429, date))]
    kaggle.fail(CALL, *faults)
    assert kernel_status() == "complete"
    assert pauses[:2] == [7, 60]
    assert 25 < pauses[2] <= 30


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        ("61", "run the command again in 61 s"),
        ("86400", "run the command again in 86400 s"),
        ("86401", "run the command again on another day"),
        ("9" * 400, "run the command again on another day"),
        ("9" * 5000, "run the command again on another day"),
        ("in 3600", "run the command again in 3[56]"),  # as a date
        ("in 9000000", "run the command again on another day"),
        ("Wed, 21 Oct 9999 07:28:00 GMT", "run the command again on another day"),
    ],
)
def test_long_retry_after_is_an_error_at_once(value: str, hint: str, kaggle: Server, pauses: list[float]) -> None:
    if value.startswith("in "):
        value = email.utils.formatdate(time.time() + int(value[3:]), usegmt=True)
    kaggle.fail(CALL, Fault(429, headers={"Retry-After": value}), always=True)
    with pytest.raises(KitError, match=r"Kaggle: rate limit exceeded \(429\)") as refused:
        kernel_status()
    assert re.match(hint, refused.value.hint)
    assert kaggle.calls.count(CALL) == 1
    assert not pauses


@pytest.mark.parametrize(
    ("value", "pause"),
    [
        ("0", 0),
        (email.utils.formatdate(0, usegmt=True), 0),
        ("", 1),
        ("soon", 1),
        ("-5", 1),
        ("1.5", 1),
        ("nan", 1),
        ("inf", 1),
        ("1e999", 1),
        ("\xb2", 1),
        ("99 Foo 2026", 1),
    ],
)
def test_past_or_malformed_retry_after_is_no_error(
    value: str, pause: float, kaggle: Server, pauses: list[float]
) -> None:
    kaggle.fail(CALL, Fault(429, headers={"Retry-After": value}))
    assert kernel_status() == "complete"
    assert pauses == [pause]


def test_tries_can_be_limited(kaggle: Server) -> None:
    kaggle.fail(CALL, Fault(500), always=True)
    with connect() as client:
        account = client._account
    with Client(account, tries=2) as client, pytest.raises(KitError):
        client.kernel_status(KERNEL)
    assert kaggle.calls.count(CALL) == 2


@pytest.mark.parametrize("fault", [Fault(500), Fault(503), Fault(after=True)])
def test_submission_and_push_are_never_repeated(fault: Fault, tmp_path: Path, kaggle: Server) -> None:
    for call in ("CreateSubmission", "SaveKernel"):
        kaggle.fail(call, fault, always=True)
    kaggle.uploads["blob"] = b""
    (tmp_path / "kernel.py").touch()
    with connect() as client:
        with pytest.raises(UnknownOutcome):
            client.submit("blob", "description")
        with pytest.raises(KitError) as refused:
            client.push_kernel(tmp_path / "kernel.py", METADATA)
    assert refused.value.hint == "Kaggle may have received the kernel: check `digit-recognizer status` first"
    assert kaggle.calls == ["CreateSubmission", "SaveKernel"]
    assert len(kaggle.kernels) == len(kaggle.submissions) == int(fault.after)


@pytest.mark.parametrize("fault", [Fault(429), Fault(400)])
def test_refused_push_has_no_hint_about_a_received_kernel(fault: Fault, tmp_path: Path, kaggle: Server) -> None:
    kaggle.fail("SaveKernel", fault)
    (tmp_path / "kernel.py").touch()
    with connect() as client, pytest.raises(KitError) as refused:
        client.push_kernel(tmp_path / "kernel.py", METADATA)
    assert "received" not in refused.value.hint
