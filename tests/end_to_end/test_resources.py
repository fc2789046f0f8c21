"""Runs with a full disk, with folders that cannot be written, and with little memory: real ones, which need root."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import one_line
from digit_recognizer import ledger
from kernel_processes import TINY, only_run, results, run, run_folders, start, wait_for

pytestmark = pytest.mark.slow

MEBIBYTE = 1 << 20
# Fills the disk as soon as a process opens a file in HOME_TO_FILL for writing whose path matches FILL_BEFORE.
FILL = """
import os, re, sys

home, pattern = os.environ["HOME_TO_FILL"], re.compile(os.environ["FILL_BEFORE"])
filler = os.path.join(home, "filler")

def fill(event, arguments):
    if event != "open" or not isinstance(arguments[0], (str, os.PathLike)) or not arguments[2] & os.O_CREAT:
        return
    path = os.path.abspath(arguments[0])
    if path.startswith(home) and path != filler and pattern.search(os.path.relpath(path, home)):
        descriptor = os.open(filler, os.O_WRONLY | os.O_CREAT)
        try:
            while True:
                os.write(descriptor, bytes(4096))
        except OSError:
            os.close(descriptor)

sys.addaudithook(fill)
"""
WRITES = {
    "the parsed data": r"cache/.*\.arrays",
    "run.json": r"run\.json",
    "the state of a member": r"state\.npz",
    "a member's network": r"members/.*network\.keras",
    "a member's record": r"member\.json",
    "probabilities of the blend": r"oof\.npy",
    "the submission": r"submissions/.sample-dense",
    "the ledger": r"sample-ledger\.csv\.\d",
    "scores.json": r"scores\.json",
    "plots and report": r"history\.png",
}


def mount(*words: str | Path) -> None:
    done = subprocess.run(["mount", *map(str, words)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"this user cannot mount: {done.stderr.strip()}")


def unmount(folder: Path) -> None:
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 32 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount("-t", "tmpfs", "-o", f"size={32 * MEBIBYTE}", "tmpfs", folder)
    yield folder
    unmount(folder)


def test_full_disk_at_each_kind_of_write(undisturbed: dict[str, bytes], disk: Path, tmp_path: Path) -> None:
    hook = tmp_path / "hook"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(FILL)
    path = os.pathsep.join([str(hook), os.environ.get("PYTHONPATH", "")])
    environment = {"PYTHONPATH": path, "HOME_TO_FILL": str(disk)}
    statuses = {}
    for write, pattern in WRITES.items():
        done = run(*TINY, home=disk, environment=environment | {"FILL_BEFORE": pattern})
        statuses[write] = done.wait()
        assert (disk / "filler").exists(), f"{write}: nothing was written"
        assert "Traceback" not in done.stdout + done.stderr
        if done.wait():
            message = one_line(done.stderr)
            assert "No space left on device" in message, write
            assert "\nhint: " in message, write
        (disk / "filler").unlink()
        assert not list(disk.rglob("*.part")), write
    assert [write for write, status in statuses.items() if not status] == ["plots and report"]
    assert "plots: not drawn: BadInput: " in done.stdout
    assert "report: not written: " in done.stdout
    last = run(*TINY, home=disk)
    assert (last.wait(), last.stderr) == (0, "")
    assert results(only_run(disk)) == undisturbed
    assert (only_run(disk) / "report" / "index.html").exists()
    assert [row.run for row in ledger.read(disk / "submissions")] == [only_run(disk).name]


def test_run_folder_that_becomes_read_only(undisturbed: dict[str, bytes], disk: Path) -> None:
    kernel = start(*TINY, home=disk)
    kernel.wait_for(lambda: list(disk.glob("runs/*/members/00/state.npz")))
    folder = only_run(disk)
    mount("--bind", folder, folder)
    try:
        mount("-o", "remount,bind,ro", folder)
        assert kernel.wait() == 2
        message = one_line(kernel.stderr)
        assert f"{folder}/members/" in message
        assert "Read-only file system\nhint: " in message
        other = run(*TINY, home=disk)
        assert (other.wait(), other.stderr) == (0, "")
        assert "resumed" not in other.stdout
        new = next(found for found in run_folders(disk) if found != folder)
        assert results(new) == undisturbed, "a run in a folder of its own"
        assert not (folder / "scores.json").exists()
    finally:
        unmount(folder)
    mount("-o", "remount,ro", disk)
    before = sorted(disk.rglob("*"))
    refused = run(*TINY, home=disk)
    assert refused.wait() == 2
    assert "cannot be written\nhint: " in one_line(refused.stderr)
    assert sorted(disk.rglob("*")) == before


class ControlGroup:
    """A control group with a limit of memory, version 1 or 2, below that of this process."""

    def __init__(self, limit: int) -> None:
        self.version = 2
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            number, controllers, path = line.split(":", 2)
            if controllers == "memory" or (number == "0" and self.version == 2):
                self.version = 1 if controllers else 2
                root = Path("/sys/fs/cgroup", controllers)
                self.folder = root / path.lstrip("/") / f"digit-recognizer-test-{os.getpid()}"
        try:
            self.folder.mkdir()
        except OSError as error:
            pytest.skip(f"this user cannot create a control group: {error}")
        try:
            self._file("memory.limit_in_bytes", "memory.max").write_text(str(limit))
        except OSError as error:
            self.remove()
            pytest.skip(f"this user cannot limit memory: {error}")

    def _file(self, first: str, second: str) -> Path:
        return self.folder / (first if self.version == 1 else second)

    def enter(self) -> None:
        (self.folder / "cgroup.procs").write_text(str(os.getpid()))

    def peak(self) -> int:
        return int(self._file("memory.max_usage_in_bytes", "memory.peak").read_text())

    def remove(self) -> None:
        wait_for(lambda: not (self.folder / "cgroup.procs").read_text())
        self.folder.rmdir()


def test_two_gigabytes_suffice_for_recipe_quick(tmp_path: Path) -> None:
    group = ControlGroup(2_000_000_000)
    try:
        kernel = start("--recipe", "quick", "--epochs", "1", home=tmp_path, cores=2, before=group.enter)
        assert (kernel.wait(), kernel.stderr) == (0, "")
        assert "starting 1 worker " in kernel.stdout, "although there are two cores"
        peak = group.peak()
    finally:
        group.remove()
    print(f"\npeak of memory: {peak / 1e9:.2f} GB")
    group = ControlGroup(peak // 2)
    try:
        kernel = start("--recipe", "quick", "--epochs", "1", home=tmp_path, cores=2, before=group.enter)
        assert kernel.wait() == 0, "complete: nothing is trained"
        kernel = start("--recipe", "quick", "--epochs", "2", home=tmp_path, cores=2, before=group.enter)
        assert kernel.wait() == 1
        message = one_line(kernel.stderr)
        assert message.startswith("error: worker killed (exit code -9), possibly out of memory\nhint: ")
    finally:
        group.remove()
