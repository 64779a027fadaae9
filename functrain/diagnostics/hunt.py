"""Where a run's first value that is not finite comes from.

Training is done again from a good state, operation by operation; the first micro-batch after which something is not
finite is looked at closely: its data, each module's output, each gradient.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from functrain.checkpoint import read_checkpoint
from functrain.diagnostics.replay import Passage, in_parts_of, opened_feed, passages
from functrain.diagnostics.reproduction import as_recorded, recorded_options
from functrain.foundation.dtypes import cast_floating
from functrain.foundation.keys import fold_in, torch_seed
from functrain.foundation.numbers import is_integer
from functrain.foundation.trees import leaves_with_paths
from functrain.loop.batches import Feed
from functrain.loop.resume.metadata import metadata_of
from functrain.step.execution import Runner, eager
from functrain.step.objective import counted_batch, run_objective
from functrain.step.state import TrainState, require_state


@dataclass(frozen=True)
class NonFinite:
    """The first value that is not finite.

    Attributes:
        step, epoch, batch, micro_batch: of the update, the epoch, the batch in it, the micro-batch in the update's
            window; each counted from 1.
        stage: "state" (it was there before), "batch", "forward", "loss", "backward" or "update".
        module: path of the module whose output (forward) or output's gradient (backward) it is; "" is the whole
            network; None if it is no module's.
        leaf: path of the part of state or batch, or of the parameter whose gradient it is; None if there is none.
    """

    step: int
    epoch: int
    batch: int
    micro_batch: int
    stage: str
    module: str | None = None
    leaf: str | None = None

    def __str__(self) -> str:
        """For people: forward at step 7 (epoch 1, batch 7, micro-batch 1): module 'head'."""
        where = f"step {self.step} (epoch {self.epoch}, batch {self.batch}, micro-batch {self.micro_batch})"
        module = "" if self.module is None else f", module {self.module!r}" if self.module else ", the whole network"
        return f"{self.stage} at {where}{module}{'' if self.leaf is None else f', leaf {self.leaf!r}'}"


@dataclass
class _Seen:
    """What the hooks of one forward and backward pass saw first."""

    names: dict[int, str] = field(default_factory=dict)
    forward: str | None = None
    backward: str | None = None


def find_nonfinite(
    state: TrainState,
    loader: Any,
    *,
    checkpoint: str | os.PathLike[str] | None = None,
    steps: int = 100,
    tail: str | None = None,
) -> NonFinite | None:
    """Train again, eagerly, until something is not finite, and say what and where.

    With a checkpoint it computes as the run did: see `functrain.replay`.

    Overflows of gradients under a loss scale are no finding: the step refuses them, the scale adapts.

    Args:
        state: where to begin; with `checkpoint`, only its structure and recipe count.
        loader: the training data, as given to `fit`.
        checkpoint: the directory of one to begin with, such as the one of status NONFINITE.
        steps: give up after so many updates.
        tail: as for `fit`; default: as the run of the checkpoint had it, or else "extend".

    Returns:
        The finding, or None if all was finite.

    Example:
        >>> import functrain as ft
        >>> state = ft.init_state(nn.Linear(2, 1), ft.regression(), ft.optim.sgd(0.1))
        >>> data = [(torch.ones(4, 2), torch.zeros(4, 1)), (torch.full((4, 2), float("inf")), torch.zeros(4, 1))]
        >>> print(ft.find_nonfinite(state, data))
        batch at step 2 (epoch 1, batch 2, micro-batch 1), leaf '0'
    """
    if not is_integer(steps, 1):
        raise ValueError(f"steps must be a whole number, 1 or more; got {steps!r}")
    require_state("find_nonfinite", state)
    start, info = (state, None) if checkpoint is None else read_checkpoint(checkpoint, state)
    feed = opened_feed(state, loader, info)
    run = in_parts_of(info, eager, state)
    recorded = {} if info is None else metadata_of(info).environment
    if tail is None:
        tail = "extend" if info is None else recorded_options(info).tail
    try:
        with as_recorded(recorded, state.device):
            return _search(start, feed, tail, run, start.step + steps)
    finally:
        feed.stream.close()


def _search(state: TrainState, feed: Feed, tail: str, run: Runner, end: int) -> NonFinite | None:
    while state.step < end:
        for passage in passages(state, feed, tail, run):
            if not _is_finite(passage) and (found := _diagnosis(passage)) is not None:
                return found
            state = passage.after
            if state.step >= end:
                break
    return None


def _is_finite(passage: Passage) -> bool:
    after, metrics = passage.after, passage.metrics
    names = ("loss",) if after.loss_scale is not None else ("loss", "grad_norm")
    values = [metrics[name] for name in names if name in metrics]
    if after.accumulator is not None and after.loss_scale is None:
        values += after.accumulator.grads.values()
    return all(bool(torch.isfinite(value).all()) for value in (*values, *after.params.values()))


def _diagnosis(passage: Passage) -> NonFinite | None:
    """What in a micro-batch's passage is not finite first."""
    before, micro_batch = passage.before, passage.micro_batch
    if micro_batch is None:
        return None
    counted = counted_batch(before.recipe.objective, micro_batch.batch)
    place = (before.step + 1, before.epoch + 1, before.batch_idx + 1, before.micro_step + 1)
    for stage, tree in (("state", {"params": before.params, "buffers": before.buffers}), ("batch", counted)):
        if leaf := _first_bad(dict(leaves_with_paths(tree))):
            return NonFinite(*place, stage, leaf=leaf)
    loss, weight, grads, seen = _passes(before, micro_batch.batch)
    if weight == 0:
        return None  # such a micro-batch is left out, whatever its loss
    if not torch.isfinite(loss).all():
        return NonFinite(*place, "loss" if seen.forward is None else "forward", module=seen.forward)
    leaf = _first_bad(grads)
    if before.loss_scale is None and (leaf or seen.backward is not None):
        return NonFinite(*place, "backward", module=seen.backward, leaf=leaf)
    leaf = _first_bad(passage.after.params)
    return NonFinite(*place, "update", leaf=leaf and f"params/{leaf}") if leaf else None


def _first_bad(leaves: Mapping[str, Any]) -> str | None:
    for path, leaf in leaves.items():
        if isinstance(leaf, Tensor) and leaf.dtype.is_floating_point and not torch.isfinite(leaf).all():
            return path
    return None


def _passes(state: TrainState, batch: Any) -> tuple[Tensor, float, dict[str, Tensor], _Seen]:
    """Loss, weight and gradients of a micro-batch with the step's own random numbers, watched."""
    recipe, window = state.recipe, state.accumulator
    buffers = state.buffers if window is None else window.buffers
    key = fold_in(state.key, "step", state.step, state.micro_step, recipe.collectives.rank)
    with torch_seed(key, state.device), torch.enable_grad(), _watched() as seen, ExitStack() as until:
        leaves = {name: state.params[name].detach().requires_grad_() for name in recipe.network.trainable}
        batch = cast_floating(batch, recipe.param_dtype)
        loss, _ = run_objective(state, {**state.params, **leaves}, buffers, batch, training=True, until=until)
        grads = torch.autograd.grad(loss.total, list(leaves.values()), allow_unused=True, materialize_grads=True)
    return loss.total.detach(), float(loss.weight), dict(zip(leaves, grads)), seen


@contextmanager
def _watched() -> Iterator[_Seen]:
    """Hooks on every module that is called within."""
    seen = _Seen()

    def enter(module: nn.Module, _inputs: Any) -> None:
        if not seen.names:  # the harness around the network is called first
            seen.names.update({id(each): name for name, each in module.named_modules()})

    def leave(module: nn.Module, _inputs: Any, output: Any) -> None:
        name = seen.names.get(id(module), type(module).__name__).removeprefix("net").removeprefix(".")
        for _, leaf in leaves_with_paths(output):
            if not isinstance(leaf, Tensor) or not leaf.dtype.is_floating_point:
                continue
            if seen.forward is None and not torch.isfinite(leaf).all():
                seen.forward = name
            if leaf.requires_grad:
                leaf.register_hook(lambda grad: _note_backward(seen, name, grad))

    handles = (
        nn.modules.module.register_module_forward_pre_hook(enter),
        nn.modules.module.register_module_forward_hook(leave),
    )
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _note_backward(seen: _Seen, name: str, grad: Tensor) -> None:
    if seen.backward is None and not torch.isfinite(grad).all():
        seen.backward = name
