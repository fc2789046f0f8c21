"""The connection to Kaggle: the SDK's client with time limits, and the causes of failed connections."""

import errno
import importlib.util
import os
import re
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from digit_recognizer.errors import BadInput

TIMEOUT = (10, 60)  # seconds: to connect, to wait for each part of a response
BUNDLE_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")  # those that requests reads, in its order
NETWORK_HINT = "check the network connection, then run the command again"
LOGIN_PAGE_HINT = (
    "a network or proxy may require a login: open a page in a browser, log in there, then run the command again"
)
WRONG_DATES = (9, 10)  # codes of OpenSSL: not yet valid, expired
WRONG_HOST = (62, 64)  # codes of OpenSSL: certificate for another name, for another address
PROXY_SCHEMES = ("http", "https", "socks4", "socks4a", "socks5", "socks5h")
# What the SDK raises for a response in another format than it expects.
UNREADABLE = (ValueError, LookupError, TypeError, AttributeError, RecursionError)


@dataclass(frozen=True)
class Failure:
    """The reason why a call failed.

    Attributes:
        message: one line for the user.
        hint: the fix; empty if there is none.
        transient: a retry may succeed.
        maybe_received: Kaggle may have received the request and acted on it.
    """

    message: str
    hint: str = ""
    transient: bool = False
    maybe_received: bool = False


class HtmlPage(Exception):
    """A web page in place of a response of Kaggle's API; its text is the HTTP status."""


def open_sdk(*, token: str = "", user_and_key: tuple[str, str] | None = None) -> Any:
    """Open a client of Kaggle's SDK that sends the given credentials, or none.

    Raises:
        BadInput: an environment variable makes every call fail.
    """
    from kagglesdk import KaggleClient
    from requests.adapters import HTTPAdapter

    class Adapter(HTTPAdapter):
        """Sets a time limit, which the SDK does not, and refuses web pages."""

        def send(self, *args: Any, **kwargs: Any) -> Any:
            kwargs["timeout"] = kwargs.get("timeout") or TIMEOUT
            response = super().send(*args, **kwargs)
            refuse_page(response)
            return response

    try:
        # Without a token, the SDK reads credential files itself, also those that this project refuses.
        sdk = KaggleClient(user_agent="digit-recognizer-kit", api_token=token or "none")
        sdk.__enter__()
    except Exception as error:  # the SDK raises nothing more specific
        raise BadInput(f"KAGGLE_API_ENVIRONMENT: {error}", hint="unset it") from error
    check_environment(sdk.http_client()._endpoint)
    session = sdk.http_client()._session
    if not token:
        session.auth = user_and_key
    for scheme in ("https://", "http://"):
        session.mount(scheme, Adapter())
    return sdk


def call_errors() -> tuple[type[Exception], ...]:
    """Return the exceptions of a call that fails or whose response cannot be read."""
    from requests.exceptions import RequestException

    return (RequestException, HtmlPage, *UNREADABLE)


def check_environment(url: str) -> None:
    """Raise ``BadInput`` if a variable names a CA bundle or a proxy that makes every call to ``url`` fail."""
    if (name := _bundle_variable()) and urlsplit(url).scheme == "https":
        path = Path(os.environ[name])
        hint = f"set {name} to a PEM file of root certificates, or unset it"
        try:
            if not path.exists():
                raise BadInput(f"{name}: no such file: {path}", hint=hint)
            if path.is_file():
                ssl.create_default_context(cafile=path)
        except (OSError, ValueError) as error:
            raise BadInput(f"{name}: no readable certificates in {path}", hint=hint) from error
    proxy, variable = _proxy(url)
    if not proxy:
        return
    try:  # the value is not shown, because it may contain a password
        parts = urlsplit(proxy if "//" in proxy else f"http://{proxy}")
        unquote(f"{parts.username} {parts.password}").encode("latin-1")
        usable = parts.hostname and parts.port != 0 and parts.scheme in PROXY_SCHEMES
    except ValueError:
        usable = False
    if not usable:
        hint = f"set {variable} to http://host:port, or unset it if no proxy is needed"
        raise BadInput(f"{variable}: expected http://host:port or http://user:password@host:port", hint=hint)
    if parts.scheme.startswith("socks") and importlib.util.find_spec("socks") is None:
        raise BadInput(f"{variable}: a SOCKS proxy needs the package pysocks", hint="pip install pysocks")


def refuse_page(response: Any) -> None:
    """Raise ``HtmlPage`` if a response is a web page, which Kaggle's API never sends."""
    html = response.headers.get("Content-Type", "").strip().lower().startswith("text/html")
    if html and (response.status_code < 300 or response.status_code in (401, 403, 511)):
        response.close()
        raise HtmlPage(str(response.status_code))


def diagnose(error: Exception) -> Failure | None:
    """Return why no response of Kaggle arrived; None if the connection is not the cause of ``error``."""
    from requests import exceptions
    from urllib3 import exceptions as urllib3_exceptions

    if isinstance(error, HtmlPage):
        message = f"Kaggle cannot be reached (received a web page instead of an API response, status {error})"
        return Failure(message, LOGIN_PAGE_HINT, maybe_received=True)
    causes = list(_causes(error))

    def caused_by(*kinds: type[BaseException]) -> bool:
        return any(isinstance(cause, kinds) for cause in causes)

    def failure(reason: str, hint: str, *, transient: bool = True, maybe_received: bool = False) -> Failure:
        return Failure(f"Kaggle cannot be reached ({reason})", hint, transient, maybe_received)

    url = getattr(getattr(error, "request", None), "url", None) or ""
    host = urlsplit(url).hostname or "Kaggle"
    proxy, variable = _proxy(url)
    at_proxy = caused_by(exceptions.ProxyError, urllib3_exceptions.ProxyError)
    server = f"proxy {_address(proxy)}" if at_proxy else host
    hint = f"correct {variable}, or unset it if no proxy is needed" if at_proxy else NETWORK_HINT
    tunnel = re.search(r"Tunnel connection failed: (\d{3})", str(error))
    certificate = next((cause for cause in causes if isinstance(cause, ssl.SSLCertVerificationError)), None)
    if certificate:
        return failure(*_certificate_failure(certificate, host), transient=False)
    if tunnel and tunnel[1] == "407":
        return proxy_login(url)
    if tunnel:
        hint = f"ask the proxy's administrator to allow {host}, or unset {variable} if no proxy is needed"
        return failure(f"{server} refused to connect to {host}: {tunnel[1]}", hint, transient=tunnel[1] >= "500")
    if caused_by(socket.gaierror):
        return failure(f"cannot resolve the name of {server}", f"{hint}; check the DNS settings")
    if caused_by(ConnectionRefusedError):
        return failure(f"connection refused by {server}", hint)
    if any(getattr(cause, "errno", None) in (errno.ENETUNREACH, errno.EHOSTUNREACH) for cause in causes):
        return failure(f"no route to {server}", hint)
    connecting = caused_by(urllib3_exceptions.NewConnectionError, urllib3_exceptions.ConnectTimeoutError)
    if caused_by(ssl.SSLError):
        if at_proxy:
            hint = f"set {variable} to an address that starts with http://"
        return failure(f"TLS connection to {server} failed", hint, maybe_received=not at_proxy)
    if caused_by(exceptions.Timeout, TimeoutError, urllib3_exceptions.TimeoutError):
        if at_proxy and connecting:
            return failure(f"connection to {server} timed out", hint)
        return failure("timed out", NETWORK_HINT, maybe_received=not connecting)
    interrupted = (exceptions.ConnectionError, exceptions.ChunkedEncodingError, exceptions.ContentDecodingError)
    if at_proxy or caused_by(*interrupted):
        return failure("connection failed or interrupted", NETWORK_HINT, maybe_received=not connecting)
    return None


def proxy_login(url: str) -> Failure:
    """Return the failure of a proxy on the way to ``url`` that requires a user name and a password."""
    proxy, variable = _proxy(url)
    return Failure(
        f"Kaggle cannot be reached (proxy {_address(proxy)} requires a user name and a password: 407)",
        f"set {variable} to http://user:password@host:port",
    )


def _certificate_failure(error: ssl.SSLCertVerificationError, host: str) -> tuple[str, str]:
    """Return the reason and the hint for a certificate that was refused."""
    reason = f"the certificate of {host} is not trusted: {error.verify_message}"
    if error.verify_code in WRONG_DATES:
        return reason, "check the date and time of this machine"
    if error.verify_code in WRONG_HOST:
        return reason, LOGIN_PAGE_HINT
    cause = "a proxy or security software replaces Kaggle's certificate"
    if name := _bundle_variable():
        return reason, f"{cause}: add its root certificate to the file in {name}"
    return reason, (
        f"{cause}: set REQUESTS_CA_BUNDLE to a PEM file with its root certificate, often "
        "/etc/ssl/certs/ca-certificates.crt"
    )


def _bundle_variable() -> str | None:
    return next((name for name in BUNDLE_VARIABLES if os.environ.get(name)), None)


def _proxy(url: str) -> tuple[str, str]:
    """Return the proxy for ``url``, empty if there is none, and the name of the setting that it comes from."""
    from requests.utils import get_environ_proxies, select_proxy

    scheme = urlsplit(url).scheme or "https"
    names = (f"{scheme}_proxy", f"{scheme}_proxy".upper(), "all_proxy", "ALL_PROXY")
    variable = next((name for name in names if os.environ.get(name)), "the system's proxy settings")
    return select_proxy(url, get_environ_proxies(url)) or "", variable


def _address(proxy: str) -> str:
    """Return host and port of a proxy, without user name and password."""
    parts = urlsplit(proxy if "//" in proxy else f"//{proxy}")
    return f"{parts.hostname}:{parts.port}" if parts.port else parts.hostname or ""


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and the errors inside it; requests and urllib3 nest them in several ways."""
    seen: list[BaseException] = []
    pending: list[Any] = [error]
    while pending:
        cause = pending.pop(0)
        if isinstance(cause, BaseException) and cause not in seen:
            seen.append(cause)
            yield cause
            pending += [*cause.args, getattr(cause, "reason", None), cause.__cause__, cause.__context__]
