"""The errors of this project.

    KitError        a failure: exit status 1
    └── BadInput    wrong input: exit status 2

A message is one line: where, what is wrong, what was expected. The hint is the fix, printed on a line of its own.
``command_line.py`` alone catches these errors.
"""


class KitError(Exception):
    """A failure.

    Args:
        message: one line for the user.
        hint: the fix; empty if there is none.
    """

    status = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class BadInput(KitError):
    """A file, folder, option or recipe that cannot be used."""

    status = 2


def printable(text: str) -> str:
    """Replace control and format characters, such as terminal escapes, with ``\N{REPLACEMENT CHARACTER}``."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)
