"""A run's folder: who made it, from what, and what it holds.

runs/<run>/
    run.json           recipe, data, versions, commit, machine, when
    members/00/        what training a member leaves (see members.py)
    oof.npy            float32 (n, 10): out-of-fold probabilities, NaN where no member left the row out
    holdout.npy, test.npy   float32 (·, 10): the blend's; all three re-ranked, a member's own are not
    scores.json        written when all else is stored: a run without it is incomplete and is resumed
"""

import dataclasses
import hashlib
import importlib.metadata
import itertools
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import digit_recognizer
from digit_recognizer import files, ledger, members, numerics, report
from digit_recognizer.data import Data
from digit_recognizer.errors import BadInput, printable
from digit_recognizer.members import Member
from digit_recognizer.recipe import Recipe

_FRESH = re.compile(r"-\d{8}-\d{6}(-\d+)?$")  # the end of a run's name: when it began
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


def check_outputs(order: Order) -> None:
    """Check before training what is needed after it: the ledger can be read, folders written, pictures drawn.

    Raises:
        BadInput: the ledger is damaged, or a folder cannot be written.
    """
    places = [order.home / "runs", order.home / "submissions", *([order.also.parent] if order.also else [])]
    for place in places:
        files.check_writable(place)
    ledger.read(order.home / "submissions")
    if reason := report.drawable():
        print(f"warning: no pictures will be drawn, {printable(reason)}", file=sys.stderr)


class Run:
    """An open run; while it is open no other process goes on with it.

    Attributes:
        folder: ``runs/<run>``.
        identity: what the run shares with another that may resume it.
        resumed: True where an earlier process began it.
    """

    def __init__(self, folder: Path, identity: dict[str, Any], lock: IO[bytes], *, resumed: bool) -> None:
        self.folder, self.identity, self.resumed, self._lock = folder, identity, resumed, lock

    @property
    def name(self) -> str:
        """The folder's name, which the submission file bears too."""
        return self.folder.name

    def member(self, index: int) -> Path:
        """The folder of member ``index``, counted from 0."""
        return _member(self.folder, index)

    def finish(self, scores: dict[str, Any]) -> None:
        """Write the scores, which makes the run complete, and release its lock."""
        files.write_json(self.folder / "scores.json", scores)
        self._lock.close()


def begin(home: Path, recipe: Recipe, data: Data) -> Run:
    """Resume an incomplete run of the same recipe, data, code and versions, or begin a new one.

    Args:
        home: the folder of all runs.

    Raises:
        BadInput: the folder cannot be written.
    """
    wanted = identity(recipe, data)
    stem = ("sample-" if data.sample else "") + recipe.name
    with files.locked(home / ".lock"):  # a run's folder is made whole while this is held
        folders = sorted(home.iterdir(), reverse=True)
        for folder in folders:
            _remove_if_unmade(folder)
        for folder in folders:
            if run := _resumed(folder, wanted):
                return run
        with files.explained(home):
            folder = _fresh(home, stem)
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
    return Run(folder, wanted, lock, resumed=False)


def _remove_if_unmade(folder: Path) -> None:
    """Remove a run's folder whose making was interrupted before its ``run.json`` was there."""
    if _FRESH.search(folder.name):
        with suppress(OSError):
            names = [path.name for path in folder.iterdir()]
            if all(name == "lock" or name.startswith(".run.json.") for name in names):
                shutil.rmtree(folder)


def _resumed(folder: Path, wanted: dict[str, Any]) -> Run | None:
    """The run in ``folder``, locked, if it is incomplete, of this identity and not used by another process."""
    if (folder / "scores.json").exists() or _identity(folder) != wanted:
        return None
    try:
        lock = files.lock(folder / "lock", wait=False)
    except (BlockingIOError, BadInput):  # another process uses it, or it cannot be written
        return None
    if (folder / "scores.json").exists() or not os.access(folder, os.W_OK):  # completed meanwhile, or read-only
        lock.close()
        return None
    for part in folder.rglob(".*.part"):
        with suppress(OSError):
            part.unlink()
    return Run(folder, wanted, lock, resumed=True)


def finished(home: Path, recipe: Recipe, data: Data) -> Path | None:
    """The folder of a complete run of the same recipe, data, code and versions; None where there is none."""
    return next(complete(home, recipe, data), None)


def complete(home: Path, recipe: Recipe, data: Data) -> Iterator[Path]:
    """The folders of all complete runs of the same recipe, data, code and versions.

    A run that a budget truncated, in members or in epochs, is not complete, and neither is one with a damaged member.
    """
    wanted = identity(recipe, data)
    for note in sorted(home.glob("*/scores.json")):
        if _identity(note.parent) != wanted:
            continue
        try:
            files.read_json(note)
            stored = stored_members(note.parent, recipe.members)
        except BadInput:
            continue
        if all(member.complete(recipe) for member in stored):
            yield note.parent


def stored_members(folder: Path, count: int) -> list[Member]:
    """The first ``count`` members of a run's folder; ``BadInput`` where one is missing, damaged or of another run."""
    mine = _identity(folder)
    return [members.read(_member(folder, index), owner(mine, index)) for index in range(count)]


def _member(folder: Path, index: int) -> Path:
    return folder / "members" / f"{index:02}"


def identity(recipe: Recipe, data: Data) -> dict[str, Any]:
    """Return what two runs share if one may resume the other, as plain values."""
    return {
        "recipe": dataclasses.asdict(recipe),
        "recipe_digest": recipe.digest,
        "data": data.fingerprint,
        "sample": data.sample,
        "code": code(),
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES},
        "backend": numerics.keras_backend(),
        "precision": numerics.resolved_precision(recipe.precision),
        "environment": numerics.environment(),
    }


def owner(identity: dict[str, Any], index: int) -> str:
    """A digest that only member ``index`` of runs of this identity has."""
    content = json.dumps([identity, index], sort_keys=True)
    return hashlib.blake2b(content.encode(), digest_size=8).hexdigest()


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
        return files.read_json(folder / "run.json").get("identity")
    except BadInput:
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
