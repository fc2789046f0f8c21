"""Disk, memory and time of 10, 100 and 1,000 members or runs; the figures of docs/scaling.md. Needs 3 GB of disk."""

import operator
import time
from collections.abc import Callable
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import kit
from digit_recognizer import ledger, recipe, runs
from digit_recognizer.data import dataset, splits
from digit_recognizer.ensemble import members
from digit_recognizer.ensemble.blend import average
from digit_recognizer.evaluation.scores import score_blend
from digit_recognizer.ledger import Row
from digit_recognizer.training import devices
from digit_recognizer.training.executors import load_executor
from digit_recognizer.training.progress import Progress

DATA = dataset.Dataset(
    np.zeros((42_000, 28, 28), np.uint8),
    (np.arange(42_000) % 10).astype(np.uint8),
    np.zeros((28_000, 28, 28), np.uint8),
    Path("files"),
    False,
    "0" * 16,
)
NETWORK_BYTES = 1_400_000  # of a checkpoint of recipe standard


def store_members(home: Path, count: int) -> tuple[recipe.Recipe, float]:
    """Store ``count`` members of the competition's size; return their recipe and the seconds for each."""
    one = recipe.load_recipe("standard").changed(members=count)
    split = splits.split(DATA.labels, folds=one.folds, members=count, holdout=one.holdout, seed=0)
    run = runs.begin(home / "runs", one, DATA)
    random = np.random.default_rng(0)
    probabilities = {
        name: random.dirichlet(np.ones(10), rows).astype(np.float32)
        for name, rows in (("test", 28_000), ("holdout", len(split.holdout)), ("fold", 1000))
    }
    start = time.perf_counter()
    for index, fold in enumerate(split.folds):
        arrays = {name: probabilities[name.split("-")[0]] for name in members.PROBABILITIES}
        arrays |= {name: values[: len(fold.validation)] for name, values in arrays.items() if name.startswith("fold")}
        record = {"member": index, "epochs": 14, "best_epoch": 14, "stopped": False, "seconds": 1.0}
        history = {name: [0.5] * 14 for name in ("loss", "accuracy", "val_loss", "val_accuracy")}
        content = members.encode_member(record, bytes(NETWORK_BYTES), history, "layers", arrays)
        members.write_member(run.member(index), run.owner(index), content)
    seconds = (time.perf_counter() - start) / count
    run._lock.close()
    return one, seconds


def blend_members(home: Path, one: recipe.Recipe) -> tuple[float, int]:
    """Average and score the stored members; return the seconds and the peak memory of this process."""
    split = splits.split(DATA.labels, folds=one.folds, members=one.members, holdout=one.holdout, seed=0)
    run = runs.begin(home / "runs", one, DATA)
    start = time.perf_counter()
    score_blend(average(run.read_members(range(one.members)), split, rows=42_000), one, split, DATA)
    return time.perf_counter() - start, devices.peak_memory()


def in_new_process(call: Callable[[], Any]) -> Any:
    with get_context("spawn").Pool(1) as pool:
        return pool.apply(call)


@pytest.mark.parametrize("count", [10, 100, 1000])
def test_members(count: int, tmp_path: Path) -> None:
    one, store = store_members(tmp_path, count)
    seconds, peak = in_new_process(partial(blend_members, tmp_path, one))
    disk = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    print(
        f"\n{count} members: {disk / 1e6:,.0f} MB on disk, {1000 * store:.0f} ms to store one; "
        f"average and scores {seconds:.1f} s, peak memory {peak / 1e6:,.0f} MB"
    )
    assert peak < 2e9


@pytest.mark.parametrize("name", ["local", "ray"])
def test_executor(name: str) -> None:
    executor = load_executor(name)
    workers, threads = executor.plan(1000)
    finished: list[float] = []
    executor.run_jobs(
        operator.is_,  # does nothing with a member and a reporter
        range(1000),
        Progress(0, 0, (), 0),
        workers=workers,
        threads=threads,
        done=lambda member, result: finished.append(time.perf_counter()),
        may_start=lambda: True,
    )
    assert len(finished) == 1000
    print(f"\n{name}: {finished[-1] - finished[0]:.1f} s for 1,000 members that do nothing, on {workers} workers")


@pytest.mark.parametrize("count", [10, 100, 1000])
def test_runs(count: int, tmp_path: Path) -> None:
    for index in range(count):
        row = Row(run=f"sample-quick-20260101-{index:06}", recipe="quick", members="2", expected=f"0.99{index:04}")
        ledger.record(tmp_path / "submissions", row)
    figures = []
    for verb in (("scores",), ("report", "--all")):
        start = time.perf_counter()
        done = kit(*verb, cwd=tmp_path)
        figures.append(time.perf_counter() - start)
        assert done.returncode == 0, done.stderr
    page = tmp_path / "runs" / "report" / "index.html"
    print(
        f"\n{count} runs: scores {figures[0]:.1f} s, page of all runs {figures[1]:.1f} s, "
        f"{page.stat().st_size / 1000:,.0f} kB"
    )
    assert figures[0] < 10
