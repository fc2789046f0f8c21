"""Run members in worker processes on this machine, several at once, with its cores divided among them.

A network of this size uses one core fully and two cores by half. So two members on one core each finish sooner than one
after the other on two cores.
"""

import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing import connection, get_context, parent_process
from multiprocessing.process import BaseProcess
from typing import Any, Protocol

from digit_recognizer import hints
from digit_recognizer.errors import KitError
from digit_recognizer.training import devices
from digit_recognizer.training.executors import processes
from digit_recognizer.training.progress import Progress

MESSAGES_PER_SECOND = 5


class Reporter:
    """Send the progress of one member from its worker to the parent process.

    Attributes:
        saved: the state that an earlier attempt sent to ``save``; None if there is none.
    """

    def __init__(self, pipe: connection.Connection, member: int, saved: bytes | None = None) -> None:
        self._pipe, self._member, self._sent, self.saved = pipe, member, 0.0, saved

    def stage(self, text: str) -> None:
        """Report the start of something other than a training step, such as predicting."""
        self._pipe.send(("stage", (self._member, text)))

    def batch(self, done: int, of: int, loss: float) -> None:
        """Report a finished training step, ``done`` of an epoch's ``of`` steps, with the epoch's mean loss so far."""
        if time.monotonic() - self._sent > 1 / MESSAGES_PER_SECOND:
            self._sent = time.monotonic()
            self._pipe.send(("batch", (self._member, done, of, float(loss))))

    def epoch(self, epoch: int, figures: dict[str, float]) -> None:
        """Report a finished epoch, counted from 1, with its metrics; validation metrics start with ``val_``."""
        self._pipe.send(("epoch", (self._member, epoch, {name: float(value) for name, value in figures.items()})))

    def resume(self, epochs: int) -> None:
        """Report that the member continues after its first ``epochs`` epochs."""
        self._pipe.send(("resume", (self._member, epochs)))

    def save(self, state: bytes) -> None:
        """Send a state from which another attempt can continue."""
        self._pipe.send(("save", (self._member, state)))


Job = Callable[[int, Reporter], Any]


class States(Protocol):
    """Where the states of unfinished members are kept."""

    def load(self, member: int) -> bytes | None:
        """Return the member's last state; None if there is none."""

    def save(self, member: int, state: bytes) -> None:
        """Replace the member's state."""


def run_jobs(
    job: Job,
    members: Sequence[int],
    progress: Progress,
    *,
    workers: int,
    threads: int,
    done: Callable[[int, Any], None] = lambda member, result: None,
    may_start: Callable[[], bool] = lambda: True,
    states: States | None = None,
    attempts: int = 1,
) -> None:
    """Call ``job`` for each member in worker processes; end all of them if one fails or this process is interrupted.

    Args:
        job: picklable function of a member and a reporter.
        members: the members, in the order in which they start.
        progress: receives every step and epoch; its bars are shown until all members are done.
        workers: number of processes.
        threads: number of threads of each process.
        done: called in this process with each finished member and the job's result.
        may_start: called before each member; after it returns False no other member starts.
        states: keeps what the jobs send to ``Reporter.save``, and returns it to the next attempt; None to discard it.
        attempts: how often a member is started before its failure ends the call. A ``KitError`` of the job, such as a
            training that diverged, would occur again and ends the call at once.

    Raises:
        KitError: raised in a worker, or a worker was killed.
    """
    waiting, starts, pool = list(members), dict.fromkeys(members, 0), _Pool(job, threads)
    busy: dict[connection.Connection, int] = {}
    try:
        with progress:
            idle = pool.start(min(workers, len(waiting)))
            while waiting or busy:
                while waiting and idle:
                    if not starts[waiting[0]] and not may_start():
                        waiting = [member for member in waiting if starts[member]]
                        continue
                    member, pipe = waiting.pop(0), idle.pop()
                    starts[member] += 1
                    busy[pipe] = member
                    with suppress(ConnectionError):  # the worker was killed; receiving from it fails below
                        pipe.send((member, states and states.load(member)))
                ready = set(connection.wait(busy, progress.refresh_seconds)) if busy else set()
                if not ready:
                    progress.refresh()
                for pipe in busy.keys() & ready:
                    member = busy[pipe]
                    try:
                        kind, content = pipe.recv()
                    except (EOFError, ConnectionError):
                        kind, content = "failed", (pool.remove(pipe), True)
                    if kind == "save":
                        if states:
                            states.save(*content)
                    elif kind == "failed":
                        error, may_pass = content
                        if not may_pass or starts[member] >= attempts:
                            raise error
                        progress.retry(member, str(error))
                        del busy[pipe]
                        idle += [pipe] if pipe in pool.pipes else pool.start(1)
                        waiting.insert(0, member)
                    elif kind == "done":
                        idle.append(pipe)
                        done(busy.pop(pipe), content)
                    else:
                        getattr(progress, kind)(*content)
    finally:
        pool.end()


class _Pool:
    """Worker processes that run one job.

    Attributes:
        pipes: a pipe to each process → the process.
    """

    def __init__(self, job: Job, threads: int) -> None:
        self.pipes: dict[connection.Connection, BaseProcess] = {}
        self._job, self._threads = job, threads
        # Each worker gets one GPU, the first of this list. GPUs that the backend cannot use are hidden.
        self._gpus = list(devices.gpus() or ("",) * bool(devices.visible_gpus()))
        self._gpu_of: dict[connection.Connection, str] = {}

    def start(self, count: int) -> list[connection.Connection]:
        """Start processes and return the pipes to them."""
        started = []
        for _ in range(count):
            parent_end, worker_end = get_context("spawn").Pipe()
            gpu = None
            if self._gpus:
                gpu = self._gpu_of[parent_end] = self._gpus.pop(0)
                self._gpus.append(gpu)
            self.pipes[parent_end] = processes.spawn(_work, worker_end, self._threads, gpu)
            worker_end.close()
            started.append(parent_end)
        # The job goes through the pipe. As an argument of a process that is killed at its start, it would block this
        # process forever.
        for pipe in started:
            with suppress(ConnectionError):
                pipe.send(self._job)
        return started

    def remove(self, pipe: connection.Connection) -> KitError:
        """Remove a process that was killed, and return the error that describes its end."""
        process = self.pipes.pop(pipe)
        if gpu := self._gpu_of.pop(pipe, None):
            self._gpus.remove(gpu)
            self._gpus.insert(0, gpu)
        process.join(0.5)
        process.kill()  # in case that it closed the pipe and lives on
        process.join()
        reason = processes.last_stderr_line(process)
        if not reason and process.exitcode == -signal.SIGKILL:
            reason = "possibly out of memory"
        return KitError(
            f"worker killed (exit code {process.exitcode}){reason and ', '}{reason}",
            hint="trained members are kept; rerun the command to resume",
        )

    def end(self) -> None:
        """End all processes."""
        for process in self.pipes.values():
            process.terminate()
        for process in self.pipes.values():
            process.join()
            processes.last_stderr_line(process)


def _work(pipe: connection.Connection, threads: int, gpu: str | None) -> None:
    """Receive the job and members from the pipe and send back results, until the parent process ends."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    processes.hide_unused()
    if gpu is not None:
        os.environ[devices.VISIBLE_VARIABLE] = gpu
    for name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
        os.environ[name] = str(threads)
    job: Job = pipe.recv()
    while True:
        member, saved = pipe.recv()
        try:
            result = job(member, Reporter(pipe, member, saved))
        except Exception as error:
            pipe.send(("failed", describe_failure(member, error)))
        else:
            pipe.send(("done", result))


def describe_failure(member: int, error: Exception) -> tuple[Exception, bool]:
    """Return an error for the user, and whether another attempt may succeed. A ``KitError`` would occur again."""
    if isinstance(error, KitError):
        return error, False
    message = f"member {member + 1}: {type(error).__name__}: {_main_line(error)}"
    described: Exception = RuntimeError(message)
    # Errors of the system or the installation; all others are faults of the program.
    if isinstance(error, OSError | ImportError):
        hint = f"check the installation and the free disk space: {hints.command('doctor')}"
        described = KitError(message, hint=hint)
    described.add_note("".join(traceback.format_exception(error)))
    return described, True


def _main_line(error: Exception) -> str:
    """Return the line that describes the error; TensorFlow's failed import adds a traceback and advice around it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
    return next((line.partition("Error: ")[2] for line in lines if "Error: " in line), lines[0])


def _end_with_parent() -> None:
    """Wait for the end of the parent process and then end this one."""
    parent = parent_process()
    if parent:
        connection.wait([parent.sentinel])
    os._exit(1)
