"""Parameters that are not trained, by patterns of their names."""

import contextlib
from collections.abc import Iterator, Sequence

from torch import nn

from functrain.foundation.patterns import did_you_mean, fits, listed
from functrain.step.modules import without_compilers


@contextlib.contextmanager
def frozen(model: nn.Module, patterns: str | Sequence[str]) -> Iterator[None]:
    """Within, parameters whose names fit a pattern have `requires_grad=False`, so that `init_state` freezes them.

    Args:
        model: any module. It is as before at the end. What is none is refused by `init_state`.
        patterns: a name or a pattern such as "encoder.*", or several. A tied parameter is frozen by any of its names.

    Raises:
        TypeError: a pattern is no text.
        ValueError: a pattern fits no parameter.

    Example:
        >>> net = nn.ModuleDict({"encoder": nn.Linear(2, 2), "head": nn.Linear(2, 1)})
        >>> with frozen(net, ["encoder.*"]):
        ...     [name for name, p in net.named_parameters() if not p.requires_grad]
        ['encoder.weight', 'encoder.bias']
        >>> all(p.requires_grad for p in net.parameters())
        True
    """
    patterns = (patterns,) if isinstance(patterns, str) else tuple(patterns)
    if any(not isinstance(pattern, str) for pattern in patterns):
        raise TypeError(f"freeze takes names of parameters or patterns of names, such as 'encoder.*'; got {patterns!r}")
    if not patterns or not isinstance(model, nn.Module):
        yield
        return
    named = list(without_compilers(model).named_parameters(remove_duplicate=False))
    names = [name for name, _ in named]
    for pattern in patterns:
        if not any(fits(name, [pattern]) for name in names):
            raise ValueError(
                f"freeze: the pattern {pattern!r} fits no parameter{did_you_mean(pattern, names)} The parameters are "
                f"{listed(names) or 'none'}"
            )
    chosen = [parameter for name, parameter in named if fits(name, patterns) and parameter.requires_grad]
    try:
        for parameter in chosen:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in chosen:
            parameter.requires_grad_(True)
