"""Write files whole or not at all; let one process at a time."""

import errno
import glob
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from digit_recognizer.errors import BadInput

if sys.platform != "win32":
    import fcntl

HINTS = {
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
        hint = HINTS.get(error.errno or 0, "name one that can be used")
        raise BadInput(f"{path}: {error.strerror or error}", hint=hint) from error


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
            _remove_stale_parts(path)
            yield part
            if durable:
                with part.open("rb") as written:
                    os.fsync(written.fileno())
            part.replace(path)
    except BaseException:
        with suppress(OSError):
            part.unlink()
        raise


def _remove_stale_parts(path: Path) -> None:
    """Remove what processes that were killed left of ``path``."""
    if sys.platform == "win32":  # where a process cannot be tested for without ending it
        return
    for part in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
        with suppress(OSError, ValueError):
            try:
                os.kill(int(part.name.split(".")[-2]), 0)
            except ProcessLookupError:
                part.unlink()


@contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold a lock file, which stays, through the block; on Windows nothing is held.

    Raises:
        BlockingIOError: another process holds it and ``wait`` is False.
        BadInput: it cannot be made.
    """
    with lock(path, wait=wait):
        yield


def lock(path: Path, *, wait: bool) -> IO[bytes]:
    """Take the lock that ``locked`` holds, until the file returned is closed or the process ends."""
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        # A lock file is never truncated, and a symbolic link in its place is refused: it may lead to a user's file.
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
    file = os.fdopen(descriptor, "r+b", buffering=0)
    if sys.platform != "win32":
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BaseException:
            file.close()
            raise
    return file


def folder(path: Path) -> Path:
    """Make a folder where it is missing, and give it; ``BadInput`` where that is impossible."""
    with explained(path):
        path.mkdir(parents=True, exist_ok=True)
    return path


def check_writable(path: Path) -> None:
    """Raise ``BadInput`` where the folder ``path`` cannot be written, or cannot be made; it is not made here."""
    there = next(place for place in (path, *path.absolute().parents) if place.exists() or place.is_symlink())
    if not there.is_dir():
        raise BadInput(f"{there}: expected a folder, found a file", hint="move it, or change to another folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise BadInput(f"{there}: cannot be written", hint="change its permissions, or change to another folder")


def write_bytes(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` whole or not at all; ``BadInput`` where that is impossible."""
    with replacing(path) as part:
        part.write_bytes(content)


def write_json(path: Path, content: Any) -> None:
    """Write ``content`` as indented JSON to ``path`` whole or not at all."""
    write_bytes(path, (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object that this project wrote; ``BadInput`` where it cannot be read or is damaged."""
    with explained(path):
        content = path.read_bytes()
    try:
        value = json.loads(content)
        if not isinstance(value, dict):
            raise ValueError(f"expected an object, found {type(value).__name__}")
    except (ValueError, RecursionError) as error:
        raise BadInput(
            f"{path}: damaged, expected a JSON object ({error})", hint="remove its folder and run again"
        ) from None
    return value


def safe_name(name: str, where: str) -> str:
    """Return a name that is about to become part of a path, such as a run's, if it is a plain file name.

    Args:
        name: as found in a ledger, a kernel's output or on a command line.
        where: the place it was found in, for the message.

    Raises:
        BadInput: it is empty or longer than 120 characters, contains a separator or a character that cannot be printed,
            or begins or ends with a dot or a space.
    """
    if not 0 < len(name) <= 120 or set(name) & set("/\\:") or name.strip(". ") != name or not name.isprintable():
        raise BadInput(f"{where}: expected a plain file name, found {name[:60]!a}")
    return name
