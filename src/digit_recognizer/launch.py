"""Start ``kernel.py`` as a process, as a user would."""

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
        KitError: there is no ``kernel.py``, since the package was installed without the repository.
    """
    kernel = ROOT / "kernel.py"
    if not kernel.exists():
        raise KitError(f"{kernel}: not found", hint="clone the repository; the installed package alone cannot train")
    with subprocess.Popen([sys.executable, str(kernel), *options], cwd=cwd) as process:
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to both; the run handles it
        try:
            return process.wait()
        finally:
            signal.signal(signal.SIGINT, before)
