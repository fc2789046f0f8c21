"""The only access to Kaggle: whose account, what was sent, send, download.

It speaks through ``kagglesdk``, the part of the official ``kaggle`` package that talks to Kaggle. The module ``kaggle``
itself stays outside: importing it authenticates at once, makes a folder in the user's home, and in some releases prints
or exits. Here every call has a time limit, a bounded number of tries and a one-line error, and no secret gets out.
"""

import base64
import email.utils
import hashlib
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import IO, Any, Self, TypeVar

from digit_recognizer import files
from digit_recognizer.data import csv_reader, dataset
from digit_recognizer.errors import BadInput, KitError, printable
from digit_recognizer.kaggle import connection, credentials
from digit_recognizer.kaggle.connection import Failure
from digit_recognizer.kaggle.credentials import Credentials

SLUG = dataset.SLUG
COMPETITION_PAGE = f"https://www.kaggle.com/competitions/{SLUG}"
RULES_PAGE = f"{COMPETITION_PAGE}/rules"
CONNECT, READ = 10, 60  # seconds
TRIES = 4
LONGEST_PAUSE = 60  # seconds
DAY = 86_400  # seconds
CHUNK = 1 << 14  # at most so much of a broken download is fetched again
PAGES = 1_000  # of a list; more is a list without end
FILE_LIMIT = 1 << 28  # bytes of one downloaded file; the competition's zip has 16 MB, a trained network 40 MB
OUTPUT_LIMIT = 1 << 32  # bytes of all files of a kernel
OUTPUT_FILES = 5_000
MESSAGE_LENGTH = 300
SHOWN = 7  # characters of a secret in a row that a message may contain
SCORE = re.compile(r"[01](\.[0-9]{1,20})?|\.[0-9]{1,20}")
# What the SDK raises where an answer is not of the form that it expects.
UNREADABLE = (ValueError, LookupError, TypeError, AttributeError, RecursionError)
Answer = TypeVar("Answer")
Entry = TypeVar("Entry")


@dataclass(frozen=True)
class Submission:
    """A submission as Kaggle lists it; ``status`` is ``pending``, ``complete`` or ``error``."""

    reference: str
    file: str
    description: str
    status: str
    public_score: str
    error: str


class UnknownOutcome(KitError):
    """A submission may have arrived or not: it was sent, and the answer was lost."""


class Client:
    """Digit Recognizer on Kaggle, as one person; a context manager.

    Every method raises ``KitError`` with a line for people where Kaggle refuses, cannot be reached or gives an answer
    that cannot be read. Texts of Kaggle's are given without line breaks, terminal escapes and secrets.

    Args:
        person: whose credentials.
        tries: how often a call that may be repeated is made before it is given up.
    """

    def __init__(self, person: Credentials, *, tries: int = TRIES) -> None:
        self._person, self._tries = person, tries
        self._token = person.secret
        pair = f"{person.username}:{person.secret}".encode()
        self._secrets = [person.secret, base64.b64encode(pair).decode()]  # as it is, and as it is sent

    def __enter__(self) -> Self:
        from kagglesdk import KaggleClient, KaggleCredentials
        from requests.adapters import HTTPAdapter

        class Limited(HTTPAdapter):
            """Sets a time limit, which Kaggle's client does not, and refuses a web page in place of an answer."""

            def send(self, *words: Any, **named: Any) -> Any:
                named["timeout"] = named.get("timeout") or (CONNECT, READ)
                response = super().send(*words, **named)
                connection.refuse_page(response)
                return response

        def opened(token: str = "", pair: tuple[str, str] | None = None) -> Any:
            # Without a token the SDK looks for credentials itself and reads files that were read or refused here.
            try:
                client = KaggleClient(user_agent="digit-recognizer-kit", api_token=token or "none")
                client.__enter__()
            except Exception as error:  # the SDK raises nothing more specific
                raise BadInput(f"KAGGLE_API_ENVIRONMENT: {error}", hint="unset it") from error
            connection.check_environment(client.http_client()._endpoint)
            session = client.http_client()._session
            if not token:
                session.auth = pair
            for scheme in ("https://", "http://"):
                session.mount(scheme, Limited())
            return client

        if self._person.kind == "login":
            # Not the access token kept beside it, which the SDK takes for good for half an hour after its end.
            with opened() as anonymous:
                login = KaggleCredentials(anonymous, refresh_token=self._person.secret)
                self._token = self._call(lambda: str(login.generate_access_token().token or ""))
            if not self._token:
                raise self._refused()
            self._secrets.append(self._token)
        if self._person.kind == "key":
            self._client = opened(pair=(self._person.username, self._person.secret))
        else:
            self._client = opened(self._token)
        self._api = self._client.competitions.competition_api_client
        return self

    def __exit__(self, *_: object) -> None:
        self._client.__exit__(None, None, None)

    def username(self) -> str:
        """The user name that the credentials belong to, as far as Kaggle says."""
        if self._person.username:
            self.submissions_left_today()  # a wrong key is refused here
            return self._person.username
        from kagglesdk.security.types.oauth_service import IntrospectTokenRequest

        request = IntrospectTokenRequest()
        request.token = self._token

        def name() -> str:
            answer = self._client.security.oauth_client.introspect_token(request)
            if not answer.active:
                raise self._refused()
            if not credentials.is_user_name(found := _text(answer.username)):
                raise ValueError(f"user name {found!r}")
            return found

        return self._call(name)

    def has_joined(self) -> bool:
        """Whether the account has joined the competition, which is to accept its rules."""
        from kagglesdk.competitions.types.competition_api_service import ApiGetCompetitionRequest

        request = ApiGetCompetitionRequest()
        request.competition_name = SLUG
        return bool(self._call(lambda: self._api.get_competition(request)).user_has_entered)

    def submissions_left_today(self) -> int:
        """How many submissions the account may still send today (a day of UTC)."""
        from kagglesdk.competitions.types.competition_api_service import ApiGetSubmissionLimitsRequest

        request = ApiGetSubmissionLimitsRequest()
        request.competition_name = SLUG
        return self._call(lambda: int(self._api.get_submission_limits(request).num_allowed_now))

    def list_submissions(self) -> list[Submission]:
        """All submissions of the account, the newest first."""
        from kagglesdk.competitions.types.competition_api_service import ApiListSubmissionsRequest

        request = ApiListSubmissionsRequest()
        request.competition_name = SLUG
        found = self._listed(self._api.list_submissions, request, lambda page: list(map(self._sent, page.submissions)))
        return list(found)

    def get_submission(self, reference: str) -> Submission:
        """A submission by its reference."""
        from kagglesdk.competitions.types.competition_api_service import ApiGetSubmissionRequest

        request = ApiGetSubmissionRequest()
        request.ref = int(reference)

        def found() -> Submission:
            answer = self._api.get_submission(request)
            sent = self._sent(answer)
            if answer.public_score and not sent.public_score:
                raise ValueError(f"publicScore {str(answer.public_score)[:30]!r}")
            return sent

        return self._call(found)

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
                response = requests.put(begun.create_url, data=content, timeout=(CONNECT, READ))
            response.raise_for_status()
            if response.status_code >= 300:  # 308: the storage has a part only
                raise requests.exceptions.ConnectionError("the upload is not complete")
            return str(begun.token)

        return self._call(whole)

    def submit(self, token: str, description: str) -> str:
        """Submit an uploaded file, once, and give Kaggle's reference.

        Raises:
            Unclear: the answer was lost, so it may count as one of the day's submissions.
            KitError: Kaggle refused it or was not reached; it does not count.
        """
        import requests
        from kagglesdk.competitions.types.competition_api_service import ApiCreateSubmissionRequest

        request = ApiCreateSubmissionRequest()
        request.competition_name = SLUG
        request.blob_file_tokens = token
        request.submission_description = description
        try:
            answer = self._api.create_submission(request)
            reference, message = _reference(answer.ref) if answer.ref else "", self._clean(answer.message)
        except (requests.exceptions.RequestException, connection.HtmlPage, *UNREADABLE) as error:
            failure = self._failure(error)
            raise (UnknownOutcome if failure.sent else KitError)(failure.line, hint=failure.hint) from error
        if not reference:
            raise KitError(f"Kaggle took no submission: {message or 'it gave no reference'}")
        return reference

    def download_data(self, folder: Path) -> None:
        """Download the competition's zip, go on where an earlier download broke off, and unpack it.

        What is left in ``folder`` is ``train.csv`` and ``test.csv``, whole. Processes that download into one folder do
        so one after the other; what one of them has brought is not downloaded again by those that waited for it.

        Raises:
            BadInput: the folder cannot be written.
            KitError: what came is damaged.
        """
        from kagglesdk.competitions.types.competition_api_service import ApiDownloadDataFilesRequest

        request = ApiDownloadDataFilesRequest()
        request.competition_name = SLUG
        with files.explained(folder):
            before = _times(files.folder(folder))
            with _alone(folder) as waited:
                after = _times(folder)
                if waited and after != before and len(after) == len(csv_reader.COLUMNS):
                    return
                part = self._call(lambda: self._fetch(self._api.download_data_files(request), folder))
                try:
                    dataset.extract(part, folder)
                except BadInput as error:
                    if isinstance(error.__cause__, OSError):  # the folder's fault, such as a full disk
                        raise
                    part.unlink()
                    raise KitError(
                        f"the download from Kaggle is damaged and was removed ({error})", hint="run it again"
                    ) from error
                part.unlink()

    def push_kernel(self, code: Path, metadata: dict[str, Any]) -> str:
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
        saved = self._call(
            lambda: self._client.kernels.kernels_api_client.save_kernel(request),
            tries=1,
            lost="Kaggle may have received the kernel; see make status before sending it again",
        )
        if saved.error or saved.invalid_competition_sources:
            raise KitError(f"Kaggle took no kernel: {self._clean(saved.error or 'it does not know the competition')}")
        return self._clean(saved.url)

    def kernel_status(self, slug: str) -> tuple[str, str]:
        """How the newest version of ``slug``, ``user/kernel``, fares: a status in small letters, and why it failed."""
        from kagglesdk.kernels.types.kernels_api_service import ApiGetKernelSessionStatusRequest

        request = ApiGetKernelSessionStatusRequest()
        request.user_name, request.kernel_slug = slug.split("/")

        def found() -> tuple[str, str]:
            answer = self._client.kernels.kernels_api_client.get_kernel_session_status(request)
            return answer.status.name.lower(), self._clean(answer.failure_message)

        return self._call(found)

    def download_kernel_output(self, slug: str, folder: Path) -> None:
        """Download the files that the newest version of ``slug`` left into ``folder``, hidden ones left out.

        Raises:
            BadInput: a file's name cannot be part of a path.
            KitError: a file's name leads outside ``folder``, or there is more than a run leaves.
        """
        from kagglesdk.kernels.types.kernels_api_service import ApiListKernelSessionOutputRequest
        from tqdm import tqdm

        request = ApiListKernelSessionOutputRequest()
        request.user_name, request.kernel_slug = slug.split("/")
        call = self._client.kernels.kernels_api_client.list_kernel_session_output
        wanted: dict[Path, str] = {}
        for count, (name, url) in enumerate(
            self._listed(call, request, lambda page: [(_text(file.file_name), _text(file.url)) for file in page.files])
        ):
            if count >= OUTPUT_FILES:
                raise KitError(f"{slug}: left more than {OUTPUT_FILES:,} files, which no run does")
            if path := _inside(folder, name, slug):
                wanted[path] = url
        left = OUTPUT_LIMIT
        for path, url in tqdm(wanted.items(), desc=printable(slug), unit="file", disable=None):
            left -= self._call(partial(_save, url, path, min(FILE_LIMIT, left)))

    def _fetch(self, response: Any, folder: Path) -> Path:
        """Bring the zip that ``response`` begins to send into a file of ``folder``, and give its path."""
        import requests
        from tqdm import tqdm

        # Named by what Kaggle has now, so that the rest of another file is never put behind this one's beginning.
        version = f"{response.headers.get('ETag')} {response.headers.get('Content-Length')}"
        part = folder / f".{hashlib.sha256(version.encode()).hexdigest()[:16]}-{dataset.ARCHIVE}"
        for name in (f".*-{dataset.ARCHIVE}", *(f".{table}.csv.*.part" for table in csv_reader.COLUMNS)):
            for stale in folder.glob(name):
                if stale != part:
                    stale.unlink(missing_ok=True)
        total = _stated(response)
        _bounded(total, FILE_LIMIT, dataset.ARCHIVE)
        have = part.stat().st_size if part.exists() else 0
        if total and have == total:
            response.close()
            return part
        if total and have > total:
            have = 0
        if have:
            response.close()
            headers = {"Range": f"bytes={have}-"}
            response = requests.get(response.url, headers=headers, stream=True, timeout=(CONNECT, READ))
            connection.refuse_page(response)
            if response.status_code == 416:  # there is no such rest
                part.unlink()
                raise requests.exceptions.ConnectionError("the download begins anew")
            response.raise_for_status()
            have = have if response.status_code == 206 else 0
        bar = tqdm(desc=dataset.ARCHIVE, total=total or None, initial=have, unit="B", unit_scale=True, disable=None)
        try:
            with response, part.open("ab" if have else "wb") as out, bar:
                for chunk in response.iter_content(CHUNK):
                    have += len(chunk)
                    _bounded(have, FILE_LIMIT, dataset.ARCHIVE)
                    out.write(chunk)
                    bar.update(len(chunk))
        except KitError:
            part.unlink()
            raise
        if have < total:
            raise requests.exceptions.ConnectionError("the connection was cut")
        return part

    def _listed(
        self, call: Callable[[Any], Any], request: Any, entries: Callable[[Any], list[Entry]]
    ) -> Iterator[Entry]:
        """Give what ``entries`` reads from each page of a list, page after page."""
        request.page_size = 100
        seen = {""}
        for _ in range(PAGES):
            found, token = self._call(lambda: (entries(page := call(request)), str(page.next_page_token or "")))
            yield from found
            if token in seen:
                return
            seen.add(token)
            request.page_token = token
        raise KitError(f"Kaggle's list does not end after {PAGES:,} pages", hint="run it again later")

    def _call(self, call: Callable[[], Answer], *, tries: int | None = None, lost: str = "") -> Answer:
        """Make a call that may be repeated; where Kaggle is busy or away, wait and try again.

        Args:
            call: makes it and reads the answer.
            tries: how often, unless it is as often as any other.
            lost: the hint where the request may have arrived although no answer came.
        """
        import requests

        tries = tries or self._tries
        for tried in range(1, tries + 1):
            try:
                return call()
            except (requests.exceptions.RequestException, connection.HtmlPage, *UNREADABLE) as error:
                failure, pause = self._failure(error), _pause(error, 2.0 ** (tried - 1))
                if not failure.passing or tried == tries or pause > LONGEST_PAUSE:
                    hint = lost if lost and failure.sent else failure.hint
                    raise KitError(failure.line, hint=hint) from error
                time.sleep(pause)
        raise AssertionError("unreachable")

    def _failure(self, error: Exception) -> Failure:
        """What people need to know of a failed call."""
        status = _status(error)
        if status is None:
            if failure := connection.diagnose(error):
                return failure
            what = self._clean(f"unexpected {error}" if isinstance(error, KeyError) else error, 120)
            hint = f"see {COMPETITION_PAGE}; a newer version of the package kagglesdk may be able to read it"
            return Failure(f"Kaggle's answer cannot be read ({what})", hint, sent=True)
        response: Any = getattr(error, "response", None)
        if status == 407:
            return connection.proxy_login(str(response.url))
        # Storage, which files go to and come from, is not Kaggle's API and knows neither accounts nor rules.
        api = re.search(r"/v1/(competitions|kernels|security|users)\.\w+/(\w+)$", str(response.url))
        service, call = api.groups() if api else ("", "")
        said = self._clean(_message(error))
        if status == 401 and api:
            refused = self._refused()
            return Failure(str(refused), refused.hint)
        if status == 429:
            pause = _pause(error, LONGEST_PAUSE)
            hint = f"wait {pause:.0f} s and run it again" if pause <= DAY else "run it again on another day"
            return Failure("Kaggle asks for fewer calls (429)", hint, passing=True)
        if status >= 500:
            return Failure(f"Kaggle failed ({status}{said})", "run it again later", passing=True, sent=True)
        line, hint = f"Kaggle refuses ({status}{said})", ""
        if status == 404:
            line = f"Kaggle does not find it (404{said})"
            hint = f"see whether {RULES_PAGE} still opens" if service == "competitions" else ""
        elif status == 403 and re.search("phone|verif", said, re.IGNORECASE):
            hint = f"verify your phone number at {credentials.SETTINGS_PAGE}"
        elif status == 403 and service == "competitions":
            hint = f"if you have not yet, accept the competition's rules at {RULES_PAGE}, and run it again"
        if status in (403, 404) and call in ("GetKernelSessionStatus", "ListKernelSessionOutput"):
            hint = hint or "make push sends the kernel, if this account has none yet"
        return Failure(line, hint)

    def _refused(self) -> KitError:
        rest = "" if self._person.kind == "login" else ", or remove this one to use another source"
        what = f"the {self._person.kind} from {self._person.source}"
        return KitError(
            f"Kaggle does not know {what}: expired or wrong",
            hint=f"make a new one at {credentials.SETTINGS_PAGE}{rest}",
        )

    def _clean(self, text: object, length: int = MESSAGE_LENGTH) -> str:
        """Give a text of Kaggle's in one line, without terminal escapes, secrets and parts of secrets."""
        shown = "" if text is None else str(text)[: 10 * MESSAGE_LENGTH]
        for secret in filter(None, self._secrets):
            shown = _without(shown, secret)
        return printable(" ".join(shown.split()))[:length]

    def _sent(self, answer: Any) -> Submission:
        score = "" if answer.public_score is None else str(answer.public_score)
        return Submission(
            reference=_reference(answer.ref),
            file=self._clean(answer.file_name),
            description=printable(" ".join(str(answer.description or "").split())),  # the user's, searched for a digest
            status=answer.status.name.lower(),
            public_score=score if SCORE.fullmatch(score) and float(score) <= 1 else "",
            error=self._clean(answer.error_description),
        )


def connect() -> Client:
    """Kaggle, for whoever the credentials on this machine are of; ``BadInput`` where there are none."""
    if person := credentials.find():
        return Client(person)
    raise BadInput(credentials.NONE, hint=credentials.GET_ONE)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"expected a text, found {str(value)[:30]!r}")
    return value


def _reference(ref: Any) -> str:
    if isinstance(ref, bool) or not re.fullmatch("[1-9][0-9]{0,17}", str(ref)):
        raise ValueError(f"ref {str(ref)[:30]!r}")
    return str(ref)


def _without(text: str, secret: str) -> str:
    """Replace a secret, and each part of it that is longer than ``SHOWN`` characters, by ``…``."""
    size = min(len(secret), SHOWN + 1)
    parts = {secret[i : i + size] for i in range(len(secret) - size + 1)}
    hidden = [False] * len(text)
    for i in range(len(text) - size + 1):
        if text[i : i + size] in parts:
            hidden[i : i + size] = [True] * size
    return "".join(
        "…" if hide else "".join(character for character, _ in pairs)
        for hide, pairs in groupby(zip(text, hidden, strict=True), key=lambda pair: pair[1])
    )


@contextmanager
def _alone(folder: Path) -> Iterator[bool]:
    """Hold the folder's lock through the block; yield whether another process held it before."""
    path, waited = folder / ".download.lock", False
    try:
        lock = files.lock(path, wait=False)
    except BlockingIOError:
        waited = True
        print(f"{folder}/: waiting for another process that downloads into it", flush=True)
        lock = files.lock(path, wait=True)
    with lock:
        try:
            yield waited
        finally:
            with suppress(OSError):  # Windows removes no open file
                path.unlink()


def _times(folder: Path) -> list[int]:
    """When each of the competition's tables in a folder was written."""
    tables = [folder / f"{table}.csv" for table in csv_reader.COLUMNS]
    return [table.stat().st_mtime_ns for table in tables if table.exists()]


def _inside(folder: Path, name: str, where: str) -> Path | None:
    """Give the path of a kernel's file in ``folder``; None for a hidden one, which no run needs."""
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts:
        raise KitError(f"{where}: left a file {name[:60]!a}, which points outside")
    if any(part.startswith(".") for part in parts):
        return None
    path = folder.joinpath(*(files.safe_name(part, where) for part in parts))
    if path.parent.resolve() != folder.resolve().joinpath(*parts[:-1]):
        raise KitError(f"{where}: left a file {name[:60]!a}, and {path.parent} points outside")
    return path


def _save(url: str, path: Path, limit: int) -> int:
    """Download a file, of ``limit`` bytes at most, and give its size."""
    import requests

    with requests.get(url, stream=True, timeout=(CONNECT, READ)) as response:
        response.raise_for_status()
        stated, size = _stated(response), 0
        _bounded(stated, limit, path.name)
        with _new(path) as out:
            for chunk in response.iter_content(CHUNK):
                size += len(chunk)
                _bounded(size, limit, path.name)
                with files.explained(path):
                    out.write(chunk)
    if size < stated and "Content-Encoding" not in response.headers:
        raise requests.exceptions.ConnectionError("the connection was cut")
    return size


def _new(path: Path) -> IO[bytes]:
    """Make a file, in place of what is there; a symbolic link is not followed."""
    with files.explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        return path.open("xb")


def _bounded(size: int, limit: int, name: str) -> None:
    if size > limit:
        raise KitError(f"{name}: has {size:,} bytes or more, expected at most {limit:,}")


def _stated(response: Any) -> int:
    """The size that a response states; 0 where it states none."""
    text = response.headers.get("Content-Length", "")
    return int(text[:18]) if re.fullmatch("[0-9]+", text) else 0


def _status(error: Exception) -> int | None:
    """The HTTP status of a failed call; None where no whole answer came."""
    response = getattr(error, "response", None)
    if response is None:
        return None
    with suppress(*UNREADABLE):  # Kaggle may put the true one into the body of a 200
        if 400 <= (code := int(response.json()["code"])) < 600:
            return code
    return int(response.status_code) if response.status_code >= 400 else None


def _message(error: Exception) -> str:
    response = getattr(error, "response", None)
    with suppress(*UNREADABLE):
        return f": {response.json()['message']}"  # type: ignore[union-attr]
    return ""


def _pause(error: Exception, otherwise: float) -> float:
    """Seconds that Kaggle asks to wait, as a number or as a date; else ``otherwise``."""
    response = getattr(error, "response", None)
    value = response.headers.get("Retry-After", "").strip() if response is not None else ""
    if re.fullmatch("[0-9]+", value):
        return float(value[:18])
    with suppress(ValueError, TypeError, OverflowError):
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    return otherwise
