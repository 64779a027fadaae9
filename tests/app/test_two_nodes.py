"""Two nodes: network namespaces with an address each, a cable between them, and the command line in both."""

import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack

import pytest

from functrain.checkpoint import read_info

pytestmark = pytest.mark.slow

NODES = {"functrain-a": "10.213.7.1", "functrain-b": "10.213.7.2"}
FIRST, SECOND = NODES
EXACT = ["distributed.reduction=exact", "distributed.shards=2", "distributed.strategy=zero3", "data.batch_size=8"]
QUIET = ["--no-progress", "distributed.timeout_s=60"]


def ip(*words):
    return subprocess.run(["ip", *words], capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def nodes():
    """The namespaces; without the right to make them the tests are skipped."""
    with ExitStack() as stack:
        for name in NODES:
            try:
                made = ip("netns", "add", name)
            except FileNotFoundError:
                pytest.skip("there is no program ip (iproute2), which makes network namespaces")
            if made.returncode:
                pytest.skip(f"network namespaces may not be made here: {made.stderr.strip()}")
            stack.callback(ip, "netns", "del", name)
        cable = ip("link", "add", "ends", "netns", FIRST, "type", "veth", "peer", "name", "ends", "netns", SECOND)
        if cable.returncode:
            pytest.skip(f"no cable between network namespaces can be made here: {cable.stderr.strip()}")
        for name, address in NODES.items():
            for words in (["addr", "add", f"{address}/24", "dev", "ends"], ["link", "set", "ends", "up"]):
                assert ip("-n", name, *words).returncode == 0
            assert ip("-n", name, "link", "set", "lo", "up").returncode == 0
        yield list(NODES)


def started(node, command, **variables):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "ends", **variables}
    return subprocess.Popen(
        ["ip", "netns", "exec", node, sys.executable, "-m", *command],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def by_torchrun(node, rank, *arguments):
    torchrun = ["torch.distributed.run", "--nnodes", "2", "--node-rank", str(rank), "--nproc-per-node", "1"]
    torchrun += ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"{NODES[FIRST]}:29517", "--rdzv-id", "two"]
    # Both namespaces have one host name, by which torchrun would tell whose address the endpoint is.
    torchrun += ["--local-addr", NODES[node], "--rdzv-conf", f"is_host={int(rank == 0)}"]
    return started(node, [*torchrun, "-m", "functrain", *arguments], TORCH_DISABLE_SHARE_RDZV_TCP_STORE="1")


def by_variables(node, rank, *arguments):
    """As srun starts a task on each node, without torchrun."""
    place = {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
    meeting = {"MASTER_ADDR": NODES[FIRST], "MASTER_PORT": "29518"}
    return started(node, ["functrain", *arguments], **place, **meeting)


def finished(processes):
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    return [process.returncode for process in processes], outputs


def test_two_nodes_under_torchrun_have_the_log_of_one_process(nodes, functrain, project):
    train = ["train", "tiny.yaml", *EXACT, *QUIET]
    codes, outputs = finished([by_torchrun(node, rank, *train, "--run-dir", "two") for rank, node in enumerate(nodes)])
    assert codes == [0, 0], outputs
    assert functrain(*train, "training.threads=1", "--run-dir", "one")[0] == 0
    for name in ("metrics.jsonl", "test/metrics.json"):
        assert (project / "two" / name).read_bytes() == (project / "one" / name).read_bytes(), name


def test_a_signal_to_one_node_ends_both_with_everything_saved_and_the_run_goes_on(nodes, project):
    train = ["train", "tiny.yaml", *EXACT, *QUIET, "--run-dir", "run", "training.epochs=100000"]
    processes = [by_variables(node, rank, *train) for rank, node in enumerate(nodes)]
    until = time.monotonic() + 120
    while not (project / "run" / "metrics.jsonl").exists() and time.monotonic() < until:
        time.sleep(0.2)
    time.sleep(1)
    processes[1].send_signal(signal.SIGUSR1)  # as SLURM does ahead of the time limit
    codes, outputs = finished(processes)
    assert codes == [143, 138], outputs  # of SIGTERM, and of the signal
    step = read_info(project / "run" / "checkpoints" / "last").step
    assert step > 0
    again = [by_variables(node, rank, *train, "--max-time", "6") for rank, node in enumerate(nodes)]
    codes, outputs = finished(again)
    assert codes == [75, 75], outputs
    assert read_info(project / "run" / "checkpoints" / "last").step > step
