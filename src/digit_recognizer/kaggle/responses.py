"""Responses of Kaggle: messages and hints for failed calls, checked values, texts without secrets."""

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from digit_recognizer import hints
from digit_recognizer.data import dataset
from digit_recognizer.errors import KitError, printable
from digit_recognizer.kaggle import connection
from digit_recognizer.kaggle.connection import UNREADABLE, Failure
from digit_recognizer.kaggle.credentials import SETTINGS_PAGE, Credentials
from digit_recognizer.kaggle.retry import LONGEST_PAUSE, retry_after

COMPETITION_PAGE = f"https://www.kaggle.com/competitions/{dataset.SLUG}"
RULES_PAGE = f"{COMPETITION_PAGE}/rules"
DAY = 86_400  # seconds
MESSAGE_LENGTH = 300  # characters
SCORE = re.compile(r"[01](\.[0-9]{1,20})?|\.[0-9]{1,20}")
LOG_END = b"END_OF_LOG"  # the last event of a kernel's log
VISIBLE = 7  # a message may contain this many consecutive characters of a secret


@dataclass(frozen=True)
class Submission:
    """A submission in Kaggle's list; ``status`` is ``pending``, ``complete`` or ``error``."""

    reference: str
    file: str
    description: str
    status: str
    public_score: str
    error: str


class Redactor:
    """Replaces secrets in texts from Kaggle.

    Args:
        secrets: texts of which no part longer than ``VISIBLE`` characters is shown.
    """

    def __init__(self, *secrets: str) -> None:
        self._secrets = list(secrets)

    def add(self, secret: str) -> None:
        """Replace this secret too."""
        self._secrets.append(secret)

    def clean(self, text: object, length: int = MESSAGE_LENGTH) -> str:
        """Return a text in one line of at most ``length`` characters, without terminal escapes and secrets."""
        cleaned = self.redact("" if text is None else str(text)[: 10 * MESSAGE_LENGTH])
        return printable(" ".join(cleaned.split()))[:length]

    def redact(self, text: str) -> str:
        """Return a text without secrets."""
        for secret in filter(None, self._secrets):
            text = _redact(text, secret)
        return text


def describe(error: Exception, account: Credentials, redactor: Redactor) -> Failure:
    """Return the message and the hint for a failed call.

    Args:
        error: one of ``connection.call_errors()``.
        account: the credentials that the call was made with.
        redactor: of these credentials.
    """
    status = _status(error)
    if status is None:
        if failure := connection.diagnose(error):
            return failure
        reason = redactor.clean(f"unexpected {error}" if isinstance(error, KeyError) else error, 120)
        hint = f"check {COMPETITION_PAGE}; a newer release of the package kagglesdk may support this response"
        return Failure(f"cannot read Kaggle's response ({reason})", hint, maybe_received=True)
    response: Any = getattr(error, "response", None)
    if status == 407:
        return connection.proxy_login(str(response.url))
    # Storage, where files are uploaded to and downloaded from, is no part of the API: without accounts and rules.
    api = re.search(r"/v1/(competitions|kernels|security|users)\.\w+/(\w+)$", str(response.url))
    service, call = api.groups() if api else ("", "")
    detail = redactor.clean(_message(response))
    code = f"{status}: {detail}" if detail else f"{status}"
    if status == 401 and api:
        rejected = rejected_credentials(account)
        return Failure(str(rejected), rejected.hint)
    if status == 429:
        pause = retry_after(error, LONGEST_PAUSE)
        when = f"in {pause:.0f} s" if pause <= DAY else "on another day"
        return Failure("Kaggle: rate limit exceeded (429)", f"run the command again {when}", transient=True)
    if status >= 500:
        hint = "run the command again later"
        return Failure(f"Kaggle: server error ({code})", hint, transient=True, maybe_received=True)
    message, hint = f"Kaggle refused the request ({code})", ""
    if status == 404:
        message = f"Kaggle: not found ({code})"
        hint = f"check that {COMPETITION_PAGE} opens in a browser" if service == "competitions" else ""
    elif status == 403 and re.search("phone|verif", detail, re.IGNORECASE):
        hint = f"verify your phone number at {SETTINGS_PAGE}"
    elif status == 403 and service == "competitions":
        hint = f"accept the competition's rules at {RULES_PAGE}, then run the command again"
    if status in (403, 404) and call in (
        "GetKernelSessionStatus",
        "ListKernelSessionOutput",
        "GetKernelSessionLogsStream",
    ):
        hint = hint or f"`{hints.command('push')}` creates the kernel if this account has none yet"
    return Failure(message, hint)


def rejected_credentials(account: Credentials) -> KitError:
    """Return the error for credentials that Kaggle rejects."""
    other_source = "" if account.kind == "login" else ", or remove this one to use another source"
    return KitError(
        f"Kaggle rejected the {account.kind} from {account.source}: expired or wrong",
        hint=f"create a new one at {SETTINGS_PAGE}{other_source}",
    )


def read_submission(response: Any, redactor: Redactor) -> Submission:
    """Return a submission from the SDK's form; ``public_score`` is empty if it is not a number from 0 to 1."""
    score = "" if response.public_score is None else str(response.public_score)
    return Submission(
        reference=read_reference(response.ref),
        file=redactor.clean(response.file_name),
        description=printable(" ".join(str(response.description or "").split())),  # the user's text, with a digest
        status=response.status.name.lower(),
        public_score=score if SCORE.fullmatch(score) and float(score) <= 1 else "",
        error=redactor.clean(response.error_description),
    )


def read_reference(value: Any) -> str:
    """Return the reference of a submission as text; ``ValueError`` if it is not a positive integer."""
    if isinstance(value, bool) or not re.fullmatch("[1-9][0-9]{0,17}", str(value)):
        raise ValueError(f"ref {str(value)[:30]!r}")
    return str(value)


def read_text(value: Any) -> str:
    """Return a text; ``ValueError`` for any other value."""
    if not isinstance(value, str):
        raise ValueError(f"expected a text, found {str(value)[:30]!r}")
    return value


def read_log(response: Any) -> Iterator[str]:
    """Yield the parts of a kernel's log, which need not end at the ends of lines.

    While the kernel runs, Kaggle sends server-sent events, with a last one when it ends. After that it sends a JSON
    list. The parts are objects with a text in ``data``.

    Raises:
        ConnectionError: of requests; the stream broke off.
        ValueError: a part is not an object with a text.
    """
    from requests.exceptions import ConnectionError as BrokenStream

    if "event-stream" not in response.headers.get("Content-Type", ""):
        yield from (read_text(part["data"]) for part in json.loads(response.content or b"[]"))
        return
    for line in response.iter_lines():
        event = line.removeprefix(b"data:").strip() if line.startswith(b"data:") else b""
        if event == LOG_END:
            return
        if event:
            yield read_text(json.loads(event)["data"])
    raise BrokenStream("the log broke off")


def _redact(text: str, secret: str) -> str:
    """Replace a secret, and each part of it that is longer than ``VISIBLE`` characters, by ``…``."""
    size = min(len(secret), VISIBLE + 1)
    parts = {secret[i : i + size] for i in range(len(secret) - size + 1)}
    hidden = [False] * len(text)
    for i in range(len(text) - size + 1):
        if text[i : i + size] in parts:
            hidden[i : i + size] = [True] * size
    return "".join(
        "…" if hide else "".join(character for character, _ in pairs)
        for hide, pairs in groupby(zip(text, hidden, strict=True), key=lambda pair: pair[1])
    )


def _status(error: Exception) -> int | None:
    """Return the HTTP status of a failed call; None if no complete response arrived."""
    response = getattr(error, "response", None)
    if response is None:
        return None
    with suppress(*UNREADABLE):  # the body of a response with status 200 may contain an error
        if 400 <= (code := int(response.json()["code"])) < 600:
            return code
    return int(response.status_code) if response.status_code >= 400 else None


def _message(response: Any) -> object:
    with suppress(*UNREADABLE):
        return response.json()["message"]
    return ""
