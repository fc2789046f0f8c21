"""Show the progress of a run: bars on a terminal, one plain line per epoch elsewhere."""

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from digit_recognizer import console

REDRAW_SECONDS = 0.1  # least time between two redraws of the bars
BAR_WIDTH = (5, 30)  # columns, least and most
PLAIN_WIDTH = 60  # columns of the lines outside a terminal


class Progress:
    """Print a line for each finished epoch of a run's members and estimate the time left for the run.

    While the object is used as a context manager on a terminal, bars for each running member and for the run are shown
    below these lines. Elsewhere the lines fit 60 columns. Members are counted from 0 in calls and from 1 on the screen.
    ``Progress(0, 0, (), 0)`` prints nothing.

    Args:
        members: number of members of the run.
        epochs: number of epochs of each member.
        kept: indices of members that an earlier run trained.
        missing: number of members to train now.
        workers: number of processes that start; 0 prints no line about it.
        noun: the name of a member on the screen.
        each_epoch: whether to print a line for each epoch.
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
        self._terminal = console.terminal() if missing else None
        self._live: Live | None = None
        self._redrawn = 0.0
        self.refresh_seconds = 0.5 if self._terminal else None  # time to wait for messages before ``refresh``
        self._done: dict[int, float] = {}  # member → finished epochs, with the fraction of the current one
        self._first_step: tuple[float, float] | None = None  # time of the first step, and the finished epochs then
        self._member_first_step: dict[int, tuple[float, float]] = {}
        self._steps: dict[int, tuple[int, int, float]] = {}  # running member → step, steps of an epoch, loss
        self._stages: dict[int, tuple[str, float]] = {}  # member outside training steps → text, start time
        self._lowest_loss: dict[int, float] = {}
        self._header_due = each_epoch
        for member in kept:
            print(f"{noun} {member + 1}/{members}  kept from before", flush=True)
        self._start_line, self._start = "", time.monotonic()
        if workers:
            self._start_line = f"starting {workers} worker{'s' * (workers > 1)} (loading TensorFlow)"
            if not self._terminal:
                print(self._start_line, flush=True)

    def __enter__(self) -> Self:
        if self._terminal:
            self._live = console.live_display(self._terminal)
            self._live.start()
            self._redraw()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._live:
            self._live.update("")
            self._live.stop()
            self._live = None

    def stage(self, member: int, text: str) -> None:
        """Record that a member starts something other than a training step, such as predicting."""
        self._stages[member] = text, time.monotonic()
        self._redraw()

    def refresh(self) -> None:
        """Redraw the bars with the current times."""
        self._redraw()

    def batch(self, member: int, done: int, of: int, loss: float) -> None:
        """Record a finished training step: ``done`` of the ``of`` steps of an epoch."""
        self._done[member] = int(self._done.get(member, 0)) + min(done / of, 0.999)
        now = time.monotonic()
        self._first_step = self._first_step or (now, sum(self._done.values()))
        self._member_first_step.setdefault(member, (now, self._done[member]))
        self._steps[member] = done, of, loss
        self._stages.pop(member, None)
        if now - self._redrawn >= REDRAW_SECONDS:
            self._redraw()

    def epoch(self, member: int, epoch: int, figures: dict[str, float]) -> None:
        """Record a finished epoch, counted from 1, with its loss; with validation rows also val_loss, val_accuracy."""
        self._done[member] = epoch
        if not self._each_epoch:
            return
        validated = "val_loss" in figures
        lowest = validated and figures["val_loss"] < self._lowest_loss.get(member, float("inf"))
        if lowest:
            self._lowest_loss[member] = figures["val_loss"]
        wide, narrow = max(6, len(f"{self._members}/{self._members}")), max(5, len(f"{self._epochs}/{self._epochs}"))
        columns = {
            self._noun.rjust(wide): f"{member + 1}/{self._members}".rjust(wide),
            "epoch".rjust(narrow): f"{epoch}/{self._epochs}".rjust(narrow),
            "  loss": f"{figures['loss']:6.4f}",
            "val loss ": f"{figures['val_loss']:8.4f}{'*' if lowest else ' '}" if validated else "–".rjust(8) + " ",
            "val acc": f"{figures['val_accuracy']:7.4f}" if validated else "–".rjust(7),
            "time left": self._time_left(),
        }
        width = self._terminal.width if self._terminal else PLAIN_WIDTH
        for header in ("time left", "  loss", "val acc"):
            if len("  ".join(columns)) > width:
                del columns[header]
        if self._header_due:
            self._print("* a member's lowest validation loss so far")
            self._print("  ".join(columns).rstrip())
            self._header_due = False
        self._print("  ".join(columns.values()).rstrip())
        self._redraw()

    def resume(self, member: int, epochs: int) -> None:
        """Record that a member continues after its first ``epochs`` epochs, which an earlier attempt trained."""
        if self._first_step:
            start, done = self._first_step
            self._first_step = start, done + epochs - self._done.get(member, 0)
        self._done[member] = epochs
        self._print(f"{self._noun} {member + 1}/{self._members}  continues after epoch {epochs}/{self._epochs}")

    def retry(self, member: int, reason: str) -> None:
        """Print that a member failed and is started again."""
        self._member_first_step.pop(member, None)
        self._steps.pop(member, None)
        self._print(f"{self._noun} {member + 1}/{self._members}  {reason}; started again")

    def over(self, member: int, line: str) -> None:
        """Record a finished member, at its last epoch or before, and print ``line``."""
        self._done[member] = self._epochs
        self._steps.pop(member, None)
        self._stages.pop(member, None)
        left = self._time_left()
        self._print(f"{line}  {left} left" if left else line)
        self._redraw()

    def _print(self, line: str) -> None:
        if self._terminal:
            self._terminal.print(Text(line))
        else:
            print(line, flush=True)

    def _redraw(self) -> None:
        if self._live:
            self._redrawn = time.monotonic()
            self._live.update(self._bars(), refresh=True)

    def _bars(self) -> RenderableType:
        """The lines below the epochs: one for each running member, then one for the run."""
        running = sorted(self._steps.keys() | self._stages.keys())
        if not running:
            return self._stage_line(self._start_line, self._start) if self._start_line and not self._done else ""
        lines = [self._member_line(member) for member in running]
        height = self._terminal.height if self._terminal else 24
        share = sum(self._done.values()) / max(1, self._missing * self._epochs)
        left = self._time_left()
        total = self._bar_line("total", share, [f"{share:.0%}", left and f"{left} left"])
        return Group(*lines[: max(1, height - 2)], total)

    def _member_line(self, member: int) -> RenderableType:
        label = f"{self._noun} {member + 1}/{self._members}"
        if member in self._stages:
            text, start = self._stages[member]
            return self._stage_line(f"{label} {text}", start)
        step, steps, loss = self._steps[member]
        done = self._done.get(member, 0.0)
        epoch = min(int(done) + 1, self._epochs)
        left = _format_time_left(self._member_first_step[member], done, self._epochs - done)
        # In the order of importance, which a narrow terminal cuts from the end.
        details = [f"epoch {epoch}/{self._epochs}", left and f"{left} left", f"loss {loss:.4f}", f"step {step}/{steps}"]
        return self._bar_line(label, done / max(1, self._epochs), details)

    def _stage_line(self, text: str, start: float) -> RenderableType:
        duration = console.format_duration(time.monotonic() - start)
        return Text(f"{text}  {duration}", no_wrap=True, overflow="ellipsis")

    def _bar_line(self, label: str, share: float, details: Sequence[str]) -> RenderableType:
        """A label, a bar and as many of the details as fit."""
        label = label.ljust(len(f"{self._noun} {self._members}/{self._members}"))
        least, most = BAR_WIDTH
        room = (self._terminal.width if self._terminal else PLAIN_WIDTH) - 1 - len(label) - 1
        shown = ""
        for detail in filter(None, details):
            if len(f"{shown} {detail}") + least > room:
                break
            shown += f" {detail}"
        width = min(most, room - len(shown))
        if width < least:
            return Text(label, no_wrap=True, overflow="ellipsis")
        grid = Table.grid(padding=(0, 1, 0, 0))
        for column_width in (len(label), width, len(shown)):
            grid.add_column(width=column_width, no_wrap=True)
        grid.add_row(Text(label), ProgressBar(total=1, completed=share, width=width), Text(shown.strip()))
        return grid

    def _time_left(self) -> str:
        done = sum(self._done.values())
        return _format_time_left(self._first_step, done, self._missing * self._epochs - done)


def _format_time_left(first_step: tuple[float, float] | None, done: float, left: float) -> str:
    """Return the time for the ``left`` epochs at the pace since the first step; empty where it is unknown or over."""
    now = time.monotonic()
    start, done_at_start = first_step or (now, done)
    if done <= done_at_start or left < 0.01:
        return ""
    return console.format_duration((now - start) / (done - done_at_start) * left)
