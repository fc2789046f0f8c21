"""Run folders with random damage: each is read correctly or refused."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import damage
from conftest import FEW
from digit_recognizer import merge, provenance, runs, submission
from digit_recognizer.ensemble import train
from digit_recognizer.ensemble.members import Member
from digit_recognizer.errors import BadInput
from digit_recognizer.evaluation import report
from pages import DATA, RECIPE
from stored_runs import store_scored_run

MEMBER = ("member.json", "history.json", "network.keras", "network.txt", "fold.npy", "holdout.npy", "test.npy")
NAMES = (
    *("run.json", "scores.json", "oof.npy", "holdout.npy", "test.npy"),
    *(f"members/{index}/{name}" for index in ("00", "01") for name in MEMBER),
)
FOLDERS = (
    "members/00",
    "members/01",
    "members/02",
    "members/1",
    "members/00 (1)",
    "members/0x",
    "members/٣",
    "oof.npy",
)
NAME, FOLDER = st.sampled_from(NAMES), st.sampled_from(FOLDERS)
JSON_NAME = st.sampled_from([name for name in NAMES if name.endswith(".json")])
DAMAGE = st.lists(
    st.tuples(st.just("edit"), NAME, damage.EDITS)
    | st.tuples(st.just("edit JSON"), JSON_NAME, damage.JSON_EDITS)
    | st.tuples(st.just("exchange"), NAME, NAME)
    | st.tuples(st.just("copy"), NAME | FOLDER, NAME | FOLDER)
    | st.tuples(st.just("move"), NAME | FOLDER, NAME | FOLDER)
    | st.tuples(st.just("remove"), NAME | FOLDER, st.none())
    | st.tuples(st.just("folder"), NAME, st.none()),
    min_size=1,
    max_size=2,
)


class Home:
    """A folder of ``runs`` with one complete run, which is written anew before each example.

    Attributes:
        home: the folder.
        run: the folder of the run.
        copy: an undamaged copy of it in another place.
        members: its members as stored.
    """

    def __init__(self, home: Path) -> None:
        self.home, self.run = home, store_scored_run(home, RECIPE, DATA, wrong=3)
        self.copy = shutil.copytree(self.run, home.with_name("copy"))
        self.members = {index: described(member) for index, member in runs.stored_members(self.run).items()}
        self._content = {path: path.read_bytes() for path in self.run.rglob("*") if path.is_file()}

    def restore(self) -> None:
        """Write all files as they were, and remove all others."""
        shutil.rmtree(self.home)
        for path, content in self._content.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

    def damage(self, kind: str, name: str, other: Any) -> None:
        """Damage the run; nothing is done if earlier damage has removed the file."""
        path = self.run / name
        if not path.exists() or (kind.startswith("edit") and path.is_dir()):
            return
        if kind == "edit":
            path.write_bytes(damage.edited(path.read_bytes(), other))
        elif kind == "edit JSON":
            path.write_bytes(damage.edited_json(path.read_bytes(), other))
        elif kind == "exchange" and (self.run / other).exists():
            place(path, self.run / "kept")
            place(self.run / other, path)
            place(self.run / "kept", self.run / other)
        elif kind == "copy" and path != self.run / other:
            kept = self.home / "kept"
            shutil.copytree(path, kept) if path.is_dir() else shutil.copy(path, kept)
            place(kept, self.run / other)
        elif kind == "move":
            place(path, self.run / other)
        elif kind in ("remove", "folder"):
            remove(path)
            if kind == "folder":
                path.mkdir()


def remove(path: Path) -> None:
    """Remove a file or folder."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def place(path: Path, target: Path) -> None:
    """Move a file or folder to another place, where it replaces what is there; without such a place, remove it."""
    if any(folder.is_file() or folder == path for folder in target.parents):
        remove(path)
    elif path != target and target not in path.parents:
        remove(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        path.rename(target)


def described(member: Member) -> tuple[Any, ...]:
    """Return a member as values that can be compared."""
    arrays = {name: (array.shape, array.tobytes()) for name, array in member.probabilities.items()}
    return json.dumps(member.record), json.dumps(member.history), arrays


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """A folder with a complete run; its identity is computed once, since that takes long."""
    with pytest.MonkeyPatch.context() as patch:
        identity = provenance.identity(RECIPE, DATA)
        patch.setattr(provenance, "identity", lambda recipe, data: identity)
        patch.setattr(provenance, "commit", lambda: None)
        yield Home(tmp_path_factory.mktemp("home"))


@pytest.mark.fuzz
@settings(max_examples=FEW, deadline=None)
@given(DAMAGE)
def test_damaged_run_is_read_correctly_or_refused(home: Home, steps: list[tuple[str, str, Any]]) -> None:
    home.restore()
    for step in steps:
        home.damage(*step)
    name = home.run.name
    try:
        stored = runs.stored_members(home.run)
        assert {index: described(member) for index, member in stored.items()}.items() <= home.members.items()
    except BadInput as error:
        check(error)
    try:
        run = report.read_run(home.run, DATA)
        assert {index: described(member) for index, member in run.members.items()}.items() <= home.members.items()
        assert run.recipe == RECIPE
        assert sum(entry["rows"] for entry in report.calibration(run, DATA)) == len(report.scored_rows(run)[0])
        if any(kind == "edit JSON" for kind, *_ in steps):
            report.render(run, DATA, home.run)
    except BadInput as error:
        check(error)
    try:
        assert runs.find_run(home.home, name) == home.run
        runs.check_complete(home.run)
        assert runs.find_run(home.home, None) == home.run
    except BadInput as error:
        check(error)
    file = home.home / "submissions" / f"{name}.csv"
    try:
        runs.restore_submission(home.run, file, None)
        assert submission.check(file, len(DATA.test_images)) == []
    except BadInput as error:
        check(error)
        assert not file.exists()
    for folder in runs.complete_runs(home.home / "runs", RECIPE, DATA):
        found = runs.stored_members(folder, RECIPE.members)
        assert {index: described(member) for index, member in found.items()} == home.members
    if complete := runs.find_complete(home.home / "runs", RECIPE, DATA):
        json.dumps(complete[1].as_json())
        assert "expected public score" in str(complete[1])
    run = runs.begin(home.home / "runs", RECIPE, DATA)
    try:
        for index in range(RECIPE.members):
            member = train._stored_member(run, RECIPE, index)
            assert member is None or described(member) == home.members[index]
        assert run.resumed or not any(run.folder.glob("members/*"))
    except BadInput as error:  # a file in place of the folder of a member
        check(error)
    finally:
        run._lock.close()


@pytest.mark.fuzz
@settings(max_examples=FEW, deadline=None)
@given(DAMAGE)
def test_damaged_part_is_merged_correctly_or_refused(home: Home, steps: list[tuple[str, str, Any]]) -> None:
    home.restore()
    for step in steps:
        home.damage(*step)
    try:
        merged = merge.merge_runs(home.home, [home.run.name, str(home.copy)])
    except BadInput as error:
        check(error)
        assert [path.name for path in (home.home / "runs").iterdir()] == [home.run.name]
    else:
        assert {index: described(member) for index, member in runs.stored_members(merged).items()} == home.members


def check(error: BadInput) -> None:
    """Check that an error is one short line."""
    assert 0 < len(str(error)) < 1000
    assert "\n" not in str(error)
