"""Tell how far a run is: a moving line on a terminal, one plain line an epoch elsewhere."""

import shutil
import sys
import time
from collections.abc import Sequence


def duration(seconds: float) -> str:
    """Write a time as people say it: 45 s, 12 min, 1 h 05 min."""
    minutes = round(seconds / 60)
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


class Spinner:
    """Shows on a terminal that something is waited for, and for how long; elsewhere one plain line."""

    def __init__(self, text: str) -> None:
        self._text, self._began, self._moving = text, time.monotonic(), sys.stdout.isatty()
        if not self._moving:
            print(text, flush=True)

    def sleep(self, seconds: float) -> None:
        """Wait, turning."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self.turn()
            time.sleep(min(left, 0.125))

    def turn(self, more: str = "") -> None:
        """Show the time, and what more there is to say."""
        if self._moving:
            waited = time.monotonic() - self._began
            line = f"{'|/-'[int(waited * 8) % 3]} {self._text}  {duration(waited)}  {more}"
            print(f"\r\x1b[K{line[: shutil.get_terminal_size().columns - 1].rstrip()}", end="", flush=True)

    def stop(self) -> None:
        """Clear the line."""
        if self._moving:
            print("\r\x1b[K", end="", flush=True)


class Progress:
    """Prints the epochs of a run's members as they end, several members at once, with the time left for the whole run.

    Members are counted from 0 in calls and from 1 on the screen.

    Args:
        members: members of the run.
        epochs: epochs of each.
        kept: those that were trained before.
        missing: how many are to be trained now.
        noun: what they are called.
        each_epoch: whether the end of an epoch is worth a line.
    """

    def __init__(
        self,
        members: int,
        epochs: int,
        kept: Sequence[int],
        missing: int,
        *,
        noun: str = "member",
        each_epoch: bool = True,
    ) -> None:
        self._members, self._epochs, self._missing = members, epochs, missing
        self._noun, self._each_epoch = noun, each_epoch
        self._moving = sys.stdout.isatty()
        self._done: dict[int, float] = {}  # member → epochs that are over, in part too
        self._least: dict[int, float] = {}
        self._began = time.monotonic()
        for member in kept:
            print(f"member {member + 1}/{members}  kept from before", flush=True)

    def batch(self, member: int, done: int, of: int, loss: float) -> None:
        """A training step is over: ``done`` of an epoch's ``of``."""
        self._done[member] = int(self._done.get(member, 0)) + min(done / of, 0.999)
        if self._moving:
            share = sum(self._done.values()) / (self._missing * self._epochs)
            who = f"{self._noun} {member + 1}/{self._members}"
            line = f"{share:4.0%}{self._left()}  {who} step {done}/{of} loss {loss:.4f}"
            print(f"\r\x1b[K{line[: shutil.get_terminal_size().columns - 1]}", end="", flush=True)

    def epoch(self, member: int, epoch: int, figures: dict[str, float]) -> None:
        """An epoch, counted from 1, is over."""
        self._done[member] = epoch
        if not self._each_epoch:
            return
        best = figures["val_loss"] < self._least.get(member, float("inf"))
        if best:
            self._least[member] = figures["val_loss"]
        where = f"{self._noun} {member + 1}/{self._members}  epoch {epoch:{len(str(self._epochs))}}/{self._epochs}"
        fold = f"loss {figures['val_loss']:.4f}{'*' if best else ' '} accuracy {figures['val_accuracy']:.4f}"
        self._say(f"{where}  loss {figures['loss']:.4f}  fold: {fold}{self._left()}")

    def over(self, member: int, line: str) -> None:
        """A member is over, at its last epoch or before; ``line`` tells of it."""
        self._done[member] = self._epochs
        self._say(f"{line}{self._left()}")

    def _say(self, line: str) -> None:
        clear = "\r\x1b[K" if self._moving else ""
        print(f"{clear}{line}", flush=True)

    def _left(self) -> str:
        done = sum(self._done.values())
        left = self._missing * self._epochs - done
        if done <= 0 or left <= 0:
            return ""
        return f"  {duration((time.monotonic() - self._began) / done * left)} left"
