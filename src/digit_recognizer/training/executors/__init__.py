"""Executors: where members run. ``local`` uses worker processes of this machine, ``ray`` the tasks of a Ray cluster."""

import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from digit_recognizer import hints
from digit_recognizer.errors import KitError
from digit_recognizer.training.progress import Progress

MESSAGES_PER_SECOND = 5


class Reporter:
    """Send the progress of one member from its worker to the parent process.

    Attributes:
        saved: the state that an earlier attempt sent to ``save``; None if there is none.

    Args:
        send: sends a message, (name of a method of ``Progress`` or ``save``, its arguments).
        member: the member, counted from 0.
        saved: see above.
    """

    def __init__(self, send: Callable[[tuple[str, tuple[Any, ...]]], None], member: int, saved: bytes | None) -> None:
        self._send, self._member, self._sent, self.saved = send, member, 0.0, saved

    def stage(self, text: str) -> None:
        """Report the start of something other than a training step, such as predicting."""
        self._send(("stage", (self._member, text)))

    def batch(self, done: int, of: int, loss: float) -> None:
        """Report a finished training step, ``done`` of an epoch's ``of`` steps, with the epoch's mean loss so far."""
        if time.monotonic() - self._sent > 1 / MESSAGES_PER_SECOND:
            self._sent = time.monotonic()
            self._send(("batch", (self._member, done, of, float(loss))))

    def epoch(self, epoch: int, figures: dict[str, float]) -> None:
        """Report a finished epoch, counted from 1, with its metrics; validation metrics start with ``val_``."""
        self._send(("epoch", (self._member, epoch, {name: float(value) for name, value in figures.items()})))

    def resume(self, epochs: int) -> None:
        """Report that the member continues after its first ``epochs`` epochs."""
        self._send(("resume", (self._member, epochs)))

    def save(self, state: bytes) -> None:
        """Send a state from which another attempt can continue."""
        self._send(("save", (self._member, state)))


Job = Callable[[int, Reporter], Any]


class States(Protocol):
    """Where the states of unfinished members are kept."""

    def load(self, member: int) -> bytes | None:
        """Return the member's last state; None if there is none."""

    def save(self, member: int, state: bytes) -> None:
        """Replace the member's state."""


class Executor(Protocol):
    """Runs a job for several members."""

    def plan(self, members: int) -> tuple[int, int]:
        """Return how many of ``members`` members run at the same time, and the number of threads of each."""

    def run_jobs(
        self,
        job: Job,
        members: Sequence[int],
        progress: Progress,
        *,
        workers: int,
        threads: int,
        done: Callable[[int, Any], None],
        may_start: Callable[[], bool],
        states: States | None = None,
        attempts: int = 1,
    ) -> None:
        """Call ``job`` for each member in worker processes; end all of them if one fails or the call is interrupted.

        Args:
            job: picklable function of a member and a reporter.
            members: the members, in the order in which they start.
            progress: receives every step and epoch; its bars are shown until all members are done.
            workers, threads: as ``plan`` returned them.
            done: called in this process with each finished member and the job's result.
            may_start: called before each member; after it returns False no other member starts.
            states: keeps what the jobs send to ``Reporter.save``, and returns it to the next attempt; None to discard
                it.
            attempts: how often a member is started before its failure ends the call. A ``KitError`` of the job, such as
                a training that diverged, would occur again and ends the call at once.

        Raises:
            KitError: raised by a job, or a worker was killed.
        """


def load_executor(name: str, ray_address: str | None = None) -> Executor:
    """Return the executor ``local`` or ``ray``.

    Raises:
        KitError: Ray is not installed, or the cluster cannot be reached.
    """
    if name == "ray":
        from digit_recognizer.training.executors.ray import RayExecutor

        return RayExecutor(ray_address)
    from digit_recognizer.training.executors import local

    return local


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
