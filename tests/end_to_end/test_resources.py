"""Runs with a full disk, with folders that cannot be written, and with little memory: real ones, which need root."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import one_line
from digit_recognizer import ledger
from kernel_processes import TINY, only_run, results, run

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
    assert [row.run for row in ledger.read(disk / "submissions")] == [only_run(disk).name]
