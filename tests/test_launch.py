"""Starting kernel.py."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from digit_recognizer import launch
from digit_recognizer.errors import KitError


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose kernel.py prints its folder and its options, and ends with exit status 5."""
    monkeypatch.setattr(launch, "ROOT", tmp_path)
    (tmp_path / "kernel.py").write_text("import os, sys\nprint(os.getcwd(), *sys.argv[1:])\nsys.exit(5)\n")
    return tmp_path


def test_kernel_runs_in_the_folder_with_the_options(root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (root / "home").mkdir()
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    assert launch.run_kernel(["--recipe", "dense"], cwd=root / "home") == 5
    assert capfd.readouterr().out == f"{root / 'home'} --recipe dense\n"
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_missing_kernel_is_reported(root: Path) -> None:
    (root / "kernel.py").unlink()
    with pytest.raises(KitError, match=r"kernel\.py: not found"):
        launch.run_kernel([], cwd=root)
    with pytest.raises(KitError, match=r"kernel\.py: not found"):
        launch.become_kernel([])


def start(root: Path, call: str) -> subprocess.Popen[str]:
    """Start a process that calls a function of launch; wait until kernel.py prints its process id."""
    (root / "kernel.py").write_text("import os, time\nprint(os.getpid(), flush=True)\ntime.sleep(60)\n")
    code = (
        f"import pathlib, sys; from digit_recognizer import launch; launch.ROOT = pathlib.Path({str(root)!r}); {call}"
    )
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)


def test_kernel_takes_the_place_of_the_process_and_its_signals(root: Path) -> None:
    process = start(root, "launch.become_kernel([])")
    assert process.stdout
    assert int(process.stdout.readline()) == process.pid
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=10) == -signal.SIGTERM


def test_terminated_process_terminates_its_kernel(root: Path) -> None:
    process = start(root, "sys.exit(launch.run_kernel([], cwd=launch.ROOT) == -15)")
    assert process.stdout
    kernel = int(process.stdout.readline())
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=10) == 1
    deadline = time.monotonic() + 5
    with pytest.raises(ProcessLookupError):
        while time.monotonic() < deadline:
            os.kill(kernel, 0)
            time.sleep(0.01)
