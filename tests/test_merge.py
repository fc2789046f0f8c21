"""Runs of shards, joined into one run."""

import json
import shutil
from pathlib import Path

import pytest

from conftest import call, one_line
from digit_recognizer import merge, recipe, runs
from digit_recognizer.errors import BadInput
from stored_runs import DIGITS, store_run

RECIPE = recipe.load_recipe("quick").changed(members=3, folds=4)


@pytest.fixture
def shards(tmp_path: Path) -> tuple[Path, Path]:
    """Two runs without scores: one with the members 1 and 3, one with the member 2."""
    whole = store_run(tmp_path / "elsewhere", RECIPE, DIGITS)
    (whole / "scores.json").unlink()
    first = shutil.copytree(whole, tmp_path / "runs" / "sample-quick-20260102-030405")
    second = shutil.copytree(whole, tmp_path / "other" / "sample-quick-20260102-040506")
    for folder in (first / "members" / "01", second / "members" / "00", second / "members" / "02"):
        shutil.rmtree(folder)
    return first, second


def test_merged_run_has_all_members(shards: tuple[Path, Path], tmp_path: Path) -> None:
    first, second = shards
    merged = merge.merge_runs(tmp_path, [first.name, str(second)])
    assert merged.parent == tmp_path / "runs"
    assert sorted(runs.stored_members(merged)) == [0, 1, 2]
    assert json.loads((merged / "run.json").read_text())["merged"] == [first.name, second.name]
    assert runs.stored_recipe(merged) == RECIPE
    assert not (merged / "scores.json").exists()
    assert not list((tmp_path / "runs").glob(".merge-*"))
    run = runs.begin(tmp_path / "runs", RECIPE, DIGITS, merged=merged.name)
    assert (run.folder, run.resumed) == (merged, True)
    assert [index for index, _ in run.read_members(range(3))] == [0, 1, 2]


def test_changed_run_json_is_refused(shards: tuple[Path, Path], tmp_path: Path) -> None:
    for folder in shards:  # the digests of the members include the identity
        about = json.loads((folder / "run.json").read_text())
        about["identity"]["versions"]["keras"] = "3.0"
        (folder / "run.json").write_text(json.dumps(about))
    with pytest.raises(BadInput, match="belongs to another run"):
        merge.merge_runs(tmp_path, [shards[0].name, str(shards[1])])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda about: about["identity"].update(data="other"), "data 0{16} and other"),
        (lambda about: about["identity"]["recipe"].update(seed=5), "recipe.seed 0 and 5"),
        (lambda about: about["identity"].update(code="other"), "code .* and other"),
        (lambda about: about["identity"]["versions"].update(keras="2"), "versions.keras .* and 2"),
        (lambda about: about.pop("identity"), "of another version|are not parts"),
    ],
)
def test_different_runs_are_refused(change: object, message: str, shards: tuple[Path, Path], tmp_path: Path) -> None:
    first, second = shards
    about = json.loads((second / "run.json").read_text())
    change(about)  # type: ignore[operator]
    (second / "run.json").write_text(json.dumps(about))
    with pytest.raises(BadInput, match=message):
        merge.merge_runs(tmp_path, [first.name, str(second)])
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == [first.name]


def test_missing_and_damaged_members_are_named(shards: tuple[Path, Path], tmp_path: Path) -> None:
    first, second = shards
    shutil.rmtree(first / "members" / "02")
    with pytest.raises(BadInput, match="member 3 of 3 is in none of the runs"):
        merge.merge_runs(tmp_path, [first.name, str(second)])
    (second / "members" / "01" / "test.npy").write_bytes(b"x")
    with pytest.raises(BadInput, match=r"test\.npy: damaged"):
        merge.merge_runs(tmp_path, [first.name, str(second)])


@pytest.mark.parametrize("names", ["a", "FIRST", "FIRST,FIRST", "FIRST,../x", "FIRST,/"])
def test_wrong_names_are_one_line(names: str, shards: tuple[Path, Path], tmp_path: Path) -> None:
    done = call("merge", "--runs", names.replace("FIRST", shards[0].name), cwd=tmp_path)
    assert done.returncode == 2
    assert one_line(done.stderr)


def test_run_of_other_data_or_complete_is_not_completed_again(shards: tuple[Path, Path], tmp_path: Path) -> None:
    merged = merge.merge_runs(tmp_path, [shards[0].name, str(shards[1])])
    about = json.loads((merged / "run.json").read_text())
    (merged / "run.json").write_text(json.dumps(about | {"identity": about["identity"] | {"data": "other"}}))
    with pytest.raises(BadInput, match="trained on other data"):
        runs.begin(tmp_path / "runs", RECIPE, DIGITS, merged=merged.name)
    (merged / "run.json").write_text(json.dumps(about))
    (merged / "scores.json").write_text("{}")
    with pytest.raises(BadInput, match="complete, or in use"):
        runs.begin(tmp_path / "runs", RECIPE, DIGITS, merged=merged.name)
