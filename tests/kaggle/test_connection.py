"""Failed connections to Kaggle: the message names the cause, and the hint matches it."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

import tls
from conftest import one_line
from digit_recognizer import cli
from digit_recognizer.errors import KitError
from digit_recognizer.kaggle import connection
from digit_recognizer.kaggle.client import UnknownOutcome, connect
from kaggle_server import TOKEN, USER, Fault, Server, serving

PASSWORD = "a-proxy-password"
SetEndpoint = Callable[[str], None]
Listen = Callable[[bytes | None], int]
real_sleep = time.sleep


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Change to an empty folder, set a valid token, unset variables of proxies and certificates, shorten pauses."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(time, "sleep", lambda seconds: real_sleep(seconds / 1000))
    monkeypatch.setenv("KAGGLE_API_TOKEN", TOKEN)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "all_proxy", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> SetEndpoint:
    """Return a function that sets the address of Kaggle, without a proxy."""
    from kagglesdk import kaggle_env

    def set_to(address: str) -> None:
        monkeypatch.setitem(kaggle_env._env_to_endpoint, kaggle_env.KaggleEnv.LOCAL, address)
        for name in ("http_proxy", "https_proxy"):
            monkeypatch.delenv(name, raising=False)

    return set_to


@pytest.fixture
def listener() -> Iterator[Listen]:
    """Return a function that starts a server with a fixed reply, or with None for no reply, and returns its port."""
    sockets = []

    def start(reply: bytes | None) -> int:
        server = socket.create_server(("127.0.0.1", 0))
        sockets.append(server)

        def serve() -> None:
            while True:
                try:
                    connected, _ = server.accept()
                except OSError:  # closed at the end
                    return
                sockets.append(connected)
                if reply is not None:
                    with closing(connected):
                        connected.recv(65_536)
                        connected.sendall(reply)

        threading.Thread(target=serve, daemon=True).start()
        return int(server.getsockname()[1])

    yield start
    for opened in sockets:
        opened.close()


def failed(capsys: pytest.CaptureFixture[str], status: int = 1) -> tuple[str, str]:
    """Run ``status``, which must fail without showing a secret; return the error and the hint."""
    assert cli.main(["status"]) == status
    output = capsys.readouterr()
    assert not any(secret in output.out + output.err for secret in (TOKEN, TOKEN[5:15], PASSWORD))
    error, hint = one_line(output.err).split("\n")
    return error, hint


def test_untrusted_certificate_is_reported_and_the_hint_works(
    endpoint: SetEndpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(tls.context(tmp_path, tls.VALID)) as server:
        endpoint(server.address)
        error, hint = failed(capsys)
        assert "the certificate of localhost is not trusted: self-signed certificate" in error.replace("self ", "self-")
        assert "set REQUESTS_CA_BUNDLE to a PEM file" in hint
        other = tmp_path / "other.pem"
        other.write_text(tls.EXPIRED)
        monkeypatch.setenv("CURL_CA_BUNDLE", str(other))
        bundle = tmp_path / "root.pem"
        bundle.write_text(tls.VALID)
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(bundle))
        assert cli.main(["status"]) == 0
        capsys.readouterr()
        endpoint(server.address.replace("localhost", "127.0.0.1"))
        error, hint = failed(capsys)
        assert "127.0.0.1 is not trusted" in error
        assert "open a page in a browser, log in there" in hint


def test_expired_certificate_and_incomplete_bundle_have_their_own_hints(
    endpoint: SetEndpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import certifi

    with serving(tls.context(tmp_path, tls.EXPIRED)) as server:
        endpoint(server.address)
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", certifi.where())
        assert "add its root certificate to the file in REQUESTS_CA_BUNDLE" in failed(capsys)[1]
        bundle = tmp_path / "root.pem"
        bundle.write_text(tls.EXPIRED)
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(bundle))
        error, hint = failed(capsys)
        assert "certificate has expired" in error
        assert hint == "hint: check the date and time of this machine"
        assert not server.calls


@pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
@pytest.mark.parametrize(
    ("content", "reason"),
    [(None, "no such file"), (b"no PEM", "no readable certificates"), (b"", "no readable certificates")],
)
def test_unusable_ca_bundle_is_reported_before_a_call(
    name: str,
    content: bytes | None,
    reason: str,
    endpoint: SetEndpoint,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    endpoint("https://localhost:9")
    bundle = tmp_path / "bundle.pem"
    if content is not None:
        bundle.write_bytes(content)
    monkeypatch.setenv(name, str(bundle))
    error, hint = failed(capsys, 2)
    assert f"{name}: " in error
    assert reason in error
    assert str(bundle) in error
    assert f"set {name} to a PEM file" in hint


@pytest.mark.parametrize(
    ("reply", "reason", "advice"),
    [
        (
            b"HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n",
            "requires a user name and a password: 407",
            "set https_proxy to http://user:password@",
        ),
        (b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n", "refused to connect to localhost: 403", "to allow localhost"),
        (b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n", "refused to connect to localhost: 503", "to allow localhost"),
        (b"", "connection failed or interrupted", "check the network connection"),
    ],
)
def test_refusing_proxy_is_named_without_its_password(
    reply: bytes,
    reason: str,
    advice: str,
    endpoint: SetEndpoint,
    listener: Listen,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    port = listener(reply)
    endpoint("https://localhost:9")
    monkeypatch.setenv("https_proxy", f"http://ada:{PASSWORD}@127.0.0.1:{port}")
    error, hint = failed(capsys)
    assert "error: Kaggle cannot be reached (" in error
    assert reason in error
    assert advice in hint
    assert "proxy " not in error or f"proxy 127.0.0.1:{port} " in error


def test_http_proxy_that_requires_a_password_is_named(kaggle: Server, capsys: pytest.CaptureFixture[str]) -> None:
    kaggle.fail("IntrospectToken", Fault(407), always=True)
    error, hint = failed(capsys)
    assert "proxy 127.0.0.1:" in error
    assert "requires a user name and a password: 407" in error
    assert "set http_proxy to http://user:password@" in hint
    assert kaggle.calls.count("IntrospectToken") == 1, "no retry"


@pytest.mark.parametrize(
    ("proxy", "reason"),
    [
        (f"http://ada:{PASSWORD}@127.0.0.1:9", "connection refused by proxy 127.0.0.1:9"),
        (f"http://ada:{PASSWORD}@nowhere.invalid:80", "cannot resolve the name of proxy nowhere.invalid:80"),
        ("127.0.0.1:9", "connection refused by proxy 127.0.0.1:9"),
    ],
)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_unreachable_proxy_is_named(
    scheme: str,
    proxy: str,
    reason: str,
    endpoint: SetEndpoint,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    endpoint(f"{scheme}://localhost:9")
    monkeypatch.setenv(f"{scheme}_proxy", proxy)
    error, hint = failed(capsys)
    assert reason in error
    assert f"correct {scheme}_proxy, or unset it" in hint


@pytest.mark.parametrize(
    "proxy",
    [
        f"http://ada:{PASSWORD}@",
        f"ada:{PASSWORD}",
        f"http://ada:{PASSWORD}@proxy:99999",
        f"ftp://ada:{PASSWORD}@proxy:80",
        f"http://адa:{PASSWORD}@proxy:80",
        f"http://%D0%B0:{PASSWORD}@proxy:80",
        f"http://ada:{PASSWORD}@[::1",
        f"socks5://ada:{PASSWORD}@proxy:80",
    ],
)
def test_malformed_proxy_is_refused_before_a_call(
    proxy: str, endpoint: SetEndpoint, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint("https://localhost:9")
    monkeypatch.setenv("https_proxy", proxy)
    error, _ = failed(capsys, 2)
    assert error.startswith("error: https_proxy: ")


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("https://nowhere.invalid", "cannot resolve the name of nowhere.invalid"),
        ("http://nowhere.invalid", "cannot resolve the name of nowhere.invalid"),
        ("https://127.0.0.1:9", "connection refused by 127.0.0.1"),
        ("http://127.0.0.1:9", "connection refused by 127.0.0.1"),
    ],
)
def test_unreachable_server_is_named(
    address: str, reason: str, endpoint: SetEndpoint, capsys: pytest.CaptureFixture[str]
) -> None:
    endpoint(address)
    error, hint = failed(capsys)
    assert reason in error
    assert "check the network" in hint


@pytest.mark.parametrize(
    ("scheme", "reply", "reason"),
    [
        ("http", None, "timed out"),
        ("https", None, "timed out"),
        ("https", b"HTTP/1.1 400 No\r\n\r\n", "TLS connection to 127.0.0.1 failed"),
        ("http", b"", "connection failed or interrupted"),
        ("http", b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{", "interrupted"),
        ("http", b"hello\r\n\r\n", "connection failed or interrupted"),
    ],
)
def test_timeout_and_malformed_replies_are_distinguished(
    scheme: str,
    reply: bytes | None,
    reason: str,
    endpoint: SetEndpoint,
    listener: Listen,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connection, "TIMEOUT", (0.1, 0.1))
    endpoint(f"{scheme}://127.0.0.1:{listener(reply)}")
    assert reason in failed(capsys)[0]


@pytest.mark.parametrize("status", [200, 401, 403, 511])
@pytest.mark.parametrize("kind", ["text/html", "text/html; charset=utf-8", "TEXT/HTML"])
def test_web_page_instead_of_a_response_is_reported_without_retries(
    status: int, kind: str, kaggle: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    kaggle.fail("GetKernelSessionStatus", Fault(status, headers={"Content-Type": kind}), always=True)
    error, hint = failed(capsys)
    assert f"received a web page instead of an API response, status {status}" in error
    assert "open a page in a browser, log in there" in hint
    assert "rules" not in hint
    assert kaggle.calls.count("GetKernelSessionStatus") == 1


def test_web_page_of_a_gateway_error_is_retried(kaggle: Server) -> None:
    kaggle.fail("GetKernelSessionStatus", Fault(502, headers={"Content-Type": "text/html"}))
    assert cli.main(["status"]) == 0


def test_unknown_environment_of_the_sdk_is_reported(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAGGLE_API_ENVIRONMENT", "PRODUCTION")
    error, hint = failed(capsys, 2)
    assert "KAGGLE_API_ENVIRONMENT" in error
    assert hint == "hint: unset it"


def test_submission_that_did_not_reach_kaggle_has_a_known_outcome(
    kaggle: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    with connect() as client:
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
        with pytest.raises(KitError) as refused:
            client.submit("blob", "description")
    assert not isinstance(refused.value, UnknownOutcome)
    assert USER not in str(refused.value)
