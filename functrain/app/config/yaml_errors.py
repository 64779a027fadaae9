"""PyYAML's errors in plain words."""

import re

import yaml

# A part of PyYAML's message -> what is wrong and what to do. The first that fits counts.
_WORDS = (
    (r"'\\t'", "a tab; YAML is indented with spaces"),
    (
        "mapping values are not allowed",
        "a second ':' on one line, or a line that is indented too far; text with ': ' in it needs quotes",
    ),
    (r"expected ',' or '\}'", "a '{' without its '}', or a ',' is missing"),
    (r"expected ',' or '\]'", "a '[' without its ']', or a ',' is missing"),
    ("end of stream|end of file", "the text ends within quotes: the closing one is missing"),
    ("while scanning a (simple key|quoted)|could not find expected ':'", "a key without ':' behind it"),
    ("found another document", "a second document begins ('---'); a configuration is one"),
    ("undefined alias", "an alias ('*name') without its anchor ('&name'); text that begins with '*' needs quotes"),
    ("duplicate anchor", "an anchor ('&name') that is set twice"),
    ("anchor|alias", "a '*' or '&' without a name; text that begins with it needs quotes"),
    ("expected the node content", "a value is missing here"),
    ("cannot start any token", "a character that text without quotes cannot begin with; put the text in quotes"),
    ("document start|directive", "a line that begins with '%' is an instruction to YAML; put text with '%' in quotes"),
    ("block end|block mapping|block collection", "a line that is indented unlike those above, or a list within keys"),
    ("escape|unknown escape character", "a backslash in double quotes that begins no escape; take single quotes"),
    ("tag", "a tag ('!name'), which a configuration does not have; text that begins with '!' needs quotes"),
    ("special characters are not allowed", "a control character"),
)


def in_plain_words(error: yaml.MarkedYAMLError, name: str) -> str:
    """The place and the cause of a YAML error.

    Args:
        error: PyYAML's.
        name: of the file, or "override 'key=value'".

    Example:
        >>> try:
        ...     yaml.safe_load("a: [1, 2")
        ... except yaml.MarkedYAMLError as error:
        ...     in_plain_words(error, "a.yaml")
        "a.yaml:1:9: this is not valid YAML: a '[' without its ']', or a ',' is missing"
    """
    mark = error.problem_mark or error.context_mark
    where = name if mark is None or name.startswith("override") else f"{name}:{mark.line + 1}:{mark.column + 1}"
    text = f"{error.problem} {error.context or ''}"
    reason = next((words for pattern, words in _WORDS if re.search(pattern, text)), text.strip())
    return f"{where}: this is not valid YAML: {reason}"
