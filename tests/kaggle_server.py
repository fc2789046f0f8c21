"""A fake Kaggle server on loopback: the API calls of this project, one account, random labels, faults on demand."""

import base64
import hashlib
import io
import json
import socket
import ssl
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from time import sleep
from typing import Any
from urllib.parse import quote, unquote

import numpy as np

TOKEN = "KGAT_0123456789abcdef-a-secret"
USER, KEY = "ada", "fedcba9876543210-a-secret"
LOGIN = "KGRT_89abcdef-a-secret"
KERNEL = f"{USER}/digit-recognizer-kit"
METADATA: dict[str, Any] = {
    **dict.fromkeys(("is_private", "enable_gpu", "enable_tpu", "enable_internet"), False),
    "id": KERNEL,
    "title": "title",
    "language": "python",
    "kernel_type": "script",
    "competition_sources": [],
}
LABELS = np.random.default_rng(1).integers(0, 10, 28_000)


def submission(wrong: int) -> bytes:
    """Return a valid submission file in which this many rows are wrong."""
    digits = LABELS.copy()
    digits[:wrong] = (digits[:wrong] + 1) % 10
    return ("ImageId,Label\n" + "".join(f"{i},{digit}\n" for i, digit in enumerate(digits, 1))).encode()


@dataclass
class Fault:
    """A failure of a call, before the server acts on it or, with ``after``, in place of the response."""

    status: int | None = None  # None closes the connection
    body: dict[str, Any] | None = None
    headers: dict[str, str] = field(default_factory=dict)
    after: bool = False
    seconds: float = 0  # to wait first


@dataclass
class Server:
    """The state of the server, and the calls that it received.

    Attributes:
        calls: the names of all calls, in order.
        faults: call → faults of the next calls; the first is kept if ``lasting`` contains the call.
        submissions: the newest first.
        uploads: token → content.
        limit: submissions per day.
        entered: whether the account has joined the competition.
        polls: requests for a submission before it has a score; None for a score that never comes.
        reject: the reason why the next submission ends in an error.
        listed: False hides submissions from the list, as when Kaggle's list lags behind.
        archive: the zip to download; only ``cut`` bytes are sent for the first ``cuts`` requests.
        ranges: the header Range of each download; empty if there is none.
        kernels: the pushed kernels; ``output`` are the output files of the newest, by name.
        output_headers: headers of the output files; empty ones are not sent.
        log: the parts of the newest kernel's log, as server-sent events while ``kernel_status`` is RUNNING.
        log_breaks: the number of parts after which the next streams break off.
        quota: hours used and allowed of the GPU; None if Kaggle does not tell them.
    """

    address: str = ""
    calls: list[str] = field(default_factory=list)
    faults: dict[str, list[Fault]] = field(default_factory=dict)
    lasting: set[str] = field(default_factory=set)
    submissions: list[dict[str, Any]] = field(default_factory=list)
    uploads: dict[str, bytes] = field(default_factory=dict)
    limit: int = 5
    entered: bool = True
    polls: int | None = 1
    reject: str = ""
    listed: bool = True
    archive: bytes = b""
    cut: int = 0
    cuts: int = 0
    ranges: list[str] = field(default_factory=list)
    kernels: list[dict[str, Any]] = field(default_factory=list)
    kernel_status: str = "COMPLETE"
    kernel_failure: str = ""
    output: dict[str, bytes] = field(default_factory=dict)
    output_headers: dict[str, str] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)
    log_breaks: list[int] = field(default_factory=list)
    quota: tuple[float, float] | None = (4.5, 30)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def fail(self, call: str, *faults: Fault, always: bool = False) -> None:
        """Make the next calls fail with these faults in turn, or all calls with the first."""
        self.faults[call] = list(faults)
        if always:
            self.lasting.add(call)

    def next_fault(self, call: str) -> Fault | None:
        """Record a call, and return its fault if there is one."""
        with self.lock:
            self.calls.append(call)
            left = self.faults.get(call)
            if not left:
                return None
            return left[0] if call in self.lasting else left.pop(0)

    def answer(self, call: str, request: dict[str, Any]) -> dict[str, Any]:
        """Process a JSON call, and return its response."""
        with self.lock:
            return getattr(self, f"_{call}")(request)

    def _IntrospectToken(self, request: dict[str, Any]) -> dict[str, Any]:
        return {"active": request["token"] == TOKEN, "username": USER if request["token"] == TOKEN else ""}

    def _GenerateAccessToken(self, request: dict[str, Any]) -> dict[str, Any]:
        return {"token": TOKEN if request["refreshToken"] == LOGIN else "", "expiresIn": 43_200}

    def _GetCompetition(self, request: dict[str, Any]) -> dict[str, Any]:
        return {"id": 3004, "ref": request["competitionName"], "userHasEntered": self.entered}

    def _GetSubmissionLimits(self, request: dict[str, Any]) -> dict[str, Any]:
        today = len(self.submissions)
        return {"numToday": today, "numTotal": today, "numAllowedNow": self.limit - today, "limitedByTotal": False}

    def _StartSubmissionUpload(self, request: dict[str, Any]) -> dict[str, Any]:
        token = f"blob{len(self.uploads)}-{request['fileName']}"
        self.uploads[token] = b""
        return {"token": token, "createUrl": f"{self.address}/upload/{token}"}

    def _CreateSubmission(self, request: dict[str, Any]) -> dict[str, Any]:
        content = self.uploads[request["blobFileTokens"]]
        reference = 50_000_001 + len(self.submissions)
        fields = {"ref": reference, "fileName": request["blobFileTokens"].partition("-")[2], "totalBytes": len(content)}
        fields |= {"date": "2026-11-21T10:00:00.000Z", "description": request.get("submissionDescription", "")}
        self.submissions.insert(0, fields | {"status": "PENDING", "asked": 0, "error": self.reject, "content": content})
        return {"message": "Successfully submitted to Digit Recognizer", "ref": reference}

    def _ListSubmissions(self, request: dict[str, Any]) -> dict[str, Any]:
        listed = [self._public_fields(submission) for submission in self.submissions] if self.listed else []
        size, start = request.get("pageSize", 20), int(request.get("pageToken") or 0)
        more = str(start + size) if start + size < len(listed) else ""
        return {"submissions": listed[start : start + size], "nextPageToken": more}

    def _GetSubmission(self, request: dict[str, Any]) -> dict[str, Any]:
        submission = next(item for item in self.submissions if item["ref"] == request["ref"])
        submission["asked"] += 1
        return self._public_fields(submission)

    def _SaveKernel(self, request: dict[str, Any]) -> dict[str, Any]:
        self.kernels.append(request)
        address = f"https://www.kaggle.com/code/{request['slug']}"
        return {"ref": f"/code/{request['slug']}", "url": address, "versionNumber": len(self.kernels)}

    def _GetKernelSessionStatus(self, request: dict[str, Any]) -> dict[str, Any]:
        assert request["userName"] == USER
        return {"status": self.kernel_status, "failureMessage": self.kernel_failure}

    def _GetAcceleratorQuotaStatistics(self, request: dict[str, Any]) -> dict[str, Any]:
        if self.quota is None:
            return {}
        used, total = (f"{hours * 3600:g}s" for hours in self.quota)
        return {"gpuQuota": {"timeUsed": used, "totalTimeAllowed": total}, "quotaRefreshTime": "2026-11-28T00:00:00Z"}

    def _ListKernelSessionOutput(self, request: dict[str, Any]) -> dict[str, Any]:
        size, start = request.get("pageSize", 20), int(request.get("pageToken") or 0)
        names = sorted(self.output)
        page = [
            {"fileName": name, "url": f"{self.address}/output/{quote(name)}"} for name in names[start : start + size]
        ]
        return {"files": page, "nextPageToken": str(start + size) if start + size < len(names) else ""}

    def _public_fields(self, submission: dict[str, Any]) -> dict[str, Any]:
        """Score a submission that was requested often enough, and return the fields that Kaggle shows."""
        if self.polls is not None and submission["asked"] >= self.polls and submission["status"] == "PENDING":
            if submission.get("error"):
                submission |= {"status": "ERROR", "errorDescription": submission["error"]}
            else:
                table = np.loadtxt(io.BytesIO(submission["content"]), delimiter=",", skiprows=1, dtype=int)
                submission |= {"status": "COMPLETE", "publicScore": f"{(table[:, 1] == LABELS).mean():.5f}"}
        return {name: value for name, value in submission.items() if name not in ("asked", "error", "content")}

    def pack(self, **members: bytes) -> None:
        """Put these files into the competition's zip; ``_`` in a name stands for a dot."""
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
            for name, content in members.items():
                archive.writestr(name.replace("_", "."), content)
        self.archive = packed.getvalue()


class Handler(BaseHTTPRequestHandler):
    """An HTTP handler, of the server and of the proxy through which Kaggle's client is redirected to it."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # header and body are two writes; the second would wait 40 ms
    kaggle: Server

    def parse_request(self) -> bool:
        # Through a proxy, the client sends header and body as two writes; the second waits for this acknowledgement.
        if hasattr(socket, "TCP_QUICKACK"):
            self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        return super().parse_request()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        call = self.path.rpartition("/")[2]
        fault = self.kaggle.next_fault(call)
        if fault and self._failed(fault, before=True):
            return
        if not self._authorized():
            self._reply(401, {"code": 401, "message": f"Unauthenticated: {self.headers.get('Authorization')}"})
            return
        if call == "DownloadDataFiles":
            self.send_response(302)
            self.send_header("Location", f"{self.kaggle.address}/storage/digit-recognizer.zip?signed=1")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if call == "GetKernelSessionLogsStream":
            self._send_log()
            return
        answer = self.kaggle.answer(call, json.loads(body))
        if not (fault and self._failed(fault, before=False)):
            self._reply(200, answer)

    def do_PUT(self) -> None:
        fault = self.kaggle.next_fault("PUT")
        if fault and fault.status is None:
            self.rfile.read(1000)  # the upload breaks off
        elif self.headers.get("Content-Length"):
            content = self.rfile.read(int(self.headers["Content-Length"]))
            self.kaggle.uploads[self.path.rpartition("/")[2]] = content
        if not (fault and self._failed(fault, before=not fault.after)):
            assert "Authorization" not in self.headers
            self._reply(200, {})

    def do_GET(self) -> None:
        if "/output/" in self.path:
            content = self.kaggle.output[unquote(self.path.partition("/output/")[2])]
            self.send_response(200)
            for name, value in ({"Content-Length": str(len(content))} | self.kaggle.output_headers).items():
                if value:
                    self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)
            self.close_connection = True
            return
        if self.kaggle.faults.get("GET") and self._failed(self.kaggle.next_fault("GET") or Fault(), before=True):
            return
        archive = self.kaggle.archive
        requested = self.headers.get("Range", "")
        self.kaggle.ranges.append(requested)
        start = int(requested.removeprefix("bytes=").rstrip("-")) if requested else 0
        self.send_response(416 if start >= len(archive) else 206 if requested else 200)
        self.send_header("Content-Length", str(len(archive) - start))
        self.send_header("ETag", hashlib.md5(archive).hexdigest())
        self.send_header("Accept-Ranges", "bytes")
        self.end_headers()
        if self.kaggle.cuts:
            self.kaggle.cuts -= 1
            self.wfile.write(archive[start : start + self.kaggle.cut])
            self.close_connection = True
        else:
            self.wfile.write(archive[start:])

    def _send_log(self) -> None:
        parts = [{"stream_name": "stdout", "time": 0.5, "data": part} for part in self.kaggle.log]
        if self.kaggle.kernel_status != "RUNNING":
            self._reply(200, parts)
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        end = self.kaggle.log_breaks.pop(0) if self.kaggle.log_breaks else len(parts)
        for part in parts[:end]:
            self.wfile.write(b": comment\n\ndata: %s\n\n" % json.dumps(part).encode())
        if end == len(parts):
            self.wfile.write(b"data: END_OF_LOG\n\n")
            self.kaggle.kernel_status = "COMPLETE"
        self.close_connection = True

    def _authorized(self) -> bool:
        if self.path.endswith(("IntrospectToken", "GenerateAccessToken")):
            return True
        pair = base64.b64encode(f"{USER}:{KEY}".encode()).decode()
        return self.headers.get("Authorization") in (f"Bearer {TOKEN}", f"Basic {pair}")

    def _failed(self, fault: Fault, *, before: bool) -> bool:
        """Fail as the fault says if it belongs before (or after) the server acts; return whether it did."""
        if fault.after == before:
            return False
        sleep(fault.seconds)
        if fault.status is None:
            self.close_connection = True
        else:
            self._reply(fault.status, fault.body or {"code": fault.status, "message": "as asked"}, fault.headers)
        return True

    def _reply(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        for name, value in (
            {"Content-Type": "application/json", "Content-Length": str(len(content))} | (headers or {})
        ).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


class Quiet(ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """Ignore clients that close the connection early, as some tests do."""


@contextmanager
def serving(tls: ssl.SSLContext | None = None) -> Iterator[Server]:
    """Run a server on a free port of 127.0.0.1 through the block; with ``tls``, for https only."""
    kaggle = Server()
    http = Quiet(("127.0.0.1", 0), type("Bound", (Handler,), {"kaggle": kaggle}))
    kaggle.address = f"http://127.0.0.1:{http.server_port}"
    if tls:
        http.socket = tls.wrap_socket(http.socket, server_side=True)
        kaggle.address = f"https://localhost:{http.server_port}"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.005}, daemon=True)
    thread.start()
    try:
        yield kaggle
    finally:
        http.shutdown()
        http.server_close()
