"""Start worker processes, and read what they wrote to standard error before they died."""

import signal
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

# What Keras imports where it is there, for what no member uses; without them a worker is ready two seconds sooner.
UNUSED = ("matplotlib", "pandas", "sklearn")


def spawn(target: Callable[..., None], *arguments: Any) -> BaseProcess:
    """Start a process that ignores an interrupt, which is this one's to handle."""
    process = get_context("spawn").Process(target=target, args=arguments, daemon=True)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process inherits it
    try:
        process.start()
    finally:
        signal.signal(signal.SIGINT, before)
    return process


def hide_unused() -> None:
    absent: Any = dict.fromkeys(UNUSED)  # None stands for a module that is not there
    sys.modules.update(absent)


def stderr_file(process: int) -> str:
    """The beginning of the name of a temporary file, in which a process holds back what it writes to standard error."""
    return f"digit-recognizer-{process}-"


def last_stderr_line(process: BaseProcess) -> str:
    """The last line that a process held back when it died, empty where there is none; its file is removed."""
    last = ""
    for path in Path(tempfile.gettempdir()).glob(f"{stderr_file(process.pid or 0)}*"):
        with suppress(OSError):
            lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
            last = next((line.strip() for line in reversed(lines) if line.strip()), "")
            path.unlink()
    return last
