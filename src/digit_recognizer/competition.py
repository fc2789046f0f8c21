"""The only door to Kaggle: whose account, what was sent, send, download.

It speaks through ``kagglesdk``, the part of the official ``kaggle`` package that talks to Kaggle. The module ``kaggle``
itself stays outside: importing it authenticates at once, makes a folder in the user's home, and in some releases prints
or exits. Here every call has a time limit, a bounded number of tries and a one-line error, and no secret gets out.
"""

import base64
import hashlib
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self, TypeVar

from digit_recognizer import credentials, data, files
from digit_recognizer.credentials import Credentials
from digit_recognizer.errors import BadInput, KitError

SLUG = "digit-recognizer"
RULES_PAGE = f"https://www.kaggle.com/competitions/{SLUG}/rules"
CONNECT, READ = 10, 60  # seconds
TRIES = 4
LONGEST_PAUSE = 60  # seconds
CHUNK = 1 << 14  # at most so much of a broken download is fetched again

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Sent:
    """A submission as Kaggle tells of it; ``status`` is ``pending``, ``complete`` or ``error``."""

    reference: str
    file: str
    description: str
    status: str
    public_score: str
    error: str


class Unclear(KitError):
    """A submission may have arrived or not: it was sent, and the answer was lost."""


class Competition:
    """Digit Recognizer on Kaggle, as one person; a context manager.

    Every method raises ``KitError`` with a line for people where Kaggle refuses or cannot be reached.

    Args:
        person: whose credentials.
        tries: how often a call that may be repeated is made before it is given up.
    """

    def __init__(self, person: Credentials, *, tries: int = TRIES) -> None:
        self._person, self._tries = person, tries
        pair = f"{person.username}:{person.secret}".encode()
        self._secrets = [person.secret, base64.b64encode(pair).decode()]  # as it is, and as it is sent

    def __enter__(self) -> Self:
        from kagglesdk import KaggleClient, KaggleCredentials
        from requests.adapters import HTTPAdapter

        class Limited(HTTPAdapter):
            """Kaggle's client sets no time limit."""

            def send(self, *words: Any, **named: Any) -> Any:
                named["timeout"] = named.get("timeout") or (CONNECT, READ)
                return super().send(*words, **named)

        def opened(**secret: str) -> Any:
            client = KaggleClient(user_agent="digit-recognizer-kit", **secret)
            client.__enter__()
            for scheme in ("https://", "http://"):
                client.http_client()._session.mount(scheme, Limited())
            return client

        if self._person.kind == "login":
            # Not the access token kept beside it, which the SDK takes for good for half an hour after its end.
            with opened() as nobody:
                login = KaggleCredentials(nobody, refresh_token=self._person.secret)
                token = self._call(login.generate_access_token).token
            self._secrets.append(token)
            self._client = opened(api_token=token)
        elif self._person.kind == "token":
            self._client = opened(api_token=self._person.secret)
        else:
            self._client = opened(username=self._person.username, password=self._person.secret)
        self._api = self._client.competitions.competition_api_client
        return self

    def __exit__(self, *_: object) -> None:
        self._client.__exit__(None, None, None)

    def account(self) -> str:
        """The user name that the credentials belong to, as far as Kaggle tells."""
        if self._person.kind != "token":
            self.left_today()  # a wrong key is refused here
            return self._person.username
        from kagglesdk.security.types.oauth_service import IntrospectTokenRequest

        request = IntrospectTokenRequest()
        request.token = self._person.secret
        told = self._call(lambda: self._client.security.oauth_client.introspect_token(request))
        if not told.active:
            raise KitError(self._refused())
        return str(told.username)

    def entered(self) -> bool:
        """Whether the account has joined the competition, which is to accept its rules."""
        from kagglesdk.competitions.types.competition_api_service import ApiGetCompetitionRequest

        request = ApiGetCompetitionRequest()
        request.competition_name = SLUG
        return bool(self._call(lambda: self._api.get_competition(request)).user_has_entered)

    def left_today(self) -> int:
        """How many submissions the account may still send today (a day of UTC)."""
        from kagglesdk.competitions.types.competition_api_service import ApiGetSubmissionLimitsRequest

        request = ApiGetSubmissionLimitsRequest()
        request.competition_name = SLUG
        return int(self._call(lambda: self._api.get_submission_limits(request)).num_allowed_now)

    def sent(self) -> list[Sent]:
        """All submissions of the account, the newest first."""
        from kagglesdk.competitions.types.competition_api_service import ApiListSubmissionsRequest

        request = ApiListSubmissionsRequest()
        request.competition_name = SLUG
        request.page_size = 100
        found: list[Sent] = []
        while True:
            page = self._call(lambda: self._api.list_submissions(request))
            found += map(_sent, page.submissions)
            if not page.next_page_token or page.next_page_token == request.page_token:
                return found
            request.page_token = page.next_page_token

    def one(self, reference: str) -> Sent:
        """A submission by its reference."""
        from kagglesdk.competitions.types.competition_api_service import ApiGetSubmissionRequest

        request = ApiGetSubmissionRequest()
        request.ref = int(reference)
        return _sent(self._call(lambda: self._api.get_submission(request)))

    def upload(self, file: Path) -> str:
        """Bring a file to Kaggle, which counts as no submission yet, and give the token to submit it by."""
        import requests
        from kagglesdk.competitions.types.competition_api_service import ApiStartSubmissionUploadRequest

        request = ApiStartSubmissionUploadRequest()
        request.competition_name = SLUG
        request.file_name = file.name
        request.content_length = file.stat().st_size
        request.last_modified_epoch_seconds = int(file.stat().st_mtime)

        def whole() -> str:
            begun = self._api.start_submission_upload(request)
            with file.open("rb") as content:
                requests.put(begun.create_url, data=content, timeout=(CONNECT, READ)).raise_for_status()
            return str(begun.token)

        return self._call(whole)

    def submit(self, token: str, description: str) -> str:
        """Submit an uploaded file, once, and give Kaggle's reference.

        Raises:
            Unclear: the answer was lost, so it may count as one of the day's submissions.
            KitError: Kaggle refused it; it does not count.
        """
        import requests
        from kagglesdk.competitions.types.competition_api_service import ApiCreateSubmissionRequest

        request = ApiCreateSubmissionRequest()
        request.competition_name = SLUG
        request.blob_file_tokens = token
        request.submission_description = description
        try:
            answer = self._api.create_submission(request)
        except (requests.exceptions.RequestException, ValueError) as error:
            status = _status(error)
            if status is None or status >= 500:
                raise Unclear(self._line(error)) from error
            raise KitError(self._line(error)) from error
        if not answer.ref:
            raise KitError(f"Kaggle took no submission: {self._clean(answer.message) or 'it gave no reference'}")
        return str(answer.ref)

    def download(self, folder: Path) -> None:
        """Download the competition's zip, go on where an earlier download broke off, and unpack it.

        What is left in ``folder`` is ``train.csv`` and ``test.csv``, whole.

        Raises:
            BadInput: the folder cannot be written.
            KitError: what came is damaged.
        """
        from kagglesdk.competitions.types.competition_api_service import ApiDownloadDataFilesRequest

        request = ApiDownloadDataFilesRequest()
        request.competition_name = SLUG
        with files.explained(folder):
            files.folder(folder)
            part = self._call(lambda: self._fetch(self._api.download_data_files(request), folder))
            try:
                data.unpack(part, folder)
            except BadInput as error:
                part.unlink()
                raise KitError(
                    f"the download from Kaggle is damaged and was removed; run it again ({error})"
                ) from error
            part.unlink()

    def push(self, code: Path, metadata: dict[str, Any]) -> str:
        """Send a kernel, which Kaggle then runs, and give the address of its page.

        Args:
            code: the script or notebook.
            metadata: what ``kernel-metadata.json`` holds.
        """
        from kagglesdk.kernels.types.kernels_api_service import ApiSaveKernelRequest

        request = ApiSaveKernelRequest()
        request.slug, request.new_title = metadata["id"], metadata["title"]
        request.text = code.read_text(encoding="utf-8")
        request.language, request.kernel_type = metadata["language"], metadata["kernel_type"]
        for name in ("is_private", "enable_gpu", "enable_tpu", "enable_internet"):
            setattr(request, name, metadata[name])
        request.competition_data_sources = metadata["competition_sources"]
        if "machine_shape" in metadata:
            request.machine_shape = metadata["machine_shape"]
        saved = self._call(lambda: self._client.kernels.kernels_api_client.save_kernel(request), tries=1)
        if saved.error or saved.invalid_competition_sources:
            raise KitError(f"Kaggle took no kernel: {self._clean(saved.error or 'it does not know the competition')}")
        return str(saved.url)

    def kernel_status(self, slug: str) -> tuple[str, str]:
        """How the newest version of ``slug``, ``user/kernel``, fares: a status in small letters, and why it failed."""
        from kagglesdk.kernels.types.kernels_api_service import ApiGetKernelSessionStatusRequest

        request = ApiGetKernelSessionStatusRequest()
        request.user_name, request.kernel_slug = slug.split("/")
        told = self._call(lambda: self._client.kernels.kernels_api_client.get_kernel_session_status(request))
        return told.status.name.lower(), self._clean(told.failure_message or "")

    def kernel_output(self, slug: str, folder: Path) -> None:
        """Download all files that the newest version of ``slug`` left into ``folder``.

        Raises:
            KitError: a file of a name that points outside.
        """
        import requests
        from kagglesdk.kernels.types.kernels_api_service import ApiListKernelSessionOutputRequest
        from tqdm import tqdm

        request = ApiListKernelSessionOutputRequest()
        request.user_name, request.kernel_slug = slug.split("/")
        request.page_size = 100
        left = []
        while True:
            page = self._call(lambda: self._client.kernels.kernels_api_client.list_kernel_session_output(request))
            left += page.files
            if not page.next_page_token or page.next_page_token == request.page_token:
                break
            request.page_token = page.next_page_token

        def content(url: str) -> bytes:
            response = requests.get(url, timeout=(CONNECT, READ))
            response.raise_for_status()
            return response.content

        for file in tqdm(left, desc=slug, unit="file", disable=None):
            path = folder / file.file_name
            if not path.resolve().is_relative_to(folder.resolve()):
                raise KitError(f"{slug}: left a file {file.file_name!r}, which points outside")
            files.write_bytes(path, self._call(partial(content, file.url)))

    def _fetch(self, response: Any, folder: Path) -> Path:
        import requests
        from tqdm import tqdm

        # Named by what Kaggle has now, so that the rest of another file is never put behind this one's beginning.
        version = f"{response.headers.get('ETag')} {response.headers.get('Content-Length')}"
        part = folder / f".{hashlib.sha256(version.encode()).hexdigest()[:16]}-{data.ARCHIVE}"
        total = int(response.headers.get("Content-Length", 0))
        have = part.stat().st_size if part.exists() else 0
        if total and have == total:
            response.close()
            return part
        if have:
            response.close()
            headers = {"Range": f"bytes={have}-"}
            response = requests.get(response.url, headers=headers, stream=True, timeout=(CONNECT, READ))
            response.raise_for_status()
            have = have if response.status_code == 206 else 0
        bar = tqdm(desc=data.ARCHIVE, total=total or None, initial=have, unit="B", unit_scale=True, disable=None)
        with response, part.open("ab" if have else "wb") as out, bar:
            for chunk in response.iter_content(CHUNK):
                out.write(chunk)
                bar.update(len(chunk))
        if part.stat().st_size < total:
            raise requests.exceptions.ConnectionError("the connection was cut")
        return part

    def _call(self, call: Callable[[], Answer], *, tries: int | None = None) -> Answer:
        """Make a call that may be repeated; where Kaggle is busy or away, wait and try again."""
        import requests

        tries = tries or self._tries
        for tried in range(1, tries + 1):
            try:
                return call()
            except (requests.exceptions.RequestException, ValueError) as error:
                status, pause = _status(error), _pause(error, 2.0 ** (tried - 1))
                passing = status is None or status == 429 or status >= 500
                if not passing or tried == tries or pause > LONGEST_PAUSE:
                    raise KitError(self._line(error)) from error
                time.sleep(pause)
        raise AssertionError("unreachable")

    def _line(self, error: Exception) -> str:
        """What people need to know of a failed call."""
        status = _status(error)
        if status is None:
            reason = "no answer in time" if "timed out" in str(error).lower() else "no connection, or it was cut"
            return f"Kaggle cannot be reached ({reason}); check the network and run it again"
        said = self._clean(_message(error))
        if status == 401:
            return self._refused()
        if status == 403:
            return f"Kaggle refuses (403{said}); accept the competition's rules at {RULES_PAGE}, and run it again"
        if status == 404:
            return f"Kaggle does not find it (404{said}); see whether {RULES_PAGE} still opens"
        if status == 429:
            return f"Kaggle asks for fewer calls (429); wait {_pause(error, 60):.0f} s and run it again"
        return f"Kaggle failed ({status}{said}); {'run it again later' if status >= 500 else 'see what it says'}"

    def _refused(self) -> str:
        mend = f"make a new one at {credentials.SETTINGS_PAGE}"
        rest = "" if self._person.kind == "login" else ", or remove this one to use another source"
        what = f"the {self._person.kind} from {self._person.source}"
        return f"Kaggle does not know {what}: expired or wrong; {mend}{rest}"

    def _clean(self, text: str) -> str:
        for secret in filter(None, self._secrets):
            text = text.replace(secret, "…")
        return " ".join(text.split())[:300]


def signed_in() -> Competition:
    """The door, for whoever the credentials on this machine are of; ``BadInput`` where there are none."""
    if person := credentials.find():
        return Competition(person)
    raise BadInput(credentials.NONE)


def _sent(told: Any) -> Sent:
    return Sent(
        reference=str(told.ref),
        file=told.file_name or "",
        description=told.description or "",
        status=told.status.name.lower(),
        public_score=told.public_score or "",
        error=" ".join((told.error_description or "").split()),
    )


def _status(error: Exception) -> int | None:
    """The HTTP status of a failed call; None where no whole answer came."""
    response = getattr(error, "response", None)
    if response is None:
        return None
    with suppress(ValueError, KeyError, TypeError):  # Kaggle may put the true one into the body of a 200
        return int(response.json()["code"])
    return int(response.status_code)


def _message(error: Exception) -> str:
    response = getattr(error, "response", None)
    with suppress(ValueError, KeyError, TypeError, AttributeError):
        return f": {response.json()['message']}"  # type: ignore[union-attr]
    return ""


def _pause(error: Exception, otherwise: float) -> float:
    """Seconds that Kaggle asks to wait, else ``otherwise``."""
    response = getattr(error, "response", None)
    asked = response.headers.get("Retry-After", "") if response is not None else ""
    return float(asked) if asked.isdecimal() else otherwise
