"""A call that fails on the way to Kaggle: what is wrong is named, and the hint is about that."""

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
from digit_recognizer.kaggle import client as kaggle_client
from kaggle_server import TOKEN, USER, Fault, Server, serving

PASSWORD = "a-proxy-password"
SetEndpoint = Callable[[str], None]
Listen = Callable[[bytes | None], int]
real_sleep = time.sleep


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty folder, a valid token, no variables of proxies and certificates; time passes fast."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(time, "sleep", lambda seconds: real_sleep(seconds / 100))
    monkeypatch.setenv("KAGGLE_API_TOKEN", TOKEN)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "all_proxy", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> SetEndpoint:
    """Sets where Kaggle is, without a proxy in between."""
    from kagglesdk import kaggle_env

    def set_to(address: str) -> None:
        monkeypatch.setitem(kaggle_env._env_to_endpoint, kaggle_env.KaggleEnv.LOCAL, address)
        for name in ("http_proxy", "https_proxy"):
            monkeypatch.delenv(name, raising=False)

    return set_to


@pytest.fixture
def listener() -> Iterator[Listen]:
    """Starts servers that read a request and reply with fixed bytes, or with None only accept; gives their ports."""
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
    for one in sockets:
        one.close()


def failed(capsys: pytest.CaptureFixture[str], status: int = 1) -> tuple[str, str]:
    """Ask for the state of the kernel, which must fail; the error and the hint."""
    assert cli.main(["status"]) == status
    shown = capsys.readouterr()
    assert not any(secret in shown.out + shown.err for secret in (TOKEN, TOKEN[5:15], PASSWORD))
    error, hint = one_line(shown.err).split("\n")
    return error, hint


def test_a_certificate_that_is_not_trusted_is_named(
    endpoint: SetEndpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(tls.context(tmp_path, tls.VALID)) as server:
        endpoint(server.address)
        error, hint = failed(capsys)
        assert "the certificate of localhost is not trusted: self-signed certificate" in error.replace("self ", "self-")
        assert "let REQUESTS_CA_BUNDLE name a PEM file" in hint
        other = tmp_path / "other.pem"
        other.write_text(tls.EXPIRED)
        monkeypatch.setenv("CURL_CA_BUNDLE", str(other))
        bundle = tmp_path / "root.pem"
        bundle.write_text(tls.VALID)
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(bundle))
        assert cli.main(["status"]) == 0, "the hint works"
        capsys.readouterr()
        endpoint(server.address.replace("localhost", "127.0.0.1"))
        error, hint = failed(capsys)
        assert "127.0.0.1 is not trusted" in error
        assert "sign in to the network" in hint
        assert not {"check the network and run it again"} & {error, hint}


def test_a_certificate_that_has_expired_or_is_not_in_the_bundle_gives_another_hint(
    endpoint: SetEndpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import certifi

    with serving(tls.context(tmp_path, tls.EXPIRED)) as server:
        endpoint(server.address)
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", certifi.where())
        assert "the file in REQUESTS_CA_BUNDLE lacks its root" in failed(capsys)[1]
        bundle = tmp_path / "root.pem"
        bundle.write_text(tls.EXPIRED)
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(bundle))
        error, hint = failed(capsys)
        assert "certificate has expired" in error
        assert hint == "hint: check date and time of this machine"
        assert not server.calls


@pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
@pytest.mark.parametrize(
    ("content", "fault"), [(None, "does not exist"), (b"no PEM", "no certificates"), (b"", "no certificates")]
)
def test_a_ca_bundle_that_cannot_be_used_is_named(
    name: str,
    content: bytes | None,
    fault: str,
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
    assert fault in error
    assert str(bundle) in error
    assert f"let {name} name a PEM file" in hint


@pytest.mark.parametrize(
    ("reply", "told", "advice"),
    [
        (
            b"HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n",
            "requires a user name and a password: 407",
            "into https_proxy",
        ),
        (b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n", "does not connect to localhost: 403", "allowed there"),
        (b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n", "does not connect to localhost: 503", "allowed there"),
        (b"", "no connection, or it was cut", "check the network"),
    ],
)
def test_a_proxy_that_refuses_is_named_without_its_password(
    reply: bytes,
    told: str,
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
    assert told in error
    assert advice in hint
    assert "the proxy" not in error or f"the proxy 127.0.0.1:{port} " in error


def test_a_plain_proxy_that_asks_for_a_password_is_named(kaggle: Server, capsys: pytest.CaptureFixture[str]) -> None:
    kaggle.fail("IntrospectToken", Fault(407), always=True)
    error, hint = failed(capsys)
    assert "the proxy 127.0.0.1:" in error
    assert "requires a user name and a password: 407" in error
    assert "into http_proxy" in hint
    assert kaggle.calls.count("IntrospectToken") == 1, "it does not pass"


@pytest.mark.parametrize(
    ("proxy", "told"),
    [
        (f"http://ada:{PASSWORD}@127.0.0.1:9", "the proxy 127.0.0.1:9 refuses the connection"),
        (f"http://ada:{PASSWORD}@nowhere.invalid:80", "the name of the proxy nowhere.invalid:80 cannot be resolved"),
        ("127.0.0.1:9", "the proxy 127.0.0.1:9 refuses the connection"),
    ],
)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_is_not_there_is_named(
    scheme: str,
    proxy: str,
    told: str,
    endpoint: SetEndpoint,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    endpoint(f"{scheme}://localhost:9")
    monkeypatch.setenv(f"{scheme}_proxy", proxy)
    error, hint = failed(capsys)
    assert told in error
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
def test_a_proxy_of_another_form_is_refused_before_a_call(
    proxy: str, endpoint: SetEndpoint, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint("https://localhost:9")
    monkeypatch.setenv("https_proxy", proxy)
    error, _ = failed(capsys, 2)
    assert error.startswith("error: https_proxy: ")


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("https://nowhere.invalid", "the name of nowhere.invalid cannot be resolved"),
        ("http://nowhere.invalid", "the name of nowhere.invalid cannot be resolved"),
        ("https://127.0.0.1:9", "127.0.0.1 refuses the connection"),
        ("http://127.0.0.1:9", "127.0.0.1 refuses the connection"),
    ],
)
def test_a_server_that_is_not_there_is_named(
    address: str, told: str, endpoint: SetEndpoint, capsys: pytest.CaptureFixture[str]
) -> None:
    endpoint(address)
    error, hint = failed(capsys)
    assert told in error
    assert "check the network" in hint


@pytest.mark.parametrize(
    ("scheme", "reply", "told"),
    [
        ("http", None, "no answer in time"),
        ("https", None, "no answer in time"),
        ("https", b"HTTP/1.1 400 No\r\n\r\n", "no TLS connection to 127.0.0.1"),
        ("http", b"", "no connection, or it was cut"),
        ("http", b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{", "was cut"),
        ("http", b"hello\r\n\r\n", "no connection, or it was cut"),
    ],
)
def test_a_server_that_does_not_speak_is_told_from_one_that_is_slow(
    scheme: str,
    reply: bytes | None,
    told: str,
    endpoint: SetEndpoint,
    listener: Listen,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kaggle_client, "CONNECT", 0.2)
    monkeypatch.setattr(kaggle_client, "READ", 0.2)
    endpoint(f"{scheme}://127.0.0.1:{listener(reply)}")
    assert told in failed(capsys)[0]


@pytest.mark.parametrize("status", [200, 401, 403, 511])
@pytest.mark.parametrize("kind", ["text/html", "text/html; charset=utf-8", "TEXT/HTML"])
def test_a_web_page_in_place_of_an_answer_is_named(
    status: int, kind: str, kaggle: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    kaggle.fail("GetKernelSessionStatus", Fault(status, headers={"Content-Type": kind}), always=True)
    error, hint = failed(capsys)
    assert f"a web page came in place of its answer, status {status}" in error
    assert "sign in to the network" in hint
    assert "rules" not in hint
    assert kaggle.calls.count("GetKernelSessionStatus") == 1


def test_a_failure_of_kaggle_s_own_gateway_passes_though_it_is_a_web_page(kaggle: Server) -> None:
    kaggle.fail("GetKernelSessionStatus", Fault(502, headers={"Content-Type": "text/html"}))
    assert cli.main(["status"]) == 0


def test_an_unknown_environment_of_the_client_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAGGLE_API_ENVIRONMENT", "PRODUCTION")
    error, hint = failed(capsys, 2)
    assert "KAGGLE_API_ENVIRONMENT" in error
    assert hint == "hint: unset it"


def test_what_did_not_reach_kaggle_does_not_count_as_sent(kaggle: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with kaggle_client.connect() as client:
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
        with pytest.raises(kaggle_client.KitError) as refused:
            client.submit("blob", "words")
    assert not isinstance(refused.value, kaggle_client.UnknownOutcome)
    assert USER not in str(refused.value)
