"""Scripts for completion in shells, made from the parser and from the keys of a configuration."""

import argparse
import re
import shlex
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from functrain.app.config.catalogue import FUNCTIONS, KINDS, STAGES, Entry, entries, functions
from functrain.app.config.sweep_section import KEY as SWEEP
from functrain.app.parser import COMMANDS, build_parser

OF_FILES = ("extends", STAGES, SWEEP)  # keys that have no use as an override


class Option(NamedTuple):
    """An option of a command.

    Attributes:
        names: such as `--run-dir`.
        doc: what it does.
        takes_value: a value follows it.
        choices: the values; empty if they are not known.
    """

    names: tuple[str, ...]
    doc: str
    takes_value: bool
    choices: tuple[str, ...]


class Words(NamedTuple):
    """What can be completed after a command.

    Attributes:
        options: its options.
        choices: of its arguments.
        takes_keys: it takes overrides.
    """

    options: tuple[Option, ...]
    choices: tuple[str, ...]
    takes_keys: bool


class Key(NamedTuple):
    """A key of a configuration, its meaning, and its values; empty if these are not known."""

    dotted: str
    doc: str
    values: tuple[str, ...]


def script(shell: str) -> str:
    """The script for a shell: "bash", "zsh" or "fish"."""
    commands, keys = _commands(), _keys()
    return "\n".join({"bash": _bash, "zsh": _zsh, "fish": _fish}[shell](commands, keys))


def _commands() -> dict[str, Words]:
    _, parsers = build_parser()
    return {name: _words(parser) for name, parser in parsers.items()}


def _words(parser: argparse.ArgumentParser) -> Words:
    options = tuple(
        Option(tuple(action.option_strings), _first(action.help or ""), action.nargs != 0, _choices(action))
        for action in parser._actions
        if action.option_strings
    )
    arguments = [action for action in parser._actions if not action.option_strings]
    choices = tuple(choice for action in arguments for choice in _choices(action))
    return Words(options, choices, any(action.dest == "overrides" for action in arguments))


def _choices(action: argparse.Action) -> tuple[str, ...]:
    if action.metavar == "KIND":
        return tuple(KINDS.values())
    return tuple(map(str, action.choices or ()))


def _keys() -> list[Key]:
    """The keys that hold values, and the parameters of the registered functions."""
    found = {
        entry.dotted: _key(entry) for entry in entries() if entry.section is None and entry.path[0] not in OF_FILES
    }
    for path, kind in FUNCTIONS.items():
        for function in functions(kind).values():
            for name, facts in function.parameters.items():
                key = _key(Entry((*map(str, path), name), facts))
                found.setdefault(key.dotted, key)
    return list(found.values())


def _key(entry: Entry) -> Key:
    values: list[str] = []
    for facts in entry.facts["anyOf"]:
        values += map(str, facts.get("enum", [facts["const"]] if "const" in facts else []))
        values += ["true", "false"] if facts.get("type") == "boolean" else []
    return Key(entry.dotted, _first(entry.facts.get("description", "")), tuple(values))


def _first(doc: str) -> str:
    """The first sentence of a text, without the default.

    Example:
        >>> _first("the run's directory (default: runs/<name>). More."), _first("auto: go on; never: start afresh")
        ("the run's directory", 'auto: go on')
    """
    return re.split(r" \(default: |[.;] |\.$", doc, maxsplit=1)[0].replace("`", "")


def _bash(commands: Mapping[str, Words], keys: list[Key]) -> Iterator[str]:
    yield "# functrain completion bash"
    yield "_functrain() {"
    yield '    local cur="${COMP_WORDS[COMP_CWORD]}" prev="${COMP_WORDS[COMP_CWORD-1]}" key="" words=""'
    yield '    if [ "$COMP_CWORD" -eq 1 ]; then'
    yield f'        COMPREPLY=($(compgen -W "{" ".join(commands)} --help --version" -- "$cur"))'
    yield "        return"
    yield "    fi"
    yield "    # bash takes key=value for three words"
    yield '    if [ "$cur" = "=" ]; then cur=""; key="$prev"'
    yield '    elif [ "$prev" = "=" ]; then key="${COMP_WORDS[COMP_CWORD-2]}"; fi'
    yield '    case "${COMP_WORDS[1]}" in'
    for name, words in commands.items():
        yield f"    {name})"
        yield from _case_of_values(words, "$prev", 'COMPREPLY=($(compgen -W "{}" -- "$cur"))', ":")
        yield '        if [[ "$cur" == -* ]]; then'
        yield f'            words="{" ".join(each for option in words.options for each in option.names)}"'
        if words.choices or words.takes_keys:
            yield '        elif [ -z "$key" ]; then'
            yield f'            words="{" ".join(words.choices)}{"$_functrain_keys" if words.takes_keys else ""}"'
        yield "        fi ;;"
    yield "    esac"
    yield '    if [ -n "$key" ]; then'
    yield '        case "$key" in'
    for dotted, _, values in keys:
        if values:
            yield f'        {dotted}) words="{" ".join(values)}" ;;'
    yield "        esac"
    yield "    fi"
    yield '    COMPREPLY=($(compgen -W "$words" -- "$cur"))'
    yield '    [[ "${COMPREPLY[0]}" == *= ]] && compopt -o nospace 2>/dev/null'
    yield "    return 0"
    yield "}"
    yield f'_functrain_keys="{" ".join(f"{key.dotted}=" for key in keys)}"'
    yield "complete -o default -F _functrain functrain"


def _zsh(commands: Mapping[str, Words], keys: list[Key]) -> Iterator[str]:
    yield "#compdef functrain"
    yield "_functrain() {"
    yield "    local -a words_of keys values"
    yield "    if (( CURRENT == 2 )); then"
    yield f"        words_of=({' '.join(_described(name, COMMANDS[name].summary) for name in commands)})"
    yield "        _describe command words_of"
    yield "        return"
    yield "    fi"
    yield f"    keys=({' '.join(f'{key.dotted}=' for key in keys)})"
    yield f"    values=({' '.join(f'{dotted}={value}' for dotted, _, values in keys for value in values)})"
    yield '    case "$words[2]" in'
    for name, words in commands.items():
        yield f"    {name})"
        yield from _case_of_values(words, "$words[CURRENT-1]", "compadd -- {}", "_files")
        yield '        if [[ "$words[CURRENT]" == -* ]]; then'
        described = (_described(each, option.doc) for option in words.options for each in option.names)
        yield f"            words_of=({' '.join(described)})"
        yield "            _describe option words_of"
        if words.takes_keys:
            yield '        elif [[ "$words[CURRENT]" == *=* ]]; then'
            yield "            compadd -a values"
        yield "        else"
        if words.choices:
            yield f"            compadd -- {' '.join(words.choices)}"
        if words.takes_keys:
            yield "            compadd -S '' -a keys"
        yield "            _files"
        yield "        fi ;;"
    yield "    esac"
    yield "}"
    yield 'if [[ "$funcstack[1]" == _functrain ]]; then _functrain "$@"; else compdef _functrain functrain; fi'


def _case_of_values(words: Words, before: str, known: str, other: str) -> Iterator[str]:
    """The values of the option before the word, for bash and zsh.

    Args:
        words: of a command.
        before: the word before, in the shell's language.
        known: answers with values that stand for `{}`.
        other: answers where the values are not known.
    """
    yield f'        case "{before}" in'
    for option in words.options:
        if option.takes_value:
            answer = known.format(" ".join(option.choices)) if option.choices else other
            yield f"        {'|'.join(option.names)}) {answer}; return ;;"
    yield "        esac"


def _described(name: str, doc: str) -> str:
    """A word with its meaning, for zsh's `_describe`."""
    return shlex.quote(f"{name}:{_first(doc)}")


def _quoted(text: str) -> str:
    """A text in single quotes, for fish."""
    backslash = "\\"
    return "'" + text.replace(backslash, 2 * backslash).replace("'", f"{backslash}'") + "'"


def _fish(commands: Mapping[str, Words], keys: list[Key]) -> Iterator[str]:
    yield "# functrain completion fish"
    for name in commands:
        doc = _quoted(_first(COMMANDS[name].summary))
        yield f"complete -c functrain -f -n __fish_use_subcommand -a {name} -d {doc}"
    for name, words in commands.items():
        start = f"complete -c functrain -n '__fish_seen_subcommand_from {name}'"
        for option in words.options:
            names = " ".join(f"-l {each[2:]}" if each.startswith("--") else f"-s {each[1:]}" for each in option.names)
            values = f" -x -a '{' '.join(option.choices)}'" if option.choices else " -r" if option.takes_value else ""
            yield f"{start} {names}{values} -d {_quoted(option.doc)}"
        if words.choices:
            yield f"{start} -f -a '{' '.join(words.choices)}'"
    takers = " ".join(name for name, words in commands.items() if words.takes_keys)
    start = f"complete -c functrain -n '__fish_seen_subcommand_from {takers}'"
    for key in keys:
        given = [f"{key.dotted}={value}" for value in key.values] or [f"{key.dotted}="]
        yield f"{start} -a '{' '.join(given)}' -d {_quoted(key.doc)}"
