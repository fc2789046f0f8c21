"""Write to the terminal: durations, and a spinner while something is waited for."""

import io
import shutil
import sys
import time
from collections.abc import Collection, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from digit_recognizer.errors import printable


def format_duration(seconds: float) -> str:
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
            line = f"{'|/-'[int(waited * 8) % 3]} {self._text}  {format_duration(waited)}  {more}"
            print(f"\r\x1b[K{line[: shutil.get_terminal_size().columns - 1].rstrip()}", end="", flush=True)

    def stop(self) -> None:
        """Clear the line."""
        if self._moving:
            print("\r\x1b[K", end="", flush=True)


def print_lines(text: str, *, error: bool = False) -> None:
    """Print lines that may hold texts from Kaggle or names, without their control characters."""
    print("\n".join(map(printable, text.split("\n"))), file=sys.stderr if error else sys.stdout, flush=True)


def render_table(headers: Sequence[str], rows: Sequence[Sequence[str]], *, right: Collection[int] = ()) -> str:
    """Draw a table as text, without lines between cells.

    Args:
        headers: the columns' names.
        rows: texts, one for each column.
        right: indices of the columns that are aligned to the right, such as those of numbers.
    """
    table = Table(box=None, pad_edge=False, header_style="", show_edge=False)
    for index, header in enumerate(headers):
        table.add_column(header, justify="right" if index in right else "left", no_wrap=True)
    for row in rows:
        table.add_row(*map(escape, row))
    console = Console(file=io.StringIO(), width=1000, color_system=None, highlight=False)
    with console.capture() as capture:
        console.print(table)
    return "\n".join(line.rstrip() for line in capture.get().splitlines())
