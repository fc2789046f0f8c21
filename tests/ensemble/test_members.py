"""Stored members: writing, reading, and damage."""

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from digit_recognizer import files
from digit_recognizer.ensemble import members
from digit_recognizer.errors import BadInput, KitError
from digit_recognizer.recipe import load_recipe

RECORD = {"member": 0, "epochs": 8, "stopped": False, "seconds": 1.5}
HISTORY = {"loss": [0.5, float("nan")], "val_loss": [0.4, 0.3]}


def probabilities(seed: int = 0) -> dict[str, members.Probabilities]:
    random = np.random.default_rng(seed)
    return {name: random.dirichlet(np.ones(10), 20).astype(np.float32) for name in members.PROBABILITIES}


def encode(record: dict[str, object]) -> members.MemberFiles:
    return members.encode_member(record, bytes(range(256)), HISTORY, "layers", probabilities())


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a stored member."""
    folder = tmp_path_factory.mktemp("stored")
    members.write_member(folder, "owner", encode(RECORD))
    return folder


@pytest.fixture
def folder(stored: Path, tmp_path: Path) -> Path:
    """A copy of the stored member, to be changed."""
    return shutil.copytree(stored, tmp_path / "00")


def test_member_is_read_as_written(folder: Path) -> None:
    member = members.read_member(folder, "owner")
    assert {name: member.record[name] for name in RECORD} == RECORD
    assert str(member.history) == str(HISTORY)
    for name, array in probabilities().items():
        np.testing.assert_array_equal(member.probabilities[name], array)
    assert member.complete(load_recipe("quick"))
    assert not member.complete(load_recipe("quick").changed(epochs=9))


@pytest.mark.parametrize("change", [{"epochs": 3}, {"stopped": True}])
def test_truncated_member_is_not_complete(change: dict[str, object], folder: Path) -> None:
    members.write_member(folder, "owner", encode(RECORD | change))
    assert not members.read_member(folder, "owner").complete(load_recipe("quick"))


def changed_array(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[bytes], bytes]:
    """Return a function that changes the array of a ``.npy`` file, or appends a letter to other files."""

    def damage(content: bytes) -> bytes:
        try:
            array = np.load(io.BytesIO(content))
        except ValueError:
            return content + b"x"
        changed = io.BytesIO()
        np.save(changed, change(array))
        return changed.getvalue()

    return damage


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "truncated": lambda content: content[:-5],
    "zeroed tail": lambda content: content[: -len(content) // 3] + bytes(len(content) // 3 + 1),
    "a bit": lambda content: content[: len(content) // 2] + bytes([content[len(content) // 2] ^ 4])
    + content[len(content) // 2 + 1 :],
    "NaN": changed_array(lambda array: np.where(np.arange(10) == 3, np.nan, array).astype(np.float32)),
    "reversed rows": changed_array(lambda array: array[::-1]),
    "another shape": changed_array(lambda array: array[:, :9]),
    "another dtype": changed_array(lambda array: array.astype(np.float64)),
    "an object": lambda content: b"{}",
    "a list": lambda content: b"[" * 2000,
    "not UTF-8": lambda content: b"\xff" + content,
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", [*members.FILES, members.RECORD])
def test_damaged_file_is_named(name: str, damage: str, folder: Path) -> None:
    path = folder / name
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    with pytest.raises(BadInput) as error:
        members.read_member(folder, "owner")
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", [*members.FILES, members.RECORD])
@pytest.mark.parametrize("directory", [False, True])
def test_missing_file_is_named(name: str, directory: bool, folder: Path) -> None:
    (folder / name).unlink()
    if directory:
        (folder / name).mkdir()
    with pytest.raises(BadInput, match=name):
        members.read_member(folder, "owner")


@pytest.mark.parametrize(
    "change",
    [{"epochs": 80}, {"epochs": "8"}, {"stopped": 1}, {"digests": {}}, {"digests": None}, {"digest": ""}, {"extra": 1}],
)
def test_edited_record_is_refused(change: dict[str, object], folder: Path) -> None:
    path = folder / members.RECORD
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(BadInput, match=r"member\.json: damaged"):
        members.read_member(folder, "owner")


def test_member_of_another_run_is_refused(folder: Path) -> None:
    with pytest.raises(BadInput, match=r"member\.json: belongs to another run or member"):
        members.read_member(folder, "another owner")


def test_exchanged_files_are_detected(folder: Path) -> None:
    (folder / "fold.npy").rename(folder / "kept")
    (folder / "fold-last-epoch.npy").rename(folder / "fold.npy")
    (folder / "kept").rename(folder / "fold-last-epoch.npy")
    with pytest.raises(BadInput, match=r"fold\.npy: damaged"):
        members.read_member(folder, "owner")


def test_infinite_probabilities_are_refused() -> None:
    broken = probabilities()
    broken["test"][3, 3] = np.inf
    with pytest.raises(KitError, match=r"member 1: training diverged: probabilities are NaN or infinite \(test\)"):
        members.encode_member(RECORD, b"", HISTORY, "layers", broken)


def test_state_of_the_training_is_removed_with_the_record(folder: Path) -> None:
    (folder / members.STATE).write_bytes(b"state")
    members.write_member(folder, "owner", encode(RECORD))
    assert {path.name for path in folder.iterdir()} == {*members.FILES, members.RECORD}


def test_rewritten_record_keeps_its_digest(folder: Path) -> None:
    record = files.read_json(folder / members.RECORD)
    files.write_json(folder / members.RECORD, record)
    assert members.read_member(folder, "owner").record["seconds"] == 1.5
