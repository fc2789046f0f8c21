"""Write files whole or not at all; let one process at a time."""

import errno
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from digit_recognizer.errors import BadInput

if sys.platform != "win32":
    import fcntl

MENDS = {
    errno.ENOSPC: "free some space there",
    errno.EDQUOT: "free some space there",
    errno.EACCES: "change its permissions or name another",
    errno.EPERM: "change its permissions or name another",
    errno.EROFS: "name one on a disk that can be written",
}


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn the system's refusal to read or write ``path`` (no right, no space, no such folder) into a ``BadInput``."""
    try:
        yield
    except OSError as error:
        mend = MENDS.get(error.errno or 0, "name one that can be used")
        raise BadInput(f"{path}: {error.strerror or error}; {mend}") from error


@contextmanager
def replacing(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """Give a temporary path beside ``path``; move it into place at the end, or remove it where the block fails.

    A reader sees the old file or the new one, never a part. The folder is made where it is missing. ``durable=False``
    does not wait for the disk: for what is checked when read and can be made again after a loss of power.

    Raises:
        BadInput: the folder cannot be made or written, or its disk is full.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield part
            if durable:
                with part.open("rb") as written:
                    os.fsync(written.fileno())
            part.replace(path)
    except BaseException:
        with suppress(OSError):
            part.unlink()
        raise


@contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold a lock file, which stays, through the block; on Windows nothing is held.

    Raises:
        BlockingIOError: another process holds it and ``wait`` is False.
        BadInput: it cannot be made.
    """
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("wb")
    with file:
        if sys.platform != "win32":
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield


def folder(path: Path) -> Path:
    """Make a folder where it is missing, and give it; ``BadInput`` where that is impossible."""
    with explained(path):
        path.mkdir(parents=True, exist_ok=True)
    return path


def write_bytes(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` whole or not at all; ``BadInput`` where that is impossible."""
    with replacing(path) as part:
        part.write_bytes(content)


def write_json(path: Path, content: Any) -> None:
    """Write ``content`` as indented JSON to ``path`` whole or not at all."""
    write_bytes(path, (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """Read a JSON file that this project wrote; ``BadInput`` where it cannot be read or is damaged."""
    with explained(path):
        text = path.read_text(encoding="utf-8")
    try:
        return json.loads(text)
    except ValueError as error:
        raise BadInput(f"{path}: damaged, it is not valid JSON ({error}); remove its folder and run again") from error
