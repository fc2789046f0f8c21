"""Whose Kaggle account: the credentials that Kaggle's own client would take, found without it and without a call."""

import json
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from digit_recognizer import files
from digit_recognizer.errors import BadInput

SETTINGS_PAGE = "https://www.kaggle.com/settings"
NONE = (
    f"no Kaggle credentials; make a token at {SETTINGS_PAGE} and put it into ~/.kaggle/access_token (chmod 600), "
    "or kaggle.json into ~/.kaggle"
)


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
    """Find the credentials that win, in the order of Kaggle's own client, without a call to Kaggle.

    Raises:
        BadInput: a file with a secret that other users of the machine can read, or one of another form.
    """
    return next(_found(), None)


def _found() -> Iterator[Credentials]:
    env = os.environ
    if "KAGGLE_KERNEL_RUN_TYPE" in env and "KAGGLE_DATA_PROXY_URL" in env and (name := env.get("KAGGLE_API_V1_TOKEN")):
        yield from _token_file(Path(name))
    if token := env.get("KAGGLE_API_TOKEN", "").strip():
        with suppress(OSError):  # a token may be longer than a path can be
            if Path(token).exists():
                yield from _token_file(Path(token))
                token = ""
        if token:
            yield Credentials("KAGGLE_API_TOKEN", "token", secret=token)
    home = Path.home() / ".kaggle"
    for name in ("access_token", "access_token.txt"):
        yield from _token_file(home / name)
    config = home if home.exists() else Path(env.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "kaggle"
    key_file = Path(env.get("KAGGLE_CONFIG_DIR") or config) / "kaggle.json"
    pair = {"username": env.get("KAGGLE_USERNAME"), "key": env.get("KAGGLE_KEY")}
    source = "KAGGLE_USERNAME and KAGGLE_KEY"
    if not all(pair.values()) and key_file.exists():
        kept = _secret_json(key_file)
        if not all(isinstance(kept.get(name), str) and kept[name] for name in pair):
            form = '{"username": "…", "key": "…"}'
            raise BadInput(f"{key_file}: expected {form}; take a new one from {SETTINGS_PAGE}")
        pair = {name: value or kept[name] for name, value in pair.items()}
        source = str(key_file)
    if pair["username"] and pair["key"]:
        yield Credentials(source, "key", username=pair["username"], secret=pair["key"])
    if (login := home / "credentials.json").exists():
        kept = _secret_json(login)
        if refresh := str(kept.get("refresh_token") or ""):
            yield Credentials(str(login), "login", str(kept.get("username", "")), refresh)


def _token_file(path: Path) -> Iterator[Credentials]:
    if path.is_file() and (token := _secret_text(path).strip()):
        yield Credentials(str(path), "token", secret=token)


def _secret_json(path: Path) -> dict[str, Any]:
    try:
        kept = json.loads(_secret_text(path))
    except ValueError as error:
        raise BadInput(f"{path}: not valid JSON; take a new one from {SETTINGS_PAGE}") from error
    return kept if isinstance(kept, dict) else {}


def _secret_text(path: Path) -> str:
    with files.explained(path):
        if os.name == "posix" and path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise BadInput(f"{path}: other users of this machine can read it; chmod 600 {path}")
        try:
            return path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise BadInput(f"{path}: not UTF-8 text; take a new one from {SETTINGS_PAGE}") from error
