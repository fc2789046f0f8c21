"""Atomic writes, JSON, file locks, and safe names."""

import errno
import glob
import json
import os
import shutil
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

from digit_recognizer.errors import BadInput

try:
    import filelock
except ImportError:  # a kernel on Kaggle without the package: it is the only process, and needs no locks
    filelock = None  # type: ignore[assignment]

HINTS = {
    errno.ENOSPC: "free some space there",
    errno.EDQUOT: "free some space there",
    errno.EACCES: "change its permissions or name another",
    errno.EPERM: "change its permissions or name another",
    errno.EROFS: "name one on a disk that can be written",
}


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Convert an ``OSError`` in the block, such as a missing permission or a full disk, into a ``BadInput``."""
    try:
        yield
    except OSError as error:
        hint = HINTS.get(error.errno or 0, "name one that can be used")
        raise BadInput(f"{path}: {error.strerror or error}", hint=hint) from error


@contextmanager
def replacing(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside ``path``, and move that file into place when the block ends without an error.

    Readers find the old or the new file, never a part of it. A missing folder is created.

    Args:
        path: the file to write.
        durable: whether to wait until the content is on the disk; not needed for files that are verified when read.

    Raises:
        BadInput: the folder cannot be created or written, or the disk is full.
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


@contextmanager
def temporary_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder beside ``path``, named after it, which is removed at the end of the block."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    with explained(path):
        _remove_stale_parts(path)
        part.mkdir(parents=True)
    try:
        with explained(path):
            yield part
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _remove_stale_parts(path: Path) -> None:
    """Remove the temporary files and folders of killed processes."""
    if sys.platform == "win32":  # os.kill would end the process there
        return
    for part in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
        with suppress(OSError, ValueError):
            try:
                os.kill(int(part.name.split(".")[-2]), 0)
            except ProcessLookupError:
                shutil.rmtree(part) if part.is_dir() else part.unlink()


class Lock:
    """A lock file held by this process until ``close`` is called or the process ends."""

    def __init__(self, held: Any) -> None:
        self._held = held

    def close(self) -> None:
        """Release the lock; the empty file is kept."""
        if self._held is not None:
            self._held.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold a lock file through the block; see ``lock``."""
    with lock(path, wait=wait):
        yield


def lock(path: Path, *, wait: bool) -> Lock:
    """Acquire a lock file, which is created with its folder.

    Args:
        path: an empty file, or none yet.
        wait: whether to wait until another process releases it.

    Raises:
        BlockingIOError: another process holds it, and ``wait`` is False.
        BadInput: it cannot be created, or is a link or a file with content, which might belong to the user.
    """
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            if not stat.S_ISREG((status := path.lstat()).st_mode) or status.st_size:
                raise BadInput(f"{path}: expected an empty lock file", hint="move or remove it")
        if filelock is None:
            return Lock(None)
        held = filelock.FileLock(path, thread_local=False)
        with suppress(filelock.Timeout):
            held.acquire(timeout=-1 if wait else 0)
    if not held.is_locked:
        raise BlockingIOError(f"{path}: locked by another process")
    return Lock(held)


def folder(path: Path) -> Path:
    """Create a folder if it is missing, and return it; ``BadInput`` if that fails."""
    with explained(path):
        path.mkdir(parents=True, exist_ok=True)
    return path


def check_writable(path: Path) -> None:
    """Raise ``BadInput`` if the folder ``path`` cannot be written or created; nothing is created here."""
    existing = next(place for place in (path, *path.absolute().parents) if place.exists() or place.is_symlink())
    if not existing.is_dir():
        raise BadInput(f"{existing}: expected a folder, found a file", hint="move it, or change to another folder")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise BadInput(f"{existing}: cannot be written", hint="change its permissions, or change to another folder")


def write_bytes(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` atomically; ``BadInput`` if that fails."""
    with replacing(path) as part:
        part.write_bytes(content)


def write_json(path: Path, content: Any) -> None:
    """Write ``content`` to ``path`` as indented JSON, atomically."""
    write_bytes(path, json_bytes(content))


def json_bytes(content: Any) -> bytes:
    """Return ``content`` as indented JSON."""
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    return text.encode(errors="backslashreplace")  # half a surrogate pair, from another file, becomes a JSON escape


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; ``BadInput`` if the file cannot be read or is damaged."""
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


def safe_name(name: str, where: str, *, hint: str = "") -> str:
    """Return ``name`` if it is safe as a part of a path.

    Args:
        name: a name from a ledger, the output of a kernel or the command line.
        where: the source of the name, for the message.
        hint: the fix, for the error.

    Raises:
        BadInput: the name is empty or longer than 120 bytes of UTF-8, contains a path separator or an unprintable
            character, or begins or ends with a dot or a space.
    """
    size = len(name.encode("utf-8", "replace"))  # file systems allow 255 bytes, with the endings that are added
    if not 0 < size <= 120 or set(name) & set("/\\:") or name.strip(". ") != name or not name.isprintable():
        raise BadInput(f"{where}: expected a plain file name, found {name[:60]!a}", hint=hint)
    return name
