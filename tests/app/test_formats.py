"""JSON and TOML are read as YAML is: the same values, with their places."""

import json
import tomllib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from functrain.app.config.loading import load_config
from functrain.app.config.toml_text import parse_toml
from functrain.app.config.yaml_text import parse_json
from functrain.foundation.errors import ConfigError

TOML = """\
# a comment with = and [brackets]
seed = 3
model.name = "digits_cnn"
data = { name = "digits", batch_size = 16 }
objective."name" = 'classification'  # quoted
[optimizer]
name = "adamw"
lr = 3e-4
betas = [
  0.9,  # one
  0.99,
]
[optimizer.schedule]
name = "cosine"
warmup_steps = 4
[training]
epochs = 2
[init_from]
path = \"\"\"
[not_a_table]
x = 1\"\"\"
"""


def test_a_toml_file_is_a_configuration(write):
    config = load_config(write(TOML, "c.toml"))
    assert (config.optimizer.lr, config.optimizer.parameters["betas"], config.training.epochs) == (3e-4, [0.9, 0.99], 2)
    assert (config.optimizer.schedule.warmup_steps, config.data.batch_size, config.seed) == (4, 16, 3)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("batch_size = 16", "batch_sise = 16", "c.toml:4:27: unknown key 'batch_sise' in data (digits); did you mean"),
        ("epochs = 2", "epochs = '2'", "c.toml:17:1: training.epochs must be a whole number; got '2'"),
        ("warmup_steps = 4", "warmup_step = 4", "c.toml:15:1: unknown key 'warmup_step' in optimizer.schedule"),
        ("epochs = 2", "epochs = 2024-01-01", "c.toml:17:1: a value is text, a number, true or false; got 2024-01-01"),
        ("seed = 3", "seed = nan", "c.toml:2:1: seed must be a whole number; got NaN"),
        ("seed = 3", "seed 3", "c.toml:2:6: this is not valid TOML: Expected '=' after a key in a key/value pair"),
        ("epochs = 2", "epochs = 2\nepochs = 3", "c.toml:18:11: this is not valid TOML: Cannot overwrite a value"),
        ("[optimizer]", "[optimizer", "c.toml:6:11: this is not valid TOML"),
    ],
)
def test_errors_in_toml_have_line_and_column(write, old, new, message):
    with pytest.raises(ConfigError) as caught:
        load_config(write(TOML.replace(old, new), "c.toml"))
    assert message in str(caught.value)


def test_every_key_of_toml_knows_its_place():
    text = "[[a.b]]\nx = {y.z = 1, 'q' = [{r = 2}, 3]}\n[[a.b]]\nx = 5\n[a.b.c]\nd = '''\nx = 9'''\n"
    origins = parse_toml(text, "f").origins
    places = {path: origins[path] for path in origins if path}
    assert places == {
        ("a",): "f:1:1",
        ("a", "b"): "f:1:1",
        ("a", "b", 0): "f:1:1",
        ("a", "b", 0, "x"): "f:2:1",
        ("a", "b", 0, "x", "y"): "f:2:6",
        ("a", "b", 0, "x", "y", "z"): "f:2:6",
        ("a", "b", 0, "x", "q"): "f:2:15",
        ("a", "b", 0, "x", "q", 0): "f:2:22",
        ("a", "b", 0, "x", "q", 0, "r"): "f:2:23",
        ("a", "b", 0, "x", "q", 1): "f:2:31",
        ("a", "b", 1): "f:3:1",
        ("a", "b", 1, "x"): "f:4:1",
        ("a", "b", 1, "c"): "f:5:1",
        ("a", "b", 1, "c", "d"): "f:6:1",
    }


VALUES = st.recursive(
    st.booleans()
    | st.integers(-(2**40), 2**40)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=12,
).filter(lambda value: "${" not in json.dumps(value))


@given(
    values=st.dictionaries(st.text(max_size=4), VALUES | st.none(), max_size=4), indent=st.sampled_from([None, 2, "\t"])
)
@settings(max_examples=100, deadline=None)
def test_json_is_read_as_json_reads_it(values, indent):
    for ascii_only in (True, False):
        text = json.dumps(values, indent=indent, ensure_ascii=ascii_only)
        assert parse_json(text, "f").sound().values == values


@given(
    values=st.dictionaries(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=4), VALUES, max_size=4)
)
@settings(max_examples=100, deadline=None)
def test_toml_is_read_as_tomllib_reads_it_and_every_path_has_a_place(values):
    text = "\n".join(f"{as_toml(key)} = {as_toml(value)}" for key, value in values.items())
    source = parse_toml(text, "f").sound()
    assert source.values == tomllib.loads(text)
    assert set(source.origins) - {()} == set(paths(source.values))


def as_toml(value):
    if isinstance(value, dict):
        return "{" + ", ".join(f"{as_toml(key)} = {as_toml(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(as_toml, value)) + "]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return json.dumps(value)


def paths(tree, path=()):
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        yield (*path, key)
        yield from paths(value, (*path, key))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1,}', "this is not valid JSON: "),
        ("{'a': 1}", "f:1:2: this is not valid JSON: Expecting property name enclosed in double quotes"),
        ('{"a": 1, "a": 2}', "f:1:10: the key 'a' is already set in f:1:2; keep one"),
        ('{"a": ' + "[" * 5000, "f: this is not valid JSON: it is nested too deeply"),
    ],
)
def test_errors_in_json(text, message):
    with pytest.raises(ConfigError) as caught:
        parse_json(text, "f").sound()
    assert message in str(caught.value)
