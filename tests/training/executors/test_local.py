"""Worker processes: the GPU of each, the modules that they load, and their failures."""

import importlib
import os
import sys
import time
from multiprocessing import parent_process

import pytest

from digit_recognizer.errors import KitError
from digit_recognizer.training import devices
from digit_recognizer.training.executors import Job, Reporter, local, processes
from digit_recognizer.training.progress import Progress


def run(job: Job, members: int, workers: int = 1) -> list[object]:
    """The results of a job, without a display of progress."""
    results: list[object] = []
    local.run_jobs(
        job,
        range(members),
        Progress(0, 0, (), 0),
        workers=workers,
        threads=1,
        done=lambda _, result: results.append(result),
    )
    return results


def _visible_gpus(member: int, reporter: Reporter) -> tuple[int, str]:
    time.sleep(0.3)  # so that no worker takes all members
    return os.getpid(), os.environ.get("CUDA_VISIBLE_DEVICES", "all")


@pytest.mark.parametrize(
    ("usable", "present", "members", "expected"),
    [
        (("0", "1"), ("0", "1"), 5, ["0", "1"]),
        (("GPU-b", "3"), ("GPU-b", "3"), 4, ["3", "GPU-b"]),
        ((), ("0",), 1, [""]),
        ((), (), 1, ["-1"]),
    ],
    ids=["one each", "names", "unusable is hidden", "hidden by the user"],
)
def test_each_worker_gets_one_gpu(
    usable: tuple[str, ...],
    present: tuple[str, ...],
    members: int,
    expected: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(devices.VISIBLE_VARIABLE, "-1")
    monkeypatch.setattr(devices, "gpus", lambda: usable)
    monkeypatch.setattr(devices, "visible_gpus", lambda: present)
    pairs = set(run(_visible_gpus, members, workers=len(expected)))
    assert sorted(gpu for _, gpu in pairs) == expected


def test_nothing_is_hidden_without_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(devices.VISIBLE_VARIABLE, raising=False)
    monkeypatch.setattr(devices, "gpus", lambda: ())
    monkeypatch.setattr(devices, "visible_gpus", lambda: ())
    ((_, gpus),) = run(_visible_gpus, 1)
    assert gpus == "all"


def _find_gpus(member: int, reporter: Reporter) -> tuple[bool, tuple[str, ...]]:
    return parent_process() is not None, devices.gpus()


def test_worker_starts_no_process_to_count_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "gpus", lambda: ("GPU-b",))
    monkeypatch.setattr(devices, "visible_gpus", lambda: ("GPU-b",))
    ((in_worker, gpus),) = run(_find_gpus, 1)
    assert in_worker
    assert gpus in ((), ("GPU-b",)), "as this machine has GPUs or not"


def _loaded_modules(member: int, reporter: Reporter) -> list[str]:
    for name in ("ensemble.train", "training.trainer"):
        importlib.import_module(f"digit_recognizer.{name}")
    return [name for name in (*processes.UNUSED, "keras") if sys.modules.get(name)]


@pytest.mark.slow
def test_worker_loads_no_unused_modules() -> None:
    assert run(_loaded_modules, 1) == [["keras"]]


def _abort(member: int, reporter: Reporter) -> None:
    from digit_recognizer.training import backend

    with backend._without_startup_messages():
        os.write(2, b"oneDNN custom operations are on\nthis processor lacks AVX\n\n")
        os.abort()


@pytest.mark.slow
def test_last_stderr_line_of_a_killed_worker_is_in_the_message() -> None:
    with pytest.raises(KitError, match=r"worker killed \(exit code -6\), this processor lacks AVX"):
        run(_abort, 1)


def _kill(member: int, reporter: Reporter) -> None:
    os.kill(os.getpid(), 9)


def test_killed_worker_is_reported_as_possibly_out_of_memory() -> None:
    with pytest.raises(KitError, match=r"^worker killed \(exit code -9\), possibly out of memory$") as failure:
        run(_kill, 1)
    assert "resume" in failure.value.hint


def _fail(member: int, reporter: Reporter) -> None:
    raise [
        ImportError("Traceback:\n  File x\nImportError: libx.so: not found\n\n\nFailed to load.\nSee https://x"),
        OSError(28, "No space left on device"),
        ValueError("two\nlines"),
    ][member]


@pytest.mark.parametrize(
    ("member", "kind", "message"),
    [
        (0, KitError, "member 1: ImportError: libx.so: not found"),
        (1, KitError, "member 2: OSError: [Errno 28] No space left on device"),
        (2, RuntimeError, "member 3: ValueError: two"),
    ],
)
def test_failure_in_a_worker_keeps_its_message(member: int, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind) as failure:
        local.run_jobs(_fail, [member], Progress(0, 0, (), 0), workers=1, threads=1)
    assert str(failure.value) == message
    assert "Traceback" in failure.value.__notes__[0], "for runs/error.log"
    assert kind is RuntimeError or (failure.value.status == 1 and failure.value.hint)
