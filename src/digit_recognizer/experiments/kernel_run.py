"""Run a recipe for an experiment: start ``kernel.py`` as a process and turn a failure into an error."""

import signal
from collections.abc import Sequence
from pathlib import Path

from digit_recognizer import launch
from digit_recognizer.errors import KitError

INTERRUPTED = (130, -signal.SIGINT)  # exit status of kernel.py, and of Python before kernel.py handles the signal


def run_recipe(name: str, options: Sequence[str], *, cwd: Path) -> None:
    """Run ``kernel.py --recipe NAME`` with more options, in the folder of ``runs/`` and ``submissions/``.

    Raises:
        KeyboardInterrupt: the run was interrupted.
        KitError: the run failed; it has printed why.
    """
    status = launch.run_kernel(["--recipe", name, *options], cwd=cwd)
    if status in INTERRUPTED:
        raise KeyboardInterrupt
    if status:
        raise KitError(
            f"recipe {name}: kernel.py failed with exit status {status}",
            hint="fix the error above, then rerun the command; trained members and finished epochs are kept",
        )
