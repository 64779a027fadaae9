"""Completion scripts, and the examples that each command's help ends with."""

import re
import shlex
import shutil
import subprocess

import pytest

from functrain.app.completion import script
from functrain.app.parser import COMMANDS, build_parser, examples


def completed(words):
    """What bash completes at the last of these words."""
    call = f"COMP_WORDS=({shlex.join(words)}); COMP_CWORD={len(words) - 1}; _functrain"
    run = f"{script('bash')}\n{call}; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    done = subprocess.run(["bash", "-c", run], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_bash_completes_commands_options_choices_keys_and_values():
    assert set(completed(["functrain", ""])) == {*COMMANDS, "--help", "--version"}
    assert completed(["functrain", "find-b"]) == ["find-batch-size"]
    assert {"--run-dir", "--resume", "--help"} <= set(completed(["functrain", "train", "--"]))
    assert completed(["functrain", "evaluate", "r", "--split", "t"]) == ["test", "train"]
    assert completed(["functrain", "train", "c.yaml", "--run-dir", "x"]) == []  # files, by bash itself
    assert completed(["functrain", "train", "c.yaml", "training.ep"]) == ["training.epochs="]
    assert completed(["functrain", "train", "c.yaml", "training.precision", "="]) == ["fp32", "bf16", "fp16", "fp64"]
    assert completed(["functrain", "train", "c.yaml", "optimizer.name", "=", "adamw"]) == ["adamw"]
    assert "optimizer.weight_decay=" in completed(["functrain", "train", "c.yaml", "optimizer.weight"])
    assert completed(["functrain", "list", "opt"]) == ["optimizers"]
    assert completed(["functrain", "completion", "z"]) == ["zsh"]
    assert completed(["functrain", "show", "training.ep"]) == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_script_names_every_command_and_option_and_never_starts_python(shell):
    text = script(shell)
    _, parsers = build_parser()
    for name, parser in parsers.items():
        assert re.search(rf"\b{name}\b", text)
        for action in parser._actions:
            for option in action.option_strings:
                assert (
                    f"-l {option[2:]}" if shell == "fish" and option.startswith("--") else option.lstrip("-")
                ) in text
    assert "training.epochs=" in text
    assert "python" not in text
    if shutil.which(shell):
        done = subprocess.run([shell, "-n", "-c", text], capture_output=True, text=True)  # reads, and runs nothing
        assert done.returncode == 0, done.stderr
    for line in text.splitlines():
        shlex.split(line.replace("\\'", "") if shell == "fish" else line, comments=True)  # quotes are closed


def test_the_help_of_each_command_ends_with_examples_that_parse():
    parser, parsers = build_parser()
    for name, command in COMMANDS.items():
        lines = examples(command)
        assert lines, name
        assert parsers[name].format_help().rstrip().endswith(f"  {lines[-1]}")
        for line in lines:
            program, *arguments = shlex.split(line, comments=True)
            assert program == "functrain"
            arguments, rest = parser.parse_known_args(arguments)
            assert arguments.command == name, line
            assert all("=" in text and not text.startswith("-") for text in rest), line
