"""Find the cores, memory, GPUs and TPUs that this process may use, and share them among workers."""

import functools
import math
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing import connection, get_context, parent_process
from pathlib import Path

from digit_recognizer.training.executors import processes

WORKER_MEMORY = 1_300_000_000  # bytes; most that a worker used at once was 1.0 to 1.2 GB, by network
RUN_MEMORY = 1_000_000_000  # bytes; of the process that starts the workers, while it reads the competition's files
DEVICES = Path("/dev")
GROUP, GROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")
VISIBLE_VARIABLE = "CUDA_VISIBLE_DEVICES"
ACCELERATOR_VARIABLE = "DIGIT_RECOGNIZER_ACCELERATOR"  # set in a kernel that was made for one
PROBE_SECONDS = 180
CUDA_PACKAGES = {"tensorflow": "tensorflow[and-cuda]", "jax": "jax[cuda12]", "torch": "torch"}


def cores() -> int:
    """How many processor cores this process may use: by its affinity, and by its control groups' quotas, rounded up."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for group in _control_groups("cpu"):
        quota = _text(group / "cpu.max").split()
        if not quota:
            quota = [_text(group / name).strip() for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us")]
        if len(quota) == 2 and all(word.isdecimal() and int(word) for word in quota):
            count = min(count, math.ceil(int(quota[0]) / int(quota[1])))
    return count


def memory() -> int:
    """How many bytes of memory this process may use: the machine's, or its control groups' limit; free or not."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else sys.maxsize
    for group in _control_groups("memory"):
        for name in ("memory.max", "memory.high", "memory.limit_in_bytes"):
            if (limit := _text(group / name).strip()).isdecimal():
                total = min(total, int(limit))
    return total


def _control_groups(controller: str) -> Iterator[Path]:
    """The folders of this process's control groups for a controller and of those around them, version 2 and 1."""
    for line in _text(GROUP).splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers or controller in controllers.split(","):
            root = GROUPS / controller if controllers else GROUPS
            group = root / path.lstrip("/")  # not there in a container that sees its own group as the root
            yield from (folder for folder in (group, *group.parents) if folder.is_relative_to(root))


def _text(path: Path) -> str:
    """The text of one of the operating system's files; empty where it is missing."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""


def plan_workers(members: int) -> tuple[int, int]:
    """How many workers to start for a run of that many members, and how many threads to give each.

    It follows from the run and the machine alone, so that a resumed run computes as it would have at first. A GPU
    is used by one worker, which sees no other; a TPU can be opened by one process alone.
    """
    report_missing_accelerator()
    fit = int((memory() - RUN_MEMORY) // WORKER_MEMORY)
    workers = min(len(gpus()) or (1 if tpu() else cores()), members, max(1, fit))
    return workers, max(1, cores() // workers)


@functools.cache
def gpus() -> tuple[str, ...]:
    """The GPUs that Keras can use here, as entries of ``CUDA_VISIBLE_DEVICES``."""
    present = visible_gpus()
    # In a worker the variable is set by the process that started it.
    if not present or parent_process():
        return present
    return present[: count_usable_gpus(len(present))]


def visible_gpus() -> tuple[str, ...]:
    """The NVIDIA GPUs here that ``CUDA_VISIBLE_DEVICES`` leaves visible; CUDA ends its list at a bad entry."""
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
    """How many GPUs Keras finds, as a process of its own tells; one that dies or hangs finds none."""
    ours, theirs = get_context("spawn").Pipe()
    process = processes.spawn(_count_gpus, theirs, present)
    theirs.close()
    try:
        return int(ours.recv()) if ours.poll(PROBE_SECONDS) else 0
    except (EOFError, ConnectionError):
        return 0
    finally:
        process.terminate()
        process.join()


def _count_gpus(pipe: connection.Connection, present: int) -> None:
    """Send how many GPUs Keras finds; ``present`` where its backend does not say."""
    processes.hide_unused()
    with suppress(Exception):
        from digit_recognizer.training.backend import keras

        present = sum(not device.startswith("cpu") for device in keras.distribution.list_devices())
    pipe.send(present)


@functools.cache
def report_missing_accelerator() -> None:
    """Print a line where a GPU cannot be used, or where a kernel did not get the accelerator it was made for."""
    wanted, found = os.environ.get(ACCELERATOR_VARIABLE), len(gpus())
    if not found and (present := visible_gpus()):
        backend = os.environ.get("KERAS_BACKEND") or "tensorflow"
        which = (
            f"{VISIBLE_VARIABLE}={os.environ[VISIBLE_VARIABLE]}"
            if VISIBLE_VARIABLE in os.environ
            else ", ".join(present)
        )
        print(
            f"GPU {which}: {backend} cannot use it, training on {cores()} cores instead; to use it: "
            f'{sys.executable} -m pip install "{CUDA_PACKAGES.get(backend, backend)}"',
            flush=True,
        )
    elif (wanted == "t4x2" and found < 2) or (wanted == "tpu" and not tpu()):
        instead = f"{found} GPU" if found else f"{cores()} cores"
        print(f"accelerator {wanted}: this machine does not have it, training on {instead} instead", flush=True)


def tpu() -> bool:
    """Whether JAX would train on a TPU here."""
    nodes = (*DEVICES.glob("accel[0-9]*"), *(DEVICES / "vfio").glob("[0-9]*"))
    return os.environ.get("KERAS_BACKEND") == "jax" and bool(nodes)
