"""Tell how far a run is: a moving line on a terminal, one plain line an epoch elsewhere."""

import shutil
import sys
import time
from collections.abc import Sequence

from digit_recognizer import console


class Progress:
    """Prints the epochs of a run's members as they end, several members at once, with the time left for the whole run.

    Lines fit 60 columns. On a terminal a last line shows what is being done at the moment. Members are counted from 0
    in calls and from 1 on the screen.

    Args:
        members: members of the run.
        epochs: epochs of each.
        kept: those that were trained before.
        missing: how many are to be trained now.
        workers: how many processes start for that; 0 prints nothing about it.
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
        workers: int = 0,
        noun: str = "member",
        each_epoch: bool = True,
    ) -> None:
        self._members, self._epochs, self._missing = members, epochs, missing
        self._noun, self._each_epoch = noun, each_epoch
        self._moving = sys.stdout.isatty()
        self.refresh_seconds = 0.5 if self._moving else None  # how long to wait for news before ``refresh``
        self._done: dict[int, float] = {}  # member → epochs that are over, in part too
        self._least: dict[int, float] = {}
        self._first_step: tuple[float, float] | None = None  # when it was over, and how many epochs were by then
        self._stage, self._stage_began = "", time.monotonic()
        self._header_due = each_epoch
        for member in kept:
            print(f"{noun} {member + 1}/{members}  kept from before", flush=True)
        if workers:
            who = "a worker, which loads" if workers == 1 else f"{workers} workers, which load"
            line = f"starting {who} TensorFlow"
            self._stage = line
            if not self._moving:
                print(line, flush=True)
            self.refresh()

    def stage(self, member: int, text: str) -> None:
        """Something else than a training step begins for a member."""
        self._stage, self._stage_began = f"{self._noun} {member + 1}/{self._members} {text}", time.monotonic()
        self.refresh()

    def refresh(self) -> None:
        """Show on a terminal how long the stage that began last has taken."""
        if self._moving and self._stage:
            self._draw(f"{self._stage}  {console.format_duration(time.monotonic() - self._stage_began)}")

    def batch(self, member: int, done: int, of: int, loss: float) -> None:
        """A training step is over: ``done`` of an epoch's ``of``."""
        self._done[member] = int(self._done.get(member, 0)) + min(done / of, 0.999)
        self._first_step = self._first_step or (time.monotonic(), sum(self._done.values()))
        self._stage = ""
        if self._moving:
            share = sum(self._done.values()) / (self._missing * self._epochs)
            left = self._left()
            who = f"{self._noun} {member + 1}/{self._members}"
            self._draw(f"{share:4.0%}  {f'{left} left  ' if left else ''}{who} step {done}/{of} loss {loss:.4f}")

    def epoch(self, member: int, epoch: int, figures: dict[str, float]) -> None:
        """An epoch, counted from 1, is over."""
        self._done[member] = epoch
        if not self._each_epoch:
            return
        lowest = figures["val_loss"] < self._least.get(member, float("inf"))
        if lowest:
            self._least[member] = figures["val_loss"]
        who, which = f"{member + 1}/{self._members}", f"{epoch}/{self._epochs}"
        wide, narrow = max(6, len(f"{self._members}/{self._members}")), max(5, len(f"{self._epochs}/{self._epochs}"))
        if self._header_due:
            self._say("* a member's lowest validation loss so far")
            self._say(f"{self._noun:>{wide}}  {'epoch':>{narrow}}    loss  val loss   val acc  time left")
            self._header_due = False
        validation = f"{figures['val_loss']:8.4f}{'*' if lowest else ' '}  {figures['val_accuracy']:7.4f}"
        row = f"{who:>{wide}}  {which:>{narrow}}  {figures['loss']:6.4f}  {validation}  {self._left()}"
        self._say(row.rstrip())

    def over(self, member: int, line: str) -> None:
        """A member is over, at its last epoch or before."""
        self._done[member] = self._epochs
        left = self._left()
        self._say(f"{line}  {left} left" if left else line)

    def _draw(self, line: str) -> None:
        print(f"\r\x1b[K{line[: shutil.get_terminal_size().columns - 1]}", end="", flush=True)

    def _say(self, line: str) -> None:
        clear = "\r\x1b[K" if self._moving else ""
        print(f"{clear}{line}", flush=True)

    def _left(self) -> str:
        done, now = sum(self._done.values()), time.monotonic()
        left = self._missing * self._epochs - done
        began, at_first = self._first_step or (now, done)
        if done <= at_first or left < 0.01:
            return ""
        return console.format_duration((now - began) / (done - at_first) * left)
