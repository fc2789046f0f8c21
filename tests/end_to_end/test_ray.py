"""Members as tasks of a Ray cluster of two nodes on this machine, of which a worker and then a node are killed."""

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kernel_processes import TINY, KernelProcess, only_run, results, start

pytest.importorskip("ray")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A node without cores, to which runs connect, and two nodes of one core each."""
    from ray.cluster_utils import Cluster

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    node = {"object_store_memory": 100_000_000, "include_dashboard": False}
    detect = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500, "health_check_failure_threshold": 3}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "_system_config": detect, **node})
    for _ in range(2):
        cluster.add_node(num_cpus=1, **node)
    cluster.wait_for_nodes()
    yield cluster
    cluster.shutdown()


def start_on(cluster: Any, home: Path) -> KernelProcess:
    """Start a run on the cluster, and wait until two members have a state."""
    kernel = start(*TINY, "--executor", "ray", home=home, environment={"RAY_ADDRESS": cluster.address})
    kernel.wait_for(lambda: len(list(home.glob("runs/*/members/*/state.npz"))) == 2)
    return kernel


def check_retry(kernel: KernelProcess, error: str) -> None:
    """Check that the run ended well, and that one member was started again, from its last state."""
    assert (kernel.wait(), kernel.stderr) == (0, "")
    again = rf"^member (\d)/3  Ray: worker killed \({error}\); started again$"
    (member,) = re.findall(again, kernel.stdout, re.MULTILINE)
    (finished,) = re.findall(rf"^member {member}/3  continues after epoch (\d)/4$", kernel.stdout, re.MULTILINE)
    epochs = [int(epoch) for epoch in re.findall(rf"^ +{member}/3 +(\d)/4 ", kernel.stdout, re.MULTILINE)]
    assert len(epochs) - len(set(epochs)) <= 1, "at most one epoch is repeated"
    assert sorted(set(epochs)) == [1, 2, 3, 4]
    assert int(finished) >= 1


def test_killed_worker_process(cluster: Any, undisturbed: dict[str, bytes], tmp_path: Path) -> None:
    kernel = start_on(cluster, tmp_path)
    tasks = [path.parent.name for path in Path("/proc").glob("[0-9]*/cmdline") if b"ray::_run" in content(path)]
    assert len(tasks) == 2, "two members at the same time"
    os.kill(int(tasks[0]), signal.SIGKILL)
    check_retry(kernel, "WorkerCrashedError")
    assert results(only_run(tmp_path)) == undisturbed, "as with worker processes of this machine"


def test_killed_node(cluster: Any, undisturbed: dict[str, bytes], tmp_path: Path) -> None:
    kernel = start_on(cluster, tmp_path)
    cluster.remove_node(cluster.worker_nodes.copy().pop(), allow_graceful=False)
    check_retry(kernel, r"\w+")
    assert results(only_run(tmp_path)) == undisturbed


def content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # the process has ended
        return b""
