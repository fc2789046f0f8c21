"""Start ``kernel.py``: as a process beside this one, or in place of this one."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from digit_recognizer.errors import KitError

ROOT = Path(__file__).parents[2]


def run_kernel(options: Sequence[str], *, cwd: Path) -> int:
    """Run ``kernel.py`` in the folder ``cwd`` and return its exit status.

    Args:
        options: the words of its command line.
        cwd: the folder of ``runs/`` and ``submissions/``.

    Raises:
        KitError: ``kernel.py`` is missing: the package was installed without the repository.
    """
    with subprocess.Popen(_kernel_command(options), cwd=cwd) as process:
        # A terminal sends Ctrl-C to both processes: kernel.py handles it. SIGTERM reaches this process alone.
        on_interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)
        on_terminate = signal.signal(signal.SIGTERM, lambda *_: process.terminate())
        try:
            return process.wait()
        finally:
            signal.signal(signal.SIGINT, on_interrupt)
            signal.signal(signal.SIGTERM, on_terminate)


def become_kernel(options: Sequence[str]) -> int:
    """Replace this process by ``kernel.py``, so that signals reach it; on Windows, run it and return its exit status.

    Raises:
        KitError: as for ``run_kernel``.
    """
    if sys.platform == "win32":
        return run_kernel(options, cwd=Path.cwd())
    command = _kernel_command(options)
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(command[0], command)


def _kernel_command(options: Sequence[str]) -> list[str]:
    kernel = ROOT / "kernel.py"
    if not kernel.exists():
        raise KitError(f"{kernel}: not found", hint="clone the repository; the installed package alone cannot train")
    return [sys.executable, str(kernel), *options]
