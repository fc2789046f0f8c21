"""Credentials of a Kaggle account, from the sources of Kaggle's own client and in its order, without a call."""

import codecs
import json
import os
import re
import shlex
import stat
import unicodedata
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from digit_recognizer import files
from digit_recognizer.errors import BadInput

SETTINGS_PAGE = "https://www.kaggle.com/settings"
MISSING = "no Kaggle credentials"
CREATE_HINT = (
    f"create a token at {SETTINGS_PAGE} and save it as ~/.kaggle/access_token (chmod 600), "
    "or save kaggle.json in ~/.kaggle"
)
NEW_HINT = f"get a new one from {SETTINGS_PAGE}"
TOKEN_PREFIX = "KGAT_"  # of Kaggle's tokens, which users often paste in place of a key
LENGTH_LIMIT = 1 << 16  # bytes of a file with a secret
ENVIRONMENT = "KAGGLE_USERNAME and KAGGLE_KEY"
QUOTES_AND_SPACE = re.compile("""^[\\s"'`“”„‘’‚]+|[\\s"'`“”„‘’‚]+$""")
USER_NAME = re.compile("[A-Za-z0-9_.-]{1,100}")


@dataclass(frozen=True)
class Credentials:
    """The credentials of an account.

    Attributes:
        source: the name of the variable or the path of the file that they come from.
        kind: ``token``, ``key`` (with a user name) or ``login`` (of ``kaggle auth login``).
        username: the user name; may be empty unless ``kind`` is ``key``.
        secret: the token, key or refresh token; never shown.
    """

    source: str
    kind: str
    username: str = ""
    secret: str = field(default="", repr=False)


def find() -> Credentials | None:
    """Return the credentials of the first source that has some; None if no source has.

    The sources and their order are those of Kaggle's own client. ``kaggle.json`` in the current folder, where browsers
    may save it, is added as the last one. White space, quotes, byte order marks and zero-width characters around a
    secret are removed. A token or the text of ``kaggle.json`` is accepted wherever a secret is expected.

    Raises:
        BadInput: a source is malformed, or a file with a secret can be read by other users of the machine.
    """
    return next(_sources(), None)


def is_user_name(text: str) -> bool:
    """Return whether a text can be a user name, which becomes a part of headers and of kernel names."""
    return USER_NAME.fullmatch(text) is not None


def _sources() -> Iterator[Credentials]:
    env = os.environ
    empty: list[Path] = []
    if "KAGGLE_KERNEL_RUN_TYPE" in env and "KAGGLE_DATA_PROXY_URL" in env and (name := env.get("KAGGLE_API_V1_TOKEN")):
        yield from _token_file(Path(name), empty)
    if token := _strip(env.get("KAGGLE_API_TOKEN", "")):
        yield from _token_or_path(token, empty)
    home = Path.home() / ".kaggle"
    for name in ("access_token", "access_token.txt"):
        yield from _token_file(home / name, empty)
    username, key = _strip(env.get("KAGGLE_USERNAME", "")), _strip(env.get("KAGGLE_KEY", ""))
    if key.startswith((TOKEN_PREFIX, "{")):
        yield from _token(key, "KAGGLE_KEY")
    if username and key:
        yield _pair({}, ENVIRONMENT, username, key)
    config = home if home.exists() else Path(env.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "kaggle"
    if path := QUOTES_AND_SPACE.sub("", env.get("KAGGLE_CONFIG_DIR", "")):
        config = _expanded(path)
    yield from _pair_file(config if config.is_file() else config / "kaggle.json", empty, username, key)
    login = home / "credentials.json"
    if text := _secret_text(login, empty):
        fields, source = _json_object(text, str(login)), str(login)
        if refresh_token := _field(fields, "refresh_token"):
            name = _field(fields, "username")
            login_name = _checked_user_name(name, source) if name else ""
            yield Credentials(source, "login", login_name, _checked_secret(refresh_token, source, "token"))
    yield from _pair_file(Path("kaggle.json"), empty, username, key)
    if empty:
        raise BadInput(f"{empty[0]}: empty, and no other credentials found", hint=NEW_HINT)


def _token_or_path(text: str, empty: list[Path]) -> Iterator[Credentials]:
    """Read ``KAGGLE_API_TOKEN``, which contains a token or the path of a file with one."""
    with suppress(OSError, ValueError):  # a token may be longer than a path can be
        if (path := _expanded(text)).exists():
            if not path.is_file():
                raise BadInput(
                    f"KAGGLE_API_TOKEN: expected a token or a file with one, found the folder {path}",
                    hint="set it to the token, or to the path of the file",
                )
            yield from _token_file(path, empty)
            return
    if text.startswith(("/", "~", "./", "../", "\\")) or re.match(r"[A-Za-z]:[/\\]", text):
        raise BadInput("KAGGLE_API_TOKEN: looks like a path, but no such file exists", hint=NEW_HINT)
    yield from _token(text, "KAGGLE_API_TOKEN")


def _token_file(path: Path, empty: list[Path]) -> Iterator[Credentials]:
    yield from _token(_secret_text(path, empty), str(path))


def _token(text: str, source: str) -> Iterator[Credentials]:
    """Read a token, or the text of ``kaggle.json`` in its place; empty text yields nothing."""
    if text.startswith("{"):
        yield _pair(_json_object(text, source), source)
    elif text:
        yield Credentials(source, "token", secret=_checked_secret(text, source, "token"))


def _pair_file(path: Path, empty: list[Path], username: str, key: str) -> Iterator[Credentials]:
    """Read ``kaggle.json``; ``username`` and ``key`` from the environment replace those in it."""
    if text := _secret_text(path, empty):
        yield _pair(_json_object(text, str(path)), str(path), username, key)


def _pair(fields: dict[str, Any], source: str, username: str = "", key: str = "") -> Credentials:
    username, key = username or _field(fields, "username"), key or _field(fields, "key")
    if key.startswith(TOKEN_PREFIX):
        return Credentials(source, "token", secret=_checked_secret(key, source, "token"))
    if not (username and key):
        raise BadInput(f'{source}: expected {{"username": "…", "key": "…"}}', hint=NEW_HINT)
    return Credentials(source, "key", _checked_user_name(username, source), _checked_secret(key, source, "key"))


def _field(fields: dict[str, Any], name: str) -> str:
    value = fields.get(name)
    return _strip(value) if isinstance(value, str) else ""


def _json_object(text: str, source: str) -> dict[str, Any]:
    try:
        value = json.loads(text, strict=False)  # a line break in a secret is reported by _checked_secret
    except (ValueError, RecursionError):
        raise BadInput(f"{source}: not valid JSON", hint=NEW_HINT) from None
    return value if isinstance(value, dict) else {}


def _strip(text: str) -> str:
    """Remove what editors and copying add to a secret: zero-width characters, and white space and quotes around it."""
    return QUOTES_AND_SPACE.sub("", "".join(character for character in text if unicodedata.category(character) != "Cf"))


def _checked_secret(text: str, source: str, what: str) -> str:
    """Return a secret if it can be sent in a header; the error shows no part of it."""
    if not (text.isascii() and text.isprintable()) or " " in text:
        reason = f"the {what} contains a space, a line break or a character outside ASCII"
        raise BadInput(f"{source}: {reason}; expected only the {what}", hint=f"copy it again, or {NEW_HINT}")
    return text


def _checked_user_name(text: str, source: str) -> str:
    if not is_user_name(text):
        raise BadInput(
            f"{source}: the user name contains characters other than Latin letters, digits, hyphens, dots, underscores",
            hint="use the name in the address of your Kaggle profile",
        )
    return text


def _secret_text(path: Path, empty: list[Path]) -> str:
    """Return the text of a file with a secret; empty if the file is missing or empty, then added to ``empty``."""
    with files.explained(path):
        if not path.is_file():
            return ""
        if os.name == "posix" and path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise BadInput(
                f"{path}: other users of this machine can read it",
                hint=f"chmod 600 {shlex.quote(str(path))}; if that has no effect, as on a Windows or network drive, "
                "remove it and set KAGGLE_API_TOKEN to a token instead",
            )
        with path.open("rb") as file:
            content = file.read(LENGTH_LIMIT + 1)
    if len(content) > LENGTH_LIMIT:
        raise BadInput(f"{path}: too large for a file with a token or key", hint=NEW_HINT)
    try:
        text = _strip(content.decode(_encoding(content)))
    except UnicodeDecodeError:
        raise BadInput(f"{path}: expected UTF-8 or UTF-16 text", hint=NEW_HINT) from None
    if not text:
        empty.append(path)
    return text


def _encoding(content: bytes) -> str:
    """Return UTF-8, or UTF-16 as Windows writes it, by the byte order mark or the zero byte of the first character."""
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    if content[1:2] == b"\0":
        return "utf-16-le"
    return "utf-16-be" if content[:1] == b"\0" else "utf-8"


def _expanded(text: str) -> Path:
    """Return a path with ``~`` replaced by the home folder."""
    with suppress(RuntimeError):  # ~ with an unknown user
        return Path(text).expanduser()
    return Path(text)
