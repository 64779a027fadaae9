import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from functrain.app.config.files import read_source
from functrain.app.config.overrides import override
from functrain.app.config.yaml_text import dump, parse
from functrain.foundation.errors import ConfigError

SCALARS = st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.floats(allow_nan=False) | st.text(max_size=8)
TREES = st.recursive(
    SCALARS, lambda t: st.lists(t, max_size=3) | st.dictionaries(st.text(max_size=5), t, max_size=3), max_leaves=12
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3e-4", 3e-4),
        ("1e3", 1000.0),
        ("-2E+5", -2e5),
        ("1.5e3", 1500.0),
        (".5", 0.5),
        ("1.", 1.0),
        ("1_000.5", 1000.5),
        (".inf", float("inf")),
        ("12", 12),
        ("-3", -3),
        ("0x1f", 31),
        ("true", True),
        ("null", None),
        ("", None),
        ("e3", "e3"),
        ("1e", "1e"),
        ("v1.2", "v1.2"),
        ("1.2.3", "1.2.3"),
        ("'3e-4'", "3e-4"),
        ("2024-01-02", "2024-01-02"),
    ],
)
def test_scalars(text, value):
    found = parse(f"x: {text}", "a").values["x"]
    assert found == value
    assert type(found) is type(value)


@given(tree=st.dictionaries(st.text(max_size=5), TREES, max_size=4))
@settings(max_examples=100, deadline=None)
def test_reads_back_what_dump_writes(tree):
    assert parse(dump(tree), "a").values == tree


def test_every_value_knows_its_line():
    source = parse("a: 1\nb:\n  c: 2\n  d:\n    - x\n    - y: 3\n", "f.yaml")
    assert [source.origin(path) for path in [("a",), ("b", "c"), ("b", "d", 1), ("b", "d", 1, "y")]] == [
        "f.yaml:1:1",
        "f.yaml:3:3",
        "f.yaml:6:7",
        "f.yaml:6:7",
    ]
    assert source.origin(("b", "missing")) == "f.yaml:2:1"
    assert source.origin(("missing",)) == "f.yaml"


def test_anchors_and_merges_are_resolved_and_own_keys_win():
    source = parse("base: &b {x: 1, y: 2}\nuse:\n  <<: *b\n  y: 3\nmore:\n  <<: [{x: 5}, *b]\n", "a")
    assert source.values["use"] == {"x": 1, "y": 3}
    assert source.values["more"] == {"x": 5, "y": 2}
    assert source.origin(("use", "x")) == "a:1:11"
    assert source.origin(("use", "y")) == "a:4:3"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3", "f:3:1: the key 'a' is already set in f:1:1; keep one"),
        ("a: {b: 1,\n b: 2}", "f:2:2: the key 'b' is already set in f:1:5; keep one"),
        ("1: x", "f:1:1: a key must be text, got '1'; put it in quotes"),
        ("[1, 2]: x", "f:1:1: a key must be text"),
        ("a: {b: 1", "f:1:9: this is not valid YAML: a '{' without its '}', or a ',' is missing"),
        ("a: [b\nc: 1", "f:2:2: this is not valid YAML: a '[' without its ']', or a ',' is missing"),
        ("a:\n\tb: 1", "f:2:1: this is not valid YAML: a tab; YAML is indented with spaces"),
        ("a: b: c", "f:1:5: this is not valid YAML: a second ':' on one line, or a line that is indented too"),
        ("a:\n  b: 1\n c: 2", "f:3:2: this is not valid YAML: a line that is indented unlike those above"),
        ("a: *b", "f:1:4: this is not valid YAML: an alias ('*name') without its anchor ('&name')"),
        ("a: * ", "f:1:5: this is not valid YAML: a '*' or '&' without a name"),
        ("a: 'b", "f:1:6: this is not valid YAML: the text ends within quotes: the closing one is missing"),
        ('a: "\\q"', "f:1:6: this is not valid YAML: a backslash in double quotes that begins no escape"),
        ("a: @b", "f:1:4: this is not valid YAML: a character that text without quotes cannot begin with"),
        ("%a\nb: 1", "f:2:1: this is not valid YAML: a line that begins with '%' is an instruction to YAML"),
        ("a: !b 1", "f:1:4: this is not valid YAML: a tag ('!name'), which a configuration does not have"),
        ("a: \x00", "f: this is not valid YAML: it holds the control character U+0000"),
        ("? [a]\n: 1", "f:1:3: a key must be text, got a list or section"),
        ("a: !!python/object/apply:os.system [ls]", "f:1:4: the tag 'tag:yaml.org,2002:python/object/apply:os.system'"),
        ("a: !!python/name:os.system", "f:1:4: this is not valid YAML: a tag ('!name')"),
        ("a: !!set {x, y}", "f:1:4: the tag 'tag:yaml.org,2002:set' is not allowed"),
        ("a: !!timestamp 2024-01-01", "f:1:4: a value is text, a number, true, false or null"),
        ("a: 1\n---\nb: 2", "f:2:1: this is not valid YAML: a second document begins ('---')"),
        ("a: &a [*a]", "f:1:4: too large"),
        ("a: &a {<<: *a}", "f:1:4: too large"),
        ("<<: 3", "f:1:5: << takes a mapping or a list of mappings"),
        ("[" * 2000, "f: this is not valid YAML: it is nested too deeply"),
        ("[" * 60 + "]" * 60, "f:1:52: too large"),
    ],
)
def test_refusals_name_the_line(text, message):
    with pytest.raises(ConfigError) as caught:
        parse(text, "f").sound()
    assert message in str(caught.value)


def test_aliases_cannot_multiply_without_end():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]
    with pytest.raises(ConfigError, match="too large"):
        parse("\n".join(lines), "f")


def test_overrides_win_and_are_named_as_origin():
    source = parse("a: {b: 1, c: 2}\nd: 3", "f")
    for text in ("a.b=9", "a.new.deep=[1, 2]", "d={e: 1e-3}", "a.c="):
        source = override(source, text)
    assert source.values == {"a": {"b": 9, "c": None, "new": {"deep": [1, 2]}}, "d": {"e": 1e-3}}
    assert source.origin(("a", "b")) == "override 'a.b=9'"
    assert source.origin(("d", "e")) == "override 'd={e: 1e-3}'"
    assert source.origin(("a", "new", "deep")) == "override 'a.new.deep=[1, 2]'"


def test_a_mapping_changes_the_keys_in_it_and_one_with_a_name_replaces_the_section():
    source = parse("a: {b: 1, c: {d: ~, e: 2}}\nm: {name: x, w: 3}", "f")
    source = override(source, "a={b: on, c: {e: 1e8}}")
    assert source.values["a"] == {"b": True, "c": {"d": None, "e": 1e8}}
    assert source.origin(("a", "b")) == source.origin(("a", "c", "e")) == "override 'a={b: on, c: {e: 1e8}}'"
    assert source.origin(("a", "c", "d")) == "f:1:15"
    spelled = [source.spelling(path, None) for path in (("a", "b"), ("a", "c", "e"), ("a", "c", "d"), ("m", "w"))]
    assert spelled == ["on", "1e8", "~", "3"]
    source = override(source, "m={w: wide}")
    assert source.values["m"] == {"name": "x", "w": "wide"}
    assert source.spelling(("m", "w"), "wide") == "'wide'"
    source = override(override(source, "m={name: y}"), "a.c=null")
    assert source.values == {"a": {"b": True, "c": None}, "m": {"name": "y"}}
    assert source.origin(("m", "w")) == "override 'm={name: y}'"


def test_an_override_leaves_the_source_it_was_made_from_alone():
    source = parse("a: {b: {c: 1}}", "f")
    override(source, "a.b.c=2")
    assert source.values == {"a": {"b": {"c": 1}}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a", "override 'a': write key.path=value, such as training.epochs=5"),
        ("=1", "override '=1': write key.path=value"),
        ("a..b=1", "override 'a..b=1': write key.path=value"),
        ("d.x=1", "override 'd.x=1': d is 3, not a section with keys of its own"),
        ("a=[1", "override 'a=[1': this is not valid YAML"),
    ],
)
def test_bad_overrides(text, message):
    with pytest.raises(ConfigError) as caught:
        override(parse("d: 3", "f"), text)
    assert str(caught.value).startswith(message)


def test_a_configuration_is_a_regular_file(tmp_path):
    os.mkfifo(tmp_path / "c.yaml")
    with pytest.raises(ConfigError, match=r"c\.yaml cannot be read: it is a fifo, not a regular file"):
        read_source(tmp_path / "c.yaml")
