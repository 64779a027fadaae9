"""How a value that is made of closures was made, so that it can be compared with another, and made anew."""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Made(NamedTuple):
    """A call that made a value.

    Attributes:
        factory: the function.
        arguments: by the names of its parameters, defaults included.
    """

    factory: Callable[..., Any]
    arguments: Mapping[str, Any]

    def again(self, **changes: Any) -> Any:
        """Another value, which differs in these arguments."""
        bound = inspect.signature(self.factory).bind_partial()
        bound.arguments.update({**self.arguments, **changes})
        return self.factory(*bound.args, **bound.kwargs)


def remembered(factory: Callable[P, T]) -> Callable[P, T]:
    """A factory of functions, or of tuples of functions, whose products remember how they were made.

    The outermost factory counts: of `adamw`, which calls `adam`, that is `adamw`.

    Example:
        >>> @remembered
        ... def adder(n: int, twice: bool = False):
        ...     return lambda x: x + n
        >>> made_by(adder(3)).arguments
        {'n': 3, 'twice': False}
    """
    signature = inspect.signature(factory)

    @functools.wraps(factory)
    def make(*args: P.args, **kwargs: P.kwargs) -> T:
        product = factory(*args, **kwargs)
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        _carrier(product).__dict__["made"] = Made(make, dict(bound.arguments))
        return product

    return make


def made_by(product: Any) -> Made | None:
    """The call that made a value; None if no `remembered` factory did.

    Example:
        >>> made_by(len) is None
        True
    """
    found: Made | None = getattr(_carrier(product), "__dict__", {}).get("made")
    return found


def _carrier(product: Any) -> Any:
    """What keeps the memory: a function; of a tuple of functions the last one."""
    return product[-1] if isinstance(product, tuple) and product else product
