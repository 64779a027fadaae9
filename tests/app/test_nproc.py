"""`functrain train --nproc`, with processes that train, and real signals."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

LONG = ["training.epochs=100000", "data.batch_size=4", "checkpoint.save_every=50", "distributed.timeout_s=20"]
BREAKS = """
import functrain

@functrain.on("after_step")
def break_on_rank_1(event):
    import torch.distributed as dist
    if dist.get_rank() == 1 and event.state.step == 7:
        raise KeyError("of rank 1")
"""


@pytest.fixture
def train(project):
    """Start training in two processes, and wait for the first epoch."""
    (project / "breaks.py").write_text(BREAKS)
    started = []

    def start(*overrides, wait=True):
        process = subprocess.Popen(
            [sys.executable, "-m", "functrain", "train", "tiny.yaml", "--nproc", "2", *overrides],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        while wait and (line := process.stderr.readline()).split()[:2] != ["epoch", "1"]:
            assert line, process.communicate()
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def ranks_of(process):
    """The processes of the ranks, by their numbers."""
    return {int(each.environ()["RANK"]): each for each in psutil.Process(process.pid).children()}


def addresses(process):
    """Where a process listens."""
    return {each.laddr.ip for each in process.net_connections("inet") if each.status == psutil.CONN_LISTEN}


def test_a_signal_to_one_rank_ends_all_and_nothing_listens_outside_the_machine(train, project):
    process = train(*LONG)
    ranks = ranks_of(process)
    assert {rank.environ()["OMP_NUM_THREADS"] for rank in ranks.values()} == {os.environ.get("OMP_NUM_THREADS", "1")}
    assert set().union(*map(addresses, [psutil.Process(process.pid), *ranks.values()])) <= {"127.0.0.1", "::1"}
    ranks[1].send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=100)
    assert process.returncode == 143, (out, err)
    assert "device     2 processes, each cpu" in out
    lines = [line for line in err.splitlines() if not line.startswith("epoch")]
    assert lines[0].startswith("functrain: interrupted at step ")
    assert lines[1].startswith("To continue: functrain train tiny.yaml")
    assert lines[1].endswith("--nproc 2")
    assert len(lines) == 2


@pytest.mark.slow
@pytest.mark.parametrize(("number", "expected"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_to_the_launcher_ends_all_and_the_same_command_continues(train, project, number, expected):
    process = train(*LONG)
    process.send_signal(number)
    _, err = process.communicate(timeout=100)
    assert process.returncode == expected, err
    step = int(err.partition("interrupted at step ")[2].split()[0])
    assert step > 0
    process = train(*LONG[1:], f"training.epochs={step}", "--max-time", "1", wait=False)
    out, err = process.communicate(timeout=100)
    assert process.returncode == 75, (out, err)
    assert f"resumed from step {step}" in out


@pytest.mark.slow
def test_a_killed_rank_ends_all_within_seconds(train):
    process = train(*LONG)
    ranks_of(process)[1].kill()
    before = time.monotonic()
    out, err = process.communicate(timeout=100)
    assert time.monotonic() - before < 10
    assert process.returncode == 137, (out, err)
    assert "functrain: error: rank 1 was ended by SIGKILL" in err
    assert "Traceback" not in err


@pytest.mark.slow
def test_a_stopped_rank_ends_all_after_the_timeout(train):
    process = train(*LONG[:-1], "distributed.timeout_s=4")
    ranks = ranks_of(process)
    ranks[1].suspend()
    out, err = process.communicate(timeout=100)
    assert process.returncode == 1, (out, err)
    assert "functrain: error: rank 1 did not answer within distributed.timeout_s (it is stopped" in err
    assert "Traceback" not in err
    assert not any(each.is_running() for each in ranks.values())


@pytest.mark.slow
def test_an_error_of_one_rank_is_told_once(train):
    process = train(*LONG, "callbacks=[{name: 'breaks:break_on_rank_1'}]", wait=False)
    out, err = process.communicate(timeout=100)
    assert process.returncode == 1, (out, err)
    assert err.count("Traceback") == 1
    assert "functrain (rank 1): error:\nTraceback" in err
    assert err.endswith("KeyError: 'of rank 1'\n")


@pytest.mark.slow
def test_no_rank_outlives_the_launcher(train):
    process = train(*LONG)
    ranks = list(ranks_of(process).values())
    process.kill()
    _, alive = psutil.wait_procs(ranks, timeout=10)
    assert alive == []


@pytest.mark.slow
def test_what_is_wrong_with_the_command_is_told_once(train):
    process = train("training.epochs=none", wait=False)
    out, err = process.communicate(timeout=100)
    assert (process.returncode, out, err.count("functrain: error:")) == (2, "", 1), err


def test_exact_sums_give_one_log_and_one_evaluation_on_any_number_of_processes(project):
    exact = ["distributed.reduction=exact", "distributed.shards=2", "distributed.strategy=zero3", "data.batch_size=8"]
    exact += ["data.eval_batch_size=3", "metrics=[f1]"]

    def train(run, *arguments):
        command = [sys.executable, "-m", "functrain", "train", "tiny.yaml", *exact, "--run-dir", run, *arguments]
        same_threads = {**os.environ, "OMP_NUM_THREADS": "1"}
        found = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False, env=same_threads)
        assert found.returncode == 0, found.stderr
        return [(project / run / name).read_bytes() for name in ("metrics.jsonl", "test/metrics.json")]

    alone = train("one")
    assert train("two", "--nproc", "2") == alone
    in_blocks = ["distributed.blocks=['0', '3']", "distributed.offload_optimizer=cpu"]
    assert train("blocks", "--nproc", "2", *in_blocks) == alone
