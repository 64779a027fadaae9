"""Output that nobody reads: every command ends quietly, with the exit code of a process that SIGPIPE ends."""

import os
import subprocess
import sys

from functrain.app.cli import main


def run_with(stdout, *arguments, unbuffered=""):
    """Exit code and stderr of a command; "" is how Python writes into a pipe."""
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    command = [sys.executable, "-m", "functrain", *arguments]
    done = subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, text=True, timeout=300, env=environment)
    return done.returncode, done.stderr


def test_a_closed_pipe_ends_a_command_quietly(project):
    reader, writer = os.pipe()
    os.close(reader)
    assert main(["train", "tiny.yaml", "--run-dir", "r", "--no-progress", "training.epochs=1"]) == 0
    assert run_with(writer, "show", "r") == (141, "")
    assert run_with(writer, "show", "r", unbuffered="1") == (141, "")
    assert run_with(writer, "--help") == (141, "")
    os.close(writer)


def test_a_full_disk_is_told(project):
    with open("/dev/full", "w") as full:
        code, err = run_with(full, "--version")
    assert (code, err) == (2, "functrain: error: standard output cannot be written: No space left on device\n")
