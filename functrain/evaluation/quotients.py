"""Quotients of counts, where there may be nothing to divide by."""

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]


def share(part: Numbers, whole: Numbers) -> Numbers:
    """The quotient; 0 where the whole is 0, as scikit-learn has scores of classes.

    Example:
        >>> share(np.array([1.0, 0.0]), np.array([2.0, 0.0])).tolist()
        [0.5, 0.0]
    """
    return _divided(part, whole, 0.0)


def ratio(part: Numbers, whole: Numbers) -> Numbers:
    """The quotient; NaN where the whole is 0.

    Example:
        >>> ratio(np.array([1.0, 0.0]), np.array([2.0, 0.0])).tolist()
        [0.5, nan]
    """
    return _divided(part, whole, np.nan)


def _divided(part: Numbers, whole: Numbers, otherwise: float) -> Numbers:
    result = np.full(np.broadcast(part, whole).shape, otherwise)
    return np.divide(part, whole, out=result, where=np.asarray(whole) != 0)
