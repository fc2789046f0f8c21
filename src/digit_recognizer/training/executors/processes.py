"""Start worker processes, read what they wrote to standard error, and remove the temporary files of killed ones."""

import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

# Modules that Keras imports if installed and that training does not use; a worker starts two seconds sooner without.
UNUSED = ("matplotlib", "pandas", "sklearn")
PREFIX = "digit-recognizer-"  # of names in the folder of temporary files


def spawn(target: Callable[..., None], *arguments: Any) -> BaseProcess:
    """Start a process that ignores interrupts; the parent process handles them."""
    process = get_context("spawn").Process(target=target, args=arguments, daemon=True)
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)  # the new process inherits this
    try:
        process.start()
    finally:
        signal.signal(signal.SIGINT, handler)
    return process


def hide_unused() -> None:
    """Make the imports of ``UNUSED`` fail in this process."""
    hidden: Any = dict.fromkeys(UNUSED)  # import raises ImportError for a module that is None
    sys.modules.update(hidden)


def temporary_prefix(process: int) -> str:
    """Return the start of the names of the temporary files and folders of a process, such as its standard error."""
    return f"{PREFIX}{process}-"


def remove_stale() -> None:
    """Remove the temporary files and folders of processes that were killed together with their parent process."""
    for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}[0-9]*-*"):
        with suppress(OSError, ValueError):
            try:
                os.kill(int(path.name.removeprefix(PREFIX).split("-")[0]), 0)
            except ProcessLookupError:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def use_own_temporary_folder() -> Path:
    """Let this process, Keras included, create its temporary files in a folder of its own, and return that."""
    tempfile.tempdir = tempfile.mkdtemp(prefix=temporary_prefix(os.getpid()))
    return Path(tempfile.tempdir)


def last_stderr_line(process: BaseProcess) -> str:
    """Remove the temporary files of a process that has ended; return the last line of its captured standard error.

    The line is empty if there is none.
    """
    last, prefix = "", temporary_prefix(process.pid or 0)
    for folder in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        for path in folder.glob(f"{prefix}*"):
            with suppress(OSError):
                lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
                last = next((line.strip() for line in reversed(lines) if line.strip()), last)
        shutil.rmtree(folder, ignore_errors=True)
    return last
