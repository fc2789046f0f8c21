"""Downloads: the competition's zip, resumed after an interruption, and the output files of a kernel."""

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any

from digit_recognizer import files
from digit_recognizer.data import csv_reader, dataset
from digit_recognizer.errors import BadInput, KitError, printable
from digit_recognizer.kaggle import connection

CHUNK = 1 << 14  # bytes; a resumed download repeats less than this
FILE_LIMIT = 1 << 28  # bytes of one file; the competition's zip has 16 MB, a trained network 40 MB
OUTPUT_LIMIT = 1 << 32  # bytes of all output files of a kernel
OUTPUT_FILES = 5_000


def download_tables(folder: Path, fetch: Callable[[], Path]) -> None:
    """Download the competition's zip and extract ``train.csv`` and ``test.csv`` into ``folder``.

    Processes that download into the same folder run one after the other. If another process has replaced both tables
    meanwhile, nothing is downloaded.

    Args:
        folder: created if missing.
        fetch: downloads the zip into ``folder`` and returns its path.

    Raises:
        BadInput: the folder cannot be written.
        KitError: the zip is damaged; it is removed.
    """
    with files.explained(folder):
        before = _modification_times(files.folder(folder))
        with _alone(folder) as waited:
            after = _modification_times(folder)
            if waited and after != before and len(after) == len(csv_reader.COLUMNS):
                return
            archive = fetch()
            try:
                dataset.extract(archive, folder)
            except BadInput as error:
                if isinstance(error.__cause__, OSError):  # the folder is the cause, such as a full disk
                    raise
                archive.unlink()
                raise KitError(
                    f"the download from Kaggle is damaged and was removed ({error})", hint="run the command again"
                ) from error
            archive.unlink()


def fetch_archive(response: Any, folder: Path) -> Path:
    """Download the zip of a response into a hidden file of ``folder``, and return the file's path.

    The file of an interrupted download is kept and completed by the next call.
    """
    import requests
    from tqdm import tqdm

    size = _stated_size(response)
    _check_size(size, FILE_LIMIT, dataset.ARCHIVE)
    part = _part_path(response, folder)
    received = part.stat().st_size if part.exists() else 0
    if size and received == size:
        response.close()
        return part
    if received and not 0 < size < received:
        response = _request_rest(response, part, received)
        received = received if response.status_code == 206 else 0
    else:
        received = 0
    bar = tqdm(desc=dataset.ARCHIVE, total=size or None, initial=received, unit="B", unit_scale=True, disable=None)
    try:
        with response, part.open("ab" if received else "wb") as out, bar:
            for chunk in response.iter_content(CHUNK):
                received += len(chunk)
                _check_size(received, FILE_LIMIT, dataset.ARCHIVE)
                out.write(chunk)
                bar.update(len(chunk))
    except KitError:
        part.unlink()
        raise
    if received < size:
        raise requests.exceptions.ConnectionError("the download was interrupted")
    return part


def download_output(
    listing: Iterable[tuple[str, str]], folder: Path, slug: str, call: Callable[[Callable[[], int]], int]
) -> None:
    """Download the output files of a kernel into ``folder``, except hidden ones.

    Args:
        listing: name and address of each file; the name may contain folders.
        folder: created if missing. Files in it are replaced.
        slug: the kernel's name, for messages.
        call: makes a call with retries.

    Raises:
        BadInput: a name is not safe as a path.
        KitError: a name points outside ``folder``, or a limit on number or size is exceeded.
    """
    from tqdm import tqdm

    addresses: dict[Path, str] = {}
    for count, (name, address) in enumerate(listing):
        if count >= OUTPUT_FILES:
            raise KitError(f"{slug}: expected at most {OUTPUT_FILES:,} output files, found more")
        if path := _output_path(folder, name, slug):
            addresses[path] = address
    left = OUTPUT_LIMIT
    for path, address in tqdm(addresses.items(), desc=printable(slug), unit="file", disable=None):
        left -= call(partial(_save, address, path, min(FILE_LIMIT, left)))


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


def _modification_times(folder: Path) -> list[int]:
    """Return when each of the competition's tables in a folder was written, in ns."""
    tables = [folder / f"{table}.csv" for table in csv_reader.COLUMNS]
    return [table.stat().st_mtime_ns for table in tables if table.exists()]


def _part_path(response: Any, folder: Path) -> Path:
    """Return the path for the zip while it is downloaded; remove what other downloads left behind."""
    # The name depends on the version of the file at Kaggle, so that two versions are never joined.
    version = f"{response.headers.get('ETag')} {response.headers.get('Content-Length')}"
    part = folder / f".{hashlib.sha256(version.encode()).hexdigest()[:16]}-{dataset.ARCHIVE}"
    for pattern in (f".*-{dataset.ARCHIVE}", *(f".{table}.csv.*.part" for table in csv_reader.COLUMNS)):
        for stale in folder.glob(pattern):
            if stale != part:
                stale.unlink(missing_ok=True)
    return part


def _request_rest(response: Any, part: Path, received: int) -> Any:
    """Request a file again, without the bytes already in ``part``; the whole file if that is not supported."""
    import requests

    response.close()
    headers = {"Range": f"bytes={received}-"}
    rest = requests.get(response.url, headers=headers, stream=True, timeout=connection.TIMEOUT)
    connection.refuse_page(rest)
    if rest.status_code == 416:  # the file at Kaggle is shorter
        part.unlink()
        raise requests.exceptions.ConnectionError("the download starts again")
    rest.raise_for_status()
    return rest


def _output_path(folder: Path, name: str, slug: str) -> Path | None:
    """Return the path of an output file in ``folder``; None for a hidden one, which no run needs."""
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts:
        raise KitError(f"{slug}: output file {name[:60]!a} points outside the folder")
    if any(part.startswith(".") for part in parts):
        return None
    path = folder.joinpath(*(files.safe_name(part, slug) for part in parts))
    if path.parent.resolve() != folder.resolve().joinpath(*parts[:-1]):
        raise KitError(f"{slug}: output file {name[:60]!a} points outside the folder, by the link {path.parent}")
    return path


def _save(address: str, path: Path, limit: int) -> int:
    """Download a file of at most ``limit`` bytes, and return its size."""
    import requests

    with requests.get(address, stream=True, timeout=connection.TIMEOUT) as response:
        response.raise_for_status()
        stated, size = _stated_size(response), 0
        _check_size(stated, limit, path.name)
        with _create(path) as out:
            for chunk in response.iter_content(CHUNK):
                size += len(chunk)
                _check_size(size, limit, path.name)
                with files.explained(path):
                    out.write(chunk)
    if size < stated and "Content-Encoding" not in response.headers:
        raise requests.exceptions.ConnectionError("the download was interrupted")
    return size


def _create(path: Path) -> IO[bytes]:
    """Create a file in place of an existing one, without following a symbolic link."""
    with files.explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        return path.open("xb")


def _check_size(size: int, limit: int, name: str) -> None:
    if size > limit:
        raise KitError(f"{name}: expected at most {limit:,} bytes, found {size:,} or more")


def _stated_size(response: Any) -> int:
    """Return the size in a response's headers; 0 if there is none."""
    text = response.headers.get("Content-Length", "")
    return int(text[:18]) if re.fullmatch("[0-9]+", text) else 0
