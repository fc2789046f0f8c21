"""The project's own errors.

    KitError        something failed: exit status 1
    └── BadInput    what was given is wrong: exit status 2

Each message is one line that says what was expected, what was found and how to mend it. ``cli.py`` alone catches them.
"""


class KitError(Exception):
    """Something failed; the message is one line for the user."""

    status = 1


class BadInput(KitError):
    """A file, a folder, an option or a recipe that cannot be used as given."""

    status = 2
