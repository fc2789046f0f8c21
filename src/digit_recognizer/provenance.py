"""What a run was made from: data, recipe, source code, versions, precision; and what is known of stored runs."""

import dataclasses
import hashlib
import importlib.metadata
import json
import platform
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import digit_recognizer
from digit_recognizer import files, hints, ledger, submission
from digit_recognizer.data.dataset import Dataset
from digit_recognizer.errors import BadInput
from digit_recognizer.ledger import Row
from digit_recognizer.recipe import Recipe
from digit_recognizer.training import numerics

TRAIN_ROWS = 42_000  # of the competition's train.csv
RESULT_PACKAGES = ("data", "models", "training", "ensemble")
PACKAGES = ("tensorflow", "keras", "numpy", "scikit-learn", "scipy")


def identity(recipe: Recipe, data: Dataset) -> dict[str, Any]:
    """Return the values that two runs share if one may resume the other, as plain values.

    They are the data, the recipe, the source of reading, models, training and ensembling, the library versions, the
    backend, the resolved precision, and the environment variables that change results.
    """
    return {
        "recipe": dataclasses.asdict(recipe),
        "recipe_digest": recipe.digest,
        "data": data.fingerprint,
        "sample": data.sample,
        "code": source_digest(),
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES},
        "backend": numerics.keras_backend(),
        "precision": numerics.resolved_precision(recipe.precision),
        "environment": numerics.environment(),
    }


def member_owner(identity: dict[str, Any], index: int) -> str:
    """Return a digest of a run's identity and a member index, which marks the files of that member."""
    content = json.dumps([identity, index], sort_keys=True)
    return hashlib.blake2b(content.encode(), digest_size=8).hexdigest()


def source_digest() -> str:
    """Return a digest of the source files that determine results; see ``RESULT_PACKAGES``."""
    if digit_recognizer.CODE:
        return digit_recognizer.CODE
    digest = hashlib.blake2b(digest_size=8)
    package = Path(__file__).parent
    for folder in RESULT_PACKAGES:
        for source in sorted((package / folder).rglob("*.py")):
            digest.update(source.read_bytes())
    return digest.hexdigest()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def commit() -> str | None:
    """Return the git commit, with ``+`` if source files differ from it; None outside a repository."""
    if digit_recognizer.COMMIT:
        return digit_recognizer.COMMIT
    try:
        head, changes = (
            subprocess.run(
                ["git", *words], cwd=Path(__file__).parent, capture_output=True, text=True, check=True, timeout=10
            ).stdout.strip()
            for words in (
                ["rev-parse", "HEAD"],
                ["status", "--porcelain", "--untracked-files=no", "--", ":/src", ":/kernel.py"],
            )
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return head + "+" * bool(changes)


def processor() -> str:
    """Return the processor's name, as the operating system reports it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.processor())


@dataclass(frozen=True)
class Provenance:
    """The data that a stored run was made from, as far as it is known.

    Attributes:
        sample: whether it is the bundled sample.
        train_rows, test_rows: numbers of rows; None if unknown.
    """

    sample: bool
    train_rows: int | None
    test_rows: int | None

    @property
    def why_not_submittable(self) -> str:
        """Why its submission cannot be submitted; empty for the competition's data."""
        return submission.why_not_submittable(sample=self.sample, test_rows=self.test_rows)

    @property
    def why_not_selected(self) -> str:
        """Why it is submitted only if the user names it; empty for a run on all training rows."""
        if self.train_rows not in (None, TRAIN_ROWS):
            return f"submitted only with {hints.option('run')}: {self.train_rows:,} training rows"
        return ""


def find_provenance(home: Path, run: str, row: Row | None = None) -> Provenance:
    """Find the provenance of a run in its ledger row, its ``run.json``, or the length of its submission.

    A missing or damaged ``run.json`` is ignored. A name that begins with ``sample-`` marks a sample run.

    Args:
        home: the folder of ``runs/`` and ``submissions/``.
        run: the name of the run.
        row: its row of the ledger, if there is one.
    """
    run_json = {} if row and row.train_rows and row.test_rows else read_run_json(home, run)
    sample = run.startswith(ledger.SAMPLE) or as_dict(run_json.get("identity")).get("sample") is True
    train_rows = (row and row.train_rows) or as_count(run_json.get("train_rows"))
    test_rows = (row and row.test_rows) or as_count(run_json.get("test_rows"))
    file = home / "submissions" / f"{run}.csv"
    if row and not test_rows and not sample and file.is_file():
        with suppress(BadInput):
            test_rows = as_count(len(submission.read(file).splitlines()) - 1)
    return Provenance(sample, train_rows, test_rows)


def read_run_json(home: Path, run: str) -> dict[str, Any]:
    """Read the ``run.json`` of a run; empty if it is missing or damaged."""
    try:
        return files.read_json(home / "runs" / run / "run.json")
    except BadInput:
        return {}


def as_dict(value: Any) -> dict[str, Any]:
    """Return a value from JSON if it is an object, else an empty one."""
    return value if isinstance(value, dict) else {}


def as_count(value: Any) -> int | None:
    """Return a value from JSON if it is a positive integer, else None."""
    return value if type(value) is int and value > 0 else None
