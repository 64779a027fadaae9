"""`functrain config`, `schema` and `list`, and that they import neither torch nor pydantic."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from functrain.app.config.catalogue import FILE, KINDS, functions
from functrain.app.config.loading import load_config
from functrain.app.config.registry import REGISTRY

ROOT = Path(__file__).parents[2]
BASE = """\
model: {name: digits_cnn, channels: 8}
data: {name: digits}
objective: {name: classification}
optimizer: {name: adamw, lr: 1e-3, schedule: {name: cosine, warmup_fraction: 0.1}}
training: {epochs: 3, clip_norm: 1.0}
"""
CHILD = """\
extends: base.yaml
training: {epochs: '${EPOCHS:4}', clip_norm: null}
logging:
"""


def test_each_value_is_shown_with_its_origin_and_the_output_is_a_configuration(functrain, write, monkeypatch):
    monkeypatch.setenv("EPOCHS", "6")
    write(BASE, "base.yaml")
    write(CHILD, "child.yaml")
    code, out, err = functrain("config", "child.yaml", "data.batch_size=8", "+model.dropout=0.5")
    assert (code, err) == (0, "")
    found = {" ".join(line.split()) for line in out.splitlines()}
    assert {
        "name: child # default: the file's name",
        "seed: 0 # default",
        "channels: 8 # base.yaml:1:27",
        "dropout: 0.5 # override '+model.dropout=0.5'",
        "num_classes: 10 # default of digits_cnn",
        "batch_size: 8 # override 'data.batch_size=8'",
        "epochs: 6 # child.yaml:2:20 (${EPOCHS})",
        "clip_norm: null # child.yaml:2:35",
        "log_every: 10 # default",
    } <= found
    write(out, "again.yaml")
    assert load_config("again.yaml").training.epochs == 6
    first, second = (
        json.loads(functrain("config", *arguments, "--json")[1])["config"]
        for arguments in (["child.yaml", "data.batch_size=8", "model.dropout=0.5"], ["again.yaml"])
    )
    assert first == second


def test_json_has_the_values_and_the_kind_of_each_origin(functrain, write):
    write(BASE, "base.yaml")
    write(CHILD, "child.yaml")
    code, out, _ = functrain("config", "child.yaml", "--json", "seed=4")
    found = json.loads(out)
    assert code == 0
    assert (found["config"]["training"]["epochs"], found["config"]["seed"]) == (4, 4)
    kinds = {key: found["origins"][key]["kind"] for key in ("seed", "training.epochs", "training.steps", "model.name")}
    assert kinds == {
        "seed": "override",
        "training.epochs": "environment",
        "training.steps": "default",
        "model.name": "file",
    }


def test_a_mistake_is_told_as_by_train(functrain, write):
    write(BASE, "base.yaml")
    for text in (
        "training.epocs=3",
        "training.epochs=x",
        "optimizer.beta=3",
        "model.channels=many",
        "training.epochs=null",
    ):
        told = [functrain(command, "base.yaml", text) for command in ("config", "train")]
        assert told[0] == told[1], text
        assert told[0][0] == 2
        assert "override" in told[0][2] or "how long to train" in told[0][2]


def test_a_configuration_with_own_functions_is_shown_without_importing_them(functrain, project):
    (project / "tiny_project.py").write_text("raise RuntimeError('imported')")
    code, out, _ = functrain("config", "tiny.yaml")
    assert code == 0
    assert f"code: {project}" in out


def test_the_schema_is_printed_and_written(functrain, project):
    assert functrain("schema") == (0, FILE.read_text(), "")
    code, out, _ = functrain("schema", "s.json")
    assert (code, (project / "s.json").read_text()) == (0, FILE.read_text())
    assert out == "wrote s.json; first line of a YAML file: # yaml-language-server: $schema=s.json\n"


def test_the_schema_never_replaces_a_configuration(functrain, write):
    write(BASE, "base.yaml")
    code, _, err = functrain("schema", "base.yaml")
    assert (code, err) == (2, "functrain: error: base.yaml: the file of a JSON Schema ends in .json\n")
    assert load_config("base.yaml").seed == 0


def test_the_shipped_configurations_name_the_schema():
    for path in [*(ROOT / "configs").glob("*.yaml")]:
        first = path.read_text().splitlines()[0]
        assert first.startswith("# yaml-language-server: $schema="), path
        assert (path.parent / first.partition("$schema=")[2]).resolve() == FILE.resolve()


def test_list_shows_every_kind_every_name_and_every_parameter(functrain):
    code, out, _ = functrain("list")
    assert code == 0
    for kind, plural in KINDS.items():
        assert any(line.startswith(plural) for line in out.splitlines())
        code, names, _ = functrain("list", plural)
        assert code == 0
        for name in REGISTRY[kind]:
            assert f"\n{name} " in f"\n{names}"
            code, parameters, _ = functrain("list", plural, name)
            assert code == 0
            assert all(f"\n{key} " in parameters for key in functions(kind)[name].parameters)
    assert max(map(len, (out + names + parameters).splitlines())) <= 120


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["optimisers"], "there is no list of 'optimisers'; did you mean 'optimizers'? known: models, datasets, "),
        (["optimizers", "adamv"], "unknown optimizer 'adamv'; did you mean 'adam'? known: sgd, adam, adamw, "),
        (["models", "my:net"], "'my:net' is your own: its signature and docstring are in its file"),
        (["callbacks", "x"], "unknown callback 'x'; known: "),
    ],
)
def test_an_unknown_name_is_one_error(functrain, arguments, message):
    code, out, err = functrain("list", *arguments)
    assert (code, out) == (2, "")
    assert err.startswith(f"functrain: error: {message}")


def test_these_commands_import_neither_torch_nor_pydantic_nor_rich():
    code = """
import sys, types
package = types.ModuleType("functrain")  # in place of functrain/__init__.py, whose names load torch
package.__path__ = [sys.argv[1] + "/functrain"]
sys.modules["functrain"] = package
from functrain.app.cli import main
config = sys.argv[1] + "/configs/digits.yaml"
for arguments in (
    ["config", config, "training.epochs=5"], ["list"], ["list", "optimizers", "adamw"], ["schema"],
    ["completion", "bash"], ["completion", "zsh"], ["completion", "fish"],
):
    assert main(arguments) == 0, arguments
heavy = [m for m in ("torch", "numpy", "pydantic", "rich") if m in sys.modules]
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", code, ROOT], capture_output=True, text=True, check=True)
