"""Activation checkpointing: blocks of a network keep their inputs only, and run again in the backward pass.

Chen et al., "Training deep nets with sublinear memory cost", 2016 (arXiv:1604.06174).

A block runs as a pure function of its tensors: when the backward pass runs it again, the call that had put the state's
tensors into the network is over. What it draws at random must be the same again: the generators' states see to that,
and in a traced step, whose graph has no such states, `functrain.compiler.draws`.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from functrain.foundation.patterns import did_you_mean, fits
from functrain.foundation.torch_internals import inside_transform

_NEVER_CALLED = (nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict)


def blocks_of(
    network: nn.Module, patterns: str | Sequence[str], setting: str = "activation_checkpointing"
) -> list[str]:
    """The paths of the modules that patterns name; of nested ones, the outermost.

    Args:
        network: the whole network, which is no block itself.
        patterns: shell-style (`*`, `?`, `[ab]`; `*` crosses dots too), for whole paths: "blocks.*".
        setting: what a user gave them as.

    Raises:
        TypeError: if the patterns are no strings.
        ValueError: for a pattern that names no module.

    Example:
        >>> net = nn.ModuleDict({"blocks": nn.ModuleList([nn.Sequential(nn.Linear(2, 2)), nn.ReLU()])})
        >>> blocks_of(net, "blocks.*")
        ['blocks.0', 'blocks.1']
    """
    paths = [path for path, module in network.named_modules() if path and not isinstance(module, _NEVER_CALLED)]
    named = {path for pattern in named_patterns(patterns, setting) for path in _named_by(pattern, paths, setting)}
    chosen = [path for path in paths if path in named]
    return [path for path in chosen if not any(path.startswith(f"{other}.") for other in chosen)]


def named_patterns(given: Any, setting: str = "activation_checkpointing") -> tuple[str, ...]:
    """Patterns as they are given: one, or several.

    Raises:
        TypeError: they are no strings.
    """
    patterns = (given,) if isinstance(given, str) or not isinstance(given, Sequence) else tuple(given)
    for pattern in patterns:
        if not isinstance(pattern, str):
            raise TypeError(f"{setting} must be patterns of module paths, such as 'blocks.*'; got {pattern!r}")
    return patterns


def _named_by(pattern: str, paths: list[str], setting: str) -> list[str]:
    found = [path for path in paths if fits(path, [pattern])]
    if found:
        return found
    hint = did_you_mean(pattern, paths)
    some = ", ".join(paths[:12]) + (", ..." if len(paths) > 12 else "")
    raise ValueError(
        f"{setting}: the pattern {pattern!r} names no module that is called{hint} The modules "
        f"are {some or 'none: the network is one module'}"
    )


def checkpoint_blocks(network: nn.Module, patterns: str | Sequence[str]) -> None:
    """Let the blocks of a network, which is changed, run again in the backward pass."""
    for path in blocks_of(network, patterns):
        block = network.get_submodule(path)
        # An attribute of the instance, so that hooks run around it, once.
        block.forward = partial(_forward, path, block, _Body(block, block.forward))


class _Body(nn.Module):
    """What a block does when it is called, without its hooks, for `functional_call`."""

    def __init__(self, block: nn.Module, body: Callable[..., Any]) -> None:
        super().__init__()
        self.block = block
        self._body = body

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self._body(*args, **kwargs)


Gather = Callable[[dict[str, Tensor]], dict[str, Tensor]]
_GATHERING: ContextVar[tuple[Gather, dict[str, Tensor]] | None] = ContextVar("gathering", default=None)


@contextmanager
def gathering(gather: Gather, shards: dict[str, Tensor]) -> Iterator[None]:
    """Within, a block that runs has the whole parameters of these shards, and forgets them when it has run.

    The network has stand-ins for them, tensors of the same shapes. Their gradients are those of the parameters.

    Args:
        gather: the whole parameters of shards, by name.
        shards: by the names of the state.
    """
    token = _GATHERING.set((gather, shards) if shards else None)
    try:
        yield
    finally:
        _GATHERING.reset(token)


class _InPlaceOf(torch.autograd.Function):
    """The whole parameter in the place of its stand-in, to which its gradient goes."""

    @staticmethod
    def forward(stand_in: Tensor, whole: Tensor) -> Tensor:
        return whole.view_as(stand_in)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        """Nothing is kept."""

    @staticmethod
    def backward(_: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None


def _gatherer(path: str) -> Gather:
    """What makes the parameters of a block whole, with `gathering`'s arguments of now: the backward pass is later."""
    found = _GATHERING.get()
    if found is None:
        return dict
    gather, shards = found

    def gathered(params: dict[str, Tensor]) -> dict[str, Tensor]:
        names = {key: key.replace("block", path, 1) for key in params}
        whole = gather({name: shards[name] for name in names.values() if name in shards})
        return {key: _InPlaceOf.apply(p, whole[names[key]]) if names[key] in whole else p for key, p in params.items()}

    return gathered


def _forward(path: str, block: nn.Module, body: _Body, *args: Any, **kwargs: Any) -> Any:
    """The block's forward pass, of which the inputs only are kept."""
    if not torch.is_grad_enabled() or inside_transform():  # torch.func's gradients know no such thing
        return body(*args, **kwargs)
    from torch.utils.checkpoint import checkpoint

    params = {f"block.{name}": p for name, p in block.named_parameters()}
    live = {f"block.{name}": b for name, b in block.named_buffers()}
    before = {name: b.clone() for name, b in live.items()}
    gather = _gatherer(path)

    def run(params: dict[str, Tensor], buffers: dict[str, Tensor], args: Any, kwargs: Any) -> Any:
        tensors = {**gather(params), **{name: b.clone() for name, b in buffers.items()}}
        out = torch.func.functional_call(body, tensors, args, kwargs)
        return out, {name: tensors[name].detach() for name in buffers}

    out, after = checkpoint(run, params, before, args, kwargs, use_reentrant=False)
    for name, b in live.items():
        b.copy_(after[name])
    return out
