"""Where members run: each in a worker process, several at once, with the processor's cores shared out among them.

A network of this size keeps one core busy and two cores half busy, so two members on a core each are done sooner than
one after the other on both.
"""

import functools
import math
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from multiprocessing import connection, get_context, parent_process
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from digit_recognizer.errors import KitError
from digit_recognizer.progress import Progress

MESSAGES_PER_SECOND = 5
# What Keras imports where it is there, for what no member uses; without them a worker is ready two seconds sooner.
UNUSED = ("matplotlib", "pandas", "sklearn")
WORKER_MEMORY = 1_300_000_000  # bytes; most that a worker used at once was 1.0 to 1.2 GB, by network
RUN_MEMORY = 1_000_000_000  # bytes; of the process that starts the workers, while it reads the competition's files
DEVICES = Path("/dev")
GROUP, GROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")
VISIBLE = "CUDA_VISIBLE_DEVICES"
WANTED = "DIGIT_RECOGNIZER_ACCELERATOR"  # set in a kernel that was made for one
PROBE_SECONDS = 180
CUDA_PACKAGES = {"tensorflow": "tensorflow[and-cuda]", "jax": "jax[cuda12]", "torch": "torch"}


class Reporter:
    """Tells of one member's training, from its worker to the process that waits for it."""

    def __init__(self, pipe: connection.Connection, member: int) -> None:
        self._pipe, self._member, self._told = pipe, member, 0.0

    def stage(self, text: str) -> None:
        """What is done now, outside training steps."""
        self._pipe.send(("stage", (self._member, text)))

    def batch(self, done: int, of: int, loss: float) -> None:
        """A training step is over: ``done`` of an epoch's ``of``, with the mean loss since the epoch began."""
        if time.monotonic() - self._told > 1 / MESSAGES_PER_SECOND:
            self._told = time.monotonic()
            self._pipe.send(("batch", (self._member, done, of, float(loss))))

    def epoch(self, epoch: int, figures: dict[str, float]) -> None:
        """An epoch, counted from 1, is over; its figures, those of the fold with prefix ``val_``."""
        self._pipe.send(("epoch", (self._member, epoch, {name: float(value) for name, value in figures.items()})))


Job = Callable[[int, Reporter], Any]


def cores() -> int:
    """How many processor cores this process may use: by its affinity, and by its control groups' quotas, rounded up."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for group in _control_groups("cpu"):
        quota = _text(group / "cpu.max").split()
        if not quota:
            quota = [_text(group / name).strip() for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us")]
        if len(quota) == 2 and all(word.isdecimal() and int(word) for word in quota):
            count = min(count, math.ceil(int(quota[0]) / int(quota[1])))
    return count


def memory() -> int:
    """How many bytes of memory this process may use: the machine's, or its control groups' limit; free or not."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else sys.maxsize
    for group in _control_groups("memory"):
        for name in ("memory.max", "memory.high", "memory.limit_in_bytes"):
            if (limit := _text(group / name).strip()).isdecimal():
                total = min(total, int(limit))
    return total


def _control_groups(controller: str) -> Iterator[Path]:
    """The folders of this process's control groups for a controller and of those around them, version 2 and 1."""
    for line in _text(GROUP).splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers or controller in controllers.split(","):
            root = GROUPS / controller if controllers else GROUPS
            group = root / path.lstrip("/")  # not there in a container that sees its own group as the root
            yield from (folder for folder in (group, *group.parents) if folder.is_relative_to(root))


def _text(path: Path) -> str:
    """The text of one of the operating system's files; empty where it is missing."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""


def share(members: int) -> tuple[int, int]:
    """How many workers to start for a run of that many members, and how many threads to give each.

    It follows from the run and the machine alone, so that a resumed run computes as it would have at first. A GPU
    is used by one worker, which sees no other; a TPU can be opened by one process alone.
    """
    _report_missing()
    fit = int((memory() - RUN_MEMORY) // WORKER_MEMORY)
    workers = min(len(gpus()) or (1 if tpu() else cores()), members, max(1, fit))
    return workers, max(1, cores() // workers)


@functools.cache
def gpus() -> tuple[str, ...]:
    """The GPUs that Keras can use here, as entries of ``CUDA_VISIBLE_DEVICES``."""
    present = _present()
    # In a worker the variable is set by the process that started it.
    if not present or parent_process():
        return present
    return present[: _usable(len(present))]


def _present() -> tuple[str, ...]:
    """The NVIDIA GPUs here that ``CUDA_VISIBLE_DEVICES`` leaves visible; CUDA ends its list at a bad entry."""
    nodes = len(list(DEVICES.glob("nvidia[0-9]*")))
    if not nodes or VISIBLE not in os.environ:
        return tuple(map(str, range(nodes)))
    names: list[str] = []
    for name in map(str.strip, os.environ[VISIBLE].split(",")):
        if not name or name.startswith("-"):
            break
        names.append(name)
    return tuple(dict.fromkeys(names))


def _usable(present: int) -> int:
    """How many GPUs Keras finds, as a process of its own tells; one that dies or hangs finds none."""
    ours, theirs = get_context("spawn").Pipe()
    process = _spawn(_count_gpus, theirs, present)
    theirs.close()
    try:
        return int(ours.recv()) if ours.poll(PROBE_SECONDS) else 0
    except (EOFError, ConnectionError):
        return 0
    finally:
        process.terminate()
        process.join()


def _count_gpus(pipe: connection.Connection, present: int) -> None:
    """Send how many GPUs Keras finds; ``present`` where its backend does not say."""
    _hide_unused()
    with suppress(Exception):
        from digit_recognizer.backend import keras

        present = sum(not device.startswith("cpu") for device in keras.distribution.list_devices())
    pipe.send(present)


@functools.cache
def _report_missing() -> None:
    """Print a line where a GPU cannot be used, or where a kernel did not get the accelerator it was made for."""
    wanted, found = os.environ.get(WANTED), len(gpus())
    if not found and (present := _present()):
        backend = os.environ.get("KERAS_BACKEND") or "tensorflow"
        which = f"{VISIBLE}={os.environ[VISIBLE]}" if VISIBLE in os.environ else ", ".join(present)
        print(
            f"GPU {which}: {backend} cannot use it, training on {cores()} cores instead; to use it: "
            f'{sys.executable} -m pip install "{CUDA_PACKAGES.get(backend, backend)}"',
            flush=True,
        )
    elif (wanted == "t4x2" and found < 2) or (wanted == "tpu" and not tpu()):
        instead = f"{found} GPU" if found else f"{cores()} cores"
        print(f"accelerator {wanted}: this machine does not have it, training on {instead} instead", flush=True)


def tpu() -> bool:
    """Whether JAX would train on a TPU here."""
    nodes = (*DEVICES.glob("accel[0-9]*"), *(DEVICES / "vfio").glob("[0-9]*"))
    return os.environ.get("KERAS_BACKEND") == "jax" and bool(nodes)


def run(
    job: Job,
    members: Sequence[int],
    progress: Progress,
    *,
    workers: int,
    threads: int,
    done: Callable[[int, Any], None] = lambda member, result: None,
    may_start: Callable[[], bool] = lambda: True,
) -> None:
    """Call ``job`` for each member in worker processes, and end them all if one fails or this process is interrupted.

    Args:
        job: picklable; what to do for a member.
        members: which members, in this order.
        progress: told of every step and epoch.
        workers: how many processes at once.
        threads: threads in each.
        done: told of each member that is done, with what the job gave; not called twice at once.
        may_start: asked before each member; once it says no, those that run are the last.

    Raises:
        KitError: as raised in a worker, or because a worker was killed.
    """
    waiting = list(members)
    pipes: dict[connection.Connection, BaseProcess] = {}
    # Each worker sees one GPU; where none can be used they are hidden, so that nobody tries.
    visible = gpus() or ("",) * bool(_present())
    try:
        for number in range(min(workers, len(waiting))):
            ours, theirs = get_context("spawn").Pipe()
            pipes[ours] = _spawn(_work, theirs, threads, visible[number % len(visible)] if visible else None)
            theirs.close()
        # The job, data and all, goes through our own pipe: as an argument of a process that is killed at its start it
        # would be waited for without end.
        for pipe in pipes:
            pipe.send(job)
        idle = list(pipes)
        busy: dict[connection.Connection, int] = {}
        while waiting or busy:
            while waiting and idle:
                if not may_start():
                    waiting.clear()
                    break
                pipe = idle.pop()
                busy[pipe] = waiting.pop(0)
                pipe.send(busy[pipe])
            ready = set(connection.wait(busy, progress.refresh_seconds)) if busy else set()
            if not ready:
                progress.refresh()
            for pipe in busy.keys() & ready:
                what, content = pipe.recv()
                if what == "batch":
                    progress.batch(*content)
                elif what == "epoch":
                    progress.epoch(*content)
                elif what == "stage":
                    progress.stage(*content)
                elif what == "failed":
                    raise content
                else:
                    done(busy.pop(pipe), content)
                    idle.append(pipe)
    except (EOFError, ConnectionError) as error:
        for process in pipes.values():
            process.join(0.5)
        dead = next((process for process in pipes.values() if process.exitcode is not None), None)
        if not dead:  # it was not a worker's pipe that broke
            raise
        why = _held_back(dead) or ("possibly out of memory" if dead.exitcode == -signal.SIGKILL else "")
        raise KitError(
            f"a worker was killed (exit code {dead.exitcode}){why and ', '}{why}",
            hint="trained members are kept; rerun the command to resume",
        ) from error
    finally:
        for process in pipes.values():
            process.terminate()
        for process in pipes.values():
            process.join()
            _held_back(process)


def _spawn(target: Callable[..., None], *arguments: Any) -> BaseProcess:
    """Start a process that ignores an interrupt, which is this one's to handle."""
    process = get_context("spawn").Process(target=target, args=arguments, daemon=True)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process inherits it
    try:
        process.start()
    finally:
        signal.signal(signal.SIGINT, before)
    return process


def _hide_unused() -> None:
    absent: Any = dict.fromkeys(UNUSED)  # None stands for a module that is not there
    sys.modules.update(absent)


def _work(pipe: connection.Connection, threads: int, gpu: str | None) -> None:
    """Do the job for the members that come through the pipe, until the process that sends them ends."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _hide_unused()
    if gpu is not None:
        os.environ[VISIBLE] = gpu
    for name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
        os.environ[name] = str(threads)
    job: Job = pipe.recv()
    while True:
        member = pipe.recv()
        try:
            result = job(member, Reporter(pipe, member))
        except Exception as error:
            if not isinstance(error, KitError):
                report, what = traceback.format_exc(), f"member {member + 1}: {type(error).__name__}: {_essence(error)}"
                # What the system or the environment refuses is no fault of the program's.
                known = isinstance(error, OSError | ImportError)
                error = KitError(what, hint="make doctor looks for what is missing") if known else RuntimeError(what)
                error.add_note(report)
            pipe.send(("failed", error))
        else:
            pipe.send(("done", result))


def _essence(error: Exception) -> str:
    """The line that says what is wrong: TensorFlow puts a traceback and advice around it where its import fails."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
    return next((line.partition("Error: ")[2] for line in lines if "Error: " in line), lines[0])


def stderr_file(process: int) -> str:
    """The beginning of the name of a temporary file, in which a process holds back what it writes to standard error."""
    return f"digit-recognizer-{process}-"


def _held_back(process: BaseProcess) -> str:
    """The last line that a process held back when it died, empty where there is none; its file is removed."""
    last = ""
    for path in Path(tempfile.gettempdir()).glob(f"{stderr_file(process.pid or 0)}*"):
        with suppress(OSError):
            lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
            last = next((line.strip() for line in reversed(lines) if line.strip()), "")
            path.unlink()
    return last


def _end_with_parent() -> None:
    parent = parent_process()
    if parent:
        connection.wait([parent.sentinel])
    os._exit(1)
