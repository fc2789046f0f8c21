"""Where members run: how many workers there are, and which sees which GPU."""

import importlib
import os
import sys
import time

import pytest

from digit_recognizer import engines
from digit_recognizer.progress import Progress


def _seen(member: int, reporter: engines.Reporter) -> tuple[int, str]:
    time.sleep(0.3)  # so that no worker does the work of all
    return os.getpid(), os.environ.get("CUDA_VISIBLE_DEVICES", "all")


def _seen_by_each(members: int) -> list[tuple[int, str]]:
    workers, threads = engines.share(members)
    told: list[tuple[int, str]] = []
    silent = Progress(0, 0, (), 0)
    engines.run(_seen, range(members), silent, workers=workers, threads=threads, done=lambda _, one: told.append(one))
    return told


def test_each_gpu_has_a_worker_of_its_own_which_sees_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "gpus", lambda: 2)
    seen = set(_seen_by_each(5))
    assert sorted(gpu for _, gpu in seen) == ["0", "1"]
    assert len({process for process, _ in seen}) == 2
    assert engines.share(1)[0] == 1, "a member alone needs one"


def test_where_there_is_no_gpu_all_cores_work_and_nothing_is_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "gpus", lambda: 0)
    monkeypatch.setattr(engines, "cores", lambda: 2)
    assert engines.share(5) == (2, 1)
    assert engines.share(1) == (1, 2)
    assert {gpu for _, gpu in _seen_by_each(2)} == {"all"}


def test_a_tpu_is_opened_by_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "gpus", lambda: 0)
    monkeypatch.setattr(engines, "cores", lambda: 96)
    monkeypatch.setattr(engines, "tpu", lambda: True)
    assert engines.share(5) == (1, 96)


def _brought(member: int, reporter: engines.Reporter) -> list[str]:
    importlib.import_module("digit_recognizer.ensemble")
    importlib.import_module("digit_recognizer.member")
    return [name for name in (*engines.UNUSED, "keras") if sys.modules.get(name)]


def test_a_worker_brings_in_nothing_that_no_member_uses() -> None:
    told: list[list[str]] = []
    silent = Progress(0, 0, (), 0)
    engines.run(_brought, [0], silent, workers=1, threads=1, done=lambda _, one: told.append(one))
    assert told == [["keras"]]
