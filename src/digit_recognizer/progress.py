"""Tell how far a run is: a moving line on a terminal, one plain line an epoch elsewhere."""

import shutil
import sys
import time


def duration(seconds: float) -> str:
    """Write a time as people say it: 45 s, 12 min, 1 h 05 min."""
    minutes = round(seconds / 60)
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


class Progress:
    """Prints the epochs of a run's members as they end, with the time left for the whole run.

    Args:
        members: members of the run, those already trained before included.
        epochs: epochs of each.
    """

    def __init__(self, members: int, epochs: int) -> None:
        self._members, self._epochs = members, epochs
        self._moving = sys.stdout.isatty()
        self._member = self._epoch = 0
        self._least = float("inf")
        self._kept = 0
        self._began = self._drawn = time.monotonic()

    def kept(self, member: int) -> None:
        """A member, counted from 0, was trained before."""
        self._kept += 1
        print(f"member {member + 1}/{self._members}  kept from before", flush=True)

    def member(self, member: int) -> None:
        """A member, counted from 0, begins."""
        self._member, self._epoch, self._least = member, 0, float("inf")

    def batch(self, done: int, of: int, loss: float) -> None:
        """A training step is over; draws the moving line, five times a second at most."""
        now = time.monotonic()
        if self._moving and now - self._drawn > 0.2:
            self._drawn = now
            line = f"{self._where(self._epoch + 1)}  step {done}/{of}  loss {loss:.4f}{self._left(done / of)}"
            print(f"\r\x1b[K{line[: shutil.get_terminal_size().columns - 1]}", end="", flush=True)

    def epoch(self, epoch: int, figures: dict[str, float]) -> None:
        """An epoch, counted from 1, is over."""
        self._epoch = epoch
        best = figures["val_loss"] < self._least
        self._least = min(self._least, figures["val_loss"])
        start = "\r\x1b[K" if self._moving else ""
        fold = f"loss {figures['val_loss']:.4f}{'*' if best else ' '} accuracy {figures['val_accuracy']:.4f}"
        print(f"{start}{self._where(epoch)}  loss {figures['loss']:.4f}  fold: {fold}{self._left(0)}", flush=True)

    def _where(self, epoch: int) -> str:
        width = len(str(self._epochs))
        return f"member {self._member + 1}/{self._members}  epoch {epoch:{width}}/{self._epochs}"

    def _left(self, part: float) -> str:
        done = (self._member - self._kept) * self._epochs + self._epoch + part
        left = (self._members - self._kept) * self._epochs - done
        if done <= 0 or left <= 0:
            return ""
        return f"  {duration((time.monotonic() - self._began) / done * left)} left"
