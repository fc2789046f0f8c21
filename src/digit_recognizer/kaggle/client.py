"""The client of Kaggle's API: the account, submissions, the competition's files, kernels.

It uses ``kagglesdk``, the part of the official package ``kaggle`` that calls the API. The module ``kaggle`` itself is
never imported: its import authenticates, creates a folder in the user's home, and in some releases prints or exits.
Every call has a time limit and a bounded number of tries, and no error message contains a secret.
"""

import base64
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self, TypeVar

from digit_recognizer import hints
from digit_recognizer.data import dataset
from digit_recognizer.errors import BadInput, KitError, printable
from digit_recognizer.kaggle import connection, credentials, downloads, responses
from digit_recognizer.kaggle.connection import Failure
from digit_recognizer.kaggle.credentials import Credentials
from digit_recognizer.kaggle.retry import call_with_retries

SLUG = dataset.SLUG
RULES_PAGE = responses.RULES_PAGE
Submission = responses.Submission
TRIES = 4
PAGES = 1_000  # at most, of a list
QUIET = 30.0  # seconds; a stream that breaks off later has no fault, but nothing to send
Result = TypeVar("Result")
Entry = TypeVar("Entry")


class UnknownOutcome(KitError):
    """The response to a submission was lost, so Kaggle may have received it or not."""


class Client:
    """Kaggle's API for the Digit Recognizer competition and one account; a context manager.

    Methods raise ``KitError`` with a one-line message if Kaggle refuses the request, cannot be reached, or sends a
    response that cannot be read. Texts from Kaggle are returned in one line, without terminal escapes and secrets.

    Args:
        account: the credentials.
        tries: how often a call that can be repeated safely is made at most.
    """

    def __init__(self, account: Credentials, *, tries: int = TRIES) -> None:
        self._account, self._tries = account, tries
        self._token = account.secret
        sent = base64.b64encode(f"{account.username}:{account.secret}".encode()).decode()  # in headers
        self._redactor = responses.Redactor(account.secret, sent)

    def __enter__(self) -> Self:
        if self._account.kind == "key":
            self._sdk = connection.open_sdk(user_and_key=(self._account.username, self._account.secret))
        else:
            if self._account.kind == "login":
                self._token = self._new_access_token()
            self._sdk = connection.open_sdk(token=self._token)
        self._competitions = self._sdk.competitions.competition_api_client
        self._kernels = self._sdk.kernels.kernels_api_client
        return self

    def __exit__(self, *_: object) -> None:
        self._sdk.__exit__(None, None, None)

    def username(self) -> str:
        """Return the user name that the credentials belong to."""
        if self._account.username:
            self.submissions_left_today()  # fails if the key is wrong
            return self._account.username
        from kagglesdk.security.types.oauth_service import IntrospectTokenRequest

        request = _request(IntrospectTokenRequest, token=self._token)

        def name() -> str:
            response = self._sdk.security.oauth_client.introspect_token(request)
            if not response.active:
                raise responses.rejected_credentials(self._account)
            if not credentials.is_user_name(text := responses.read_text(response.username)):
                raise ValueError(f"user name {text!r}")
            return text

        return self._call(name)

    def has_joined(self) -> bool:
        """Return whether the account has joined the competition, which requires accepting its rules."""
        from kagglesdk.competitions.types.competition_api_service import ApiGetCompetitionRequest

        request = _request(ApiGetCompetitionRequest, competition_name=SLUG)
        return bool(self._call(lambda: self._competitions.get_competition(request)).user_has_entered)

    def submissions_left_today(self) -> int:
        """Return how many more submissions the account may send today; days begin at 00:00 UTC."""
        from kagglesdk.competitions.types.competition_api_service import ApiGetSubmissionLimitsRequest

        request = _request(ApiGetSubmissionLimitsRequest, competition_name=SLUG)
        return self._call(lambda: int(self._competitions.get_submission_limits(request).num_allowed_now))

    def list_submissions(self) -> list[Submission]:
        """Return all submissions of the account, the newest first."""
        from kagglesdk.competitions.types.competition_api_service import ApiListSubmissionsRequest

        request = _request(ApiListSubmissionsRequest, competition_name=SLUG)

        def read(page: Any) -> list[Submission]:
            return [responses.read_submission(item, self._redactor) for item in page.submissions]

        return list(self._list(self._competitions.list_submissions, request, read))

    def get_submission(self, reference: str) -> Submission:
        """Return a submission by its reference."""
        from kagglesdk.competitions.types.competition_api_service import ApiGetSubmissionRequest

        request = _request(ApiGetSubmissionRequest, ref=int(reference))

        def submission() -> Submission:
            response = self._competitions.get_submission(request)
            submission = responses.read_submission(response, self._redactor)
            if response.public_score and not submission.public_score:
                raise ValueError(f"publicScore {str(response.public_score)[:30]!r}")
            return submission

        return self._call(submission)

    def upload(self, file: Path) -> str:
        """Upload a file, which does not count as a submission yet, and return the token to submit it."""
        import requests
        from kagglesdk.competitions.types.competition_api_service import ApiStartSubmissionUploadRequest

        status = file.stat()
        request = _request(
            ApiStartSubmissionUploadRequest,
            competition_name=SLUG,
            file_name=file.name,
            content_length=status.st_size,
            last_modified_epoch_seconds=int(status.st_mtime),
        )

        def token() -> str:
            upload = self._competitions.start_submission_upload(request)
            with file.open("rb") as content:
                response = requests.put(upload.create_url, data=content, timeout=connection.TIMEOUT)
            response.raise_for_status()
            if response.status_code >= 300:  # 308: storage has only a part of the file
                raise requests.exceptions.ConnectionError("the upload is incomplete")
            return str(upload.token)

        return self._call(token)

    def submit(self, token: str, description: str) -> str:
        """Submit an uploaded file, without retries, and return the submission's reference.

        Raises:
            UnknownOutcome: the response was lost; the submission may count.
            KitError: Kaggle refused the submission or was not reached; it does not count.
        """
        from kagglesdk.competitions.types.competition_api_service import ApiCreateSubmissionRequest

        request = _request(
            ApiCreateSubmissionRequest,
            competition_name=SLUG,
            blob_file_tokens=token,
            submission_description=description,
        )
        try:
            response = self._competitions.create_submission(request)
            reference = responses.read_reference(response.ref) if response.ref else ""
            message = self._redactor.clean(response.message)
        except connection.call_errors() as error:
            failure = self._describe(error)
            error_type = UnknownOutcome if failure.maybe_received else KitError
            raise error_type(failure.message, hint=failure.hint) from error
        if not reference:
            raise KitError(f"Kaggle did not accept the submission: {message or 'no reference in the response'}")
        return reference

    def download_data(self, folder: Path) -> None:
        """Download ``train.csv`` and ``test.csv`` into ``folder``; an interrupted download is resumed.

        Raises:
            BadInput: the folder cannot be written.
            KitError: the download is damaged.
        """
        from kagglesdk.competitions.types.competition_api_service import ApiDownloadDataFilesRequest

        request = _request(ApiDownloadDataFilesRequest, competition_name=SLUG)

        def fetch() -> Path:
            return downloads.fetch_archive(self._competitions.download_data_files(request), folder)

        downloads.download_tables(folder, lambda: self._call(fetch))

    def push_kernel(self, code: Path, metadata: dict[str, Any]) -> str:
        """Create or update a kernel, which Kaggle then runs, and return the address of its page.

        Args:
            code: the script or notebook.
            metadata: the content of ``kernel-metadata.json``.
        """
        from kagglesdk.kernels.types.kernels_api_service import ApiSaveKernelRequest

        names = ("language", "kernel_type", "is_private", "enable_gpu", "enable_tpu", "enable_internet")
        request = _request(
            ApiSaveKernelRequest,
            slug=metadata["id"],
            new_title=metadata["title"],
            text=code.read_text(encoding="utf-8"),
            competition_data_sources=metadata["competition_sources"],
            **{name: metadata[name] for name in names},
        )
        if "machine_shape" in metadata:
            request.machine_shape = metadata["machine_shape"]
        response = self._call(
            lambda: self._kernels.save_kernel(request),
            tries=1,
            maybe_received_hint=f"Kaggle may have received the kernel: check `{hints.command('status')}` first",
        )
        if response.error or response.invalid_competition_sources:
            reason = self._redactor.clean(response.error or "competition not found")
            raise KitError(f"Kaggle did not accept the kernel: {reason}")
        return self._redactor.clean(response.url)

    def kernel_status(self, slug: str) -> tuple[str, str]:
        """Return the status of the newest version of ``slug``, ``user/kernel``, in lower case, and why it failed."""
        from kagglesdk.kernels.types.kernels_api_service import ApiGetKernelSessionStatusRequest

        user, kernel = slug.split("/")
        request = _request(ApiGetKernelSessionStatusRequest, user_name=user, kernel_slug=kernel)

        def status() -> tuple[str, str]:
            response = self._kernels.get_kernel_session_status(request)
            return response.status.name.lower(), self._redactor.clean(response.failure_message)

        return self._call(status)

    def kernel_log(self, slug: str) -> Iterator[str]:
        """Yield the lines of the log of the newest version of ``slug``; while it runs, wait for more until it ends.

        A stream that breaks off is opened again. It then begins with the first line; lines already yielded are skipped.
        """
        from kagglesdk.kernels.types.kernels_api_service import ApiGetKernelSessionLogsStreamRequest

        user, kernel = slug.split("/")
        request = _request(ApiGetKernelSessionLogsStreamRequest, user_name=user, kernel_slug=kernel)
        yielded = broken = 0
        while True:
            opened = time.monotonic()
            stream = self._call(lambda: self._kernels.get_kernel_session_logs_stream(request))
            try:
                for number, line in enumerate(_lines(responses.read_log(stream)), 1):
                    if number > yielded:
                        yielded, broken = number, 0
                        yield printable(self._redactor.redact(line).expandtabs())
                return
            except connection.call_errors() as error:
                if time.monotonic() - opened < QUIET:  # else no line was written for a while
                    broken += 1
                if broken >= self._tries:
                    failure = self._describe(error)
                    raise KitError(failure.message, hint=failure.hint) from error
            finally:
                stream.close()
            time.sleep(1)

    def accelerator_quota(self) -> dict[str, tuple[float, float]]:
        """Return for GPU and TPU the hours that are left this week, and those of the whole week."""
        from kagglesdk.kernels.types.kernels_api_service import ApiGetAcceleratorQuotaStatisticsRequest

        def quota() -> dict[str, tuple[float, float]]:
            response = self._kernels.get_accelerator_quota_statistics(ApiGetAcceleratorQuotaStatisticsRequest())
            hours = {}
            for name, entry in (("GPU", response.gpu_quota), ("TPU", response.tpu_quota)):
                if entry is not None and entry.total_time_allowed is not None:
                    total = entry.total_time_allowed.total_seconds() / 3600
                    used = entry.time_used.total_seconds() / 3600 if entry.time_used else 0.0
                    hours[name] = (max(0.0, total - used), total)
            return hours

        return self._call(quota)

    def download_kernel_output(self, slug: str, folder: Path) -> None:
        """Download the output files of the newest version of ``slug`` into ``folder``, except hidden ones.

        Raises:
            BadInput: a file's name is not safe as a path.
            KitError: a file's name points outside ``folder``, or there are too many or too large files.
        """
        from kagglesdk.kernels.types.kernels_api_service import ApiListKernelSessionOutputRequest

        user, kernel = slug.split("/")
        request = _request(ApiListKernelSessionOutputRequest, user_name=user, kernel_slug=kernel)

        def read(page: Any) -> list[tuple[str, str]]:
            return [(responses.read_text(file.file_name), responses.read_text(file.url)) for file in page.files]

        listing = self._list(self._kernels.list_kernel_session_output, request, read)
        downloads.download_output(listing, folder, slug, self._call)

    def _new_access_token(self) -> str:
        """Request an access token for the refresh token of a login."""
        # The access token stored with it is not used: the SDK accepts that one for 30 minutes after it has expired.
        from kagglesdk import KaggleCredentials

        with connection.open_sdk() as anonymous:
            login = KaggleCredentials(anonymous, refresh_token=self._account.secret)
            token = self._call(lambda: str(login.generate_access_token().token or ""))
        if not token:
            raise responses.rejected_credentials(self._account)
        self._redactor.add(token)
        return token

    def _list(self, call: Callable[[Any], Any], request: Any, read: Callable[[Any], list[Entry]]) -> Iterator[Entry]:
        """Yield what ``read`` returns for each page of a list."""
        request.page_size = 100
        seen = {""}
        for _ in range(PAGES):
            entries, token = self._call(lambda: (read(page := call(request)), str(page.next_page_token or "")))
            yield from entries
            if token in seen:
                return
            seen.add(token)
            request.page_token = token
        raise KitError(f"Kaggle's list has more than {PAGES:,} pages", hint="run the command again later")

    def _call(self, call: Callable[[], Result], *, tries: int | None = None, maybe_received_hint: str = "") -> Result:
        return call_with_retries(
            call, self._describe, tries=tries or self._tries, maybe_received_hint=maybe_received_hint
        )

    def _describe(self, error: Exception) -> Failure:
        return responses.describe(error, self._account, self._redactor)


def _lines(parts: Iterator[str]) -> Iterator[str]:
    """Split texts into lines; a line may extend over several texts."""
    rest = ""
    for part in parts:
        *lines, rest = (rest + part).split("\n")
        yield from lines
    if rest:
        yield rest


def connect() -> Client:
    """Return a client with the credentials of this machine; ``BadInput`` if there are none."""
    if account := credentials.find():
        return Client(account)
    raise BadInput(credentials.MISSING, hint=credentials.CREATE_HINT)


def _request(request_type: Callable[[], Any], **fields: Any) -> Any:
    """Create a request of the SDK, whose constructors take no arguments."""
    request = request_type()
    for name, value in fields.items():
        setattr(request, name, value)
    return request
