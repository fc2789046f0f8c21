"""A submission kit for Kaggle's Digit Recognizer competition."""

# Filled in where the package travels inside one script, away from its files and from git.
COMMIT: str | None = None
CODE: str | None = None
