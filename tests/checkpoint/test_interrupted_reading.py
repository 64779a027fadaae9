"""An interruption, or a lack of something, while a checkpoint is read is no damage."""

import asyncio
import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import warnings
from contextlib import suppress

import pytest
import torch

from functrain.checkpoint import (
    Checkpointer,
    CheckpointWarning,
    DamagedCheckpointError,
    read_arrays,
    read_info,
    reader,
    verify_checkpoints,
    write_safetensors,
)
from functrain.checkpoint import index as index_module
from functrain.checkpoint.foreign import load_state_dict
from functrain.checkpoint.uninterrupted import _end_all as end_all
from functrain.foundation.errors import CheckpointError


def tree(step):
    return {"params": {f"w{i}": torch.full((20, 20), float(step)) for i in range(5)}, "n": step}


NAMES = ["step-00000001", "step-00000002", "step-00000003"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Nothing that is tested here changes it."""
    directory = tmp_path_factory.mktemp("run")
    with Checkpointer(directory) as checkpointer:
        for step in (1, 2, 3):
            checkpointer.save(tree(step), step=step, metric=-step)
    return directory


class Stop(BaseException):
    """What a user's signal handler raises."""


# Of the kinds that reading itself raises, too: only where they come from tells them apart.
RAISED = [
    KeyboardInterrupt(),
    SystemExit(3),
    Stop(),
    asyncio.CancelledError(),
    ValueError("stop"),
    OSError(errno.EIO, "x"),
]


@pytest.fixture
def handler():
    """Let SIGUSR2 raise an exception in the main thread."""
    previous = signal.getsignal(signal.SIGUSR2)

    def install(exception):
        def handle(_number, _frame):
            raise exception

        signal.signal(signal.SIGUSR2, handle)

    yield install
    signal.signal(signal.SIGUSR2, previous)


def signalled(function):
    """The function, with the signal coming while it works for the first time."""
    first = iter([True])

    def work(*arguments, **keywords):
        if next(first, False):
            os.kill(os.getpid(), signal.SIGUSR2)
            time.sleep(0.01)
        return function(*arguments, **keywords)

    return work


READS = {
    "last": lambda run: Checkpointer(run).restore(tree(0), "last"),
    "best": lambda run: Checkpointer(run).restore(tree(0), "best"),
    "name": lambda run: Checkpointer(run).restore(tree(0), "step-00000003"),
    "arrays": lambda run: read_arrays(run / "last"),
    "verify": verify_checkpoints,
}


MOMENTS = [
    (reader, "load_index"),
    (reader, "check_inventory"),
    (reader.orbax_io, "load_item"),
    (reader.arrays, "crc32"),
]


@pytest.mark.parametrize("exception", RAISED, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("read", READS)
def test_what_a_signal_handler_raises_is_raised_as_it_is(run, monkeypatch, handler, exception, read):
    handler(exception)
    for module, name in MOMENTS:
        check_raised_as_it_is(run, monkeypatch, exception, read, module, name)


def check_raised_as_it_is(run, monkeypatch, exception, read, module, name):
    with monkeypatch.context() as patch:
        patch.setattr(module, name, signalled(getattr(module, name)))
        with pytest.raises(type(exception)) as caught:
            READS[read](run)
        end_all()  # the read that was given up would send the next check's signal
    assert caught.value is exception
    assert Checkpointer(run).names() == NAMES
    assert Checkpointer(run).restore(tree(0))[1].step == 3


@pytest.mark.parametrize("read", [read_info, lambda path: Checkpointer(path.parent).infos()])
def test_a_signal_while_an_index_is_read(run, monkeypatch, handler, read):
    exception = ValueError("from a handler")
    handler(exception)
    monkeypatch.setattr(index_module.json, "loads", signalled(index_module.json.loads))
    with pytest.raises(ValueError, match="from a handler") as caught:
        read(run / "step-00000003")
    assert caught.value is exception


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_a_signal_while_a_foreign_file_is_read(tmp_path, monkeypatch, handler, suffix):
    exception = ValueError("from a handler")
    handler(exception)
    path = tmp_path / f"weights.{suffix}"
    if suffix == "pt":
        torch.save({"w": torch.ones(2)}, path)
        monkeypatch.setattr(torch, "load", signalled(torch.load))
    else:
        write_safetensors({"w": torch.ones(2)}, path)
        monkeypatch.setattr(
            "functrain.checkpoint.foreign.safetensors_format.json.loads", signalled(__import__("json").loads)
        )
    with pytest.raises(ValueError, match="from a handler") as caught:
        load_state_dict(path)
    assert caught.value is exception


def _interrupted_at_random(run, tries, seed):
    """Restore with a signal at a random moment; how often it was interrupted."""
    rng = random.Random(seed)
    interrupted = 0

    def handle(_number, _frame):
        raise Stop

    previous = signal.signal(signal.SIGALRM, handle)
    started = time.perf_counter()
    Checkpointer(run).restore(tree(0))
    longest = time.perf_counter() - started
    try:
        for _ in range(tries):
            try:
                signal.setitimer(signal.ITIMER_REAL, rng.uniform(1e-4, longest))
                assert Checkpointer(run).restore(tree(0))[1].step == 3
                signal.setitimer(signal.ITIMER_REAL, 0)
            except Stop:
                interrupted += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    return interrupted


def check_interrupted_at_random(run, tries, seed):
    with warnings.catch_warnings():
        warnings.simplefilter("error", CheckpointWarning)
        assert _interrupted_at_random(run, tries, seed)
    assert Checkpointer(run).names() == NAMES


# Python itself loses what a handler raises within a callback of the garbage collector.
IN_A_CALLBACK = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@IN_A_CALLBACK
def test_interruptions_at_random_moments_are_no_damage(run):
    check_interrupted_at_random(run, 40, 0)


@IN_A_CALLBACK
@pytest.mark.slow
def test_many_interruptions_at_random_moments_are_no_damage(run):
    check_interrupted_at_random(run, 1500, 1)


def wrapped(error):
    """As orbax raises it."""
    try:
        try:
            raise error
        except BaseException as cause:
            raise KeyError("incompatible handler") from cause
    except KeyError as outer:
        return outer


def during(error):
    """An error that arose while another was handled."""
    try:
        try:
            raise error
        finally:
            raise ValueError("the loop is closed")
    except ValueError as outer:
        return outer


NO_DAMAGE = [
    OSError(errno.EMFILE, "Too many open files"),
    OSError(errno.ENOMEM, "Cannot allocate memory"),
    OSError(errno.EACCES, "Permission denied"),
    OSError(errno.ESTALE, "Stale file handle"),
    ValueError("Error opening \"zarr3\" driver [os_error_code='24']"),
    ValueError("RESOURCE_EXHAUSTED: no memory"),
    ValueError("CANCELLED: "),
    RuntimeError("cannot schedule new futures after interpreter shutdown"),
    RuntimeError("can't start new thread"),
    RuntimeError("Event loop is closed"),
]


@pytest.mark.parametrize("wrap", [lambda error: error, wrapped])
@pytest.mark.parametrize("error", NO_DAMAGE, ids=repr)
def test_a_lack_of_something_is_no_damage(run, monkeypatch, error, wrap):
    def fail(*_arguments, **_keywords):
        raise wrap(error)

    with monkeypatch.context() as patch:
        patch.setattr(reader.orbax_io, "load_item", fail)
        with pytest.raises(CheckpointError, match="cannot be read") as caught:
            Checkpointer(run).restore(tree(0))
        assert not isinstance(caught.value, DamagedCheckpointError)
        assert {verdict.status for verdict in verify_checkpoints(run).checkpoints} == {"unreadable"}
    assert Checkpointer(run).restore(tree(0))[1].step == 3


@pytest.mark.parametrize("wrap", [lambda error: error, wrapped, during])
@pytest.mark.parametrize("error", [MemoryError(), KeyboardInterrupt(), asyncio.CancelledError(), SystemExit(1)])
def test_what_orbax_makes_of_an_interruption_is_the_interruption_again(run, monkeypatch, error, wrap):
    def fail(*_arguments, **_keywords):
        raise wrap(error)

    with monkeypatch.context() as patch:
        patch.setattr(reader.orbax_io, "load_item", fail)
        with pytest.raises(type(error)) as caught:
            Checkpointer(run).restore(tree(0))
        assert caught.value is error
    assert Checkpointer(run).names() == NAMES


@pytest.mark.parametrize(
    "error",
    [
        ValueError('DATA_LOSS: Error reading "w/zarr.json" in OCDBT database'),
        ValueError("Error opening \"zarr3\" driver [os_error_code='2']"),
        UnicodeDecodeError("utf-8", b"\xa0", 0, 1, "invalid start byte"),
        KeyError("key_metadata"),
        FileNotFoundError(errno.ENOENT, "No such file"),
        OSError(errno.EIO, "Input/output error"),
    ],
    ids=repr,
)
@pytest.mark.parametrize("wrap", [lambda error: error, wrapped])
def test_wrong_and_missing_bytes_are_damage(run, tmp_path, monkeypatch, error, wrap):
    run = shutil.copytree(run, tmp_path / "run", symlinks=True)
    usual = reader.orbax_io.load_item

    def fail(directory, *arguments, **keywords):
        if directory.name == "step-00000003":
            raise wrap(error)
        return usual(directory, *arguments, **keywords)

    monkeypatch.setattr(reader.orbax_io, "load_item", fail)
    with pytest.warns(CheckpointWarning, match=r"step-00000003 is damaged: .* renamed to step-00000003\.damaged"):
        assert Checkpointer(run).restore(tree(0))[1].step == 2


def test_an_interrupted_wait_for_a_save_does_not_take_it_for_done(tmp_path, monkeypatch, handler):
    """Python's `Thread.join`, interrupted, marks a thread as ended that still runs."""
    from functrain.checkpoint import checkpointer as module

    usual, handle = module.write_checkpoint, Stop()

    def slow(*arguments):
        time.sleep(0.3)  # until `save` has returned and `wait` waits
        os.kill(os.getpid(), signal.SIGUSR2)
        time.sleep(0.3)
        return usual(*arguments)

    handler(handle)
    monkeypatch.setattr(module, "write_checkpoint", slow)
    checkpointer = Checkpointer(tmp_path)
    with suppress(Stop):
        checkpointer.save(tree(1), step=1)
        checkpointer.wait()
        pytest.fail("the signal did not come")
    checkpointer.close()
    assert checkpointer.names() == ["step-00000001"]


CODE = """
import os, signal, sys, torch
from functrain.checkpoint import Checkpointer, reader
usual = reader.orbax_io.load_item
def load(*arguments, **keywords):
    os.kill(os.getpid(), signal.SIGINT)
    return usual(*arguments, **keywords)
reader.orbax_io.load_item = load
Checkpointer(sys.argv[1]).restore({"params": {f"w{i}": torch.zeros(20, 20) for i in range(5)}, "n": 0})
"""


def test_a_process_that_is_interrupted_ends_by_the_interruption_alone(run):
    """The read that nobody waits for ends before the interpreter does: no crash, no message of its own."""
    done = subprocess.run([sys.executable, "-c", CODE, str(run)], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGINT
    assert done.stderr.rstrip().endswith("KeyboardInterrupt")
    assert done.stderr.count("Traceback") == 1
