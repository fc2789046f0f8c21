"""Start worker processes, and read what they wrote to standard error before they were killed."""

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
    return f"digit-recognizer-{process}-"


def last_stderr_line(process: BaseProcess) -> str:
    """Remove the temporary files of a process that has ended; return the last line of its captured standard error.

    The line is empty if there is none.
    """
    last = ""
    for path in Path(tempfile.gettempdir()).glob(f"{temporary_prefix(process.pid or 0)}*"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
            continue
        with suppress(OSError):
            lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
            last = next((line.strip() for line in reversed(lines) if line.strip()), "")
            path.unlink()
    return last
