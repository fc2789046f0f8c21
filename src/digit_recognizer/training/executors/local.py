"""Where members run: each in a worker process, several at once, with the processor's cores shared out among them.

A network of this size keeps one core busy and two cores half busy, so two members on a core each are done sooner than
one after the other on both.
"""

import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from multiprocessing import connection, get_context, parent_process
from multiprocessing.process import BaseProcess
from typing import Any

from digit_recognizer.errors import KitError
from digit_recognizer.training import devices
from digit_recognizer.training.executors import processes
from digit_recognizer.training.progress import Progress

MESSAGES_PER_SECOND = 5


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


def run_jobs(
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
    visible = devices.gpus() or ("",) * bool(devices.visible_gpus())
    try:
        for number in range(min(workers, len(waiting))):
            ours, theirs = get_context("spawn").Pipe()
            pipes[ours] = processes.spawn(_work, theirs, threads, visible[number % len(visible)] if visible else None)
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
        why = processes.last_stderr_line(dead) or ("possibly out of memory" if dead.exitcode == -signal.SIGKILL else "")
        raise KitError(
            f"a worker was killed (exit code {dead.exitcode}){why and ', '}{why}",
            hint="trained members are kept; rerun the command to resume",
        ) from error
    finally:
        for process in pipes.values():
            process.terminate()
        for process in pipes.values():
            process.join()
            processes.last_stderr_line(process)


def _work(pipe: connection.Connection, threads: int, gpu: str | None) -> None:
    """Do the job for the members that come through the pipe, until the process that sends them ends."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    processes.hide_unused()
    if gpu is not None:
        os.environ[devices.VISIBLE_VARIABLE] = gpu
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


def _end_with_parent() -> None:
    parent = parent_process()
    if parent:
        connection.wait([parent.sentinel])
    os._exit(1)
