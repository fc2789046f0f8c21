"""Whose Kaggle account: the credentials that Kaggle's own client would take, found without it and without a call."""

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
NONE = "no Kaggle credentials"
GET_ONE = (
    f"make a token at {SETTINGS_PAGE} and put it into ~/.kaggle/access_token (chmod 600), or kaggle.json into ~/.kaggle"
)
NEW = f"take a new one from {SETTINGS_PAGE}"
TOKEN = "KGAT_"  # what Kaggle's tokens begin with; they are often pasted where a key is expected
LONGEST = 1 << 16  # bytes of a file with a secret
ENVIRONMENT = "KAGGLE_USERNAME and KAGGLE_KEY"
AROUND = re.compile("""^[\\s"'`“”„‘’‚]+|[\\s"'`“”„‘’‚]+$""")
USER_NAME = re.compile("[A-Za-z0-9_.-]{1,100}")


@dataclass(frozen=True)
class Credentials:
    """What Kaggle knows a person by.

    Attributes:
        source: where it was found: a variable's name or a file's path.
        kind: ``token``, ``key`` (with a user name) or ``login`` (left by ``kaggle auth login``).
        secret: never shown.
    """

    source: str
    kind: str
    username: str = ""
    secret: str = field(default="", repr=False)


def find() -> Credentials | None:
    """Find the credentials that win, without a call to Kaggle.

    The order is that of Kaggle's own client; ``kaggle.json`` in the current folder, where a download often stays, is
    the last. What surrounds a secret and cannot belong to it (white space, quotes, byte order marks, zero-width
    characters) is removed, a token or the text of ``kaggle.json`` is recognized wherever a secret is expected.

    Raises:
        BadInput: a file with a secret that other users of the machine can read, or a source of another form.
    """
    return next(_found(), None)


def is_user_name(text: str) -> bool:
    """Whether a text can be a user name: it becomes part of a header and of a kernel's name."""
    return USER_NAME.fullmatch(text) is not None


def _found() -> Iterator[Credentials]:
    env = os.environ
    empty: list[Path] = []
    if "KAGGLE_KERNEL_RUN_TYPE" in env and "KAGGLE_DATA_PROXY_URL" in env and (name := env.get("KAGGLE_API_V1_TOKEN")):
        yield from _token_file(Path(name), empty)
    if token := _plain(env.get("KAGGLE_API_TOKEN", "")):
        yield from _token_or_path(token, empty)
    home = Path.home() / ".kaggle"
    for name in ("access_token", "access_token.txt"):
        yield from _token_file(home / name, empty)
    username, key = _plain(env.get("KAGGLE_USERNAME", "")), _plain(env.get("KAGGLE_KEY", ""))
    if key.startswith((TOKEN, "{")):
        yield from _token(key, "KAGGLE_KEY")
    if username and key:
        yield _pair({}, ENVIRONMENT, username, key)
    config = home if home.exists() else Path(env.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "kaggle"
    if given := AROUND.sub("", env.get("KAGGLE_CONFIG_DIR", "")):
        config = _expanded(given)
    yield from _pair_file(config if config.is_file() else config / "kaggle.json", empty, username, key)
    login = home / "credentials.json"
    if text := _secret_text(login, empty):
        kept = _object(text, str(login))
        if refresh := _member(kept, "refresh_token"):
            name = _member(kept, "username")
            yield Credentials(
                str(login), "login", _user_name(name, str(login)) if name else "", _fit(refresh, str(login), "token")
            )
    yield from _pair_file(Path("kaggle.json"), empty, username, key)
    if empty:
        raise BadInput(f"{empty[0]}: empty, and there are no other credentials", hint=NEW)


def _token_or_path(text: str, empty: list[Path]) -> Iterator[Credentials]:
    """Read ``KAGGLE_API_TOKEN``, which holds a token or names a file with one."""
    with suppress(OSError, ValueError):  # a token may be longer than a path can be
        if (path := _expanded(text)).exists():
            if not path.is_file():
                raise BadInput(f"KAGGLE_API_TOKEN: expected a token or a file with one, found the folder {path}")
            yield from _token_file(path, empty)
            return
    if text.startswith(("/", "~", "./", "../", "\\")) or re.match(r"[A-Za-z]:[/\\]", text):
        raise BadInput("KAGGLE_API_TOKEN: looks like a path, and there is no such file", hint=NEW)
    yield from _token(text, "KAGGLE_API_TOKEN")


def _token_file(path: Path, empty: list[Path]) -> Iterator[Credentials]:
    yield from _token(_secret_text(path, empty), str(path))


def _token(text: str, source: str) -> Iterator[Credentials]:
    """Read a token, or the text of ``kaggle.json`` in its place."""
    if text.startswith("{"):
        yield _pair(_object(text, source), source)
    elif text:
        yield Credentials(source, "token", secret=_fit(text, source, "token"))


def _pair_file(path: Path, empty: list[Path], username: str, key: str) -> Iterator[Credentials]:
    """Read ``kaggle.json``; ``username`` and ``key`` from the environment replace its own."""
    if text := _secret_text(path, empty):
        yield _pair(_object(text, str(path)), str(path), username, key)


def _pair(kept: dict[str, Any], source: str, username: str = "", key: str = "") -> Credentials:
    username, key = username or _member(kept, "username"), key or _member(kept, "key")
    if key.startswith(TOKEN):
        return Credentials(source, "token", secret=_fit(key, source, "token"))
    if not (username and key):
        raise BadInput(f'{source}: expected {{"username": "…", "key": "…"}}', hint=NEW)
    return Credentials(source, "key", _user_name(username, source), _fit(key, source, "key"))


def _member(kept: dict[str, Any], name: str) -> str:
    value = kept.get(name)
    return _plain(value) if isinstance(value, str) else ""


def _object(text: str, source: str) -> dict[str, Any]:
    try:
        kept = json.loads(text, strict=False)  # a line break inside a text is named below
    except (ValueError, RecursionError):
        raise BadInput(f"{source}: not valid JSON", hint=NEW) from None
    return kept if isinstance(kept, dict) else {}


def _plain(text: str) -> str:
    """Remove what copying and editors add to a secret: zero-width characters, and white space and quotes around it."""
    return AROUND.sub("", "".join(character for character in text if unicodedata.category(character) != "Cf"))


def _fit(text: str, source: str, what: str) -> str:
    """Give a secret that can be sent in a header, and never name a part of one that cannot."""
    if not (text.isascii() and text.isprintable()) or " " in text:
        fault = f"the {what} contains a space, a line break or a character outside ASCII"
        raise BadInput(f"{source}: {fault}; expected the {what} alone", hint=f"copy it again, or {NEW}")
    return text


def _user_name(text: str, source: str) -> str:
    if not is_user_name(text):
        raise BadInput(
            f"{source}: the user name contains other characters than Latin letters, digits and hyphens",
            hint="take the one in the address of your Kaggle profile, not the display name",
        )
    return text


def _secret_text(path: Path, empty: list[Path]) -> str:
    """Read a file that holds a secret; nothing where there is none, or where it is empty, which is noted."""
    with files.explained(path):
        if not path.is_file():
            return ""
        if os.name == "posix" and path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise BadInput(
                f"{path}: other users of this machine can read it",
                hint=f"chmod 600 {shlex.quote(str(path))}; where that has no effect, as on a Windows or network drive, "
                "remove it and set KAGGLE_API_TOKEN to a token instead",
            )
        with path.open("rb") as file:
            content = file.read(LONGEST + 1)
    if len(content) > LONGEST:
        raise BadInput(f"{path}: too long for a file with a token or key", hint=NEW)
    try:
        text = _plain(content.decode(_encoding(content)))
    except UnicodeDecodeError:
        raise BadInput(f"{path}: neither UTF-8 nor UTF-16 text", hint=NEW) from None
    if not text:
        empty.append(path)
    return text


def _encoding(content: bytes) -> str:
    """UTF-8 or, as Windows writes it, UTF-16: by its mark or, without one, by the empty half of the first character."""
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    if content[1:2] == b"\0":
        return "utf-16-le"
    return "utf-16-be" if content[:1] == b"\0" else "utf-8"


def _expanded(text: str) -> Path:
    """Give a path with ``~`` as the home folder."""
    with suppress(RuntimeError):  # ~ and an unknown user
        return Path(text).expanduser()
    return Path(text)
