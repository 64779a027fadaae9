"""Values and declared words as a configuration spells them."""

import json
import re
from typing import Any


def shown(value: Any) -> str:
    """A value in a message as a configuration spells it, cut to a readable length.

    Example:
        >>> shown(None), shown([True, 0.1]), shown("fast")
        ('null', '[true, 0.1]', "'fast'")
    """
    text = repr(value) if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=repr)
    return text if len(text) <= 60 else f"{text[:57]}..."


def meaning(doc: str) -> str:
    """The words of a declaration in those of a configuration.

    Example:
        >>> meaning("None keeps nothing.")
        'null keeps nothing.'
    """
    for python, yaml in (("None", "null"), ("True", "true"), ("False", "false")):
        doc = re.sub(rf"\b{python}\b", yaml, doc)
    return doc[:1].upper() + doc[1:] if doc[:4] != "null" else doc
