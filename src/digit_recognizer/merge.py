"""Join runs that trained shards, parts of the members, in different places."""

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from digit_recognizer import files, hints, runs
from digit_recognizer.errors import BadInput, printable


def merge_runs(home: Path, names: Sequence[str]) -> Path:
    """Copy the members of several runs into a new run, which has no scores yet, and return its folder.

    All files are read with their digests. A member that several runs have is taken from the first.

    Args:
        home: the folder of ``runs``.
        names: names of runs in ``runs``, or paths of run folders.

    Raises:
        BadInput: a run is missing or damaged, the runs differ in more than their members, or a member is in none.
    """
    folders = [_find(home, name) for name in names]
    if len(folders) < 2 or len(set(map(Path.resolve, folders))) < len(folders):
        example = hints.option("runs", "standard-20260102-030405,standard-20260102-040506")
        raise BadInput(f"{hints.option('runs')}: expected at least two different runs", hint=example)
    first = files.read_json(folders[0] / "run.json")
    recipe = runs.stored_recipe(folders[0])
    for folder in folders[1:]:
        other = files.read_json(folder / "run.json")
        if found := differences(first.get("identity"), other.get("identity")):
            raise BadInput(
                f"{folders[0].name} and {folder.name} are not parts of one run: {printable(found[0][:200])}",
                hint="train both with the same data, recipe, versions and code",
            )
    places: dict[int, Path] = {}
    for folder in folders:
        for index in runs.stored_members(folder):
            places.setdefault(index, runs.member_folder(folder, index))
    if missing := [str(index + 1) for index in range(recipe.members) if index not in places]:
        raise BadInput(
            f"member {', '.join(missing)} of {recipe.members} is in none of the runs",
            hint=f"train it with {hints.option('shard', 'k/n')}, then merge again",
        )
    folder = files.folder(home / "runs")
    with files.explained(folder), tempfile.TemporaryDirectory(dir=folder, prefix=".merge-") as temporary:
        place = Path(temporary) / "run"
        for index in range(recipe.members):
            shutil.copytree(places[index], runs.member_folder(place, index))
        files.write_json(place / "run.json", {**first, "merged": [folder.name for folder in folders]})
        merged = runs.new_folder(folder, recipe, sample=first["identity"].get("sample") is True)
        place.replace(merged)
    return merged


def differences(one: Any, other: Any, name: str = "") -> list[str]:
    """Describe the values in which two JSON values differ, each with the path of its key."""
    if isinstance(one, dict) and isinstance(other, dict):
        keys = sorted(one.keys() | other.keys())
        return [
            text for key in keys for text in differences(one.get(key), other.get(key), f"{name}.{key}" if name else key)
        ]
    return [] if one == other else [f"{name} {one} and {other}"]


def _find(home: Path, name: str) -> Path:
    """Return the folder of a run, given by its path or its name in ``runs``."""
    path = Path(name).expanduser()
    if (path / "run.json").is_file():
        return path
    if not (home / "runs" / path.name / "run.json").is_file() or path.name != name:
        raise BadInput(f"{name}: no such run", hint=f"{hints.option('runs')} takes names in runs/, or paths of runs")
    return home / "runs" / name
