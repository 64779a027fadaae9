"""What runs code of whom: docs/trust.md."""

import functools
import hashlib
import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import yaml

from functrain.app.config.registry import lookup
from functrain.app.parser import COMMANDS as ALL_COMMANDS
from functrain.app.parser import build_parser
from functrain.foundation.errors import ConfigError
from functrain.foundation.signature import is_signed, is_signed_yaml, sign, signed_yaml

RUNS_CODE = {name for name, command in ALL_COMMANDS.items() if command.runs_code}
ON_A_RUN = {
    "evaluate": ["evaluate", "sent"],
    "explain": ["explain", "sent"],
    "show": ["show", "sent"],
    "export": ["export", "sent", "out.pt"],
    "predict": ["predict", "sent", "inputs.npy"],
    "verify": ["verify", "sent"],
    "diff": ["diff", "sent", "sent"],
    "replay": ["replay", "sent/checkpoints/step-00000003"],
    "hunt": ["hunt", "sent"],
    "at": ["at", "sent", "1", "--no-progress"],
    "branch": ["branch", "sent@1", "--no-progress"],
    "reproduce": ["reproduce", "sent", "--no-progress"],
    "bisect": ["bisect", "sent", "sent", "--no-progress"],
    "runs": ["runs", "sent"],
    "compare": ["compare", "sent", "sent", "--evaluate"],
    "curves": ["curves", "sent"],
    "clean": ["clean", "sent", "--dry-run"],
}
ON_A_CONFIG = {
    "train": ["train", "sent/config.yaml", "--no-progress", "--run-dir", "other"],
    "sweep": ["sweep", "sent/config.yaml", "+model.no_such=1,2"],  # refused when its function has been imported
    "profile": ["profile", "sent/config.yaml", "--steps", "1", "--out", "profiled"],
    "find-lr": ["find-lr", "sent/config.yaml", "--steps", "2"],
    "find-batch-size": ["find-batch-size", "sent/config.yaml", "--limit", "8"],
    "summary": ["summary", "sent/config.yaml"],
    "plan": ["plan", "sent/config.yaml", "--world", "2"],
    "config": ["config", "sent/config.yaml"],
    "list": ["list", "models"],
    "schema": ["schema"],
    "completion": ["completion", "bash"],
    "init": ["init", "new"],
    "doctor": ["doctor", "--run-dir", "sent"],
    "unstack": ["unstack", "sent"],  # no ensemble: refused when its function has been imported
}
ON_A_CHECKPOINT = {
    "show": ["show", "sent/checkpoints/last"],
    "verify": ["verify", "sent/checkpoints/step-00000006"],
    "diff": ["diff", "sent/checkpoints/last", "sent/checkpoints/last"],
}
COMMANDS = list((ON_A_RUN | ON_A_CONFIG).items())


@pytest.fixture(autouse=True)
def inputs(project):
    np.save(project / "inputs.npy", np.zeros((2, 2), np.float32))


@pytest.fixture
def sent(functrain, project):
    """Somebody else's run, with code in its directory that leaves a trace, named by config.yaml and checkpoints."""
    code, _, err = functrain("train", "tiny.yaml", "--no-progress", "--run-dir", "sent")
    assert code == 0, err
    run, trace = project / "sent", project / "RAN"
    (run / "evil.py").write_text(
        f"import pathlib; pathlib.Path({str(trace)!r}).write_text('x')\n"
        "from tiny_project import net\nfrom tiny_project import points\n"
    )
    config = yaml.safe_load((run / "config.yaml").read_text())
    config |= {"code": str(run), "model": {"name": "evil:net"}}
    (run / "config.yaml").write_text(yaml.dump(config))
    for index in run.glob("checkpoints/step-*/functrain.json"):
        rewrite(index, config)
    return trace


def rewrite(index, config):
    """Another configuration in a checkpoint's index, with a right checksum: anybody can compute that."""
    found = re.fullmatch(rb'\{"sha256": "([0-9a-f]{64})", "index":\n(.*)\n\}\n', index.read_bytes(), re.DOTALL)
    body = json.loads(found[2])
    body["metadata"]["config"] = config
    text = json.dumps(body).encode()
    index.write_bytes(b'{"sha256": "' + hashlib.sha256(text).hexdigest().encode() + b'", "index":\n' + text + b"\n}\n")


def test_every_command_is_tried_and_those_that_run_code_take_the_option():
    _, commands = build_parser()
    assert set(commands) == {name for name, _ in COMMANDS}
    taking = {name for name, parser in commands.items() if any(a.dest == "trust" for a in parser._actions)}
    assert taking == RUNS_CODE


def test_nothing_of_a_sent_run_is_imported_unless_the_user_trusts_it(functrain, sent):
    for name, arguments in [*COMMANDS, *ON_A_CHECKPOINT.items()]:
        code, out, err = functrain(*arguments)
        assert not sent.exists(), name
        if name in RUNS_CODE:
            assert (code, out) == (2, ""), name
            assert "'evil:net'" in err, name
            assert err.endswith("If you trust where it comes from, give --trust\n"), name
        else:
            assert (code, err) == (0, ""), name


@pytest.mark.parametrize(
    "place",
    [
        {"callbacks": [{"name": "evil:net"}]},
        {"objective": {"name": "classification", "loss": "evil:net"}},
        {"objective": {"name": "supervised", "loss_fn": "evil:net"}},
        {"data": {"name": "digits", "collate_fn": "evil:net"}},
        {"optimizer": {"name": "evil:net", "lr": 1}},
        {"optimizer": {"name": "sgd", "lr": 1, "schedule": {"name": "evil:net"}}},
    ],
)
def test_no_place_of_a_configuration_imports_a_function_of_a_sent_run(functrain, project, sent, place):
    path = project / "sent/config.yaml"
    config = yaml.safe_load(path.read_text()) | {"model": {"name": "digits_cnn"}, "data": {"name": "digits"}} | place
    path.write_text(yaml.dump(config))
    for arguments in (ON_A_CONFIG["train"], ON_A_RUN["evaluate"], ON_A_CONFIG["config"]):
        code, _, err = functrain(*arguments)
        assert not sent.exists(), arguments
        assert (code, "'evil:net'" in err) == ((0, False) if arguments[0] == "config" else (2, True)), err


def test_with_trust_it_is_imported(functrain, sent):
    for name in sorted(RUNS_CODE - {"bisect"}):  # two equal logs: nothing is trained again
        functrain(*(ON_A_RUN | ON_A_CONFIG)[name], "--trust")
        assert sent.exists(), name
        sent.unlink()
        sys.modules.pop("evil", None)  # a sweep imports it in another process


def test_a_run_of_the_users_own_needs_no_trust(functrain, project):
    assert functrain("train", "tiny.yaml", "--no-progress", "--run-dir", "own")[0] == 0
    for name, arguments in ON_A_RUN.items():
        code, _, err = functrain(*(text.replace("sent", "own") for text in arguments))
        assert (code, err) == (0, ""), name
    code, _, err = functrain("train", "own/config.yaml", "--no-progress", "--run-dir", "own")
    assert (code, err) == (0, "")


def test_a_run_that_names_the_registry_only_needs_no_trust(functrain, project, write):
    write(
        """
        model: {name: digits_cnn, channels: 1}
        data: {name: digits, batch_size: 512}
        objective: {name: classification}
        optimizer: {name: sgd, lr: 0.1}
        training: {steps: 1}
        compile: false
        """
    )
    assert functrain("train", "c.yaml", "--no-progress", "--run-dir", "sent")[0] == 0
    config = project / "sent" / "config.yaml"
    config.write_text(config.read_text().replace("# signature: ", "# of somebody else: "))
    assert functrain("evaluate", "sent")[0] == 0


def test_code_within_the_run_directory_needs_trust_even_if_the_user_wrote_the_run(functrain, project):
    assert functrain("train", "tiny.yaml", "--no-progress", "--run-dir", ".")[0] == 0
    code, _, err = functrain("evaluate", ".")
    assert code == 2
    assert "out of" in err
    assert "lies in the run's directory: whoever sends the run sends that code" in err
    assert functrain("evaluate", ".", "--trust")[0] == 0
    assert functrain("train", "tiny.yaml", "--no-progress", "--run-dir", ".")[0] == 0  # the user's own, and named


def test_no_module_is_taken_from_the_current_directory_if_that_is_a_runs(functrain, project, monkeypatch):
    assert functrain("train", "tiny.yaml", "--no-progress", "--run-dir", "own")[0] == 0
    (project / "tiny_project.py").rename(project / "own" / "tiny_project.py")
    sys.modules.pop("tiny_project")
    monkeypatch.chdir("own")
    code, _, err = functrain("evaluate", ".")
    assert code == 2
    assert f"there is no module 'tiny_project' in {project}, nor among the installed ones" in err


@pytest.mark.parametrize(
    "name",
    [
        "os:system",
        "builtins:eval",
        "subprocess:run",
        "posix:system",
        "torch:load",
        "torch.hub:load",
        "torch.nn:Linear",
        "this:c",
        "__main__:main",
        "tiny_project:torch.load",
        "tiny_project:nn.Linear",
        "tiny_project:Arrays.__class__",
        "tiny_project:net.__globals__.get",
        "tiny_project:__loader__.exec_module",
        "functrain.app.cli:os.system",
    ],
)
def test_a_name_never_leads_into_the_standard_library_or_torch(project, capsys, name):
    sys.modules.pop("this", None)
    with pytest.raises(ConfigError, match=rf"'{name}' is not allowed: '\w+' belongs to .*name .* of your own|and name"):
        lookup("model", name, [project])
    assert capsys.readouterr().out == ""  # `this` prints a poem where it is imported


def test_nor_does_a_name_of_any_section(functrain, project):
    for section in ("model", "data", "objective", "optimizer", "optimizer.schedule"):
        override = f"{section}={{name: 'os:system', command: 'touch RAN', lr: 1}}"
        code, _, err = functrain("train", "tiny.yaml", "--run-dir", "r", "--trust", override)
        assert code == 2
        assert "'os:system' is not allowed: 'os' belongs to Python's standard library" in err
        assert not (project / "r").exists()
        assert not (project / "RAN").exists()


def test_what_a_user_defines_is_allowed_whatever_it_is_made_of(project):
    (project / "mine.py").write_text(
        "import functools\nfrom torch import nn\n"
        "narrow = functools.partial(nn.Linear, 2, 3)\n"
        "@functools.lru_cache\ndef kept(): return nn.Linear(2, 3)\n"
        "class Net(nn.Linear):\n    @classmethod\n    def small(cls): return cls(2, 3)\n"
    )
    assert isinstance(lookup("model", "mine:narrow", [project]), functools.partial)
    assert lookup("model", "mine:kept", [project])().out_features == 3
    assert lookup("model", "mine:Net", [project]).__name__ == "Net"
    assert lookup("model", "mine:Net.small", [project])().out_features == 3
    del sys.modules["mine"]


def test_without_a_word_about_code_none_is_imported():
    with pytest.raises(ConfigError, match="'yaml:safe_load' is not imported here"):
        lookup("model", "yaml:safe_load")


def test_a_signature_holds_for_its_text_and_its_user(monkeypatch, tmp_path):
    text = "model: {name: 'a:b'}\n"
    signed = signed_yaml(text)
    assert yaml.safe_load(signed) == yaml.safe_load(text)
    assert is_signed_yaml(signed)
    assert is_signed(text, sign(text))
    assert not is_signed_yaml(text)
    assert not is_signed_yaml(signed.replace("a:b", "a:c"))
    assert not is_signed_yaml(signed + "code: .\n")
    assert not is_signed(text, None)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "another"))
    assert not is_signed_yaml(signed)
    assert signed_yaml(text) != signed


def test_a_key_that_others_could_read_or_that_cannot_be_made_signs_nothing(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    text, signature = "a", sign("a")
    key = tmp_path / "functrain" / "key"
    assert key.stat().st_mode & 0o777 == 0o600
    key.chmod(0o644)
    assert not is_signed(text, signature)
    key.chmod(0o600)
    assert is_signed(text, signature)
    key.write_bytes(b"short")
    assert sign(text) is None
    monkeypatch.setenv("XDG_STATE_HOME", str(key))  # a file
    assert sign(text) is None
    assert signed_yaml(text) == text


def test_python_m_takes_no_library_from_the_current_directory(tmp_path):
    (tmp_path / "rich.py").write_text("raise SystemExit('taken from here')\n")
    root = os.fspath(next(p for p in map(os.path.abspath, sys.path) if os.path.isdir(os.path.join(p, "functrain"))))
    done = subprocess.run(
        [sys.executable, "-m", "functrain", "show", "nope"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": root},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("functrain: error: nope is neither")
