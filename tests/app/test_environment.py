"""`${NAME:default}` in a configuration."""

import pytest

from functrain.app.config.toml_text import parse_toml
from functrain.app.config.yaml_text import parse, parse_json
from functrain.foundation.errors import ConfigError


@pytest.fixture(autouse=True)
def variables(monkeypatch):
    for name, value in {"N": "7", "LR": "3e-4", "T": "text", "E": "", "Q": "'8'", "R": "${N}", "M": "{a: 1}"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("UNSET", raising=False)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("${N}", 7),
        ("${LR}", 3e-4),
        ("${T}", "text"),
        ("${E}", None),
        ("${E:5}", None),  # set, and empty
        ("${UNSET:5}", 5),
        ("${UNSET:}", None),
        ("${UNSET:1e-3}", 1e-3),
        ("${UNSET:-5}", -5),
        ("${UNSET:a:b}", "a:b"),
        ("${UNSET:true}", True),
        ("run-${N}", "run-7"),
        ("${N}${N}", "77"),
        ("$${N}", "${N}"),
        ("$$${N}", "$${N}"),
        ("a$${N}-${N}", "a${N}-7"),
        ("$N", "$N"),
        ("${R}", "${N}"),  # a value is not looked into
        ("${M}", "{a: 1}"),  # and never a section
    ],
)
def test_values(text, value):
    for source in (
        parse(f"x: {text}", "f"),
        parse(f"x: '{text}'", "f"),
        parse_json(f'{{"x": "{text}"}}', "f"),
        parse_toml(f'x = "{text}"', "f"),
    ):
        assert source.sound().values == {"x": value}
        assert type(source.values["x"]) is type(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("${UNSET}", "the environment variable UNSET is not set; set it, or give a default: ${UNSET:default}"),
        ("${}", "'${}' is no reference to a variable: write ${NAME} or ${NAME:default}"),
        ("${1A}", "'${1A}' is no reference to a variable"),
        ("${a b}", "'${a b}' is no reference to a variable"),
        ("${N", "'${N' has no closing brace, or a brace within it"),
        ("${UNSET:${N}}", "'${UNSET:$' has no closing brace, or a brace within it"),
        ("${OUT:-runs}", "'${OUT:-runs}' has a default as in a shell; here it is ${OUT:runs}"),
    ],
)
def test_errors_have_their_place(text, message):
    assert parse(f"a: 1\nx: {{y: '{text}'}}", "f").problems[0].text.startswith(f"f:2:8: {message}")
    assert parse_toml(f'a = 1\nx = {{y = "{text}"}}', "f").problems[0].text.startswith(f"f:2:6: {message}")


def test_an_origin_and_an_error_name_the_variable(functrain, write, monkeypatch):
    assert parse("x: ${N}\n", "f").origin(("x",)) == "f:1:4 (${N})"
    monkeypatch.setenv("N", "seven")
    code, _, err = functrain("train", "tiny.yaml", "training.epochs=${N}")
    assert code == 2
    assert "override 'training.epochs=${N}': training.epochs must be a whole number; got 'seven'" in err


def test_a_variable_with_half_a_character_is_refused(monkeypatch):
    monkeypatch.setenv("N", "\udcff")  # what Python makes of a byte that is not UTF-8
    assert "half a character" in parse("x: ${N}", "f").problems[0].text
    with pytest.raises(ConfigError, match="half a character"):
        parse('x: "\\ud83d"', "f").sound()
    assert parse_json('{"x": "\\ud83d\\ude00"}', "f").sound().values == {"x": "\U0001f600"}
