"""A run's folder: who made it, from what, and what it holds.

runs/<run>/
    run.json           recipe, data, versions, commit, machine, when
    members/00/        what training a member leaves (see members.py)
    oof.npy            float32 (n, 10): out-of-fold probabilities, NaN where no member left the row out
    holdout.npy, test.npy   float32 (·, 10): the blend's; all three re-ranked, a member's own are not
    scores.json        written when all else is stored: a run without it is incomplete and is resumed
"""

import itertools
import os
import platform
import re
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from digit_recognizer import files, ledger, provenance
from digit_recognizer.data.dataset import Dataset
from digit_recognizer.ensemble import members
from digit_recognizer.ensemble.blend import Blend
from digit_recognizer.ensemble.members import Member
from digit_recognizer.errors import BadInput, printable
from digit_recognizer.evaluation import plots
from digit_recognizer.recipe import Recipe

_FRESH = re.compile(r"-\d{8}-\d{6}(-\d+)?$")  # the end of a run's name: when it began


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """What is asked of a run, decided once, before it begins.

    Attributes:
        recipe: what to train.
        data: folder or zip of the competition's files; None for ``data/``, or else the bundled sample.
        home: folder in which ``runs/`` and ``submissions/`` lie.
        cache: folder for parsed data.
        copy_to: where to leave the submission beside ``submissions/<run>.csv``; None for nowhere.
        deadline: a time of ``time.monotonic`` by which all is done; None for as long as it takes.
    """

    recipe: Recipe
    data: Path | None
    home: Path
    cache: Path
    copy_to: Path | None = None
    deadline: float | None = None


def check_outputs(config: RunConfig) -> None:
    """Check before training what is needed after it: the ledger can be read, folders written, pictures drawn.

    Raises:
        BadInput: the ledger is damaged, or a folder cannot be written.
    """
    places = [config.home / "runs", config.home / "submissions", *([config.copy_to.parent] if config.copy_to else [])]
    for place in places:
        files.check_writable(place)
    ledger.read(config.home / "submissions")
    if reason := plots.why_not_drawable():
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

    def owner(self, index: int) -> str:
        """A digest that only member ``index`` of runs of this identity has."""
        return provenance.member_owner(self.identity, index)

    def save_blend(self, blend: Blend) -> None:
        """Write the blend's probabilities: ``oof.npy``, ``holdout.npy``, ``test.npy``."""
        for name in ("oof", "holdout", "test"):
            with files.replacing(self.folder / f"{name}.npy") as part, part.open("wb") as out:
                np.save(out, getattr(blend, name))

    def finish(self, scores: dict[str, Any]) -> None:
        """Write the scores, which makes the run complete, and release its lock."""
        files.write_json(self.folder / "scores.json", scores)
        self._lock.close()


def begin(home: Path, recipe: Recipe, data: Dataset) -> Run:
    """Resume an incomplete run of the same recipe, data, code and versions, or begin a new one.

    Args:
        home: the folder of all runs.

    Raises:
        BadInput: the folder cannot be written.
    """
    wanted = provenance.identity(recipe, data)
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
            "commit": provenance.commit(),
            "machine": {"system": platform.platform(), "processor": provenance.processor(), "cores": os.cpu_count()},
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


def find_complete(home: Path, recipe: Recipe, data: Dataset) -> Path | None:
    """The folder of a complete run of the same recipe, data, code and versions; None where there is none."""
    return next(complete_runs(home, recipe, data), None)


def complete_runs(home: Path, recipe: Recipe, data: Dataset) -> Iterator[Path]:
    """The folders of all complete runs of the same recipe, data, code and versions.

    A run that a budget truncated, in members or in epochs, is not complete, and neither is one with a damaged member.
    """
    wanted = provenance.identity(recipe, data)
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
    return [members.read_member(_member(folder, index), provenance.member_owner(mine, index)) for index in range(count)]


def _member(folder: Path, index: int) -> Path:
    return folder / "members" / f"{index:02}"


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
