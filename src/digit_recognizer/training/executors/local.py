"""Run members in worker processes on this machine, several at once, with its cores divided among them.

A network of this size uses one core fully and two cores by half. So two members on one core each finish sooner than one
after the other on two cores.
"""

import os
import shutil
import signal
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing import connection, get_context, parent_process
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from digit_recognizer.errors import KitError
from digit_recognizer.training import devices
from digit_recognizer.training.executors import Job, Reporter, States, describe_failure, processes
from digit_recognizer.training.progress import Progress


def plan(members: int) -> tuple[int, int]:
    """Return the numbers of workers and of threads of each; see ``devices.plan_workers``."""
    return devices.plan_workers(members)


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
    """Call ``job`` for each member in worker processes of this machine; see ``Executor.run_jobs``."""
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
        if process.exitcode == -signal.SIGKILL:  # its last line, if any, is older than the kill
            reason = "possibly out of memory"
        return KitError(
            f"worker killed (exit code {process.exitcode}){reason and ', '}{reason}",
            hint="trained members and finished epochs are kept; rerun the command to resume",
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
    folder = processes.use_own_temporary_folder()
    threading.Thread(target=_end_with_parent, args=(folder,), daemon=True).start()
    processes.hide_unused()
    if gpu is not None:
        os.environ[devices.VISIBLE_VARIABLE] = gpu
    for name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
        os.environ[name] = str(threads)
    # The pipe is closed if the parent process has ended; the thread above ends this one.
    with suppress(EOFError, ConnectionError):
        job: Job = pipe.recv()
        while True:
            member, saved = pipe.recv()
            try:
                result = job(member, Reporter(pipe.send, member, saved))
            except Exception as error:
                pipe.send(("failed", describe_failure(member, error)))
            else:
                pipe.send(("done", result))


def _end_with_parent(folder: Path) -> None:
    """Wait for the end of the parent process, then end this one and remove its temporary folder."""
    parent = parent_process()
    if parent:
        connection.wait([parent.sentinel])
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)
