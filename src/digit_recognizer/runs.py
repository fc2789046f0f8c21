"""The folder of a run: begin, resume and complete it, and find complete ones.

runs/<run>/
    run.json           recipe, data, versions, commit, machine, start time
    members/00/        the files of a trained member (see ensemble/members.py)
    oof.npy            float32 (n, 10): out-of-fold probabilities, NaN for rows in no validation fold
    holdout.npy, test.npy   float32 (·, 10): the blend's probabilities; all three after k-NN re-ranking
    scores.json        written last: a run without it is incomplete and can be resumed
    *.png              plots
"""

import importlib.util
import itertools
import os
import platform
import re
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from digit_recognizer import files, hints, ledger, provenance, submission
from digit_recognizer.console import format_duration
from digit_recognizer.data.dataset import Dataset
from digit_recognizer.ensemble import members
from digit_recognizer.ensemble.blend import Blend
from digit_recognizer.ensemble.members import Member
from digit_recognizer.errors import BadInput, KitError, printable
from digit_recognizer.evaluation import plots
from digit_recognizer.evaluation.scores import Scores
from digit_recognizer.recipe import Recipe
from digit_recognizer.training import devices
from digit_recognizer.training.executors import processes

BLEND_ARRAYS = ("oof", "holdout", "test")
TIME_SUFFIX = re.compile(r"-\d{8}-\d{6}(-\d+)?$")  # the end of a run's name: its start time


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """The options of one run.

    Attributes:
        recipe: what to train.
        data: folder or zip of the competition's files; None for ``data/`` or, without that, the bundled sample.
        home: the folder of ``runs/`` and ``submissions/``.
        cache: the folder of parsed data.
        copy_to: a second path for the submission file; None for none.
        deadline: a time of ``time.monotonic`` at which the run should end; None for no limit.
        started: the time of ``time.monotonic`` at which the process started.
        in_kernel: whether this is a kernel on Kaggle.
        tensorboard: whether to write TensorBoard's logs.
        executor: where the members are trained: ``local`` or ``ray``.
        ray_address: the address of a Ray cluster; None for this machine.
        shard: the part of the members to train, (number from 1, count); None for all.
        merged: the name of a run that was merged from shards and is to be completed; None for none.
    """

    recipe: Recipe
    data: Path | None
    home: Path
    cache: Path
    copy_to: Path | None = None
    deadline: float | None = None
    started: float = field(default_factory=time.monotonic)
    in_kernel: bool = False
    tensorboard: bool = False
    executor: str = "local"
    ray_address: str | None = None
    shard: tuple[int, int] | None = None
    merged: str | None = None


def check_outputs(config: RunConfig) -> None:
    """Check before training that the folders can be written, the ledger can be read, and plots can be drawn.

    The temporary files of killed processes are removed.

    Raises:
        BadInput: the ledger is damaged, a folder cannot be written, or TensorBoard is not installed.
    """
    if config.tensorboard and importlib.util.find_spec("tensorboard") is None:
        raise BadInput(
            f"{hints.option('tensorboard', True)}: tensorboard is not installed",
            hint="`pip install -r requirements/tensorboard.txt` installs it, and so does `make run TENSORBOARD=1`",
        )
    processes.remove_stale()
    folders = [config.home / "runs", config.home / "submissions"]
    for folder in folders + ([config.copy_to.parent] if config.copy_to else []):
        files.check_writable(folder)
    ledger.read(config.home / "submissions")
    if reason := plots.why_not_drawable():
        print(f"warning: plots cannot be drawn: {printable(reason)}", file=sys.stderr)


class Run:
    """An open run, locked against other processes.

    Attributes:
        folder: ``runs/<run>``.
        identity: the values that two runs share if one may resume the other.
        resumed: whether an earlier process began it.
    """

    def __init__(self, folder: Path, identity: dict[str, Any], lock: files.Lock, *, resumed: bool) -> None:
        self.folder, self.identity, self.resumed, self._lock = folder, identity, resumed, lock
        self._stages: list[dict[str, Any]] = []
        self._stage_start = time.monotonic()

    @property
    def name(self) -> str:
        """The name of the folder and of the submission file."""
        return self.folder.name

    def member(self, index: int) -> Path:
        """Return the folder of member ``index``, counted from 0."""
        return member_folder(self.folder, index)

    def owner(self, index: int) -> str:
        """Return the digest that marks the files of member ``index``."""
        return provenance.member_owner(self.identity, index)

    def read_member(self, index: int) -> Member:
        """Read a member of this run; ``KitError`` if its files were removed or changed during the run."""
        try:
            return members.read_member(self.member(index), self.owner(index))
        except BadInput as error:
            raise KitError(f"{error}; it was changed during the run", hint="rerun the command") from error

    def read_members(self, indices: Iterable[int]) -> Iterator[tuple[int, Member]]:
        """Yield indices and members one by one; see ``read_member``."""
        return ((index, self.read_member(index)) for index in indices)

    def save_blend(self, blend: Blend) -> None:
        """Write the probabilities of the blend: ``oof.npy``, ``holdout.npy``, ``test.npy``."""
        for name in BLEND_ARRAYS:
            with files.replacing(self.folder / f"{name}.npy") as part, part.open("wb") as out:
                np.save(out, getattr(blend, name))

    def end_stage(self, name: str, start: float | None = None) -> None:
        """Record the time and memory of the stage of this process that ends now.

        Args:
            name: what was done since ``start``.
            start: a time of ``time.monotonic``; None for the end of the stage before, or the beginning of the run.
        """
        now = time.monotonic()
        seconds = now - (self._stage_start if start is None else start)
        self._stages.append({"stage": name, "seconds": seconds, "peak_memory": devices.peak_memory()})
        self._stage_start = now

    def finish(self, scores: dict[str, Any]) -> None:
        """Write the scores, which makes the run complete, and release the lock."""
        arrays = {name: self.folder / f"{name}.npy" for name in BLEND_ARRAYS}
        digests = {name: members.digest_of(path.read_bytes()) for name, path in arrays.items() if path.exists()}
        files.write_json(self.folder / "scores.json", scores | {"stages": self._stages, "digests": digests})
        self._lock.close()


def begin(home: Path, recipe: Recipe, data: Dataset, *, merged: str | None = None) -> Run:
    """Resume an incomplete run of the same identity, or begin a new one.

    Args:
        home: the folder of all runs.
        recipe, data: what to train, and on which data.
        merged: the name of a run that has all its members, of this version or another one; it is resumed.

    Raises:
        BadInput: the folder cannot be written, or the merged run is of other data, complete or in use.
    """
    if merged:
        return _resume_merged(home / merged, data)
    identity = provenance.identity(recipe, data)
    with files.locked(home / ".lock"):  # other processes do not see a folder before its run.json is written
        folders = sorted(home.iterdir(), reverse=True)
        for folder in folders:
            _remove_unfinished_start(folder)
        for folder in folders:
            if run := _resume(folder, identity):
                return run
        with files.explained(home):
            folder = new_folder(home, recipe, sample=data.sample)
            lock = files.lock(folder / "lock", wait=False)
        record = {
            "identity": identity,
            "train_rows": len(data.labels),
            "test_rows": len(data.test_images),
            "source": str(data.source),
            "commit": provenance.commit(),
            "machine": {"system": platform.platform(), "processor": provenance.processor(), "cores": os.cpu_count()},
            "began": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        }
        files.write_json(folder / "run.json", record)
    return Run(folder, identity, lock, resumed=False)


def find_complete(home: Path, recipe: Recipe, data: Dataset) -> tuple[Path, Scores] | None:
    """Return the folder and the scores of a complete run of the same identity; None if there is none."""
    for folder in complete_runs(home, recipe, data):
        with suppress(BadInput):  # damaged scores
            return folder, Scores.from_json(files.read_json(folder / "scores.json"))
    return None


def complete_runs(home: Path, recipe: Recipe, data: Dataset) -> Iterator[Path]:
    """Yield the folders of all complete runs of the same identity.

    Runs that a budget truncated and runs with a damaged member are left out.
    """
    identity = provenance.identity(recipe, data)
    for scores in sorted(home.glob("*/scores.json")):
        if _stored_identity(scores.parent) != identity:
            continue
        try:
            files.read_json(scores)
            stored = stored_members(scores.parent, recipe.members).values()
        except BadInput:
            continue
        if all(member.complete(recipe) for member in stored):
            yield scores.parent


def find_run(home: Path, name: str | None) -> Path:
    """Return the folder of the run ``name``, or of the newest complete run.

    Args:
        home: the folder of ``runs``.
        name: the name of a run; None for the newest complete one.

    Raises:
        BadInput: there is none, or the name is not that of a folder in ``runs``.
    """
    if name is not None:
        folder = home / "runs" / files.safe_name(name, hints.option("run"))
        if not (folder / "run.json").is_file():
            raise BadInput(f"{name}: no such run in runs/", hint=f"`{hints.command('scores')}` lists the runs")
        return folder
    complete = complete_folders(home)
    if not complete:
        raise BadInput("no complete run in runs/", hint=f"`{hints.command('run')}` starts one")
    return complete[0]


def complete_folders(home: Path) -> list[Path]:
    """Return the folders of all complete runs in ``home/runs``, the newest first."""
    scores = sorted((home / "runs").glob("*/scores.json"), key=lambda path: path.stat().st_mtime, reverse=True)
    return [path.parent for path in scores]


def check_complete(folder: Path) -> None:
    """Raise ``BadInput`` unless ``folder`` is that of a complete run."""
    files.read_json(folder / "run.json")
    if not (folder / "scores.json").exists():
        raise BadInput(f"{folder}: the run is incomplete", hint="rerun its command to resume it")


def stored_recipe(folder: Path) -> Recipe:
    """Return the recipe of a stored run; ``BadInput`` if its ``run.json`` is missing, damaged or of another version."""
    try:
        recipe = Recipe(**files.read_json(folder / "run.json")["identity"]["recipe"])
    except (KeyError, TypeError) as error:
        raise BadInput(f"{folder}: of another version: {error!r}", hint="train the recipe again") from None
    files.safe_name(recipe.name, f"{folder / 'run.json'}, name of the recipe")  # it names the folder of a merged run
    return recipe


def stored_members(folder: Path, count: int | None = None) -> dict[int, Member]:
    """Read the members of a run: index → member.

    Args:
        folder: the run's folder.
        count: read the first ``count`` members; None for all that were completely written.

    Raises:
        BadInput: a member is missing, damaged or of another run.
    """
    identity = _stored_identity(folder)
    if count is None:
        names = [path.parent.name for path in folder.glob(f"members/*/{members.RECORD}")]
        indices = sorted(int(name) for name in names if re.fullmatch("[0-9]{2,4}", name))
    else:
        indices = list(range(count))
    return {
        index: members.read_member(member_folder(folder, index), provenance.member_owner(identity, index))
        for index in indices
    }


def member_folder(folder: Path, index: int) -> Path:
    """Return the folder of member ``index``, counted from 0, of the run in ``folder``."""
    return folder / "members" / f"{index:02}"


def restore_submission(folder: Path, file: Path, copy_to: Path | None) -> None:
    """Write the submission of a complete run again from its probabilities.

    Args:
        folder: the run's folder.
        file: the submission; it is written only if it is missing.
        copy_to: a second path, which is always written, since another run may have written it; None for none.

    Raises:
        BadInput: the probabilities are missing or damaged, or a file cannot be written.
    """
    paths = [path for path in (file, copy_to) if path and (path == copy_to or not path.exists())]
    if not paths:
        return
    rows = provenance.as_count(files.read_json(folder / "run.json").get("test_rows")) or 0
    digests = provenance.as_dict(files.read_json(folder / "scores.json").get("digests"))
    digits = members.read_blend(folder / "test.npy", rows, digest=digests.get("test")).argmax(axis=1)
    for path in paths:
        submission.write(path, digits)


def closing_lines(config: RunConfig, run: str, data: Dataset) -> str:
    """Return the last lines of a run: its submission, the time taken, and the next step."""
    rows = len(data.test_images)
    reason = submission.why_not_submittable(sample=data.sample, test_rows=rows)
    if data.sample:
        next_step = hints.command("run", data="digit-recognizer.zip")
    elif reason:
        next_step = f"{hints.command('run')} with the competition's files"
    elif config.in_kernel:
        next_step = "submit submission.csv from the output of this version, on Kaggle"
    else:
        next_step = hints.command("submit", run=run)
    logs = config.home / "runs" / run / "tensorboard"
    lines = [f"logs: tensorboard --logdir runs/{run}/{logs.name}"] if logs.exists() else []
    lines += [
        f"submission: submissions/{run}.csv",
        f"  {rows:,} rows, checked{reason and '; ' + reason}",
        f"time: {format_duration(time.monotonic() - config.started)}",
        f"next: {next_step}",
    ]
    return "\n".join(lines)


def shard_lines(config: RunConfig, run: Run, trained: Sequence[int]) -> str:
    """Return the last lines of a run that trained one shard of its members."""
    numbers = ", ".join(str(index + 1) for index in sorted(trained)) or "none"
    return "\n".join(
        [
            f"members: {numbers} of {config.recipe.members}; the other shards are missing",
            f"time: {format_duration(time.monotonic() - config.started)}",
            f"next: bring the runs of all shards together, then {hints.command('merge', runs=f'{run.name},…')}",
        ]
    )


def _remove_unfinished_start(folder: Path) -> None:
    """Remove the folder of a run that was interrupted before its ``run.json`` was written."""
    if TIME_SUFFIX.search(folder.name):
        with suppress(OSError):
            names = [path.name for path in folder.iterdir()]
            if all(name == "lock" or name.startswith(".run.json.") for name in names):
                shutil.rmtree(folder)


def _resume(folder: Path, identity: dict[str, Any]) -> Run | None:
    """Lock and return the run in ``folder`` if it is incomplete, of this identity, and not in use."""
    if (folder / "scores.json").exists() or _stored_identity(folder) != identity:
        return None
    try:
        lock = files.lock(folder / "lock", wait=False)
    except (BlockingIOError, BadInput):  # in use by another process, or not writable
        return None
    if (folder / "scores.json").exists() or not os.access(folder, os.W_OK):  # completed meanwhile, or read-only
        lock.close()
        return None
    for part in folder.rglob(".*.part"):
        with suppress(OSError):
            part.unlink()
    return Run(folder, identity, lock, resumed=True)


def _resume_merged(folder: Path, data: Dataset) -> Run:
    identity = _stored_identity(folder)
    if provenance.as_dict(identity).get("data") != data.fingerprint:
        raise BadInput(f"{folder}: trained on other data than {data.source}", hint=hints.option("data"))
    if run := _resume(folder, identity):
        return run
    raise BadInput(f"{folder}: complete, or in use by another process")


def new_folder(home: Path, recipe: Recipe, *, sample: bool) -> Path:
    """Create and return a folder named after the recipe and the time."""
    name = f"{'sample-' * sample}{recipe.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    for attempt in itertools.count(1):
        folder = home / (name if attempt == 1 else f"{name}-{attempt}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        break
    return folder


def _stored_identity(folder: Path) -> Any:
    try:
        return files.read_json(folder / "run.json").get("identity")
    except BadInput:
        return None
