"""Detect the cores, memory, GPUs and TPUs that this process may use, and divide them among workers."""

import functools
import math
import os
import resource
import sys
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing import connection, get_context, parent_process
from pathlib import Path

from digit_recognizer.training.executors import processes

WORKER_MEMORY = 1_900_000_000  # bytes; the measured peak of a worker is 1.4 to 1.8 GB
RUN_MEMORY = 1_000_000_000  # bytes; the peak of the parent process, when it reads the competition's files
DEVICES = Path("/dev")
STATUS_FILE = Path("/proc/self/status")
CGROUP_FILE, CGROUP_ROOT = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")
VISIBLE_VARIABLE = "CUDA_VISIBLE_DEVICES"
ACCELERATOR_VARIABLE = "DIGIT_RECOGNIZER_ACCELERATOR"  # set in a kernel script that was built for one
PROBE_SECONDS = 180  # time limit to count GPUs
CUDA_PACKAGES = {"tensorflow": "tensorflow[and-cuda]", "jax": "jax[cuda12]", "torch": "torch"}


def cores() -> int:
    """Return the number of cores this process may use, by its affinity and its control groups' quotas, rounded up."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for group in _control_groups("cpu"):
        quota = _read_text(group / "cpu.max").split()
        if not quota:
            quota = [_read_text(group / name).strip() for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us")]
        if len(quota) == 2 and all(number.isdecimal() and int(number) for number in quota):
            count = min(count, math.ceil(int(quota[0]) / int(quota[1])))
    return count


def memory() -> int:
    """Return the bytes of memory this process may use, free or not: the machine's, or its control groups' limit."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else sys.maxsize
    for group in _control_groups("memory"):
        for name in ("memory.max", "memory.high", "memory.limit_in_bytes"):
            if (limit := _read_text(group / name).strip()).isdecimal():
                total = min(total, int(limit))
    return total


def peak_memory() -> int:
    """Return the most bytes of memory that this process has used so far."""
    # The kernel's count of ``getrusage`` includes the process that started this one.
    for line in _read_text(STATUS_FILE).splitlines():
        name, _, value = line.partition(":")
        if name == "VmHWM":
            return int(value.split()[0]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _control_groups(controller: str) -> Iterator[Path]:
    """Yield the folders of this process's control groups and their parents for a controller, of versions 1 and 2."""
    for line in _read_text(CGROUP_FILE).splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers or controller in controllers.split(","):
            root = CGROUP_ROOT / controller if controllers else CGROUP_ROOT
            group = root / path.lstrip("/")  # missing in a container whose own group is mounted as the root
            yield from (folder for folder in (group, *group.parents) if folder.is_relative_to(root))


def _read_text(path: Path) -> str:
    """Return the text of a file of the operating system; empty if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""


def plan_workers(members: int) -> tuple[int, int]:
    """Return the number of workers for a run of so many members, and the number of threads of each.

    It depends only on the run and the machine, so that a resumed run computes like an uninterrupted one. Each GPU
    belongs to one worker. Only one process can open a TPU.
    """
    report_missing_accelerator()
    limit = int((memory() - RUN_MEMORY) // WORKER_MEMORY)
    workers = min(len(gpus()) or (1 if tpu() else cores()), members, max(1, limit))
    return workers, max(1, cores() // workers)


@functools.cache
def gpus() -> tuple[str, ...]:
    """Return the GPUs that Keras can use, as entries of ``CUDA_VISIBLE_DEVICES``."""
    present = visible_gpus()
    # In a worker the parent process has set the variable.
    if not present or parent_process():
        return present
    return present[: count_usable_gpus(len(present))]


def visible_gpus() -> tuple[str, ...]:
    """Return the NVIDIA GPUs in ``CUDA_VISIBLE_DEVICES`` up to its first invalid entry; all if it is unset."""
    nodes = len(list(DEVICES.glob("nvidia[0-9]*")))
    if not nodes or VISIBLE_VARIABLE not in os.environ:
        return tuple(map(str, range(nodes)))
    names: list[str] = []
    for name in map(str.strip, os.environ[VISIBLE_VARIABLE].split(",")):
        if not name or name.startswith("-"):
            break
        names.append(name)
    return tuple(dict.fromkeys(names))


def count_usable_gpus(present: int) -> int:
    """Return how many GPUs Keras lists in a separate process; 0 if that process crashes or hangs."""
    receiver, sender = get_context("spawn").Pipe()
    process = processes.spawn(_count_gpus, sender, present)
    sender.close()
    try:
        return int(receiver.recv()) if receiver.poll(PROBE_SECONDS) else 0
    except (EOFError, ConnectionError):
        return 0
    finally:
        process.terminate()
        process.join()


def _count_gpus(pipe: connection.Connection, present: int) -> None:
    """Send the number of GPUs that Keras lists; ``present`` if its backend cannot list them."""
    processes.hide_unused()
    with suppress(Exception):
        from digit_recognizer.training.backend import keras

        present = sum(not device.startswith("cpu") for device in keras.distribution.list_devices())
    pipe.send(present)


@functools.cache
def report_missing_accelerator() -> None:
    """Print a warning if a GPU cannot be used, or if a kernel runs without the accelerator it was built for."""
    expected, found = os.environ.get(ACCELERATOR_VARIABLE), len(gpus())
    if not found and (present := visible_gpus()):
        backend = os.environ.get("KERAS_BACKEND") or "tensorflow"
        names = (
            f"{VISIBLE_VARIABLE}={os.environ[VISIBLE_VARIABLE]}"
            if VISIBLE_VARIABLE in os.environ
            else ", ".join(present)
        )
        print(
            f"warning: GPU {names}: {backend} cannot use it; training on {cores()} cores\n"
            f'hint: {sys.executable} -m pip install "{CUDA_PACKAGES.get(backend, backend)}"',
            flush=True,
        )
    elif (expected == "t4x2" and found < 2) or (expected == "tpu" and not tpu()):
        available = f"{found} GPU" if found else f"{cores()} cores"
        print(
            f"warning: accelerator {expected}: this machine does not have it; training on {available}\n"
            "hint: set the accelerator in the kernel's settings on Kaggle",
            flush=True,
        )


def tpu() -> bool:
    """Return whether this machine has a TPU and the backend is JAX."""
    nodes = (*DEVICES.glob("accel[0-9]*"), *(DEVICES / "vfio").glob("[0-9]*"))
    return os.environ.get("KERAS_BACKEND") == "jax" and bool(nodes)
