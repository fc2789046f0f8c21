"""Where members run: how many workers there are, and which sees which GPU."""

import importlib
import os
import sys
import time
from collections.abc import Callable
from multiprocessing import parent_process
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from digit_recognizer.errors import KitError
from digit_recognizer.training import devices
from digit_recognizer.training.executors import local, processes
from digit_recognizer.training.progress import Progress

GIB = 2**30


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of files, without devices and limits; gives its folder."""
    (tmp_path / "dev").mkdir()
    for name, place in (("DEVICES", "dev"), ("GROUP", "cgroup"), ("GROUPS", "groups")):
        monkeypatch.setattr(devices, name, tmp_path / place)
    for name in (devices.VISIBLE_VARIABLE, devices.ACCELERATOR_VARIABLE, "KERAS_BACKEND"):
        monkeypatch.delenv(name, raising=False)
    for cached in (devices.gpus, devices.report_missing_accelerator):
        cached.cache_clear()
    return tmp_path


def with_gpus(machine: Path, monkeypatch: pytest.MonkeyPatch, count: int, usable: int | None = None) -> None:
    for number in range(count):
        (machine / "dev" / f"nvidia{number}").touch()
    (machine / "dev" / "nvidiactl").touch()
    monkeypatch.setattr(devices, "count_usable_gpus", lambda present: present if usable is None else usable)


def _seen(member: int, reporter: local.Reporter) -> tuple[int, str]:
    time.sleep(0.3)  # so that no worker does the work of all
    return os.getpid(), os.environ.get("CUDA_VISIBLE_DEVICES", "all")


def _seen_by_each(members: int) -> list[tuple[int, str]]:
    workers, threads = devices.plan_workers(members)
    told: list[tuple[int, str]] = []
    silent = Progress(0, 0, (), 0)
    local.run_jobs(
        _seen, range(members), silent, workers=workers, threads=threads, done=lambda _, one: told.append(one)
    )
    return told


def test_each_gpu_has_a_worker_of_its_own_which_sees_no_other(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_gpus(machine, monkeypatch, 2)
    seen = set(_seen_by_each(5))
    assert sorted(gpu for _, gpu in seen) == ["0", "1"]
    assert len({process for process, _ in seen}) == 2
    assert devices.plan_workers(1)[0] == 1, "a member alone needs one"


@pytest.mark.parametrize(
    ("visible", "names"),
    [
        (None, ["0", "1", "2", "3"]),
        ("2", ["2"]),
        ("3,1", ["3", "1"]),
        (" 1 , 0 ", ["1", "0"]),
        ("GPU-8932f937-d72c,GPU-1", ["GPU-8932f937-d72c", "GPU-1"]),
        ("MIG-GPU-1/5/0", ["MIG-GPU-1/5/0"]),
        ("1,1", ["1"]),
        ("2,-1,3", ["2"]),
        ("0,,3", ["0"]),
        ("", []),
        (" ", []),
        ("-1", []),
    ],
)
def test_the_gpus_that_the_user_chose_are_used(
    visible: str | None,
    names: list[str],
    machine: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with_gpus(machine, monkeypatch, 4)
    monkeypatch.setattr(devices, "cores", lambda: 6)
    if visible is not None:
        monkeypatch.setenv(devices.VISIBLE_VARIABLE, visible)
    assert list(devices.gpus()) == names
    assert devices.plan_workers(16) == ((len(names), 6 // len(names)) if names else (6, 1))
    assert capsys.readouterr().out == "", "who hides the GPUs knows of it"


def test_workers_see_the_gpus_that_the_user_chose(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_gpus(machine, monkeypatch, 4)
    monkeypatch.setenv(devices.VISIBLE_VARIABLE, "GPU-b,3")
    assert {gpu for _, gpu in _seen_by_each(4)} == {"GPU-b", "3"}


def test_hidden_gpus_stay_hidden(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_gpus(machine, monkeypatch, 1)
    monkeypatch.setenv(devices.VISIBLE_VARIABLE, "-1")
    assert {gpu for _, gpu in _seen_by_each(1)} == {"-1"}


@pytest.mark.parametrize(
    ("backend", "package"),
    [("", "tensorflow[and-cuda]"), ("tensorflow", "tensorflow[and-cuda]"), ("jax", "jax[cuda12]")],
)
def test_a_gpu_that_cannot_be_used_is_named_once_and_the_cores_work(
    backend: str,
    package: str,
    machine: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with_gpus(machine, monkeypatch, 1, usable=0)
    monkeypatch.setattr(devices, "cores", lambda: 4)
    monkeypatch.setenv("KERAS_BACKEND", backend)
    assert [devices.plan_workers(16), devices.plan_workers(2)] == [(4, 1), (2, 2)]
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"GPU 0: {backend or 'tensorflow'} cannot use it, training on 4 cores instead; ")
    assert line.endswith(f'-m pip install "{package}"')


def test_a_gpu_that_cannot_be_used_is_hidden_from_workers(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_gpus(machine, monkeypatch, 1, usable=0)
    assert {gpu for _, gpu in _seen_by_each(1)} == {""}


def test_some_of_the_gpus_can_be_used(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_gpus(machine, monkeypatch, 4, usable=2)
    monkeypatch.setenv(devices.VISIBLE_VARIABLE, "3,2,9,1")
    assert devices.gpus() == ("3", "2"), "CUDA ends its list at a GPU that is not there"


def _told_count(pipe: Connection, present: int) -> None:
    pipe.send(present - 1)


def _dies(pipe: Connection, present: int) -> None:
    os._exit(134)


def _hangs(pipe: Connection, present: int) -> None:
    time.sleep(60)


@pytest.mark.parametrize(("job", "usable"), [(_told_count, 1), (_dies, 0), (_hangs, 0)])
def test_a_process_of_its_own_is_asked_for_usable_gpus(
    job: Callable[..., None], usable: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "_count_gpus", job)
    monkeypatch.setattr(devices, "PROBE_SECONDS", 1 if job is _hangs else 30)
    assert devices.count_usable_gpus(2) == usable


@pytest.mark.slow
def test_here_keras_finds_as_many_gpus_as_it_lists() -> None:
    from digit_recognizer.training.backend import keras

    assert devices.count_usable_gpus(9) == sum(not name.startswith("cpu") for name in keras.distribution.list_devices())


@pytest.mark.parametrize(
    ("wanted", "gpus", "tpu", "line"),
    [
        ("t4x2", 0, False, "accelerator t4x2: this machine does not have it, training on 4 cores instead"),
        ("t4x2", 1, False, "accelerator t4x2: this machine does not have it, training on 1 GPU instead"),
        ("t4x2", 2, False, ""),
        ("tpu", 0, False, "accelerator tpu: this machine does not have it, training on 4 cores instead"),
        ("tpu", 0, True, ""),
        ("", 0, False, ""),
    ],
)
def test_a_kernel_without_its_accelerator_says_so(
    wanted: str,
    gpus: int,
    tpu: bool,
    line: str,
    machine: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with_gpus(machine, monkeypatch, gpus)
    monkeypatch.setattr(devices, "cores", lambda: 4)
    monkeypatch.setenv(devices.ACCELERATOR_VARIABLE, wanted)
    monkeypatch.setenv("KERAS_BACKEND", "jax" if wanted == "tpu" else "tensorflow")
    if tpu:
        (machine / "dev" / "accel0").touch()
    devices.plan_workers(4)
    assert capsys.readouterr().out.strip() == line


@pytest.mark.parametrize(
    ("group", "limits", "cores"),
    [
        ("0::/", {"cpu.max": "200000 100000\n"}, 2),
        ("0::/", {"cpu.max": "150000 100000\n"}, 2),
        ("0::/", {"cpu.max": "5000 100000\n"}, 1),
        ("0::/", {"cpu.max": "max 100000\n"}, 64),
        ("0::/", {"cpu.max": "9900000 100000\n"}, 64),
        ("0::/", {"cpu.max": ""}, 64),
        ("0::/", {"cpu.max": "\n0 0"}, 64),
        ("0::/a b/job", {"a b/cpu.max": "400000 100000", "a b/job/cpu.max": "max 100000"}, 4),
        ("0::/host/path/not/here", {"cpu.max": "300000 100000"}, 3),
        ("0::/../../other", {"cpu.max": "300000 100000"}, 3),
        (
            "4:cpu,cpuacct:/docker/1\n2:memory:/",
            {"cpu/cpu.cfs_quota_us": "300000", "cpu/cpu.cfs_period_us": "100000"},
            3,
        ),
        ("4:cpu:/a", {"cpu/a/cpu.cfs_quota_us": "250000\n", "cpu/a/cpu.cfs_period_us": "100000\n"}, 3),
        ("4:cpu:/", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 64),
        ("4:cpuset:/", {"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "100000"}, 64),
        ("", {}, 64),
    ],
)
def test_cores_are_bounded_by_the_control_groups_quota(
    group: str, limits: dict[str, str], cores: int, machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(64)), raising=False)
    write_limits(machine, group, limits)
    assert devices.cores() == cores


@pytest.mark.parametrize(
    ("group", "limits", "memory"),
    [
        ("0::/", {"memory.max": "max", "memory.high": "max"}, 64),
        ("0::/", {"memory.max": str(8 * GIB)}, 8),
        ("0::/", {"memory.max": str(8 * GIB), "memory.high": str(6 * GIB)}, 6),
        ("0::/", {"memory.max": str(800 * GIB)}, 64),
        ("0::/job", {"memory.max": str(8 * GIB), "job/memory.max": "max"}, 8),
        ("9:memory:/docker/1", {"memory/memory.limit_in_bytes": str(4 * GIB)}, 4),
        ("9:memory:/", {"memory/memory.limit_in_bytes": "9223372036854771712\n"}, 64),
        ("", {}, 64),
    ],
)
def test_memory_is_bounded_by_the_control_groups_limit(
    group: str, limits: dict[str, str], memory: int, machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages = {"SC_PHYS_PAGES": 64 * GIB // 4096, "SC_PAGE_SIZE": 4096}
    monkeypatch.setattr(os, "sysconf", pages.__getitem__)
    write_limits(machine, group, limits)
    assert devices.memory() == memory * GIB


def write_limits(machine: Path, group: str, limits: dict[str, str]) -> None:
    (machine / "cgroup").write_text(group)
    for name, text in limits.items():
        path = machine / "groups" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.mark.parametrize(
    ("cores", "memory", "members", "shared"),
    [
        (2, 24, 4, (2, 1)),
        (2, 24, 1, (1, 2)),
        (4, 30, 16, (4, 1)),
        (64, 512, 16, (16, 4)),
        (64, 16, 16, (12, 5)),
        (64, 4, 16, (2, 32)),
        (8, 1, 16, (1, 8)),
        (8, 2, 16, (1, 8)),
    ],
)
def test_workers_are_as_many_as_memory_holds(
    cores: int, memory: int, members: int, shared: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "cores", lambda: cores)
    monkeypatch.setattr(devices, "memory", lambda: memory * GIB)
    assert devices.plan_workers(members) == shared


def test_where_there_is_no_gpu_all_cores_work_and_nothing_is_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "cores", lambda: 2)
    assert devices.plan_workers(5) == (2, 1)
    assert devices.plan_workers(1) == (1, 2)
    assert {gpu for _, gpu in _seen_by_each(2)} == {"all"}


def test_a_tpu_is_opened_by_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "cores", lambda: 96)
    monkeypatch.setattr(devices, "tpu", lambda: True)
    assert devices.plan_workers(5) == (1, 96)


def _probes(member: int, reporter: local.Reporter) -> tuple[bool, tuple[str, ...]]:
    return parent_process() is not None, devices.gpus()


def test_a_worker_knows_its_gpu_without_a_process_of_its_own(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "gpus", lambda: ("GPU-b",))
    told: list[object] = []
    local.run_jobs(_probes, [0], Progress(0, 0, (), 0), workers=1, threads=1, done=lambda _, one: told.append(one))
    assert told == [(True, ())], "this machine has none"


def _brought(member: int, reporter: local.Reporter) -> list[str]:
    importlib.import_module("digit_recognizer.ensemble")
    importlib.import_module("digit_recognizer.member")
    return [name for name in (*processes.UNUSED, "keras") if sys.modules.get(name)]


@pytest.mark.slow
def test_a_worker_brings_in_nothing_that_no_member_uses() -> None:
    told: list[list[str]] = []
    silent = Progress(0, 0, (), 0)
    local.run_jobs(_brought, [0], silent, workers=1, threads=1, done=lambda _, one: told.append(one))
    assert told == [["keras"]]


def _aborts(member: int, reporter: local.Reporter) -> None:
    from digit_recognizer.training import backend

    with backend._chatter_held_back():
        os.write(2, b"oneDNN custom operations are on\nthis processor lacks AVX\n\n")
        os.abort()


def _fails(member: int, reporter: local.Reporter) -> None:
    raise [
        ImportError("Traceback:\n  File x\nImportError: libx.so: not found\n\n\nFailed to load.\nSee https://x"),
        OSError(28, "No space left on device"),
        ValueError("two\nlines"),
    ][member]


@pytest.mark.slow
def test_what_a_worker_wrote_before_it_died_is_in_the_message() -> None:
    with pytest.raises(KitError, match=r"a worker was killed \(exit code -6\), this processor lacks AVX"):
        local.run_jobs(_aborts, [0], Progress(0, 0, (), 0), workers=1, threads=1)


@pytest.mark.parametrize(
    ("member", "kind", "message"),
    [
        (0, KitError, "member 1: ImportError: libx.so: not found"),
        (1, KitError, "member 2: OSError: [Errno 28] No space left on device"),
        (2, RuntimeError, "member 3: ValueError: two"),
    ],
)
def test_a_failure_in_a_worker_keeps_its_text(member: int, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind) as failure:
        local.run_jobs(_fails, [member], Progress(0, 0, (), 0), workers=1, threads=1)
    assert str(failure.value) == message
    assert "Traceback" in failure.value.__notes__[0], "for runs/error.log"
    assert kind is RuntimeError or failure.value.status == 1
