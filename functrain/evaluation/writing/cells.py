"""Numbers of reports as text."""

import math
from typing import Any

from functrain.evaluation.bootstrap import Interval


def text_of(value: Any) -> str:
    """A cell of a table.

    Example:
        >>> text_of(0.123456), text_of(1234), text_of(Interval(0.1, 0.2)), text_of(None), text_of(float("nan"))
        ('0.1235', '1,234', '0.1000 to 0.2000', '', 'not defined')
    """
    if value is None:
        return ""
    if isinstance(value, Interval):
        return f"{text_of(value.low)} to {text_of(value.high)}"
    if isinstance(value, int):
        return f"{value:,}"
    if not isinstance(value, float):
        return str(value)
    if not math.isfinite(value):
        return "not defined" if math.isnan(value) else "infinite"
    return f"{value:.4f}" if 1e-3 <= abs(value) < 1e4 or value == 0 else f"{value:.4g}"
