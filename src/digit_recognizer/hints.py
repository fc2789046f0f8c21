"""Name commands and options as the user wrote them: variables of make, or options of the command line."""

import os
import shlex

CALLER_VARIABLE = "DIGIT_RECOGNIZER_CALLER"  # set to "make" by the Makefile


def called_by_make() -> bool:
    """Whether make started this process."""
    return os.environ.get(CALLER_VARIABLE) == "make"


def option(name: str, value: object = "") -> str:
    """Write an option: ``DATA=value`` under make, else ``--data value``.

    Args:
        name: as in Python, such as ``learning_rate``.
        value: True for a switch; empty for the option's name alone (``DATA=`` or ``--data``).
    """
    flag = "--" + name.replace("_", "-")
    if called_by_make():
        return f"{name.upper()}={1 if value is True else shlex.quote(str(value)) if value != '' else ''}"
    return flag if value is True or value == "" else f"{flag} {shlex.quote(str(value))}"


def command(verb: str, **options: object) -> str:
    """Write a whole command: ``make run RECIPE=best``, else ``digit-recognizer run --recipe best``."""
    program = "make" if called_by_make() else "digit-recognizer"
    return " ".join([program, verb, *(option(name, value) for name, value in options.items())])
