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
from multiprocessing import connection, get_context, parent_process
from multiprocessing.process import BaseProcess
from typing import Any

from digit_recognizer import hints
from digit_recognizer.errors import KitError
from digit_recognizer.training import devices
from digit_recognizer.training.executors import processes
from digit_recognizer.training.progress import Progress

MESSAGES_PER_SECOND = 5


class Reporter:
    """Send the progress of one member from its worker to the parent process."""

    def __init__(self, pipe: connection.Connection, member: int) -> None:
        self._pipe, self._member, self._sent = pipe, member, 0.0

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
    """Call ``job`` for each member in worker processes; end all of them if one fails or this process is interrupted.

    Args:
        job: picklable function of a member and a reporter.
        members: the members, in the order in which they start.
        progress: receives every step and epoch; its bars are shown until all members are done.
        workers: number of processes.
        threads: number of threads of each process.
        done: called in this process with each finished member and the job's result.
        may_start: called before each member; after it returns False no other member starts.

    Raises:
        KitError: raised in a worker, or a worker was killed.
    """
    waiting = list(members)
    pipes: dict[connection.Connection, BaseProcess] = {}
    # Each worker gets one GPU. GPUs that the backend cannot use are hidden.
    visible = devices.gpus() or ("",) * bool(devices.visible_gpus())
    try:
        with progress:
            for number in range(min(workers, len(waiting))):
                gpu = visible[number % len(visible)] if visible else None
                parent_end, worker_end = get_context("spawn").Pipe()
                pipes[parent_end] = processes.spawn(_work, worker_end, threads, gpu)
                worker_end.close()
            # The job goes through the pipe. As an argument of a process that is killed at its start, it would block
            # this process forever.
            for pipe in pipes:
                pipe.send(job)
            _distribute(waiting, list(pipes), progress, done, may_start)
    except (EOFError, ConnectionError) as error:
        for process in pipes.values():
            process.join(0.5)
        dead = next((process for process in pipes.values() if process.exitcode is not None), None)
        if not dead:  # the error comes from elsewhere
            raise
        reason = processes.last_stderr_line(dead) or (
            "possibly out of memory" if dead.exitcode == -signal.SIGKILL else ""
        )
        raise KitError(
            f"worker killed (exit code {dead.exitcode}){reason and ', '}{reason}",
            hint="trained members are kept; rerun the command to resume",
        ) from error
    finally:
        for process in pipes.values():
            process.terminate()
        for process in pipes.values():
            process.join()
            processes.last_stderr_line(process)


def _distribute(
    waiting: list[int],
    idle: list[connection.Connection],
    progress: Progress,
    done: Callable[[int, Any], None],
    may_start: Callable[[], bool],
) -> None:
    """Send the waiting members to idle workers and handle the workers' messages until all members are done."""
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
            kind, content = pipe.recv()
            if kind == "batch":
                progress.batch(*content)
            elif kind == "epoch":
                progress.epoch(*content)
            elif kind == "stage":
                progress.stage(*content)
            elif kind == "failed":
                raise content
            else:
                done(busy.pop(pipe), content)
                idle.append(pipe)


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
        member = pipe.recv()
        try:
            result = job(member, Reporter(pipe, member))
        except Exception as error:
            if not isinstance(error, KitError):
                report = traceback.format_exc()
                message = f"member {member + 1}: {type(error).__name__}: {_main_line(error)}"
                # Errors of the system or the installation; all others are faults of the program.
                if isinstance(error, OSError | ImportError):
                    hint = f"check the installation and the free disk space: {hints.command('doctor')}"
                    error = KitError(message, hint=hint)
                else:
                    error = RuntimeError(message)
                error.add_note(report)
            pipe.send(("failed", error))
        else:
            pipe.send(("done", result))


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
