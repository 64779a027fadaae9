"""Whole commands, signalled as processes: they end with 128 + signal and one line, and damage nothing."""

import random
import signal
import subprocess
import sys
import time

import pytest

SIGNALS = (signal.SIGINT, signal.SIGTERM)

SIGNALLED_IMPORT = """
import os, runpy, sys

module, number = sys.argv[1:3]
del sys.argv[1:3]

class Finder:
    def find_spec(self, name, *_):
        if name == module:
            os.kill(os.getpid(), int(number))

sys.meta_path.insert(0, Finder())
runpy.run_module("functrain", run_name="__main__")
"""


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize(
    "module", ["functrain.app.cli", "functrain.app.parser", "functrain.app.output", "rich.console"]
)
def test_a_signal_while_the_command_loads_ends_it_in_one_line(module, number, tmp_path):
    command = [sys.executable, "-c", SIGNALLED_IMPORT, module, str(int(number)), "show", str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr.strip()) == (128 + number, "", "functrain: interrupted")


def start(*arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "functrain", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finished(*arguments):
    process = start(*arguments)
    process.communicate(timeout=600)
    return process.returncode


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


COMMANDS = {
    "show": ["r"],
    "verify": ["r"],
    "diff": ["r/checkpoints/best", "r/checkpoints/last"],
    "evaluate": ["r"],
    "replay": ["r"],
    "export": ["r", "out.safetensors"],
    "summary": ["tiny.yaml"],
    "train": ["tiny.yaml", "--dry-run", "--run-dir", "nowhere"],
}


@pytest.mark.slow
def test_commands_signalled_at_random_moments_end_in_good_order_and_change_no_checkpoint(project):
    assert finished("train", "tiny.yaml", "--run-dir", "r") == 0
    before = contents(project / "r" / "checkpoints")
    moments = random.Random(0)
    for name, arguments in COMMANDS.items():
        began = time.monotonic()
        finished(name, *arguments)
        whole = time.monotonic() - began
        for number in SIGNALS * 3:
            process = start(name, *arguments)
            time.sleep(moments.uniform(0.1, 1) * whole)
            process.send_signal(number)
            _, err = process.communicate(timeout=600)
            # Python itself, before it reads the first line of ours, and after the last, ends without a word.
            assert process.returncode in (0, 1, 128 + number, -number), (name, number, err)
            assert err.strip() in ("", "functrain: interrupted"), (name, number)
            assert contents(project / "r" / "checkpoints") == before, (name, number)
            assert not (project / "nowhere").exists()


@pytest.mark.slow
def test_training_signalled_at_random_moments_also_while_it_restores_ends_with_the_same_bits(project):
    command = ["train", "tiny.yaml", "training.epochs=30", "checkpoint.save_every=7"]
    began = time.monotonic()
    assert finished(*command, "--run-dir", "whole") == 0
    whole = time.monotonic() - began
    moments = random.Random(0)
    for number in SIGNALS * 6:
        process = start(*command, "--run-dir", "r")
        time.sleep(moments.uniform(0.1, 1.1) * whole)
        process.send_signal(number)
        _, err = process.communicate(timeout=600)
        assert process.returncode in (0, 128 + number, -number), err
        assert "Traceback" not in err
        assert not list((project / "r").rglob("*.damaged*"))
    assert finished(*command, "--run-dir", "r") == 0
    assert finished("diff", "r", "whole") == 0
