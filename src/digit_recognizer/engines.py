"""Where members run: each in a worker process, several at once, with the processor's cores shared out among them.

A network of this size keeps one core busy and two cores half busy, so two members on a core each are done sooner than
one after the other on both.
"""

import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from multiprocessing import connection, get_context, parent_process
from pathlib import Path
from typing import Any

from digit_recognizer.errors import KitError
from digit_recognizer.progress import Progress

MESSAGES_PER_SECOND = 5
# What Keras imports where it is there, for what no member uses; without them a worker is ready two seconds sooner.
UNUSED = ("matplotlib", "pandas", "sklearn")


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
    """How many processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def share(members: int) -> tuple[int, int]:
    """How many workers to start for a run of that many members, and how many threads to give each.

    It follows from the run and the machine alone, so that a run gone on with computes as it would have at first. A GPU
    is used by one worker, which sees no other; a TPU can be opened by one process alone.
    """
    workers = min(gpus() or (1 if tpu() else cores()), members)
    return workers, max(1, cores() // workers)


def gpus() -> int:
    """How many NVIDIA GPUs this machine has."""
    return len(list(Path("/dev").glob("nvidia[0-9]*")))


def tpu() -> bool:
    """Whether JAX would train on a TPU here."""
    nodes = (*Path("/dev").glob("accel[0-9]*"), *Path("/dev/vfio").glob("[0-9]*"))
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
    spawn = get_context("spawn")
    pipes = {}
    # Workers inherit that they ignore an interrupt: it is this process's to handle.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        for number in range(min(workers, len(waiting))):
            ours, theirs = spawn.Pipe()
            gpu = number if gpus() else None
            process = spawn.Process(target=_work, args=(theirs, threads, gpu), daemon=True)
            process.start()
            theirs.close()
            pipes[ours] = process
    finally:
        signal.signal(signal.SIGINT, before)
    try:
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
        codes = [process.exitcode for process in pipes.values() if process.exitcode is not None]
        if not codes:  # it was not a worker's pipe that broke
            raise
        raise KitError(
            f"a worker process was ended from outside (exit code {codes[0]}), as happens where memory runs out; "
            "trained members are kept, the same command goes on from them"
        ) from error
    finally:
        for process in pipes.values():
            process.terminate()
        for process in pipes.values():
            process.join()


def _work(pipe: connection.Connection, threads: int, gpu: int | None) -> None:
    """Do the job for the members that come through the pipe, until the process that sends them ends."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    absent: Any = dict.fromkeys(UNUSED)  # None stands for a module that is not there
    sys.modules.update(absent)
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = str(gpu)
    for name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
        os.environ[name] = str(threads)
    job: Job = pipe.recv()
    while True:
        member = pipe.recv()
        try:
            result = job(member, Reporter(pipe, member))
        except Exception as error:
            if not isinstance(error, KitError):
                report = traceback.format_exc()
                error = RuntimeError(f"in member {member + 1}, {type(error).__name__}: {error}")
                error.add_note(report)
            pipe.send(("failed", error))
        else:
            pipe.send(("done", result))


def _end_with_parent() -> None:
    parent = parent_process()
    if parent:
        connection.wait([parent.sentinel])
    os._exit(1)
