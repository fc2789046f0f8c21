"""A run's folder: who made it, from what, and what it holds.

runs/<run>/
    run.json           recipe, data, versions, commit, machine, when
    members/00/        network.keras (the checkpoint), history.json, member.json,
                       fold.npy, fold-last-epoch.npy, holdout.npy, test.npy (probabilities)
    oof.npy            float32 (n, 10): out-of-fold probabilities, NaN where no member left the row out
    holdout.npy, test.npy   float32 (·, 10): the blend's; all three with neighbours asked, a member's own without
    scores.json        written last: a run without it is not finished and is gone on with
"""

import dataclasses
import hashlib
import importlib.metadata
import itertools
import os
import platform
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import digit_recognizer
from digit_recognizer import files
from digit_recognizer.data import Data
from digit_recognizer.errors import BadInput
from digit_recognizer.recipe import Recipe

PACKAGES = ("tensorflow", "keras", "numpy", "scikit-learn", "scipy")


@dataclass(frozen=True, kw_only=True)
class Order:
    """What is asked of a run, decided once, before it begins.

    Attributes:
        recipe: what to train.
        data: folder or zip of the competition's files; None for ``data/``, or else the bundled sample.
        home: folder in which ``runs/`` and ``submissions/`` lie.
        cache: folder for parsed data.
        also: where to leave the submission beside ``submissions/<run>.csv``; None for nowhere.
        deadline: a time of ``time.monotonic`` by which all is done; None for as long as it takes.
    """

    recipe: Recipe
    data: Path | None
    home: Path
    cache: Path
    also: Path | None = None
    deadline: float | None = None


class Run:
    """An open run; while it is open no other process goes on with it.

    Attributes:
        folder: ``runs/<run>``.
        resumed: True where an earlier process began it.
    """

    def __init__(self, folder: Path, lock: IO[bytes], *, resumed: bool) -> None:
        self.folder, self.resumed, self._lock = folder, resumed, lock

    @property
    def name(self) -> str:
        """The folder's name, which the submission file bears too."""
        return self.folder.name

    def member(self, index: int) -> Path:
        """The folder of member ``index``, counted from 0."""
        return self.folder / "members" / f"{index:02}"

    def finish(self, scores: dict[str, Any]) -> None:
        """Write the scores and let go of the run."""
        files.write_json(self.folder / "scores.json", scores)
        self._lock.close()


def begin(home: Path, recipe: Recipe, data: Data) -> Run:
    """Go on with an unfinished run of the same recipe, data, code and versions, or begin a new one.

    Args:
        home: the folder of all runs.

    Raises:
        BadInput: the folder cannot be written.
    """
    wanted = identity(recipe, data)
    for folder in sorted((note.parent for note in home.glob("*/run.json")), reverse=True):
        if not (folder / "scores.json").exists() and _identity(folder) == wanted:
            try:
                return Run(folder, files.lock(folder / "lock", wait=False), resumed=True)
            except BlockingIOError:  # another process is at it
                continue
    with files.explained(home):
        folder = _fresh(home, ("sample-" if data.sample else "") + recipe.name)
        lock = files.lock(folder / "lock", wait=False)
    about = {
        "identity": wanted,
        "train_rows": len(data.labels),
        "test_rows": len(data.test_images),
        "source": str(data.source),
        "commit": commit(),
        "machine": {"system": platform.platform(), "processor": _processor(), "cores": os.cpu_count()},
        "began": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }
    files.write_json(folder / "run.json", about)
    return Run(folder, lock, resumed=False)


def finished(home: Path, recipe: Recipe, data: Data) -> Path | None:
    """The folder of a finished run of the same recipe, data, code and versions; None where there is none.

    A run that a budget cut short, in members or in epochs, is not one.
    """
    wanted = identity(recipe, data)
    for note in sorted(home.glob("*/scores.json")):
        if _identity(note.parent) == wanted:
            members = [files.read_json(record) for record in note.parent.glob("members/*/member.json")]
            whole = [one for one in members if one["epochs"] == recipe.epochs and not one["stopped"]]
            if len(whole) == recipe.members:
                return note.parent
    return None


def identity(recipe: Recipe, data: Data) -> dict[str, Any]:
    """Give all that two runs share if one may go on with the other, as plain values."""
    return {
        "recipe": dataclasses.asdict(recipe),
        "recipe_digest": recipe.digest,
        "data": data.fingerprint,
        "sample": data.sample,
        "code": code(),
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES},
        "backend": os.environ.get("KERAS_BACKEND", "tensorflow"),
    }


def _fresh(home: Path, stem: str) -> Path:
    """Make a folder of a name not used before: what is run, and when."""
    name = f"{stem}-{time.strftime('%Y%m%d-%H%M%S')}"
    for attempt in itertools.count(1):
        folder = home / (name if attempt == 1 else f"{name}-{attempt}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        break
    return folder


def _identity(folder: Path) -> Any:
    try:
        return files.read_json(folder / "run.json")["identity"]
    except (BadInput, KeyError, TypeError):
        return None


def code() -> str:
    """Digest of the package's own source files."""
    if digit_recognizer.CODE:
        return digit_recognizer.CODE
    digest = hashlib.blake2b(digest_size=8)
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def commit() -> str | None:
    """The git commit that the code is of, with ``+`` where its files differ from it; None outside a repository."""
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


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.processor())
