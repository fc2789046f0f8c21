"""Runs that are killed at random moments, whose workers are killed, and that run beside another or with a wrong clock.

``KILLS=40 pytest tests/end_to_end/test_faults.py -k moments -s`` kills more often and prints the figures;
``SEED=…`` repeats the kills of an earlier call.
"""

import os
import random
import re
import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from conftest import one_line
from digit_recognizer import ledger, runs
from kernel_processes import TINY, KernelProcess, only_run, results, run, run_folders, start, workers_in

pytestmark = pytest.mark.slow

KILLS = int(os.environ.get("KILLS", "4"))
SEED = int(os.environ.get("SEED", "0")) or random.randrange(1, 1_000_000)


def count(home: Path, name: str) -> int:
    return len(list(home.glob(f"runs/sample-*/{name}")))


def ready_members(kernel: KernelProcess) -> int:
    return len(re.findall(r"^member \d/3 (?: kept from before|trained)", kernel.stdout, re.MULTILINE))


# A moment: its name, what is awaited at first, and how many seconds the following random wait lasts at most.
MOMENTS: list[tuple[str, Callable[[KernelProcess, Counter[str]], bool], float]] = [
    ("start", lambda kernel, before: True, 3),
    ("training", lambda kernel, before: bool(re.search(r"^   \d/3 ", kernel.stdout, re.MULTILINE)), 1),
    (
        "writing a member",
        lambda kernel, before: count(kernel.home, "members/*/network.keras") > before["networks"],
        0.03,
    ),
    ("blending", lambda kernel, before: count(kernel.home, "members/*/member.json") > before["members"], 0.05),
    ("re-ranking and scoring", lambda kernel, before: ready_members(kernel) == 3, 6),
    ("plots and report", lambda kernel, before: count(kernel.home, "scores.json") == 1, 2),
]


class SeenEpochs:
    """What the attempts at a run have printed.

    Attributes:
        continued: how often a member continued after its first epochs.
    """

    def __init__(self) -> None:
        self.continued = 0
        self._trained: set[str] = set()
        self._last: Counter[str] = Counter()  # member → its last finished epoch

    def add(self, output: str) -> None:
        """Check the output of an attempt against those before it, and add it."""
        continued = {
            member: int(epoch)
            for member, epoch in re.findall(r"^member (\d)/3  continues after epoch (\d)/4$", output, re.MULTILINE)
        }
        epochs: dict[str, list[int]] = {}
        for member, epoch in re.findall(r"^ +(\d)/3 +(\d)/4 ", output, re.MULTILINE):
            epochs.setdefault(member, []).append(int(epoch))
        for member in continued.keys() | epochs.keys():
            assert member not in self._trained, "a finished member is never trained again"
            start = continued.get(member, 0)
            assert epochs.get(member, []) == list(range(start + 1, start + 1 + len(epochs.get(member, []))))
            assert self._last[member] <= start, "no finished epoch is repeated"
            self._last[member] = max(self._last[member], start, *epochs.get(member, []))
        self.continued += len(continued)
        self._trained |= set(re.findall(r"^member (\d)/3 trained", output, re.MULTILINE))


def test_run_killed_at_random_moments_is_resumed_with_the_same_result(
    undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    print(f"\nSEED={SEED}")
    choice = random.Random(SEED)
    kills: Counter[str] = Counter()
    parts, runs_done, continued = 0, 0, 0
    while kills.total() < KILLS:
        home = tmp_path / f"{runs_done}"
        home.mkdir()
        cores = 1 + runs_done % 2
        seen = SeenEpochs()
        left = KILLS - kills.total()
        if runs_done:
            plan = sorted(choice.choices(range(len(MOMENTS)), k=len(MOMENTS)))
        else:  # each moment once
            plan = sorted(choice.sample(range(len(MOMENTS)), k=left)) if left < len(MOMENTS) else [*range(len(MOMENTS))]
        for moment in plan[:left]:
            name, reached, most = MOMENTS[moment]
            before = Counter(
                networks=count(home, "members/*/network.keras"), members=count(home, "members/*/member.json")
            )
            kernel = start(*TINY, home=home, cores=cores)
            while kernel.running() and not reached(kernel, before):
                time.sleep(0.005)
            time.sleep(choice.uniform(0, most))
            if kernel.running():
                kernel.kill(workers=kills.total() % 2 == 0)
                kills[name] += 1
                parts += bool(list(home.rglob("*.part")))
            seen.add(kernel.stdout)
            assert "Traceback" not in kernel.stderr
        last = run(*TINY, home=home, cores=cores)
        assert (last.wait(), last.stderr) == (0, "")
        seen.add(last.stdout)
        assert results(only_run(home)) == undisturbed
        (row,) = ledger.read(home / "submissions")
        assert row.file_sha256 == ledger.digest(home / "submissions" / f"{row.run}.csv")
        assert (only_run(home) / "report" / "index.html").exists()
        assert not [path for path in home.rglob("*.part") if path.suffixes[0] != ".png"]
        assert not list((tmp_path / f"{home.name}-temporary").iterdir()), "temporary files of killed processes"
        continued += seen.continued
        runs_done += 1
    print(f"{kills.total()} kills in {runs_done} runs, all resumed with the same result: {dict(kills)}")
    print(f"{parts} of them while a file was written; {continued} members continued, no finished epoch was repeated")


def test_member_of_a_killed_worker_is_started_again_from_its_state(
    undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    kernel = start(*TINY, home=tmp_path, cores=2)
    kernel.wait_for(lambda: count(tmp_path, "members/*/state.npz") == 2)
    os.kill(workers_in(tmp_path)[0], signal.SIGKILL)
    assert (kernel.wait(), kernel.stderr) == (0, "")
    again = r"^member (\d)/3  worker killed \(exit code -9\), possibly out of memory; started again$"
    (member,) = re.findall(again, kernel.stdout, re.MULTILINE)
    assert re.search(rf"^member {member}/3  continues after epoch [1-4]/4$", kernel.stdout, re.MULTILINE)
    assert results(only_run(tmp_path)) == undisturbed


def test_worker_killed_in_both_attempts_ends_the_run_with_error_and_hint(tmp_path: Path) -> None:
    kernel = start(*TINY, home=tmp_path, cores=2)
    kernel.wait_for(lambda: "starting" in kernel.stdout)
    while kernel.running():
        for worker in workers_in(tmp_path):
            with suppress(ProcessLookupError):
                os.kill(worker, signal.SIGKILL)
        time.sleep(0.01)
    assert kernel.wait() == 1
    message = one_line(kernel.stderr)
    assert message.startswith("error: worker killed (exit code -9), possibly out of memory\nhint: ")
    assert kernel.stdout.count("started again") in (1, 2), "of each member at most once"
    assert not workers_in(tmp_path)


def test_two_runs_of_one_recipe_at_once(undisturbed: dict[str, bytes], tmp_path: Path) -> None:
    kernels = [start(*TINY, home=tmp_path, name=f"output-{number}") for number in range(2)]
    assert [(kernel.wait(), kernel.stderr) for kernel in kernels] == [(0, "")] * 2
    folders = run_folders(tmp_path)
    assert len(folders) == 2
    for folder in folders:
        assert results(folder) == undisturbed
    assert {row.run for row in ledger.read(tmp_path / "submissions")} == {folder.name for folder in folders}


CLOCK = """
import os, pathlib, time

def now():
    return float(pathlib.Path(os.environ["CLOCK_FILE"]).read_text())

strftime, localtime = time.strftime, time.localtime
time.time = now
time.localtime = lambda seconds=None: localtime(now() if seconds is None else seconds)
time.strftime = lambda form, when=None: strftime(form, time.localtime() if when is None else when)
"""


def test_clock_set_back_during_a_run_and_before_its_resume(undisturbed: dict[str, bytes], tmp_path: Path) -> None:
    """The clock of the processes stands still at the time in a file, so that two runs start in the same second."""
    hook, clock, home, day = tmp_path / "hook", tmp_path / "clock.txt", tmp_path / "home", 86_400
    hook.mkdir()
    home.mkdir()
    (hook / "sitecustomize.py").write_text(CLOCK)
    path = os.pathsep.join([str(hook), os.environ.get("PYTHONPATH", "")])
    environment = {"CLOCK_FILE": str(clock), "PYTHONPATH": path}
    began = time.mktime((2026, 3, 29, 1, 30, 0, 0, 0, -1))
    clock.write_text(str(began))
    kernel = start(*TINY, home=home, environment=environment)
    kernel.wait_for(lambda: list(home.glob("runs/*/members/*/state.npz")))
    clock.write_text(str(began - day))
    kernel.wait_for(lambda: list(home.glob("runs/*/members/*/member.json")))
    kernel.kill()
    clock.write_text(str(began - 2 * day))
    resumed = run(*TINY, home=home, environment=environment)
    assert (resumed.wait(), resumed.stderr) == (0, "")
    first = only_run(home)
    assert first.name == "sample-dense-20260329-013000"
    assert results(first) == undisturbed
    clock.write_text(str(began))
    short = ("--epochs", "1", "--members", "2", "--knn-weight", "0")
    other = run(*TINY, *short, home=home, environment=environment)
    assert (other.wait(), other.stderr) == (0, "")
    assert [folder.name for folder in run_folders(home)] == [first.name, f"{first.name}-2"]
    assert results(first) == undisturbed
    assert [row.run for row in ledger.read(home / "submissions")] == [first.name, f"{first.name}-2"]
    assert runs.find_run(home, None).name == f"{first.name}-2", "the newest run"
