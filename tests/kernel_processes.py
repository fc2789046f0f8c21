"""Processes of ``kernel.py`` that tests start, watch and end, and the files that they write."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conftest import ROOT

# Three members of four epochs, re-ranked by k-NN: the shortest run that has all stages. With the small batches few
# predictions are ambiguous, so that re-ranking takes seconds.
TINY = (
    *("--recipe", "dense", "--epochs", "4", "--folds", "3", "--members", "3"),
    *("--batch-size", "8", "--knn-weight", "5"),
)


@dataclass
class KernelProcess:
    """A running ``kernel.py`` in a process group of its own, which writes its output to files.

    Attributes:
        home: its current folder.
    """

    home: Path
    process: subprocess.Popen[bytes]
    stdout_file: Path
    stderr_file: Path

    @property
    def stdout(self) -> str:
        return self.stdout_file.read_text()

    @property
    def stderr(self) -> str:
        return self.stderr_file.read_text()

    def running(self) -> bool:
        return self.process.poll() is None

    def wait(self) -> int:
        """Wait for its end and return the exit status."""
        return self.process.wait(timeout=300)

    def wait_for(self, condition: Callable[[], object]) -> None:
        wait_for(condition, self.running, lambda: self.stdout + self.stderr)

    def kill(self, *, workers: bool = True) -> None:
        """Kill the process, and its workers at once; without ``workers``, wait until they have ended by themselves."""
        if workers:
            os.killpg(self.process.pid, signal.SIGKILL)
        else:
            self.process.kill()
        self.process.wait()
        wait_for(lambda: not workers_in(self.home))


def start(
    *words: str,
    home: Path,
    name: str = "output",
    cores: int = 1,
    environment: dict[str, str] | None = None,
    before: Callable[[], object] = lambda: None,
) -> KernelProcess:
    """Start ``kernel.py``, with the folder of temporary files beside its home.

    Args:
        words: its options.
        home: its current folder.
        name: the start of the names of the files of its output.
        cores: how many cores it may use, and so how many members it trains at a time.
        environment: variables that are added to its environment.
        before: called in the new process before the program starts.
    """

    def prepare() -> None:
        available = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, random.sample(available, min(cores, len(available))))
        before()

    temporary = home.parent / f"{home.name}-temporary"
    temporary.mkdir(exist_ok=True)
    files = home.parent / f"{home.name}-{name}.txt", home.parent / f"{home.name}-{name}-errors.txt"
    with files[0].open("wb") as out, files[1].open("wb") as err:
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "kernel.py"), *words],
            cwd=home,
            stdout=out,
            stderr=err,
            env=os.environ | {"TMPDIR": str(temporary)} | (environment or {}),
            start_new_session=True,
            preexec_fn=prepare,
        )
    return KernelProcess(home, process, *files)


def run(*words: str, home: Path, **kwargs: Any) -> KernelProcess:
    """Run ``kernel.py`` to its end; see ``start``."""
    kernel = start(*words, home=home, **kwargs)
    kernel.wait()
    return kernel


def wait_for(
    condition: Callable[[], object],
    running: Callable[[], bool] = lambda: True,
    output: Callable[[], str] = lambda: "",
) -> None:
    """Wait until a condition is true; fail if the process ends before."""
    deadline = time.monotonic() + 200
    while not condition():
        assert time.monotonic() < deadline, output()
        assert running() or condition(), output()
        time.sleep(0.02)


def workers_in(home: Path) -> list[int]:
    """Return the worker processes whose current folder is ``home``."""
    workers = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").readlink() == home and b"spawn_main" in (process / "cmdline").read_bytes():
                workers.append(int(process.name))
        except OSError:  # it has ended
            continue
    return workers


def run_folders(home: Path) -> list[Path]:
    return [path.parent for path in sorted(home.glob("runs/*/run.json"))]


def only_run(home: Path) -> Path:
    (folder,) = run_folders(home)
    return folder


def submission_of(run_folder: Path) -> bytes:
    return (run_folder.parents[1] / "submissions" / f"{run_folder.name}.csv").read_bytes()


def results(run_folder: Path) -> dict[str, bytes]:
    """Return the files that must be the same in each run of a recipe: submission and probabilities."""
    found = {str(path.relative_to(run_folder)): path.read_bytes() for path in run_folder.rglob("*.npy")}
    assert len(found) == 3 + 5 * len(list(run_folder.glob("members/*")))
    return found | {"submission": submission_of(run_folder)}
