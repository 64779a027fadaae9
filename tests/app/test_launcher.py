"""`--nproc`: how ranks are started, signalled and ended, with small programs in place of training."""

import io
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from functrain.app.launching import launcher, processes
from functrain.app.launching.causes import failed
from functrain.app.launching.launcher import Launcher

START = """
import os, signal, sys, time
from functrain.app.launching.reports import reported, say_joined
rank = int(os.environ["RANK"])

def of_peers():
    reported("they went", RuntimeError("[third_party/gloo/gloo/pair.cc:1] Connection closed by peer"))
    sys.exit(1)
"""


def rank(code):
    return [sys.executable, "-c", START + code]


def launched(code, count=2):
    """The exit code, and what the launcher wrote."""
    error = io.StringIO()
    return Launcher(rank(code), count, error).run(), error.getvalue()


def test_ranks_get_what_torchrun_would_tell_them_and_equal_numbers_of_threads(tmp_path, monkeypatch):
    names = ["RANK", "LOCAL_RANK", "WORLD_SIZE", "OMP_NUM_THREADS", "GLOO_SOCKET_IFNAME", "FUNCTRAIN_STORE"]
    code = f"open(f'{tmp_path}/{{rank}}', 'w').write(' '.join(os.environ[name] for name in {names}))"
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(processes, "threads_each", lambda count: 12 // count)
    assert launched(code, 3) == (0, "")
    found = [(tmp_path / str(number)).read_text().split() for number in range(3)]
    assert [each[:5] for each in found] == [[str(number), str(number), "3", "4", "lo"] for number in range(3)]
    assert len({each[5] for each in found}) == 1
    assert not os.path.exists(os.path.dirname(found[0][5]))
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert processes.environment(1, 2, tmp_path)["OMP_NUM_THREADS"] == "7"


@pytest.mark.parametrize(("cores", "count", "threads"), [(8, 2, 4), (8, 3, 2), (2, 4, 1)])
def test_threads_share_the_cores(cores, count, threads, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    assert processes.threads_each(count) == threads


def test_lines_of_other_ranks_say_whose_they_are(capfd):
    code, said = launched("print('out', rank, flush=True); print('err', rank, file=sys.stderr)")
    assert code == 0
    assert capfd.readouterr() == ("out 0\n", "err 0\n")
    assert said == "[rank 1] out 1\n[rank 1] err 1\n"


def test_an_error_of_one_rank_is_told_once_with_its_traceback_and_the_others_end():
    code = """
if rank == 2:
    reported("Traceback (most recent call last):\\n  here\\nKeyError: 'x'\\n", KeyError("x"), is_traceback=True)
    sys.exit(1)
time.sleep(0.3)
of_peers()
"""
    expected = "functrain (rank 2): error:\nTraceback (most recent call last):\n  here\nKeyError: 'x'\n"
    assert launched(code, 3) == (1, expected)


def test_what_all_ranks_say_is_told_once_without_a_rank():
    code = "reported('there is no such file', ValueError()); sys.exit(2)"
    assert launched(code) == (2, "functrain: error: there is no such file\n")


def test_a_rank_that_ends_without_a_word_is_named():
    assert launched("sys.exit(3 * rank)") == (3, "functrain: error: rank 1 ended with exit code 3\n")


def test_a_killed_rank_is_named_and_the_others_are_ended(monkeypatch):
    monkeypatch.setattr(launcher, "SETTLE", 0.3)
    before = time.monotonic()
    code, said = launched("os.kill(os.getpid(), signal.SIGKILL) if rank else time.sleep(600)")
    assert code == 137
    assert said.startswith("functrain: error: rank 1 was ended by SIGKILL; the system sends it where memory is short.")
    assert time.monotonic() - before < 60


def test_a_rank_that_does_not_answer_is_named(monkeypatch):
    monkeypatch.setattr(launcher, "SETTLE", 0.5)
    code, said = launched("os.kill(os.getpid(), signal.SIGSTOP) if rank == 1 else of_peers()", 3)
    assert code == 1
    assert said == (
        "functrain: error: rank 1 did not answer within distributed.timeout_s (it is stopped, as by SIGSTOP); all "
        "ranks were ended. The same command continues the run from its last checkpoint\n"
    )


LAUNCH = """
import sys
from functrain.app.launching import launcher
launcher.REPEATS_WITHIN, launcher.UNJOINED = 0.2, 0.4
print(launcher.Launcher(sys.argv[1:3] + [sys.argv[3]], 2, sys.stderr).run(), flush=True)
"""


@pytest.fixture
def started():
    """Start a launcher in a process of its own, and wait until its ranks have said so."""
    processes = []

    def start(code):
        process = subprocess.Popen(
            [sys.executable, "-c", LAUNCH, *rank(code)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        processes.append(process)
        assert process.stdout.readline() == "up\n"
        assert process.stderr.readline() == "[rank 1] up\n"
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


SAVES = """
def save(number, frame):
    print("saved", flush=True)
    sys.exit(128 + number)

for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, save)
"""
UP = "say_joined()\nprint('up', flush=True)\ntime.sleep(600)"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_launcher_reaches_all_ranks(started, number):
    process = started(SAVES + UP)
    process.send_signal(number)
    assert process.communicate(timeout=60) == (f"saved\n{128 + number}\n", "[rank 1] saved\n")


def test_a_second_signal_ends_all_ranks_at_once(started):
    process = started("signal.signal(signal.SIGINT, signal.SIG_IGN)\n" + UP)
    ranks = psutil.Process(process.pid).children()
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60)[0] == "130\n"
    assert not any(each.is_running() for each in ranks)


def test_a_signal_to_a_rank_that_waits_for_others_ends_them(started):
    process = started("print('up', flush=True)\nos._exit(143) if rank else time.sleep(600)")
    assert process.communicate(timeout=60)[0] == "143\n"


def test_no_rank_outlives_a_launcher_that_was_killed(started):
    process = started(
        "from functrain.app.lifeline import end_at_once_with_parent\nend_at_once_with_parent()\n" + SAVES + UP
    )
    ranks = psutil.Process(process.pid).children()
    assert len(ranks) == 2
    process.kill()
    _, alive = psutil.wait_procs(ranks, timeout=10)
    assert alive == []


@pytest.mark.parametrize(
    ("code", "told", "expected"),
    [
        (None, None, False),
        (0, None, False),
        (75, None, False),
        (143, None, False),
        (2, None, True),
        (-11, None, True),
        (-2, 2, False),
        (-2, 15, True),
        (-9, 15, False),
        (1, 15, True),
    ],
)
def test_which_ends_are_failures(code, told, expected):
    assert failed(code, told) == expected


def test_nproc_and_torchrun_exclude_each_other(functrain, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    code, _, err = functrain("train", "tiny.yaml", "--nproc", "2")
    assert code == 2
    assert "--nproc starts the processes itself: leave it out under torchrun" in err
