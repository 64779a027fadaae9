import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from functrain import models, optim
from functrain.app.config.loading import changes, load_config, plain, read_config, save_config
from functrain.app.config.schema import TrainingConfig
from functrain.app.config.suggestions import OTHER_NAMES
from functrain.foundation.errors import ConfigError
from functrain.optim import schedules

GOOD = """
model: {name: digits_cnn}
data: {name: digits}
objective: {name: classification}
optimizer: {name: adamw, lr: 3e-4, betas: [0.9, 0.99]}
training: {epochs: 3}
"""
KEYS = ", ".join(TrainingConfig.model_fields)
MODELS = ", ".join(sorted(models.REGISTRY))


def message_for(path, *overrides):
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides)
    return str(caught.value)


def test_defaults_name_after_the_file_and_scientific_floats(write):
    config = load_config(write(GOOD, "a.b.yaml"))
    assert config.name == "a.b"
    assert config.optimizer.lr == 3e-4
    assert config.training.epochs == 3
    assert config.code is None
    assert config.optimizer.parameters == {"betas": [0.9, 0.99]}


def test_json_is_read_as_well(write):
    text = '{"model": {"name": "digits_cnn"}, "data": {"name": "digits"}, "objective": {"name": "regression"},'
    text += '\n "optimizer": {"name": "sgd", "lr": 0.1}, "training": {"steps": 4}}'
    assert load_config(write(text, "c.json")).training.steps == 4


def test_the_demos_configuration_is_good():
    config = load_config(Path(__file__).parents[2] / "configs" / "digits.yaml")
    assert (config.name, config.model.name, config.data.name) == ("digits", "digits_cnn", "digits")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            GOOD + "  # x\nfoo: 1",
            "c.yaml:7:1: unknown key 'foo' at the top level; allowed: name, stage, seed, code, model, data, objective, "
            "optimizer, training, compile, evaluation, checkpoint, logging, distributed, transforms, metrics, "
            "init_from, freeze, callbacks, sweep",
        ),
        (
            GOOD.replace("epochs: 3", "epochs: 3, epochss: 4"),
            f"c.yaml:5:23: unknown key 'epochss' in training; did you mean 'epochs'? allowed: {KEYS}",
        ),
        (
            GOOD.replace("epochs: 3", "epochs: 3, learning_rat: 4"),
            f"c.yaml:5:23: unknown key 'learning_rat' in training; did you mean 'optimizer.lr'? allowed: {KEYS}",
        ),
        (
            GOOD.replace("digits_cnn", "digits_cnn, chanels: 4"),
            "c.yaml:1:27: unknown key 'chanels' in model (digits_cnn); did you mean 'channels'? allowed: name, "
            "channels, dropout, num_classes, size",
        ),
        (
            GOOD.replace("digits_cnn", "digits_cn"),
            f"c.yaml:1:9: unknown model 'digits_cn'; did you mean 'digits_cnn'? known: {MODELS}, or "
            "your own as package.module:function",
        ),
        (
            GOOD.replace("adamw", "adamww"),
            "c.yaml:4:13: unknown optimizer 'adamww'; did you mean 'adamw'? known: "
            f"{', '.join(sorted(optim.REGISTRY))}, or your own as package.module:function",
        ),
        (
            GOOD.replace("lr: 3e-4", "lr: 3e-4, schedule: {name: cosin}"),
            "c.yaml:4:47: unknown schedule 'cosin'; did you mean 'cosine'? known: "
            f"{', '.join(sorted(schedules.REGISTRY))}, or your own as package.module:function",
        ),
        (
            GOOD.replace("lr: 3e-4", "lr: 3e-4, schedule: {name: exponential}"),
            "c.yaml:4:36: missing key 'gamma' in optimizer.schedule: exponential has no default for it",
        ),
        (GOOD.replace("[0.9, 0.99]", "0.9"), "c.yaml:4:36: optimizer.betas must be a list; got 0.9"),
        (GOOD.replace("0.99]", "high]"), 'c.yaml:4:36: optimizer.betas must be a number; got [0.9, "high"]'),
        (GOOD.replace("epochs: 3", "epochs: ten"), "c.yaml:5:12: training.epochs must be a whole number; got 'ten'"),
        (GOOD.replace("epochs: 3", "epochs: 1e3"), "c.yaml:5:12: training.epochs must be a whole number; got 1e3"),
        (GOOD.replace("epochs: 3", "epochs: yes"), "c.yaml:5:12: training.epochs must be a whole number; got yes"),
        (
            GOOD.replace("epochs: 3", "epochs: 0"),
            "c.yaml:5:12: training.epochs must be greater than or equal to 1; got 0",
        ),
        (
            GOOD.replace("epochs: 3", "epochs: 3, micro_batch: half"),
            "c.yaml:5:23: training.micro_batch must be a whole number, 1 or more, or 'auto'; got 'half'",
        ),
        (GOOD.replace("lr: 3e-4", "lr: fast"), "c.yaml:4:26: optimizer.lr must be a number; got 'fast'"),
        (GOOD.replace("lr: 3e-4", "lr: .nan"), "c.yaml:4:26: optimizer.lr must be a finite number; got .nan"),
        (GOOD.replace("lr: 3e-4, ", ""), "c.yaml:4:1: missing key 'lr' in optimizer"),
        (GOOD.replace("name: adamw", "name: 3"), "c.yaml:4:13: optimizer.name must be text (put it in quotes); got 3"),
        (
            GOOD.replace("epochs: 3", "precision: fp8, epochs: 1"),
            "c.yaml:5:12: training.precision must be 'fp32', 'bf16', 'fp16' or 'fp64'; got 'fp8'",
        ),
        (
            GOOD.replace("{epochs: 3}", "{}"),
            "c.yaml:5:1: training needs to know how long to train: set epochs, steps, or both",
        ),
        (
            GOOD.replace("{name: digits}", "digits"),
            "c.yaml:2:1: data must be a section with keys of its own (name, batch_size, eval_batch_size, balanced, "
            "collate_fn, pad_to, group_by_length, drop_last, num_workers, pin_memory, persistent_workers, "
            "prefetch_factor); got 'digits'",
        ),
        (
            "name: a/b" + GOOD,
            "c.yaml:1:1: name must be usable as a folder's name: no slash, backslash or colon; got 'a/b'",
        ),
        (
            "name: '..'" + GOOD,
            "c.yaml:1:1: name must be usable as a folder's name: no slash, backslash or colon; got '..'",
        ),
        (
            GOOD.replace("epochs: 3", "epochs: 3, plateau: {factor: 2}"),
            "c.yaml:5:33: training.plateau.factor must be less than 1; got 2",
        ),
        (
            GOOD.replace("epochs: 3", "epochs: 3, early_stopping: {patient: 3}"),
            "c.yaml:5:40: unknown key 'patient' in training.early_stopping; did you mean 'patience'? allowed: "
            "patience, min_delta, cooldown, restore_best",
        ),
        (
            GOOD.replace("epochs: 3", "epochs: 3, ema_warmup: true"),
            "c.yaml:5:1: training ema_warmup needs a moving average: set ema_decay, for example to 0.999",
        ),
        ("[1]", "c.yaml: a configuration is a mapping of sections (model, data, ...), not [1]"),
        (
            GOOD.replace("epochs: 3", "epochs: ten, step: 4").replace("digits_cnn", "digits_cn"),
            "3 problems in the configuration:\n  c.yaml:5:12: training.epochs must be a whole number; got 'ten'\n"
            f"  c.yaml:5:25: unknown key 'step' in training; did you mean 'steps'? allowed: {KEYS}\n"
            f"  c.yaml:1:9: unknown model 'digits_cn'; did you mean 'digits_cnn'? known: {MODELS}, or "
            "your own as package.module:function",
        ),
    ],
)
def test_error_messages(write, text, expected):
    assert message_for(write(text)) == expected


def test_a_file_that_is_not_there_and_one_that_is_a_folder(write, project):
    write(GOOD, "digits.yaml")
    (project / "run").mkdir()
    (project / "run" / "config.yaml").write_text(GOOD)
    (project / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    assert message_for("digit.yaml") == "there is no configuration file digit.yaml; did you mean digits.yaml?"
    assert message_for("run") == "run is a directory, not a configuration file; did you mean run/config.yaml?"
    assert message_for("bytes.yaml").startswith("bytes.yaml is not text in UTF-8")


def test_overrides_win_over_the_file_and_the_last_one_over_the_others(write):
    config = load_config(write(GOOD), ["training.epochs=5", "training.epochs=6", "optimizer.schedule.name=constant"])
    assert config.training.epochs == 6
    assert config.optimizer.schedule.name == "constant"


def test_an_error_in_an_override_names_it(write):
    assert message_for(write(GOOD), "training.epochs=ten").startswith(
        "override 'training.epochs=ten': training.epochs must be a whole number"
    )
    # The key that does not fit any more is the file's.
    assert message_for(write(GOOD), "optimizer.name=sgd").startswith(
        "c.yaml:4:36: unknown key 'betas' in optimizer (sgd)"
    )


def test_a_key_of_another_trainer_is_led_home(write):
    for name, home in OTHER_NAMES.items():
        expected = f"unknown key '{name}' at the top level; `{name}` is `{home}` here;"
        assert expected in message_for(write(GOOD + f"{name}: 1")), name


def test_a_configuration_is_immutable(write):
    config = load_config(write(GOOD))
    with pytest.raises(ValueError, match="frozen"):
        config.training.epochs = 4
    with pytest.raises(ValueError, match="frozen"):
        config.optimizer.betas = [0.1, 0.2]


def test_the_users_own_code_is_found_beside_the_configuration(project, monkeypatch):
    (project / "elsewhere").mkdir()
    monkeypatch.chdir(project / "elsewhere")
    config = load_config(Path("..") / "tiny.yaml")
    assert config.code == os.path.realpath(project)
    assert config.model.parameters == {"width": 8}
    message = message_for(Path("..") / "tiny.yaml", "model.depth=3", "data.count=many")
    assert "override 'model.depth=3': unknown key 'depth' in model (tiny_project:net)" in message
    assert "allowed: name, width, dropout" in message
    assert "override 'data.count=many': data.count must be a whole number; got 'many'" in message


@given(
    epochs=st.integers(1, 10**6),
    lr=st.floats(0, 1e30, allow_nan=False),
    name=st.text(st.characters(blacklist_characters="/\\:\0\n"), min_size=1, max_size=8).filter(
        lambda s: s.strip(". ")
    ),
    betas=st.lists(st.floats(0, 0.99), min_size=2, max_size=2),
    clip=st.none() | st.floats(1e-6, 1e6),
)
@settings(max_examples=30, deadline=None)
def test_saving_and_loading_gives_the_same_configuration(tmp_path_factory, epochs, lr, name, betas, clip):
    folder = tmp_path_factory.mktemp("c")
    (folder / "c.yaml").write_text(GOOD)
    config = load_config(folder / "c.yaml")
    raw = plain(config)
    raw["name"], raw["optimizer"]["lr"], raw["optimizer"]["betas"] = name, lr, betas
    raw["training"]["epochs"], raw["training"]["clip_norm"] = epochs, clip
    changed = type(config).model_validate(raw)
    save_config(changed, folder / "saved.yaml")
    assert read_config(folder / "saved.yaml")[0] == changed
    assert plain(load_config(folder / "saved.yaml")) == raw


def test_changes_lists_values_that_differ_appear_and_vanish():
    before = {"a": {"b": 1, "c": 2}, "d": [1], "gone": 0}
    now = {"a": {"b": 1, "c": 3}, "d": [1, 2], "new": None}
    assert changes(before, now) == ["a.c: 2 -> 3", "d: [1] -> [1, 2]", "gone: 0 -> (not set)", "new: (not set) -> null"]
    assert changes(now, now) == []
