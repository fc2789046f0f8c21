"""Parse command lines; print errors and return the exit status."""

import argparse
import difflib
import io
import json
import math
import os
import re
import shutil
import sys
import textwrap
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from digit_recognizer import hints
from digit_recognizer.errors import BadInput, KitError, printable

REPORT = Path("runs") / "error.log"
STATUSES = "exit status: 0 success, 1 failure, 2 bad input, 130 interrupted"
MIN_BUDGET, MAX_BUDGET = 30, 90 * 86400  # seconds
MAX_WAIT = 7 * 86400  # seconds


class Outcome(NamedTuple):
    """The exit status of a verb, and the document that ``--json`` prints."""

    status: int = 0
    document: dict[str, Any] | None = None


class HelpFormatter(argparse.HelpFormatter):
    """Help texts of at most 80 columns, with options in the form of the caller."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=24, width=min(shutil.get_terminal_size().columns - 1, 79))

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not (action.option_strings and hints.called_by_make()):
            return super()._format_action_invocation(action)
        name = option_form(action.option_strings[-1])
        return name + ("1" if action.nargs == 0 else self._format_args(action, action.dest.upper()))

    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(" ".join(text.split()), width, break_on_hyphens=False)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        """Wrap each paragraph; keep the lines of a paragraph that begins with a space."""
        paragraphs = text.strip("\n").split("\n\n")
        return "\n\n".join(
            paragraph
            if paragraph.startswith(" ")
            else "\n".join(indent + line for line in self._split_lines(paragraph, width))
            for paragraph in paragraphs
        )


class Parser(argparse.ArgumentParser):
    """A parser that raises ``BadInput`` for every error, and that accepts no abbreviated options.

    Attributes:
        former_options: former option → present name, such as ``{"--view": "preprocessing"}``; a message names it.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=HelpFormatter, **settings)
        self.former_options: dict[str, str] = {}

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse the arguments; refuse unknown ones here, since the parent parser would name itself in the message."""
        arguments, unknown = super().parse_known_args(args, namespace)
        if unknown:
            word = unknown[0].partition("=")[0]
            kind = "option" if word.startswith("-") else "word"
            raise BadInput(f"{self._verb}: unknown {kind} {_shorten(word)!r}", hint=self._hint(word))
        return arguments, unknown

    def error(self, message: str) -> NoReturn:
        """Raise ``BadInput`` with argparse's message in the words of this project."""
        word = ""
        if choice := re.search("invalid choice: '(.*?)'", message):
            word = choice[1]
            message = f"unknown verb {_shorten(word)!r}"
        elif missing := re.search("arguments are required: (.*)", message):
            message = f"{self._verb}: expected {', '.join(map(option_form, missing[1].split(', ')))}"
        else:
            message = re.sub("^argument (--[a-z-]+)", lambda match: option_form(match[1]).rstrip("="), message)
            message = message.replace("ignored explicit argument", "expected no value, found")
            message = message.replace("expected one argument", "expected a value")
        raise BadInput(message[:300], hint=self._hint(word))

    @property
    def _verb(self) -> str:
        return self.prog.split()[-1]

    def _hint(self, word: str) -> str:
        """Return the option or verb that ``word`` probably means, or else the command that prints the help."""
        if word in self.former_options:
            return f"{word} was renamed: use {hints.option(self.former_options[word])}"
        known = list(self._option_string_actions)
        for action in self._actions:
            if isinstance(action.choices, dict):
                known += action.choices
        matches = difflib.get_close_matches(word.lower().replace("_", "-"), known, 1)
        help_command = hints.command(self._verb, help=True) if hints.called_by_make() else f"{self.prog} --help"
        return f"did you mean {matches[0]}?" if matches else f"see `{help_command}`"


def option_form(flag: str) -> str:
    """Return an option such as ``--batch-size`` in the form of the caller; other words are returned unchanged."""
    return hints.option(flag[2:].replace("-", "_")) if flag.startswith("--") else flag


def run_command(parser: argparse.ArgumentParser, words: Sequence[str] | None) -> int:
    """Parse ``words`` and run the function that they select; print errors and return the exit status.

    The parsed arguments have two attributes of the verb: ``call``, its function, and ``interrupted``, a text that is
    printed when the user interrupts it. ``call`` returns an exit status, None for 0, or an ``Outcome``. With the option
    ``--json`` standard output has one JSON document: that of the outcome, or else ``error`` and ``hint``.

    Args:
        parser: the parser of all verbs.
        words: the words of the command line; None for those of this process.
    """
    make_printing_safe()
    arguments = argparse.Namespace(words=list(sys.argv[1:] if words is None else words))
    try:
        parser.parse_args(arguments.words, arguments)
        if not _wants_json(arguments):
            outcome = arguments.call(arguments)
        else:
            with _stdout_as_stderr():
                outcome = arguments.call(arguments)
            _print_json(outcome.document)
        return outcome.status if isinstance(outcome, Outcome) else int(outcome or 0)
    except KitError as error:
        report = _write_report(traceback.format_exc()) if hasattr(error, "__notes__") else ""
        print(f"error: {printable(' '.join(str(error).splitlines()))}{report}", file=sys.stderr)
        if error.hint:
            print(f"hint: {printable(error.hint)}", file=sys.stderr)
        if _wants_json(arguments):
            _print_json({"error": str(error), "hint": error.hint})
        return error.status
    except KeyboardInterrupt:
        print(f"\ninterrupted; {getattr(arguments, 'interrupted', 'nothing was changed')}", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of the output has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141  # as for a process that SIGPIPE ended
    except Exception as error:
        report = _write_report(traceback.format_exc())
        # An OSError (a full disk, a folder without permission) is not a defect of the program.
        kind = "" if isinstance(error, OSError) else f"internal error: {type(error).__name__}: "
        message = f"{kind}{' '.join(str(error).split())}"
        print(f"error: {printable(message)}{report}", file=sys.stderr)
        if _wants_json(arguments):
            _print_json({"error": message, "hint": ""})
        return 1


def _wants_json(arguments: argparse.Namespace) -> bool:
    return getattr(arguments, "json", False)


def _print_json(document: Any) -> None:
    print(json.dumps(document, indent=2, allow_nan=False), flush=True)  # in ASCII: no control characters


@contextmanager
def _stdout_as_stderr() -> Iterator[None]:
    """Send what this process and its children write to standard output to standard error."""
    sys.stdout.flush()
    stdout = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(stdout, 1)
        os.close(stdout)


def make_printing_safe() -> None:
    """Make printing safe: a closed stream discards its output, and a character that cannot be encoded becomes ``?``."""
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _write_report(text: str) -> str:
    """Write a traceback to ``runs/error.log``; return the end of a message that names it, empty if writing failed."""
    try:
        REPORT.parent.mkdir(exist_ok=True)
        REPORT.write_text(text, encoding="utf-8")
    except OSError:
        return ""
    return f" (details: {REPORT})"


def _shorten(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}…"


def path_type(text: str) -> Path:
    """Read a path; ``~`` is the home folder, which make does not expand."""
    try:
        path = Path(text).expanduser()
        with suppress(FileNotFoundError, NotADirectoryError):
            path.stat()  # fails if the path contains NUL or is too long
    except (OSError, RuntimeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise argparse.ArgumentTypeError(f"{_shorten(text)!r} cannot be used: {reason}") from None
    return path


def integer_type(text: str) -> int:
    """Read a whole number of at most 20 digits."""
    if not re.fullmatch("[+-]?[0-9]{1,20}", text.strip()):
        raise argparse.ArgumentTypeError(f"expected a whole number, found {_shorten(text)!r}")
    return int(text)


def whole_number_type(low: int, high: int) -> Callable[[str], int]:
    """Return a function that reads a whole number from ``low`` to ``high``."""

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
        raise argparse.ArgumentTypeError(f"expected a finite number, found {_shorten(text)!r}")
    return number


def wait_type(text: str) -> float:
    """Read a waiting time in seconds, from 0 to ``MAX_WAIT``."""
    seconds = number_type(text)
    if not 0 <= seconds <= MAX_WAIT:
        raise argparse.ArgumentTypeError(f"expected seconds from 0 to {MAX_WAIT}, found {_shorten(text)!r}")
    return seconds


def split_names(text: str) -> list[str]:
    """Split a list of names at commas and spaces."""
    return text.replace(",", " ").split()


def duration_type(text: str) -> float:
    """Read a duration such as 90s, 3m, 11h30m or 1.5h; return seconds, from ``MIN_BUDGET`` to ``MAX_BUDGET``."""
    parts = re.fullmatch(r"(?:([0-9.]+)h)?(?:([0-9.]+)m)?(?:([0-9.]+)s)?", text.strip().lower())
    try:
        hours, minutes, seconds = (float(part or 0) for part in parts.groups()) if parts else (0, 0, 0)
    except ValueError:
        hours = minutes = seconds = 0
    total = 3600 * hours + 60 * minutes + seconds
    if not MIN_BUDGET <= total <= MAX_BUDGET:
        raise argparse.ArgumentTypeError(
            f"expected a time such as 3m or 1h30m, at least {MIN_BUDGET} s, at most {MAX_BUDGET // 86400} days, "
            f"found {_shorten(text)!r}"
        )
    return total
