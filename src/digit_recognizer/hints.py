"""Write commands and options in the form of the caller: make variables under make, else command-line options."""

import os
import shlex

CALLER_VARIABLE = "DIGIT_RECOGNIZER_CALLER"  # the Makefile sets it to "make"


def called_by_make() -> bool:
    """Return whether make started this process."""
    return os.environ.get(CALLER_VARIABLE) == "make"


def option(name: str, value: object = "") -> str:
    """Return an option as text: ``DATA=value`` under make, else ``--data value``.

    Args:
        name: the name in Python, such as ``learning_rate``.
        value: True for a switch; empty for the name alone (``DATA=`` or ``--data``).
    """
    if called_by_make():
        text = "1" if value is True else shlex.quote(str(value)) if value != "" else ""
        return f"{name.upper()}={text}"
    flag = "--" + name.replace("_", "-")
    return flag if value is True or value == "" else f"{flag} {shlex.quote(str(value))}"


def command(verb: str, **options: object) -> str:
    """Return a command as text: ``make run RECIPE=quick`` under make, else ``digit-recognizer run --recipe quick``."""
    program = "make" if called_by_make() else "digit-recognizer"
    return " ".join([program, verb, *(option(name, value) for name, value in options.items())])
