"""JSON for programs, in which every number is one: NaN and infinity, which JSON does not have, become null."""

import json
import math
from collections.abc import Mapping
from typing import Any


def json_lines(value: Any) -> list[str]:
    """A value as JSON, in the lines of a command.

    Example:
        >>> print("\\n".join(json_lines({"loss": float("inf"), "steps": [1, 2.5]})))
        {
          "loss": null,
          "steps": [
            1,
            2.5
          ]
        }
    """
    return json.dumps(finite(value), indent=2).splitlines()


def finite(value: Any) -> Any:
    """The value with null for numbers that are not finite."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): finite(each) for key, each in value.items()}
    return [finite(each) for each in value] if isinstance(value, (list, tuple)) else value
