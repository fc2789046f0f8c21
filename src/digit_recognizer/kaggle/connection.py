"""Diagnose a call that failed on the way to Kaggle: certificate, proxy, name, connection, time limit, foreign page."""

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

BUNDLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")  # the variables that requests reads, in its order
AGAIN = "check the network and run it again"
DATES = (9, 10)  # OpenSSL: not yet valid, expired
OTHER_HOST = (62, 64)  # OpenSSL: the certificate is of another name, of another address
SCHEMES = ("http", "https", "socks4", "socks4a", "socks5", "socks5h")
SIGN_IN = "the network or a proxy answers for Kaggle: open a page in a browser, sign in to the network, run it again"


@dataclass(frozen=True)
class Failure:
    """Why a call failed.

    Attributes:
        line: what failed, for the user.
        hint: what the user can do about it.
        passing: a later try may succeed.
        sent: Kaggle may have received the request and acted on it.
    """

    line: str
    hint: str = ""
    passing: bool = False
    sent: bool = False


class HtmlPage(Exception):
    """A web page came in place of an answer of Kaggle's API."""


def check_environment(url: str) -> None:
    """Refuse variables that no call to ``url`` can succeed with: a CA bundle or a proxy that cannot be used."""
    if (name := _bundle()) and urlsplit(url).scheme == "https":
        path = Path(os.environ[name])
        hint = f"let {name} name a PEM file of root certificates, or unset it"
        try:
            if not path.exists():
                raise BadInput(f"{name}: the file that it names does not exist: {path}", hint=hint)
            if path.is_file():
                ssl.create_default_context(cafile=path)
        except (OSError, ValueError) as error:
            raise BadInput(f"{name}: no certificates can be read from {path}", hint=hint) from error
    proxy, variable = _proxy(url)
    if not proxy:
        return
    try:  # its text is not shown: it may contain a password
        parts = urlsplit(proxy if "//" in proxy else f"http://{proxy}")
        unquote(f"{parts.username} {parts.password}").encode("latin-1")
        usable = parts.hostname and parts.port != 0 and parts.scheme in SCHEMES
    except ValueError:
        usable = False
    if not usable:
        hint = f"write http://host:port into {variable}, or unset it if no proxy is needed"
        raise BadInput(f"{variable}: expected http://host:port or http://user:password@host:port", hint=hint)
    if parts.scheme.startswith("socks") and importlib.util.find_spec("socks") is None:
        raise BadInput(f"{variable}: a SOCKS proxy needs the package pysocks", hint="pip install pysocks")


def refuse_page(response: Any) -> None:
    """Raise ``Page`` where a response is an HTML page, which Kaggle's API never sends."""
    html = response.headers.get("Content-Type", "").strip().lower().startswith("text/html")
    if html and (response.status_code < 300 or response.status_code in (401, 403, 511)):
        response.close()
        raise HtmlPage(str(response.status_code))


def diagnose(error: Exception) -> Failure | None:
    """Say why no answer of Kaggle's came; None where ``error`` is not about the connection."""
    from requests import exceptions
    from urllib3 import exceptions as lower

    if isinstance(error, HtmlPage):
        return Failure(
            f"Kaggle cannot be reached (a web page came in place of its answer, status {error})",
            SIGN_IN,
            sent=True,
        )
    causes = list(_causes(error))

    def has(*kinds: type[BaseException]) -> bool:
        return any(isinstance(cause, kinds) for cause in causes)

    def failure(what: str, hint: str, *, passing: bool = True, sent: bool = False) -> Failure:
        return Failure(f"Kaggle cannot be reached ({what})", hint, passing, sent)

    url = getattr(getattr(error, "request", None), "url", None) or ""
    host = urlsplit(url).hostname or "Kaggle"
    proxy, variable = _proxy(url)
    through = has(exceptions.ProxyError, lower.ProxyError)
    server = f"the proxy {_place(proxy)}" if through else host
    hint = f"correct {variable}, or unset it if no proxy is needed" if through else AGAIN
    tunnel = re.search(r"Tunnel connection failed: (\d{3})", str(error))
    certificate = next((cause for cause in causes if isinstance(cause, ssl.SSLCertVerificationError)), None)
    if certificate:
        return failure(*_certificate(certificate, host), passing=False)
    if tunnel and tunnel[1] == "407":
        return proxy_login(url)
    if tunnel:
        hint = f"ask for {host} to be allowed there, or unset {variable} if no proxy is needed"
        return failure(f"{server} does not connect to {host}: {tunnel[1]}", hint, passing=tunnel[1] >= "500")
    if has(socket.gaierror):
        return failure(f"the name of {server} cannot be resolved", f"{hint}; see whether DNS works")
    if has(ConnectionRefusedError):
        return failure(f"{server} refuses the connection", hint)
    if any(getattr(cause, "errno", None) in (errno.ENETUNREACH, errno.EHOSTUNREACH) for cause in causes):
        return failure(f"there is no way to {server}", hint)
    connecting = has(lower.NewConnectionError, lower.ConnectTimeoutError)
    if has(ssl.SSLError):
        if through:
            hint = f"in {variable}, write http:// in front of the proxy's name"
        return failure(f"no TLS connection to {server}", hint, sent=not through)
    if has(exceptions.Timeout, TimeoutError, lower.TimeoutError):
        who = f" from {server}" if through and connecting else ""
        return failure(f"no answer in time{who}", hint if who else AGAIN, sent=not connecting)
    if through or has(exceptions.ConnectionError, exceptions.ChunkedEncodingError, exceptions.ContentDecodingError):
        return failure("no connection, or it was cut", AGAIN, sent=not connecting)
    return None


def proxy_login(url: str) -> Failure:
    """Say that the proxy on the way to ``url`` asks for a user name and a password."""
    proxy, variable = _proxy(url)
    return Failure(
        f"Kaggle cannot be reached (the proxy {_place(proxy)} requires a user name and a password: 407)",
        f"write them into {variable}: http://user:password@host:port",
    )


def _certificate(error: ssl.SSLCertVerificationError, host: str) -> tuple[str, str]:
    what = f"the certificate of {host} is not trusted: {error.verify_message}"
    if error.verify_code in DATES:
        return what, "check date and time of this machine"
    if error.verify_code in OTHER_HOST:
        return what, SIGN_IN
    if name := _bundle():
        return what, f"a proxy or security software replaces Kaggle's certificate; the file in {name} lacks its root"
    return what, (
        "a proxy or security software replaces Kaggle's certificate: let REQUESTS_CA_BUNDLE name a PEM file with its "
        "root, often /etc/ssl/certs/ca-certificates.crt"
    )


def _bundle() -> str | None:
    return next((name for name in BUNDLES if os.environ.get(name)), None)


def _proxy(url: str) -> tuple[str, str]:
    """Give the proxy on the way to ``url``, empty where there is none, and what names it."""
    from requests.utils import get_environ_proxies, select_proxy

    scheme = urlsplit(url).scheme or "https"
    names = (f"{scheme}_proxy", f"{scheme}_proxy".upper(), "all_proxy", "ALL_PROXY")
    variable = next((name for name in names if os.environ.get(name)), "the system's proxy setting")
    return select_proxy(url, get_environ_proxies(url)) or "", variable


def _place(proxy: str) -> str:
    """Give host and port of a proxy, never its user and password."""
    parts = urlsplit(proxy if "//" in proxy else f"//{proxy}")
    return f"{parts.hostname}:{parts.port}" if parts.port else parts.hostname or ""


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Give an error and all that it was made from; requests and urllib3 pack one into the other in several ways."""
    seen: list[BaseException] = []
    todo: list[Any] = [error]
    while todo:
        one = todo.pop(0)
        if isinstance(one, BaseException) and one not in seen:
            seen.append(one)
            yield one
            todo += [*one.args, getattr(one, "reason", None), one.__cause__, one.__context__]
