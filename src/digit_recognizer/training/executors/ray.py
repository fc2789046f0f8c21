"""Run members as tasks of Ray, on this machine or on a cluster, each with its own cores or its own GPU.

The job, which includes the data, is put into Ray's object store once, and each node fetches it once. Results and states
come back to this process, which alone writes files, so that no shared disk is needed. A member whose worker or node
dies is started again with its last state, on any node.
"""

import os
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import digit_recognizer
from digit_recognizer import hints
from digit_recognizer.errors import KitError
from digit_recognizer.training import devices, numerics
from digit_recognizer.training.executors import Job, Reporter, States, describe_failure, processes
from digit_recognizer.training.progress import Progress

CONNECT_SECONDS = 10
POLL_SECONDS = 0.2


class RayExecutor:
    """Tasks of Ray.

    Args:
        address: the address of a cluster, as ``ray.init`` takes it; None to start Ray on this machine.

    Raises:
        KitError: Ray is not installed, or the cluster cannot be reached.
    """

    def __init__(self, address: str | None = None) -> None:
        try:
            import ray
        except ImportError:
            raise KitError(
                f"{hints.option('executor', 'ray')}: ray is not installed",
                hint="`pip install -r requirements/ray.txt` installs it, and so does `make run EXECUTOR=ray`",
            ) from None
        self._ray: Any = ray
        environment = {
            name: os.environ[name] for name in ("KERAS_BACKEND", *numerics.VARIABLES) if os.environ.get(name)
        }
        runtime: dict[str, Any] = {"env_vars": environment}
        if address:
            runtime["py_modules"] = [str(Path(digit_recognizer.__file__).parent)]
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            if address and ":" in (place := address.removeprefix("ray://")):  # Ray itself would retry for minutes
                host, _, port = place.rpartition(":")
                socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
            if not ray.is_initialized():
                self._ray.init(
                    address=address or "local",
                    num_cpus=None if address else devices.cores(),
                    runtime_env=runtime,
                    include_dashboard=None if address else False,
                    log_to_driver=False,
                    logging_level="ERROR",
                )
        except (OSError, RuntimeError, ValueError) as error:
            raise KitError(
                f"Ray: no connection to {address or 'this machine'}: {str(error).splitlines()[0]}",
                hint=f"check {hints.option('ray_address')}, and that the cluster runs Ray {ray.__version__}",
            ) from error

    def plan(self, members: int) -> tuple[int, int]:
        """Return how many members run at the same time on the cluster, and the cores of each."""
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        self._gpus = any(node.get("GPU") for node in nodes)
        if self._gpus:
            workers = sum(int(node.get("GPU", 0)) for node in nodes)
        else:
            workers = sum(
                int(min(node.get("CPU", 0), node.get("memory", 0) // devices.WORKER_MEMORY)) for node in nodes
            )
        workers = max(1, min(workers, members))
        cores = [int(node.get("CPU", 0)) for node in nodes if node.get("CPU")]
        return workers, max(1, min(sum(cores) // workers, *cores)) if cores else 1

    def run_jobs(
        self,
        job: Job,
        members: Sequence[int],
        progress: Progress,
        *,
        workers: int,
        threads: int,
        done: Callable[[int, Any], None] = lambda member, result: None,
        may_start: Callable[[], bool] = lambda: True,
        states: States | None = None,
        attempts: int = 1,
    ) -> None:
        """Call ``job`` for each member in a task of Ray; see ``Executor.run_jobs``."""
        ray = self._ray
        waiting, starts = list(members), dict.fromkeys(members, 0)
        running: dict[Any, int] = {}
        messages = self._queue()
        variables = dict.fromkeys(("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"), str(threads))
        task = ray.remote(_run).options(
            num_cpus=threads,
            num_gpus=1 if self._gpus else 0,
            memory=0 if self._gpus else devices.WORKER_MEMORY,
            max_retries=0,
            runtime_env={"env_vars": variables},
        )
        try:
            stored = ray.put(job)
            with progress:
                while waiting or running:
                    while waiting and len(running) < workers:
                        if not starts[waiting[0]] and not may_start():
                            waiting = [member for member in waiting if starts[member]]
                            continue
                        member = waiting.pop(0)
                        starts[member] += 1
                        running[task.remote(stored, member, states and states.load(member), messages)] = member
                    ready, _ = ray.wait(list(running), timeout=POLL_SECONDS)
                    for kind, content in _drain(messages):
                        if content[0] not in running.values():
                            continue  # of an attempt that failed
                        if kind != "save":
                            getattr(progress, kind)(*content)
                        elif states:
                            states.save(*content)
                    progress.refresh()
                    for reference in ready:
                        member = running.pop(reference)
                        try:
                            kind, content = ray.get(reference)
                        except ray.exceptions.RayError as error:
                            kind, content = "failed", (_death(error), True)
                        if kind == "done":
                            done(member, content)
                            continue
                        failure, may_pass = content
                        if not may_pass or starts[member] >= attempts:
                            raise failure
                        progress.retry(member, str(failure))
                        waiting.insert(0, member)
        finally:
            for reference in running:
                with suppress(Exception):
                    ray.cancel(reference, force=True)
            messages.shutdown(force=True)

    def _queue(self) -> Any:
        """Return a queue on this node for the messages of the tasks."""
        from ray.util.queue import Queue
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        here = NodeAffinitySchedulingStrategy(self._ray.get_runtime_context().get_node_id(), soft=False)
        return Queue(actor_options={"num_cpus": 0, "scheduling_strategy": here})


def _run(job: Job, member: int, saved: bytes | None, messages: Any) -> tuple[str, Any]:
    """Run a job in a task of Ray."""
    processes.hide_unused()
    processes.remove_stale()
    try:
        return "done", job(member, Reporter(messages.put, member, saved))
    except Exception as error:
        return "failed", describe_failure(member, error)


def _drain(messages: Any) -> list[tuple[str, tuple[Any, ...]]]:
    """Return the messages that are there now."""
    count = messages.qsize()
    return messages.get_nowait_batch(count) if count else []


def _death(error: Exception) -> KitError:
    # Ray describes the death of a worker or node in many lines; an error inside a task has a cause.
    cause = str(getattr(error, "cause", "")).strip().partition("\n")[0]
    return KitError(
        f"Ray: worker killed ({type(error).__name__}{cause and f': {cause}'})",
        hint="trained members and finished epochs are kept; rerun the command to resume",
    )
