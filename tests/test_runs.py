"""Folders of runs: begin, resume, complete, restore."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import stored_runs
from conftest import ROOT
from digit_recognizer import files, provenance, runs
from digit_recognizer.data import dataset
from digit_recognizer.errors import BadInput
from digit_recognizer.recipe import load_recipe
from stored_runs import store_run

DATA = dataset.Dataset(
    np.zeros((20, 28, 28), np.uint8),
    np.arange(20, dtype=np.uint8) % 10,
    np.zeros((5, 28, 28), np.uint8),
    Path("files"),
    False,
    "0" * 16,
)
RECIPE = load_recipe("quick")


def begin(home: Path, *, end: bool = True) -> tuple[str, bool]:
    """Begin or resume a run, and release its lock as a killed process does."""
    run = runs.begin(home, RECIPE, DATA)
    if end:
        run._lock.close()
    return run.name, run.resumed


def test_only_incomplete_runs_are_resumed(tmp_path: Path) -> None:
    first = begin(tmp_path)[0]
    assert begin(tmp_path) == (first, True)
    runs.begin(tmp_path, RECIPE, DATA).finish({})
    again, resumed = begin(tmp_path)
    assert again != first
    assert not resumed
    runs.begin(tmp_path, RECIPE.changed(seed=1), DATA).finish({})
    assert begin(tmp_path) == (again, True)


def test_open_run_is_not_resumed(tmp_path: Path) -> None:
    open_run = runs.begin(tmp_path, RECIPE, DATA)
    name, resumed = begin(tmp_path)
    assert (name != open_run.name, resumed) == (True, False)


def test_run_open_in_another_process_is_not_resumed(tmp_path: Path) -> None:
    code = "import sys; from pathlib import Path; import test_runs; print(test_runs.begin(Path(sys.argv[1])))"
    folders = os.pathsep.join([str(Path(__file__).parent), str(ROOT / "src")])
    command = [sys.executable, "-c", code, str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": folders}
    open_run = runs.begin(tmp_path, RECIPE, DATA)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert f"'{open_run.name}'" not in done.stdout
    assert "False" in done.stdout


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff", b"{}", b"[]", b"1", b"null", b"[" * 100_000, b'{"identity": null}', b'{"identity": ' + b"9" * 5000],
)
@pytest.mark.parametrize("complete", [False, True])
def test_damaged_run_is_ignored(content: bytes, complete: bool, tmp_path: Path) -> None:
    first = begin(tmp_path)[0]
    (tmp_path / first / "run.json").write_bytes(content)
    if complete:
        (tmp_path / first / "scores.json").write_bytes(content)
    second, resumed = begin(tmp_path)
    assert not resumed
    assert begin(tmp_path) == (second, True)
    assert runs.find_complete(tmp_path, RECIPE, DATA) is None
    assert (tmp_path / first / "run.json").read_bytes() == content, "only the user may remove it"


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"\xff"])
def test_run_with_damaged_members_is_not_complete(content: bytes, tmp_path: Path) -> None:
    run = runs.begin(tmp_path, RECIPE, DATA)
    for index in range(RECIPE.members):
        files.write_bytes(run.member(index) / "member.json", content)
    run.finish({})
    assert runs.find_complete(tmp_path, RECIPE, DATA) is None


def test_complete_run_is_found_unless_a_budget_truncated_it(tmp_path: Path) -> None:
    digits = stored_runs.DIGITS
    store_run(tmp_path, RECIPE, digits, stopped=True)
    assert not list(runs.complete_runs(tmp_path / "runs", RECIPE, digits))
    complete = store_run(tmp_path, RECIPE, digits)
    assert list(runs.complete_runs(tmp_path / "runs", RECIPE, digits)) == [complete]
    assert not list(runs.complete_runs(tmp_path / "runs", RECIPE.changed(seed=1), digits))


def test_submission_is_restored_only_from_all_rows(tmp_path: Path) -> None:
    folder = stored_runs.store_scored_run(tmp_path, RECIPE, stored_runs.DIGITS)
    file = tmp_path / "file.csv"
    runs.restore_submission(folder, file, None)
    assert file.read_text() == "ImageId,Label\n1,0\n2,0\n3,0\n4,0\n5,0\n"
    file.unlink()
    np.save(folder / "test.npy", np.load(folder / "test.npy")[:4])
    with pytest.raises(BadInput, match=r"test\.npy: damaged: content differs"):
        runs.restore_submission(folder, file, None)
    stored_runs.forget_digests(folder)
    with pytest.raises(BadInput, match=r"test\.npy: expected float32 \(5, 10\), found 4 rows"):
        runs.restore_submission(folder, file, None)
    assert not file.exists()


def test_remains_of_killed_processes_are_removed(tmp_path: Path) -> None:
    name = begin(tmp_path)[0]
    (tmp_path / name / "members" / "00").mkdir(parents=True)
    parts = [tmp_path / name / ".oof.npy.1.part", tmp_path / name / "members" / "00" / ".fold.npy.1.part"]
    for part in parts:
        part.write_text("")
    empty, locked, started = (tmp_path / f"quick-20261125-02000{i}" for i in range(3))
    for folder in (empty, locked, started):
        folder.mkdir()
    for folder in (locked, started):
        (folder / "lock").write_text("")
    (started / ".run.json.77.part").write_text("{")
    kept = [tmp_path / "cache", tmp_path / "mine", tmp_path / "quick-20261125-020009"]
    for folder in kept:
        folder.mkdir()
    (kept[-1] / "notes.txt").write_text("")
    assert begin(tmp_path) == (name, True)
    assert not any(path.exists() for path in (*parts, empty, locked, started))
    assert all(folder.exists() for folder in kept)


@pytest.mark.parametrize("damage", ["a folder for the lock", "a link for the lock", "read-only"])
def test_unwritable_run_is_not_resumed(damage: str, tmp_path: Path) -> None:
    home = tmp_path / "runs"
    first = begin(home)[0]
    lock = home / first / "lock"
    target = tmp_path / "precious"
    target.write_text("content")
    if damage == "read-only":
        code = (
            "import os, sys; from pathlib import Path; sys.path.insert(0, sys.argv[1])\n"
            "import test_runs\n"
            "identity = test_runs.provenance.identity(test_runs.RECIPE, test_runs.DATA)\n"
            "test_runs.provenance.identity = lambda *_: identity\n"
            "if os.geteuid() == 0: os.seteuid(65534)\n"
            "print(test_runs.begin(Path(sys.argv[2])))"
        )
        open_folder = tmp_path.parent
        while open_folder != Path("/tmp") and open_folder != open_folder.parent:
            open_folder.chmod(0o755)
            open_folder = open_folder.parent
        tmp_path.chmod(0o755)
        home.chmod(0o777)
        (home / ".lock").chmod(0o666)
        lock.chmod(0o444)
        (home / first).chmod(0o555)
        done = subprocess.run(
            [sys.executable, "-c", code, str(Path(__file__).parent), str(home)], capture_output=True, text=True
        )
        (home / first).chmod(0o755)
        assert done.returncode == 0, done.stderr
        assert f"'{first}'" not in done.stdout
        assert "False" in done.stdout
        return
    lock.unlink()
    if damage == "a folder for the lock":
        lock.mkdir()
    else:
        lock.symlink_to(target)
    second, resumed = begin(home)
    assert (second != first, resumed) == (True, False)
    assert target.read_text() == "content"


def test_run_completed_by_another_process_is_not_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = begin(tmp_path)[0]
    real = files.lock

    def completed_before(path: Path, *, wait: bool) -> object:
        files.write_json(tmp_path / first / "scores.json", {})
        return real(path, wait=wait)

    monkeypatch.setattr(files, "lock", completed_before)
    name, resumed = begin(tmp_path)
    assert (name != first, resumed) == (True, False)


def test_identity_contains_precision_and_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    first = provenance.identity(RECIPE, DATA)
    assert first["precision"] in ("float32", "bfloat16", "float16")
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    assert provenance.identity(RECIPE, DATA) != first
    json.dumps(first)


CONFIG = {"recipe": RECIPE, "data": None, "cache": Path("cache")}


@pytest.mark.parametrize("name", ["runs", "submissions"])
def test_unusable_output_folder_is_refused_before_training(name: str, tmp_path: Path) -> None:
    runs.check_outputs(runs.RunConfig(home=tmp_path, **CONFIG))
    assert not list(tmp_path.iterdir()), "no folder is created"
    (tmp_path / name).write_text("")
    with pytest.raises(BadInput, match=f"{name}: expected a folder, found a file"):
        runs.check_outputs(runs.RunConfig(home=tmp_path, **CONFIG))


def test_damaged_ledger_is_refused_before_training(tmp_path: Path) -> None:
    files.write_bytes(tmp_path / "submissions" / "ledger.csv", b"\xff\xff")
    with pytest.raises(BadInput, match=r"ledger\.csv"):
        runs.check_outputs(runs.RunConfig(home=tmp_path, **CONFIG))


@pytest.mark.parametrize("backend", ["module://nothing.there", "nonsense"])
def test_unknown_plot_backend_does_not_prevent_plots(backend: str) -> None:
    code = "from digit_recognizer.evaluation import plots; print(plots.why_not_drawable() or 'drawable')"
    environment = os.environ | {"MPLBACKEND": backend}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("drawable\n", "")
