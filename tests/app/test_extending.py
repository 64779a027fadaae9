"""`extends:`: the merge, its errors, and what a run records of it."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from functrain.app.config.catalogue import takes_null
from functrain.app.config.extending import merge
from functrain.app.config.loading import load_config, plain, read_config, save_config
from functrain.app.config.resolving import WHOLE, resolve_stages
from functrain.app.config.source import Source
from functrain.app.config.yaml_text import dump, parse
from functrain.foundation.errors import ConfigError

BASE = """\
name: base
seed: 3
model: {name: digits_cnn, channels: 8}
data: {name: digits, batch_size: 16}
objective: {name: classification}
optimizer:
  name: adamw
  lr: 1e-3
  betas: [0.9, 0.99]
  schedule: {name: cosine, warmup_steps: 4}
training: {epochs: 3, clip_norm: 1.0, on_nonfinite: skip, max_consecutive_skips: 9}
"""


def message_for(path, *overrides):
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides)
    return str(caught.value)


def test_sections_are_merged_lists_replaced_and_the_file_wins(write):
    write(BASE, "base.yaml")
    config = load_config(
        write("extends: base.yaml\noptimizer: {lr: 2e-3, betas: [0.5, 0.6]}\ntraining: {epochs: 5}\n", "child.yaml")
    )
    assert (config.seed, config.model.parameters, config.training.clip_norm) == (3, {"channels": 8}, 1.0)
    assert (config.optimizer.lr, config.optimizer.parameters) == (2e-3, {"betas": [0.5, 0.6]})
    assert config.training.epochs == 5
    assert config.optimizer.schedule.warmup_steps == 4


def test_a_runs_name_is_not_inherited(write):
    write(BASE, "base.yaml")
    assert load_config("base.yaml").name == "base"
    assert load_config(write("extends: base.yaml\n", "child.yaml")).name == "child"
    assert load_config(write("extends: base.yaml\nname: own\n", "child.yaml")).name == "own"


def test_of_several_files_the_later_one_wins(write, project):
    write(BASE, "base.yaml")
    (project / "parts").mkdir()
    write("training: {epochs: 7, steps: 70}\nseed: 7\n", "parts/seven.yaml")
    write("training: {epochs: 8}\n", "parts/eight.yaml")
    config = load_config(write("extends: [base.yaml, parts/seven.yaml, parts/eight.yaml]\n"))
    assert (config.training.epochs, config.training.steps, config.seed) == (8, 70, 7)


def test_paths_are_relative_to_the_file_that_says_them(write, project, monkeypatch):
    for folder in ("a", "a/deep", "b"):
        (project / folder).mkdir()
    write("seed: 5\n", "a/deep/seed.yaml")
    write(BASE + "extends: deep/seed.yaml\ninit_from: {path: weights.pt}\n", "a/base.yaml")
    write("extends: ../a/base.yaml\nseed: null\n", "b/child.yaml")
    monkeypatch.chdir(project / "b")
    source = resolve_stages(Path("child.yaml"))[WHOLE]
    assert "seed" not in source.values  # null removes it: the default holds
    config, _ = read_config("child.yaml")
    assert (config.seed, config.init_from.path) == (0, os.path.realpath(project / "a/weights.pt"))
    assert read_config("../a/base.yaml")[0].seed == 3  # the file wins over what it extends


def test_functions_are_found_beside_the_file_that_names_them(project, write, monkeypatch):
    (project / "exp").mkdir()
    (project / "exp" / "child_code.py").write_text(
        "from functrain.optim import sgd\n\ndef mine(lr):\n    return sgd(lr)\n"
    )
    write("extends: ../tiny.yaml\noptimizer: {name: 'child_code:mine'}\n", "exp/child.yaml")
    monkeypatch.chdir(project.parent)
    config = load_config(project / "exp/child.yaml")
    assert config.code == [os.path.realpath(project / "exp"), os.path.realpath(project)]
    assert config.optimizer.name == "child_code:mine"
    write("extends: ../tiny.yaml\ncode: ..\n", "exp/one.yaml")
    assert load_config(project / "exp/one.yaml").code == os.path.realpath(project)
    assert "code must be a folder, or a list of folders; got 3" in message_for(project / "exp/one.yaml", "code=3")


def test_null_removes_what_is_inherited_unless_the_key_takes_it(write):
    write(BASE, "base.yaml")
    child = "extends: base.yaml\nmodel: {channels: null}\ndata: {batch_size: null}\noptimizer: {schedule: null}\n"
    config = load_config(write(child + "training: {clip_norm: null, max_consecutive_skips: null}\n", "child.yaml"))
    assert config.model.parameters == {}
    assert config.data.batch_size == 64
    assert (config.optimizer.schedule, config.training.clip_norm) == (None, None)
    assert config.training.max_consecutive_skips is None  # a value of the key, and not its default of 100
    assert takes_null(("training", "max_consecutive_skips"))
    write(child.replace("optimizer: {", "optimizer: {name: sgd, "), "other.yaml")
    assert message_for("other.yaml") == (
        "base.yaml:9:3: unknown key 'betas' in optimizer (sgd); allowed: name, lr, weight_decay_mask, schedule, sam, "
        "momentum, dampening, weight_decay, nesterov, maximize; to remove what other.yaml inherits, set it to null "
        "there"
    )
    write(child.replace("optimizer: {", "optimizer: {name: sgd, betas: null, "), "other.yaml")
    assert load_config("other.yaml").optimizer.name == "sgd"


def test_short_forms_and_former_places_are_merged_as_what_they_stand_for(write):
    write(BASE + "compile: {mode: max-autotune}\n", "base.yaml")
    config = load_config(write("extends: base.yaml\ncompile: false\n", "child.yaml"))
    assert (config.compile.enabled, config.compile.mode) == (False, "max-autotune")
    config = load_config(write("extends: base.yaml\ntraining: {compile: false, log_every: 4}\n", "child.yaml"))
    assert (config.compile.enabled, config.compile.mode, config.logging.log_every) == (False, "max-autotune", 4)


def test_a_circle_is_refused_with_its_files(write):
    write("extends: b.yaml\n", "a.yaml")
    write("seed: 1\nextends: [c.yaml]\n", "b.yaml")
    write("extends: ./b.yaml\n" + BASE, "c.yaml")
    assert message_for("a.yaml") == "c.yaml:1:1: extends: a circle: b.yaml -> c.yaml -> b.yaml"
    write("extends: self.yaml\n", "self.yaml")
    assert message_for("self.yaml") == "self.yaml:1:1: extends: a circle: self.yaml -> self.yaml"


def test_a_file_may_be_reached_in_two_ways_and_many_ways_are_one_reading(write):
    write(BASE, "d0.yaml")
    for number in range(1, 30):  # 2^29 ways
        write(f"extends: [d{number - 1}.yaml, d{number - 1}.yaml]\n", f"d{number}.yaml")
    assert load_config("d29.yaml").seed == 3
    for number in range(30, 60):
        write(f"extends: d{number - 1}.yaml\n", f"d{number}.yaml")
    assert "extends: more than 50 files, each of which extends the next" in message_for("d59.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("extends: bas.yaml", "c.yaml:1:1: extends: there is no configuration file bas.yaml; did you mean base.yaml?"),
        (
            "extends: [base.yaml, 3]",
            "c.yaml:1:22: extends: must be the path of a configuration file, or a list of them",
        ),
        ("extends:", "c.yaml:1:1: extends: must be the path of a configuration file, or a list of them; got null"),
        ('extends: "a\\0b"', "c.yaml:1:1: extends: must be the path of a configuration file, or a list of them; got "),
        ("extends: broken.yaml", "c.yaml:1:1: extends: broken.yaml:1:5: this is not valid YAML: a value is missing"),
        ("extends: list.yaml", "c.yaml:1:1: extends: list.yaml: a configuration is a mapping of sections, not [1]"),
        ("extends: bad.yaml", "bad.yaml:5:12: training.epochs must be a whole number; got 'ten'"),
        ("extends: .", "c.yaml:1:1: extends: . is a directory, not a configuration file"),
        (
            "training.epochs: 3",
            "unknown key 'training.epochs' at the top level; in a file training.epochs is written as ",
        ),
        ("extend: base.yaml", "c.yaml:1:1: unknown key 'extend' at the top level; did you mean 'extends'?"),
        ("extends: ${FUNCTRAIN_UNSET}", "c.yaml:1:10: the environment variable FUNCTRAIN_UNSET is not set"),
    ],
)
def test_errors_of_extending_name_the_file(write, text, message):
    write(BASE, "base.yaml")
    write("a: [", "broken.yaml")
    write("[1]", "list.yaml")
    write(
        BASE.replace("epochs: 3", "epochs: ten").split("optimizer")[0].replace("name: base\n", "")
        + "training: {epochs: ten}",
        "bad.yaml",
    )
    found = message_for(write(text))
    assert message in found
    assert "missing key" not in found or text.startswith(("extend:", "training", "extends: bad"))


def test_all_errors_of_all_files_come_at_once(write):
    write(BASE.replace("seed: 3", "seed: x").replace("channels", "chanels") + "seed: 4\n", "base.yaml")
    write("extends: [base.yaml, none.yaml]\ntraining: {epocs: 4}\nlogging: {log_every: '${FUNCTRAIN_UNSET}'}\n")
    message = message_for("c.yaml", "data.batch_sise=4", "training.epochs")
    for part in (
        "base.yaml:12:1: the key 'seed' is already set in base.yaml:2:1",
        "base.yaml:2:1: seed must be a whole number; got 'x'",
        "base.yaml:3:27: unknown key 'chanels' in model (digits_cnn); did you mean 'channels'?",
        "c.yaml:1:22: extends: there is no configuration file none.yaml",
        "c.yaml:2:12: unknown key 'epocs' in training; did you mean 'epochs'?",
        "override 'data.batch_sise=4': unknown key 'batch_sise' in data (digits); did you mean 'batch_size'?",
        "override 'training.epochs': write key.path=value",
    ):
        assert part in message, message
    assert message.count("\n  ") == message.count("problems in") * len(message.splitlines()[1:])


KEYS = st.sampled_from(["training", "data", "a", "b"])
TREES = st.recursive(
    st.none() | st.integers(0, 9) | st.lists(st.integers(0, 2), max_size=2),
    lambda inner: st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)
MAPPINGS = st.dictionaries(KEYS, TREES, max_size=4)


def merged_by_definition(base, own):
    """The merge as docs/configuration.md states it, for keys of which none takes null."""
    if not (isinstance(base, dict) and isinstance(own, dict)):
        return own
    result = dict(base)
    for key, value in own.items():
        if value is None and base.get(key) is not None:
            del result[key]
        else:
            result[key] = merged_by_definition(base.get(key), value)
    return result


@given(base=MAPPINGS, own=MAPPINGS)
@settings(max_examples=100, deadline=None)
def test_the_merge_is_the_documented_one_and_keeps_origins_of_what_is_left(base, own):
    sources = [Source(tree, {(): name, **origins_of(tree, name)}) for tree, name in ((base, "base"), (own, "own"))]
    result = merge(*sources)
    assert result.values == merged_by_definition(base, own)
    assert set(result.origins) == {(), *origins_of(result.values, "")}
    for path, name in result.origins.items():
        holder = Source(own if name == "own" else base, {})
        assert path == () or path[-1] in (holder.at(path[:-1]) or {}) or isinstance(holder.at(path[:-1]), list)


def origins_of(tree, name, path=()):
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    found = {}
    for key, value in items:
        found |= {(*path, key): name, **origins_of(value, name, (*path, key))}
    return found


@given(
    base=st.fixed_dictionaries(
        {"clip_norm": st.none() | st.floats(0.1, 9), "epochs": st.integers(1, 9)}, optional={"ema_decay": st.none()}
    ),
    own=st.fixed_dictionaries(
        {},
        optional={
            "seed": st.none() | st.integers(0, 9),
            "name": st.text("a1{}$-", min_size=1, max_size=6),
            "training": st.fixed_dictionaries({}, optional={"epochs": st.integers(1, 9), "clip_norm": st.none()}),
            "optimizer": st.fixed_dictionaries(
                {}, optional={"betas": st.none(), "schedule": st.none() | st.just({"warmup_steps": 3})}
            ),
            "evaluation": st.fixed_dictionaries({"watch": st.sampled_from(["eval_loss", "a${b}", "$${x}"])}),
        },
    ),
    formats=st.tuples(st.sampled_from(["yaml", "json"]), st.sampled_from(["yaml", "json"])),
)
@settings(max_examples=40, deadline=None)
def test_what_a_run_records_is_a_configuration_that_gives_the_same_run(tmp_path_factory, base, own, formats):
    folder = tmp_path_factory.mktemp("c")
    (folder / "run" / "checkpoints").mkdir(parents=True)
    whole = parse(BASE, "base").values | {"training": base}
    names = [f"{stem}.{suffix}" for stem, suffix in zip(("base", "own"), formats, strict=True)]
    (folder / names[0]).write_text(written(whole, formats[0]))
    (folder / names[1]).write_text(written({"extends": names[0], **own}, formats[1]))
    config = load_config(folder / names[1])
    for place in ("run/config.yaml", "copy.yaml"):  # in the run's directory, and taken out of it
        save_config(config, folder / place)
        assert load_config(folder / place) == config
        assert plain(load_config(folder / place)) == plain(config)


def written(values, suffix):
    text = dump(values)
    return text if suffix == "yaml" else json.dumps(values).replace("${", "$${")


def test_a_run_that_was_recorded_can_be_extended(write, project, monkeypatch):
    (project / "run" / "checkpoints").mkdir(parents=True)
    write(BASE.replace("epochs: 3,", "epochs: 3, keep: 5,").replace("name: base", "name: $${X}"), "run/config.yaml")
    config = load_config(write("extends: run/config.yaml\ntraining: {epochs: 9}\n", "next.yaml"))
    assert (config.name, config.training.epochs, config.checkpoint.keep, config.seed) == ("next", 9, 5, 3)


def test_a_recorded_configuration_extends_nothing_and_reads_no_environment(write, project, monkeypatch):
    monkeypatch.setenv("SECRET", "7")
    (project / "run" / "checkpoints").mkdir(parents=True)
    write(BASE.replace("name: base", "name: ${SECRET}"), "run/config.yaml")
    assert load_config("run/config.yaml").name == "${SECRET}"
    write(BASE + "extends: ../other.yaml\n", "run/config.yaml")
    assert "run/config.yaml:12:1: unknown key 'extends' at the top level" in message_for("run/config.yaml")
