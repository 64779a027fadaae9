"""Configurations with mistakes: each is a configuration or one clear error, and a typo is led to what was meant."""

import random
import string
from contextlib import suppress
from copy import deepcopy
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from functrain.app.config.catalogue import FUNCTIONS, declared, entries, functions
from functrain.app.config.checking import is_surely_sound
from functrain.app.config.loading import load_config, plain
from functrain.app.config.registry import REGISTRY
from functrain.app.config.resolving import resolve_stages
from functrain.app.config.suggestions import OTHER_NAMES, meant
from functrain.app.config.yaml_text import dump, parse
from functrain.foundation.errors import ConfigError

WHOLE = """\
name: whole
seed: 1
model: {name: digits_cnn, channels: 8, dropout: 0.1}
data: {name: digits, batch_size: 16, drop_last: true, num_workers: 0}
objective: {name: classification, loss: focal, options: {gamma: 1.5}, class_weights: [1, 2.5]}
optimizer:
  name: adamw
  lr: 1e-3
  betas: [0.9, 0.99]
  weight_decay_mask: no_decay_1d
  sam: {rho: 0.1}
  schedule: {name: cosine, warmup_steps: 4, end: 1e-5}
training:
  epochs: 3
  steps: 100
  clip_norm: 1.0
  ema_decay: 0.9
  early_stopping: {patience: 3}
  plateau: {factor: 0.5}
  activation_checkpointing: ["head.*"]
compile: {enabled: false, steps_per_call: auto}
evaluation: {watch: eval_loss, watch_mode: min}
checkpoint: {keep: 2, save_every_minutes: 1.5}
logging: {log_every: 5}
sweep:
  axes: {optimizer.lr: [1e-3, 1e-2], "model.channels": "int(4, 8)"}
  sampler: random
  count: 4
  metric: eval_accuracy
  mode: max
  asha: {factor: 2}
"""
VALUES = st.one_of(
    st.sampled_from(
        [None, True, False, 0, -1, 1, 7, 10**30, 0.5, 1e-3, float("nan"), float("inf"), "", "x", "auto", "a:b"]
    ),
    st.sampled_from(
        ["${HOME}", "${UNSET_XYZ}", "${UNSET_XYZ:3}", "${", [], [1], [0.5, 0.5], {}, {"name": "sgd"}, [[1]], "\x1b[31m"]
    ),
    st.sampled_from([name for table in REGISTRY.values() for name in table]),
    st.text(max_size=4),
).map(deepcopy)  # else an edit of a drawn `{}` edits every later one


@st.composite
def edited(draw):
    """The text of a configuration after one to four edits of its keys, its values and its letters."""
    tree = parse(WHOLE, "whole").values
    for _ in range(draw(st.integers(1, 3))):
        section, key = draw(st.sampled_from(list(places(tree))))
        edit = draw(st.sampled_from(["value", "delete", "rename", "add"]))
        if edit == "value":
            section[key] = draw(VALUES)
        elif edit == "add":
            section[draw(st.sampled_from([*OTHER_NAMES, *(entry.path[-1] for entry in entries())]))] = draw(VALUES)
        else:
            value = section.pop(key)
            if edit == "rename":
                section[typo(key, draw(st.integers(1, 2)), random.Random(draw(st.integers(0, 999))))] = value
    text = dump(tree).replace("$${", "${")
    if draw(st.integers(0, 3)) == 0:
        place, sign = (
            draw(st.integers(0, len(text))),
            draw(st.sampled_from([*"{}[]:,'\"\t\n #&*!%-<>|\\\x00", "\n---\n", "<<: "])),
        )
        text = text[:place] + sign + text[place + draw(st.integers(0, 2)) :]
    return text


def places(tree):
    for key, value in tree.items():
        yield tree, key
        if isinstance(value, dict):
            yield from places(value)


def typo(word, letters, rng):
    """A word with some letters added, left out, replaced or swapped."""
    found = list(word)
    for _ in range(letters):
        place, letter = rng.randrange(len(found)), rng.choice(string.ascii_lowercase)
        kind = rng.choice(["add", "leave out", "replace", "swap"])
        if kind == "add":
            found.insert(place, letter)
        elif kind == "leave out" and len(found) > 1:
            del found[place]
        elif kind == "replace":
            found[place] = letter
        elif place + 1 < len(found):
            found[place], found[place + 1] = found[place + 1], found[place]
    return "".join(found)


def check(folder, text):
    path = folder / "edited.yaml"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    try:
        config = load_config(path)
    except ConfigError as error:
        message = str(error)
        assert (
            message.startswith((f"{path}", "2 problems", "3 problems")) or " problems in the configuration:" in message
        )
        assert "Traceback" not in message
        assert "pydantic" not in message
        quick = False
        with suppress(ConfigError):
            quick = is_surely_sound(resolve_stages(path)[""])
        assert not quick, message
    else:
        assert plain(config)


@given(text=edited())
@settings(max_examples=300, deadline=None)
def test_an_edited_configuration_is_valid_or_one_error(tmp_path_factory, text):
    check(tmp_path_factory.getbasetemp(), text)


@pytest.mark.slow
@given(text=edited())
@settings(max_examples=2000, deadline=None)
def test_2000_edited_configurations_are_valid_or_one_error(tmp_path_factory, text):
    check(tmp_path_factory.getbasetemp(), text)


def test_the_whole_configuration_is_surely_sound(write):
    path = Path(write(WHOLE))
    assert is_surely_sound(resolve_stages(path)[""])
    assert load_config(path).seed == 1


def test_95_of_100_typos_of_one_and_two_letters_are_led_to_the_key():
    sections = {}
    for entry in entries():
        if "callbacks" not in entry.path:
            sections.setdefault(entry.path[:-1], []).append(entry.path[-1])
    for path, kind in FUNCTIONS.items():
        for function in functions(kind).values():
            sections[*path, function.name] = [*sections[path], *function.parameters]
    rng, right, count = random.Random(0), 0, 0
    for path, keys in sections.items():
        for key in keys:
            for letters in (1, 2):
                written = typo(key, letters, rng)
                if written not in keys:
                    suggestion = meant(written, keys)
                    count += 1
                    right += f"'{key}'" in suggestion or f"'{'.'.join((*path, key))}'" in suggestion
    assert count > 600
    assert right >= 0.95 * count, f"{right} of {count}"


def test_each_name_of_another_trainer_leads_to_a_key_that_exists():
    parameters = {
        (*path, name)
        for path, kind in FUNCTIONS.items()
        for each in functions(kind).values()
        for name in each.parameters
    }
    for name, home in OTHER_NAMES.items():
        path = tuple(home.partition(":")[0].split("."))
        assert path in declared() or path in parameters, name
        assert (name,) not in declared(), name
