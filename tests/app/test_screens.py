"""Help and errors are an interface: each screen is as its file in `screens/` has it."""

import difflib
import re
import sys

import pytest
from screens import COMMAND, FOLDER, screens

# argparse prints usage and options in another way in each version of Python.
pytestmark = pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="the files hold what Python 3.11 prints")


def test_every_screen_is_as_its_file_has_it():
    expected = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.txt")}
    found = dict(screens())
    lines = [f"{name}: there is no such screen any more" for name in sorted(expected.keys() - found.keys())]
    for name, text in found.items():
        before, after = (each.splitlines() for each in (expected.get(name, ""), text))
        lines += difflib.unified_diff(before, after, f"screens/{name}", "now", lineterm="")
    assert not lines, "\n".join(["", *lines, "", f"If this is meant: {COMMAND}"])


def test_no_screen_shows_a_traceback_or_a_place_on_this_machine():
    for path in FOLDER.glob("*.txt"):
        text = path.read_text(encoding="utf-8")
        assert "Traceback" not in text, path.name
        assert "/tmp" not in text, path.name
        assert path.name.startswith("help") or "[exit code 2]" in text, path.name
        listed = re.sub(r"^.*(error: |allowed: |known: ).*$", "", text, flags=re.MULTILINE)
        assert not [line for line in listed.splitlines() if len(line) > 120], path.name
