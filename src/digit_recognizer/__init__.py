"""A submission kit for Kaggle's Digit Recognizer competition."""

# Set in a kernel script, which has neither the package's files nor git: the commit and provenance.source_digest().
COMMIT: str | None = None
CODE: str | None = None
