"""Start worker processes, and read what they wrote to standard error before they were killed."""

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


def stderr_file(process: int) -> str:
    """Return the start of the name of a temporary file in which a process captures its standard error."""
    return f"digit-recognizer-{process}-"


def last_stderr_line(process: BaseProcess) -> str:
    """Remove the file of a process's captured standard error and return its last line; empty if there is none."""
    last = ""
    for path in Path(tempfile.gettempdir()).glob(f"{stderr_file(process.pid or 0)}*"):
        with suppress(OSError):
            lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
            last = next((line.strip() for line in reversed(lines) if line.strip()), "")
            path.unlink()
    return last
