"""Parse command lines, and turn errors into lines and an exit status."""

import argparse
import difflib
import io
import math
import os
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from digit_recognizer.errors import BadInput, KitError, printable

REPORT = Path("runs") / "error.log"
MIN_BUDGET, MAX_BUDGET = 30, 90 * 86400  # seconds
MAX_WAIT = 7 * 86400  # seconds


class Parser(argparse.ArgumentParser):
    """Refuses words in one line as all errors are, and takes no option by a part of its name."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(allow_abbrev=False, **settings)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Refuse what is not known, where argparse would hand it to the parser above."""
        given, unknown = super().parse_known_args(args, namespace)
        if unknown:
            word = unknown[0].partition("=")[0]
            kind = "option" if word.startswith("-") else "word"
            raise BadInput(f"{self.prog}: unknown {kind} {_shortened(word)!r}", hint=self._hint(word))
        return given, unknown

    def error(self, message: str) -> Any:
        choice = re.search("invalid choice: '(.*?)'", message)
        message = re.sub(r" \(choose from .*\)$", "", message)
        raise BadInput(f"{self.prog}: {message[:300]}", hint=self._hint(choice[1] if choice else ""))

    def _hint(self, word: str) -> str:
        """The option or verb that ``word`` probably stands for."""
        known = list(self._option_string_actions)
        for action in self._actions:
            if isinstance(action.choices, dict):
                known += action.choices
        likely = difflib.get_close_matches(word.lower().replace("_", "-"), known, 1)
        return f"did you mean {likely[0]}?" if likely else f"see {self.prog} --help"


def run_command(parser: argparse.ArgumentParser, words: Sequence[str] | None) -> int:
    """Parse ``words`` (None: of this process), call what they select, and return the exit status."""
    make_printing_safe()
    given = argparse.Namespace(words=list(sys.argv[1:] if words is None else words))
    try:
        parser.parse_args(given.words, given)
        return int(given.call(given) or 0)
    except KitError as error:
        where = _report(traceback.format_exc()) if hasattr(error, "__notes__") else ""
        print(f"error: {printable(' '.join(str(error).splitlines()))}{where}", file=sys.stderr)
        if error.hint:
            print(f"hint: {printable(error.hint)}", file=sys.stderr)
        return error.status
    except KeyboardInterrupt:
        print(f"\ninterrupted; {getattr(given, 'interrupted', 'nothing was changed')}", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as error:
        where = _report(traceback.format_exc())
        # What the system refuses (a full disk, a folder that is gone) is no fault of the program's.
        kind = "" if isinstance(error, OSError) else f"internal error: {type(error).__name__}: "
        print(f"error: {kind}{printable(' '.join(str(error).split()))}{where}", file=sys.stderr)
        return 1


def make_printing_safe() -> None:
    """Let no character and no closed stream end a run: what cannot be encoded is printed as ``?``."""
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _report(text: str) -> str:
    """Write a traceback to a file, for whoever fixes it."""
    try:
        REPORT.parent.mkdir(exist_ok=True)
        REPORT.write_text(text, encoding="utf-8")
    except OSError:
        return ""
    return f"; the details are in {REPORT}"


def _shortened(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}…"


def path_type(text: str) -> Path:
    """Read a path, with ``~`` as the home folder: make hands it on unread."""
    try:
        path = Path(text).expanduser()
        with suppress(FileNotFoundError, NotADirectoryError):
            path.stat()  # fails where it contains NUL or is too long
    except (OSError, RuntimeError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise argparse.ArgumentTypeError(f"{_shortened(text)!r} cannot be used: {why}") from None
    return path


def integer_type(text: str) -> int:
    """Read a whole number that is written in digits, not too many."""
    if not re.fullmatch("[+-]?[0-9]{1,20}", text.strip()):
        raise argparse.ArgumentTypeError(f"expected a whole number, found {_shortened(text)!r}")
    return int(text)


def whole_number_type(low: int, high: int) -> Callable[[str], int]:
    """Make a reader of whole numbers from ``low`` to ``high``."""

    def read(text: str) -> int:
        number = integer_type(text)
        if not low <= number <= high:
            raise argparse.ArgumentTypeError(f"expected a whole number from {low} to {high}, found {number}")
        return number

    return read


def number_type(text: str) -> float:
    """Read a finite number."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"expected a finite number, found {_shortened(text)!r}")
    return number


def wait_type(text: str) -> float:
    """Read how long to wait, in seconds."""
    seconds = number_type(text)
    if not 0 <= seconds <= MAX_WAIT:
        raise argparse.ArgumentTypeError(f"expected seconds from 0 to {MAX_WAIT}, found {_shortened(text)!r}")
    return seconds


def split_names(text: str) -> list[str]:
    """Split names separated by commas or spaces."""
    return text.replace(",", " ").split()


def duration_type(text: str) -> float:
    """Read a time such as 90s, 3m, 11h30m or 1.5h, in seconds."""
    parts = re.fullmatch(r"(?:([0-9.]+)h)?(?:([0-9.]+)m)?(?:([0-9.]+)s)?", text.strip().lower())
    try:
        hours, minutes, seconds = (float(part or 0) for part in parts.groups()) if parts else (0, 0, 0)
    except ValueError:
        hours = minutes = seconds = 0
    total = 3600 * hours + 60 * minutes + seconds
    if not MIN_BUDGET <= total <= MAX_BUDGET:
        raise argparse.ArgumentTypeError(
            f"expected a time such as 3m or 1h30m, at least {MIN_BUDGET} s, at most {MAX_BUDGET // 86400} days, "
            f"found {_shortened(text)!r}"
        )
    return total
