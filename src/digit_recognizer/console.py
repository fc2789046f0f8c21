"""Write to the terminal: durations, tables and spinners.

What moves is shown only on a terminal. Pipes, files and logs get plain lines without escape sequences.
"""

import io
import sys
import time
from collections.abc import Collection, Sequence
from types import TracebackType
from typing import Self

from rich.console import Console, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.spinner import Spinner as SpinnerFrames
from rich.table import Table
from rich.text import Text

from digit_recognizer.errors import printable


def format_duration(seconds: float) -> str:
    """Format a duration as in ``45 s``, ``12 min`` or ``1 h 05 min``."""
    minutes = round(seconds / 60)
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


def terminal() -> Console | None:
    """Return a console for moving displays; None where standard output is no terminal or cannot move its cursor."""
    if not sys.stdout.isatty():
        return None
    console = Console(highlight=False, markup=False, emoji=False)
    return console if console.is_terminal and not console.is_dumb_terminal else None


def live_display(console: Console, renderable: RenderableType = "", *, refresh_per_second: float | None = None) -> Live:
    """Create a display at the bottom of the terminal that vanishes when it stops; ``print`` writes above it.

    Args:
        console: a terminal.
        renderable: what to show first.
        refresh_per_second: how often a thread redraws it; None redraws only on ``refresh``.
    """
    return Live(
        renderable,
        console=console,
        transient=True,
        auto_refresh=refresh_per_second is not None,
        refresh_per_second=refresh_per_second or 4,
        redirect_stderr=sys.stderr.isatty(),  # a redirected standard error keeps its lines
    )


class Spinner:
    """Show on a terminal that the program waits, and for how long; elsewhere print one line.

    Use it as a context manager, so that the terminal is restored after an exception or an interrupt.
    """

    def __init__(self, text: str) -> None:
        self._text, self._start = text, time.monotonic()
        self._live: Live | None = None
        if console := terminal():
            self._frames = SpinnerFrames("line", self._line(""))
            self._live = live_display(console, self._frames, refresh_per_second=8)
            self._live.start()
        else:
            print(text, flush=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def sleep(self, seconds: float) -> None:
        """Wait and update the time shown."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.turn()
            time.sleep(min(left, 0.5))

    def turn(self, more: str = "") -> None:
        """Update the time shown and append ``more`` to it."""
        if self._live:
            self._frames.update(text=self._line(more))

    def stop(self) -> None:
        """Remove the spinner."""
        if self._live:
            self._live.stop()

    def _line(self, more: str) -> Text:
        waited = format_duration(time.monotonic() - self._start)
        return Text(f"{self._text}  {waited}  {more}".rstrip(), no_wrap=True, overflow="ellipsis")


def print_lines(text: str, *, error: bool = False) -> None:
    """Print lines that may hold foreign text, such as Kaggle's messages or file names, without control characters."""
    print("\n".join(map(printable, text.split("\n"))), file=sys.stderr if error else sys.stdout, flush=True)


def render_table(headers: Sequence[str], rows: Sequence[Sequence[str]], *, right: Collection[int] = ()) -> str:
    """Format a table as plain text without rules between cells.

    On a terminal that is narrower than the table, text columns wrap within their cells.

    Args:
        headers: the columns' names.
        rows: texts, one for each column.
        right: indices of the columns that are aligned to the right, such as numbers; they never wrap.
    """
    table = Table(box=None, pad_edge=False, header_style="", show_edge=False)
    for index, header in enumerate(headers):
        number = index in right
        table.add_column(header, justify="right" if number else "left", no_wrap=number, overflow="fold")
    for row in rows:
        table.add_row(*map(escape, row))
    width = Console().width if sys.stdout.isatty() else 1000
    console = Console(file=io.StringIO(), width=width, color_system=None, highlight=False)
    with console.capture() as capture:
        console.print(table)
    return "\n".join(line.rstrip() for line in capture.get().splitlines())
