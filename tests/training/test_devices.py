"""Cores, memory, GPUs and TPUs, and the workers planned for them."""

import os
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from digit_recognizer.training import devices

GIB = 2**30


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that stands for a machine without devices and limits."""
    (tmp_path / "dev").mkdir()
    for name, folder in (("DEVICES", "dev"), ("CGROUP_FILE", "cgroup"), ("CGROUP_ROOT", "groups")):
        monkeypatch.setattr(devices, name, tmp_path / folder)
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
def test_visible_gpus_are_used(
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
    assert capsys.readouterr().out == "", "no warning about GPUs hidden by the user"


@pytest.mark.parametrize(
    ("backend", "package"),
    [("", "tensorflow[and-cuda]"), ("tensorflow", "tensorflow[and-cuda]"), ("jax", "jax[cuda12]")],
)
def test_unusable_gpu_is_reported_once_and_cores_are_used(
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
    line, hint = capsys.readouterr().out.splitlines()
    assert line == f"warning: GPU 0: {backend or 'tensorflow'} cannot use it; training on 4 cores"
    assert hint.startswith("hint: ")
    assert hint.endswith(f'-m pip install "{package}"')


def test_only_usable_gpus_are_used(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_gpus(machine, monkeypatch, 4, usable=2)
    monkeypatch.setenv(devices.VISIBLE_VARIABLE, "3,2,9,1")
    assert devices.gpus() == ("3", "2"), "CUDA ignores the list from a missing GPU on"


def _lists_one_less(pipe: Connection, present: int) -> None:
    pipe.send(present - 1)


def _crashes(pipe: Connection, present: int) -> None:
    os._exit(134)


def _hangs(pipe: Connection, present: int) -> None:
    time.sleep(60)


@pytest.mark.parametrize(("job", "usable"), [(_lists_one_less, 1), (_crashes, 0), (_hangs, 0)])
def test_usable_gpus_are_counted_in_a_separate_process(
    job: Callable[..., None], usable: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "_count_gpus", job)
    monkeypatch.setattr(devices, "PROBE_SECONDS", 1 if job is _hangs else 30)
    assert devices.count_usable_gpus(2) == usable


@pytest.mark.slow
def test_count_equals_the_gpus_that_keras_lists() -> None:
    from digit_recognizer.training.backend import keras

    assert devices.count_usable_gpus(9) == sum(not name.startswith("cpu") for name in keras.distribution.list_devices())


@pytest.mark.parametrize(
    ("wanted", "gpus", "tpu", "line"),
    [
        ("t4x2", 0, False, "accelerator t4x2: this machine does not have it; training on 4 cores"),
        ("t4x2", 1, False, "accelerator t4x2: this machine does not have it; training on 1 GPU"),
        ("t4x2", 2, False, ""),
        ("tpu", 0, False, "accelerator tpu: this machine does not have it; training on 4 cores"),
        ("tpu", 0, True, ""),
        ("", 0, False, ""),
    ],
)
def test_missing_accelerator_of_a_kernel_is_reported(
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
    output = capsys.readouterr().out.splitlines()
    assert output[:1] == ([f"warning: {line}"] if line else [])
    assert all(text.startswith("hint: ") for text in output[1:])


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
def test_control_group_quota_limits_cores(
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
def test_control_group_limits_memory(
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
        (64, 16, 16, (8, 8)),
        (64, 6, 16, (2, 32)),
        (64, 4, 16, (1, 64)),
        (8, 1, 16, (1, 8)),
        (8, 2, 16, (1, 8)),
    ],
)
def test_memory_limits_workers(
    cores: int, memory: int, members: int, shared: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "cores", lambda: cores)
    monkeypatch.setattr(devices, "memory", lambda: memory * GIB)
    assert devices.plan_workers(members) == shared


def test_tpu_gets_one_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "cores", lambda: 96)
    monkeypatch.setattr(devices, "tpu", lambda: True)
    assert devices.plan_workers(5) == (1, 96)


def test_workers_without_gpus_divide_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "cores", lambda: 2)
    assert devices.plan_workers(5) == (2, 1)
    assert devices.plan_workers(1) == (1, 2)


def test_each_gpu_gets_one_worker(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_gpus(machine, monkeypatch, 2)
    assert devices.plan_workers(5)[0] == 2
    assert devices.plan_workers(1)[0] == 1
