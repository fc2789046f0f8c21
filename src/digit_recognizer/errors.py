"""The project's own errors.

    KitError        something failed: exit status 1
    └── BadInput    what was given is wrong: exit status 2

A message is one line: what is wrong, where, and what was expected. ``hint`` says how to fix it and is printed on a
line of its own. ``cli.py`` alone catches these errors.
"""


class KitError(Exception):
    """Something failed.

    Args:
        message: one line for the user.
        hint: what the user can do about it; empty where there is nothing to add.
    """

    status = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class BadInput(KitError):
    """A file, a folder, an option or a recipe that cannot be used as given."""

    status = 2


def printable(text: str) -> str:
    """Replace control and format characters, such as terminal escapes, by ``\N{REPLACEMENT CHARACTER}``."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)
