"""The command line before a command runs: help, version, usage."""

import subprocess
import sys
from pathlib import Path


def test_help_and_version_do_not_wait_for_torch():
    code = """
import sys, types
package = types.ModuleType("functrain")  # in place of functrain/__init__.py, which loads torch
package.__path__ = [sys.argv[1]]
sys.modules["functrain"] = package
from functrain.app.cli import main
for arguments in (["--help"], ["train", "--help"], ["--version"]):
    try:
        main(arguments)
    except SystemExit as stop:
        assert not stop.code
heavy = [m for m in ("torch", "numpy", "pydantic", "rich", "yaml") if m in sys.modules]
assert not heavy, heavy
"""
    package = Path(__file__).parents[2] / "functrain"
    out = subprocess.run([sys.executable, "-c", code, package], capture_output=True, text=True, check=True).stdout
    assert "functrain train configs/digits.yaml" in out
    assert out.splitlines()[-1].startswith("functrain 0.")
    assert max(map(len, out.splitlines())) <= 120


def test_a_broken_command_line_shows_the_usage(functrain):
    for arguments in ([], ["fly"], ["train"], ["train", "tiny.yaml", "--bogus"], ["show", "a", "b"]):
        code, _, err = functrain(*arguments)
        assert code == 2
        assert err.startswith("usage: functrain")
