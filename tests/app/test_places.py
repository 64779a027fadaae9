"""Sections of a configuration: former places are named, a recorded run's form is still read, typos are led home."""

import json

import pytest
import yaml

import functrain.app.runs.running as running
from functrain.app.config.former import STILL_READ, in_its_place, moves
from functrain.app.config.keys import keys_in
from functrain.app.config.loading import load_config, plain, read_config
from functrain.app.config.schema import Config
from functrain.app.config.source import Source
from functrain.app.config.yaml_text import dump
from functrain.checkpoint import read_info
from functrain.foundation.errors import ConfigError
from functrain.foundation.signature import signed_yaml

GOOD = """\
model: {name: digits_cnn}
data: {name: digits}
objective: {name: classification}
optimizer: {name: sgd, lr: 0.1}
training: {epochs: 3}
"""

# What each key of the flat `training` section is called today.
FLAT = {
    "compile": "compile.enabled",
    "backend": "compile.backend",
    "mode": "compile.mode",
    "donate": "compile.donate",
    "steps_per_call": "compile.steps_per_call",
    "eval_every": "evaluation.eval_every",
    "watch": "evaluation.watch",
    "watch_mode": "evaluation.watch_mode",
    "save_every": "checkpoint.save_every",
    "save_every_minutes": "checkpoint.save_every_minutes",
    "keep": "checkpoint.keep",
    "keep_best": "checkpoint.keep_best",
    "log_every": "logging.log_every",
    "tensorboard": "logging.tensorboard",
}

# The section `training` as functrain recorded it while it was flat.
RECORDED = """\
epochs: 2
steps: 4
precision: fp32
accumulate: 1
tail: extend
clip_norm: null
clip_value: null
ema_decay: null
ema_warmup: false
ema_every: 1
ema_average_buffers: false
statistics: null
activation_checkpointing: []
activations: false
compile: false
backend: aot_eager
mode: default
donate: false
micro_batch: null
steps_per_call: 2
eval_every: 1
save_every: 2
save_every_minutes: 9.5
keep: 9
keep_best: 2
watch: train_loss
watch_mode: max
plateau: null
early_stopping: null
log_every: 2
tensorboard: false
on_nonfinite: stop
max_consecutive_skips: 100
loss_scale: null
loss_scaling: null
deterministic: false
tf32: null
device: cpu
threads: 1
"""


def message_for(path, *overrides):
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides)
    return str(caught.value)


def test_each_key_that_moved_has_its_new_place():
    assert {
        name: ".".join(move.new) for name, move in ((str(move.old[1]), move) for move in moves())
    }.items() >= FLAT.items()
    assert {".".join(move.new) for move in moves()} <= {key.dotted for key in keys_in(Config)}


@pytest.mark.parametrize(("name", "place"), [(n, p) for n, p in FLAT.items() if n not in ("compile", "log_every")])
def test_a_former_place_is_an_error_that_names_the_new_one(write, name, place):
    expected = f"training.{name} is {place} now"
    assert message_for(write(GOOD.replace("epochs: 3", f"epochs: 3, {name}: 1"))) == f"c.yaml:5:23: {expected}"
    assert message_for(write(GOOD), f"training.{name}=1") == f"override 'training.{name}=1': {expected}"
    whole = f"training={{{name}: 1}}"
    assert message_for(write(GOOD), whole) == f"override '{whole}': {expected}"


def test_the_two_keys_of_nearly_every_configuration_are_read_in_their_former_places(write):
    assert [move.old for move in STILL_READ] == [("training", "compile"), ("training", "log_every")]
    path = write(GOOD.replace("epochs: 3", "epochs: 3, compile: false, log_every: 7") + "compile: {mode: max-autotune}")
    config = load_config(path)
    assert (config.compile.enabled, config.compile.mode, config.logging.log_every) == (False, "max-autotune", 7)
    assert "training.compile" not in plain(config)["training"]


@pytest.mark.parametrize(
    ("overrides", "enabled", "log_every"),
    [
        (["training.compile=true"], True, 5),
        (["training.log_every=3", "logging.log_every=4"], False, 4),
        (["logging.log_every=4", "training.log_every=3"], False, 3),
        (["training={compile: true, log_every: 2, epochs: 9}"], True, 2),
        (["compile=true", "compile.backend=eager"], True, 5),
        (["compile={enabled: true}"], True, 5),
        (["compile=auto"], "auto", 5),
        (["training.compile=auto"], "auto", 5),
    ],
)
def test_the_last_override_wins_in_whatever_place(write, overrides, enabled, log_every):
    path = write(GOOD + "compile: {enabled: false, mode: reduce-overhead}\nlogging: {log_every: 5}\n")
    config = load_config(path, overrides)
    assert (config.compile.enabled, config.logging.log_every) == (enabled, log_every)
    assert config.compile.mode == "reduce-overhead"


def test_a_key_in_both_places_of_a_file_is_refused(write):
    path = write(GOOD.replace("epochs: 3", "epochs: 3, compile: false") + "compile: true")
    assert message_for(path) == "c.yaml:5:23: training.compile is compile.enabled now"


def test_a_wrong_value_is_told_with_the_whole_key_and_its_line(write):
    text = GOOD + "compile: {enabled: maybe}\ncheckpoint:\n  keep: many\nlogging: 3\n"
    assert message_for(write(text)).splitlines()[1:] == [
        "  c.yaml:6:11: compile.enabled must be true, false or 'auto'; got 'maybe'",
        "  c.yaml:8:3: checkpoint.keep must be a whole number; got 'many'",
        "  c.yaml:9:1: logging must be a section with keys of its own (log_every, digest_every, tensorboard, "
        "wandb, mlflow); got 3",
    ]
    assert message_for(write(GOOD), "compile=maybe").startswith(
        "override 'compile=maybe': compile must be true, false, auto or a section with keys of its own (enabled, "
    )
    path = write(GOOD.replace("epochs: 3", "epochs: 3, log_every: on"))
    assert message_for(path) == "c.yaml:5:23: logging.log_every must be a whole number; got on"
    assert message_for(write(GOOD), "training={log_every: on}").endswith("must be a whole number; got on")


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("training.log_evry", "logging.log_every"),
        ("training.kep", "checkpoint.keep"),
        ("training.epoch", "epochs"),
        ("logging.keep", "checkpoint.keep"),
        ("checkpoint.save_evry", "save_every"),
        ("compile.epochss", "training.epochs"),
        ("evaluation.monitr", "evaluation.watch"),
        ("keep", "checkpoint.keep"),
        ("loging.log_every", "logging"),
    ],
)
def test_a_typo_is_led_to_the_key_in_whatever_section(write, given, meant):
    assert f"; did you mean '{meant}'? allowed: " in message_for(write(GOOD), f"{given}=1")


def test_the_recorded_form_of_a_flat_training_section_is_read_with_every_value(write, project):
    flat = yaml.safe_load(RECORDED)
    (project / "config.yaml").write_text(GOOD.replace("training: {epochs: 3}\n", "training:\n" + _indented(RECORDED)))
    config, _ = read_config("config.yaml", recorded=True)
    values = plain(config)
    for name, value in flat.items():
        section, _, key = FLAT.get(name, f"training.{name}").partition(".")
        assert values[section][key] == value, name
    assert message_for("config.yaml").count(" now") == 12


@pytest.fixture
def old_run(functrain, project, monkeypatch):
    """A run directory as functrain left it while `training` was flat."""
    settings = ["training.steps=4", "checkpoint.save_every=2", "checkpoint.keep=9", "training.threads=1"]
    with monkeypatch.context() as patch:
        patch.setattr(running, "plain", lambda config: _flattened(plain(config)))
        patch.setattr(running, "save_config", _save_flattened)
        assert functrain("train", "tiny.yaml", "--no-progress", *settings)[0] == 0
    recorded = yaml.safe_load((project / "runs/tiny/config.yaml").read_text())
    assert recorded["training"]["keep"] == 9
    assert "checkpoint" not in recorded
    assert "checkpoint" not in read_info(project / "runs/tiny/checkpoints/last").metadata["config"]
    return project / "runs/tiny"


def test_the_commands_read_a_run_that_was_recorded_in_the_flat_form(functrain, old_run):
    for command in (
        ["show", old_run],
        ["evaluate", old_run],
        ["export", old_run, "x.safetensors"],
        ["replay", old_run],
        ["diff", old_run, old_run],
        ["hunt", old_run, "--steps", "1"],
    ):
        code, _, err = functrain(*command)
        assert (code, err) == (0, ""), command


def test_a_run_of_the_flat_form_goes_on_without_a_change_of_its_settings(functrain, old_run):
    same = ["checkpoint.save_every=2", "checkpoint.keep=9", "training.threads=1"]
    command = ["train", "tiny.yaml", "--no-progress", *same, "--strict-resume"]
    code, out, err = functrain(*command, "training.epochs=3")
    assert (code, err) == (0, "")
    assert "  training.epochs: 2 -> 3\n  training.steps: 4 -> null\nresumed from step 4" in out
    assert yaml.safe_load((old_run / "config.yaml").read_text())["checkpoint"]["keep"] == 9
    # Its own configuration is one that can be trained on from, in either form.
    code, out, err = functrain("train", old_run / "config.yaml", "--no-progress", "training.epochs=4", "--trust")
    assert (code, err) == (0, "")
    assert "resumed from step 9" in out


def test_the_configuration_of_a_run_in_the_flat_form_can_be_trained_again(functrain, old_run):
    code, out, err = functrain("train", old_run / "config.yaml", "--no-progress", "name=again", "--trust")
    assert (code, err) == (0, "")
    assert "trained 1 epoch, 4 updates" in out


def _flattened(values):
    """The values with each key that has moved in its former place."""
    flat = json.loads(json.dumps(values))
    for move in moves():
        name = move.old[1]
        section, key = move.new
        flat["training"][name] = flat[section].pop(key)
    for section in ("compile", "evaluation", "checkpoint", "logging"):
        assert not flat.pop(section)
    assert in_its_place(Source(flat, {(): ""}, {}), recorded=True).values == values
    return flat


def _save_flattened(config, path):
    path.write_text(signed_yaml(dump(_flattened(plain(config)))))


def _indented(text):
    return "".join(f"  {line}\n" for line in text.splitlines())


def test_an_empty_section_has_its_defaults(write):
    path = write(GOOD + "name: x\nlogging:\n  # log_every: 5\ncheckpoint:\ncompile:\nevaluation:\n")
    assert load_config(path, []) == load_config(write(GOOD + "name: x\n"), [])
    assert load_config(path, ["logging.log_every=7"]).logging.log_every == 7
