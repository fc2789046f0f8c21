"""A Kaggle on loopback: the endpoints that the kit calls, one account, labels of its own, and faults on demand."""

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
LABELS = np.random.default_rng(1).integers(0, 10, 28_000)


def submission(wrong: int) -> bytes:
    """A good submission file with that many rows wrong."""
    digits = LABELS.copy()
    digits[:wrong] = (digits[:wrong] + 1) % 10
    return ("ImageId,Label\n" + "".join(f"{i},{digit}\n" for i, digit in enumerate(digits, 1))).encode()


@dataclass
class Fault:
    """What goes wrong at a call: before it is done, or (``after``) when all is done but the answer."""

    status: int | None = None  # None cuts the connection
    body: dict[str, Any] | None = None
    headers: dict[str, str] = field(default_factory=dict)
    after: bool = False
    seconds: float = 0  # first wait so long


@dataclass
class Server:
    """What Kaggle knows, and what was asked of it.

    Attributes:
        faults: call → faults still to come, one for each time it is called; the last stays where ``lasting`` has it.
        polls: how often a submission is asked for before it has a score; None for a score that never comes.
        reject: Kaggle's reason not to take the next file.
        listed: False hides submissions from the list, as when it lags behind.
        kernels: what was pushed; ``output`` is what the newest left, by file name.
        output_headers: headers of those files; an empty one is not sent.
        archive: the zip to download; ``cut`` bytes are sent of it, then the connection ends, ``cuts`` times.
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
    lock: threading.Lock = field(default_factory=threading.Lock)

    def fail(self, call: str, *faults: Fault, always: bool = False) -> None:
        """Let a call go wrong, in these ways one after the other."""
        self.faults[call] = list(faults)
        if always:
            self.lasting.add(call)

    def next_fault(self, call: str) -> Fault | None:
        with self.lock:
            self.calls.append(call)
            left = self.faults.get(call)
            if not left:
                return None
            return left[0] if call in self.lasting else left.pop(0)

    def answer(self, call: str, asked: dict[str, Any]) -> dict[str, Any]:
        """Do what a JSON call asks for; its reply."""
        with self.lock:
            return getattr(self, f"_{call}")(asked)

    def _IntrospectToken(self, asked: dict[str, Any]) -> dict[str, Any]:
        return {"active": asked["token"] == TOKEN, "username": USER if asked["token"] == TOKEN else ""}

    def _GenerateAccessToken(self, asked: dict[str, Any]) -> dict[str, Any]:
        return {"token": TOKEN if asked["refreshToken"] == LOGIN else "", "expiresIn": 43_200}

    def _GetCompetition(self, asked: dict[str, Any]) -> dict[str, Any]:
        return {"id": 3004, "ref": asked["competitionName"], "userHasEntered": self.entered}

    def _GetSubmissionLimits(self, asked: dict[str, Any]) -> dict[str, Any]:
        today = len(self.submissions)
        return {"numToday": today, "numTotal": today, "numAllowedNow": self.limit - today, "limitedByTotal": False}

    def _StartSubmissionUpload(self, asked: dict[str, Any]) -> dict[str, Any]:
        token = f"blob{len(self.uploads)}-{asked['fileName']}"
        self.uploads[token] = b""
        return {"token": token, "createUrl": f"{self.address}/upload/{token}"}

    def _CreateSubmission(self, asked: dict[str, Any]) -> dict[str, Any]:
        content = self.uploads[asked["blobFileTokens"]]
        reference = 50_000_001 + len(self.submissions)
        told = {"ref": reference, "fileName": asked["blobFileTokens"].partition("-")[2], "totalBytes": len(content)}
        told |= {"date": "2026-11-21T10:00:00.000Z", "description": asked.get("submissionDescription", "")}
        self.submissions.insert(0, told | {"status": "PENDING", "asked": 0, "error": self.reject, "content": content})
        return {"message": "Successfully submitted to Digit Recognizer", "ref": reference}

    def _ListSubmissions(self, asked: dict[str, Any]) -> dict[str, Any]:
        known = [self._told(one) for one in self.submissions] if self.listed else []
        size, start = asked.get("pageSize", 20), int(asked.get("pageToken") or 0)
        more = str(start + size) if start + size < len(known) else ""
        return {"submissions": known[start : start + size], "nextPageToken": more}

    def _GetSubmission(self, asked: dict[str, Any]) -> dict[str, Any]:
        one = next(one for one in self.submissions if one["ref"] == asked["ref"])
        one["asked"] += 1
        return self._told(one)

    def _SaveKernel(self, asked: dict[str, Any]) -> dict[str, Any]:
        self.kernels.append(asked)
        address = f"https://www.kaggle.com/code/{asked['slug']}"
        return {"ref": f"/code/{asked['slug']}", "url": address, "versionNumber": len(self.kernels)}

    def _GetKernelSessionStatus(self, asked: dict[str, Any]) -> dict[str, Any]:
        assert asked["userName"] == USER
        return {"status": self.kernel_status, "failureMessage": self.kernel_failure}

    def _ListKernelSessionOutput(self, asked: dict[str, Any]) -> dict[str, Any]:
        size, start = asked.get("pageSize", 20), int(asked.get("pageToken") or 0)
        names = sorted(self.output)
        part = [
            {"fileName": name, "url": f"{self.address}/output/{quote(name)}"} for name in names[start : start + size]
        ]
        return {"files": part, "nextPageToken": str(start + size) if start + size < len(names) else ""}

    def _told(self, one: dict[str, Any]) -> dict[str, Any]:
        if self.polls is not None and one["asked"] >= self.polls and one["status"] == "PENDING":
            if one["error"]:
                one |= {"status": "ERROR", "errorDescription": one["error"]}
            else:
                table = np.loadtxt(io.BytesIO(one["content"]), delimiter=",", skiprows=1, dtype=int)
                one |= {"status": "COMPLETE", "publicScore": f"{(table[:, 1] == LABELS).mean():.5f}"}
        return {name: value for name, value in one.items() if name not in ("asked", "error", "content")}

    def pack(self, **members: bytes) -> None:
        """Offer these files, ``_`` in their names for a dot, as the competition's zip."""
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
            for name, content in members.items():
                archive.writestr(name.replace("_", "."), content)
        self.archive = packed.getvalue()


class Handler(BaseHTTPRequestHandler):
    """Speaks HTTP as a server and as the proxy that Kaggle's client is led through."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # header and body are two writes, of which the second would wait 40 ms
    kaggle: Server

    def parse_request(self) -> bool:
        # Through a proxy the client sends header and body as two writes, of which the second waits for this answer.
        if hasattr(socket, "TCP_QUICKACK"):
            self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        return super().parse_request()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        call = self.path.rpartition("/")[2]
        fault = self.kaggle.next_fault(call)
        if fault and self._failed(fault, before=True):
            return
        if not self._known():
            self._reply(401, {"code": 401, "message": f"Unauthenticated: {self.headers.get('Authorization')}"})
            return
        if call == "DownloadDataFiles":
            self.send_response(302)
            self.send_header("Location", f"{self.kaggle.address}/storage/digit-recognizer.zip?signed=1")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        answer = self.kaggle.answer(call, json.loads(body))
        if not (fault and self._failed(fault, before=False)):
            self._reply(200, answer)

    def do_PUT(self) -> None:
        fault = self.kaggle.next_fault("PUT")
        if fault and fault.status is None:
            self.rfile.read(1000)  # cut in the middle
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
        whole = self.kaggle.archive
        asked = self.headers.get("Range", "")
        self.kaggle.ranges.append(asked)
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        self.send_response(416 if start >= len(whole) else 206 if asked else 200)
        self.send_header("Content-Length", str(len(whole) - start))
        self.send_header("ETag", hashlib.md5(whole).hexdigest())
        self.send_header("Accept-Ranges", "bytes")
        self.end_headers()
        if self.kaggle.cuts:
            self.kaggle.cuts -= 1
            self.wfile.write(whole[start : start + self.kaggle.cut])
            self.close_connection = True
        else:
            self.wfile.write(whole[start:])

    def _known(self) -> bool:
        if self.path.endswith(("IntrospectToken", "GenerateAccessToken")):
            return True
        pair = base64.b64encode(f"{USER}:{KEY}".encode()).decode()
        return self.headers.get("Authorization") in (f"Bearer {TOKEN}", f"Basic {pair}")

    def _failed(self, fault: Fault, *, before: bool) -> bool:
        if fault.after == before:
            return False
        sleep(fault.seconds)
        if fault.status is None:
            self.close_connection = True
        else:
            self._reply(fault.status, fault.body or {"code": fault.status, "message": "as asked"}, fault.headers)
        return True

    def _reply(self, status: int, body: dict[str, Any], headers: dict[str, str] | None = None) -> None:
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
        """Clients that go away in the middle are what some tests are about."""


@contextmanager
def serving(tls: ssl.SSLContext | None = None) -> Iterator[Server]:
    """Serve on a free port of 127.0.0.1 through the block; with ``tls`` as a server of https alone."""
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
