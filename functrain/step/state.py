"""The training state: one immutable value."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NoReturn

import torch
from torch import Tensor

from functrain.foundation.dtypes import PRECISIONS
from functrain.foundation.errors import DonatedStateError
from functrain.foundation.names import name_of
from functrain.foundation.trees import copy_tensors, node, static
from functrain.metrics.measuring import Measured, Measures
from functrain.metrics.totals import no_totals
from functrain.optim import (
    EarlyStoppingState,
    Ema,
    EmaState,
    Optimizer,
    PlateauState,
)
from functrain.step.collectives import ALONE, Collectives, Exchange
from functrain.step.network import Network
from functrain.step.scaling import DEFAULT, LossScale, LossScaling
from functrain.step.summary import as_html, as_text, facts_of

Params = dict[str, Tensor]

# Where a checkpoint has the accumulators of metrics.
_EPOCH, _WINDOW = "epoch_metrics/accumulators", "accumulator/metrics/accumulators"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """What is constant over a run and no tensor: how a state and a batch become the next state."""

    network: Network
    objective: Callable[[Any, Any], Any]
    optimizer: Optimizer
    precision: str
    accumulate: int
    clip_norm: float | None
    clip_value: float | None
    ema: Ema | None
    loss_scale: float | LossScaling | None = None  # a constant scale, or how it adapts itself
    statistics: str | None = None
    activations: bool = False
    metrics: Measures | None = None
    refuse_nonfinite: bool = True
    collectives: Collectives = ALONE  # functrain.distributed sets others
    exchange: Exchange | None = None  # likewise: then a step runs in phases
    stacked: "Stacked | None" = None  # of a stack of members

    def name_in_graphs(self) -> str:
        """A name by which a graph of the user's own torch.compile finds this recipe, as long as it lives."""
        return name_of(self)

    @property
    def param_dtype(self) -> torch.dtype:
        """dtype of parameters, optimizer state and sums."""
        return PRECISIONS[self.precision][0]

    @property
    def scaling(self) -> LossScaling | None:
        """How the loss scale, if there is one, adapts itself; None for a constant one."""
        if self.loss_scale is None:
            return DEFAULT
        return self.loss_scale if isinstance(self.loss_scale, LossScaling) else None

    @property
    def compute_dtype(self) -> torch.dtype:
        """dtype of the forward and backward pass (under autocast, where it differs)."""
        return PRECISIONS[self.precision][1]


@dataclasses.dataclass(frozen=True, eq=False)
class Stacked:
    """What is constant over the members of a stack, and no tensor.

    Attributes:
        recipes: each member's own.
        form: "vmap" for one vectorised computation, "unroll" for one after the other in one graph.
        chosen: the user has chosen the form.
        own: makes the fields of a recipe that are a member's own, of its hyperparameters, name -> 0-d tensor.
        draw_otherwise: vectorised members draw with probabilities of their own.
        draws: of each kind of step and batch, what a member draws at random, once that is known.
    """

    recipes: tuple[Recipe, ...]
    form: str
    chosen: bool
    own: Callable[[Mapping[str, Tensor]], Mapping[str, Any]] | None
    draw_otherwise: bool = False
    draws: dict[Any, Any] = dataclasses.field(default_factory=dict)


@node
class Members:
    """What is each member's own in a stack, beside its row of every tensor.

    Attributes:
        keys: random keys, 64-bit host integers.
        samples: examples done, padding not counted (host integers).
        stopped_at: (step, epoch, batch_idx) of a member that has stopped, whose values stay; of others -1 (host
            integers).
        plateaus, stoppers: as of a `TrainState`.
        values: hyperparameters in which members differ, name -> float64 `[N]`.
    """

    keys: tuple[int, ...]
    samples: tuple[int, ...]
    stopped_at: tuple[tuple[int, int, int], ...]
    plateaus: tuple[PlateauState, ...]
    stoppers: tuple[EarlyStoppingState, ...]
    values: dict[str, Tensor]

    def __len__(self) -> int:
        """How many there are."""
        return len(self.keys)

    def train(self) -> list[bool]:
        """Whether each still trains."""
        return [step < 0 for step, *_ in self.stopped_at]


@node
class Part:
    """What some micro-batches of a window come to.

    Attributes:
        grads, sums, used, metrics: as of an `Accumulator`.
        buffers: after the last of them; of a sum in a tree, the sums of the floating-point ones.
        names: which metric a slot of `sums` holds.
    """

    grads: Params
    sums: Tensor
    buffers: Params
    used: Tensor
    metrics: Measured | None = None
    names: tuple[str, ...] = static(default=())


@node
class OpenWindow:
    """A window that a step in phases has begun, on this process.

    Attributes:
        parts: sums of its micro-batches so far, each of fewer than the one before.
        params: the whole parameters.
        examples: in the micro-batches so far (host integer).
        shards: of the parameters that passes gather block by block, for which there are stand-ins in `params`.
    """

    parts: tuple[Part, ...]
    params: Params
    examples: int
    shards: Params = dataclasses.field(default_factory=dict)


@node
class Accumulator:
    """The open accumulation window.

    Attributes:
        grads: name -> sum of the gradients of the summed loss, like the trainable parameters.
        sums: metric sums of the window, float64 `[2, SLOTS]`.
        buffers: the model's buffers within the window; those of the state are the last update's, to
            which a refused update returns.
        count: micro-batches in the window so far (host integer).
        used: which of the trainable parameters, in the network's order, the window's losses depend on, bool `[n]`.
        metrics: accumulators of the window, if metrics were asked for.
        open: what a step in phases has of the window; then the sums above are those of nothing, and `count` is that of
            this process.
    """

    grads: Params
    sums: Tensor
    buffers: Params
    count: int
    used: Tensor
    metrics: Measured | None = None
    open: OpenWindow | None = None


@node
class UpdateCounts:
    """What the device counts, since only it knows which updates were refused.

    Attributes:
        applied: updates that were not refused, int64 0-d; the `step` of an objective that changes with training.
        skipped_in_a_row: updates refused since the last that was not, int64 0-d; windows of weight 0 do not count.
    """

    applied: Tensor
    skipped_in_a_row: Tensor


@node
class TrainState:
    """Everything that training is a function of, besides the data.

    A pytree: tensors and a few host integers are the leaves, `recipe` belongs to the structure.

    Attributes:
        params: name -> parameter, the frozen ones included; float32 (float64 for fp64).
        buffers: name -> buffer (BatchNorm statistics ...).
        opt_state: the optimizer's.
        loss_scale: for fp16 or a constant scale, else None.
        accumulator: with accumulate > 1, else None.
        ema: averages of the trainable parameters (and of the buffers, if the rule says so), or None.
        counts: of updates, on the device.
        epoch_totals: sums of the epoch's metrics, float64 `[2, SLOTS]`.
        epoch_metrics: the epoch's accumulators of metrics that were asked for; None: none were, or there was no batch
            yet that tells their form.
        plateau, stopper: what `fit`'s rules remember (host numbers), whether a rule is at work or not.
        key: random key, 64-bit host integer.
        step: optimizer updates that were due so far (a refused one counts).
        epoch: epochs completed.
        batch_idx: micro-batches done in the current epoch.
        samples_seen: examples done in all, padding not counted.
        members: of a stack (`functrain.stack`), whose tensors all have a first dimension with a row for each member;
            `key`, `plateau` and `stopper` are then the first member's, `samples_seen` the largest.
    """

    params: Params
    buffers: Params
    opt_state: Any
    loss_scale: LossScale | None
    accumulator: Accumulator | None
    ema: EmaState | None
    counts: UpdateCounts
    epoch_totals: Tensor
    epoch_metrics: Measured | None
    plateau: PlateauState
    stopper: EarlyStoppingState
    key: int
    step: int
    epoch: int
    batch_idx: int
    samples_seen: int
    members: Members | None
    recipe: Recipe = static()

    # In a checkpoint from before this leaf was there, all parameters count as used.
    added_leaves: ClassVar[Mapping[tuple[str, str], float]] = {("accumulator", "used"): True}
    # Of metrics that are not asked for any more.
    left_out: ClassVar[tuple[str, ...]] = (f"{_EPOCH}/", f"{_WINDOW}/")

    def replace(self, **changes: Any) -> "TrainState":
        """A state that differs in these fields."""
        return dataclasses.replace(self, **changes)

    def fitted(self, saved: Callable[[], Mapping[str, tuple[torch.dtype, tuple[int, ...]]]]) -> "TrainState":
        """The state with room for the accumulators of metrics that a checkpoint has, if it measures the same."""
        measures = None if self.recipe.metrics is None else self.recipe.metrics.fixed
        if measures is None or not measures.metrics or self.epoch_metrics is not None:
            return self
        forms, window = saved(), self.accumulator
        if window is not None:
            window = dataclasses.replace(window, metrics=measures.zeros(forms, _WINDOW, self.device))
        return self.replace(epoch_metrics=measures.zeros(forms, _EPOCH, self.device), accumulator=window)

    def after_epochs(self, number: int) -> "TrainState":
        """The state between epochs, when so many are completed."""
        metrics = None if self.epoch_metrics is None else self.epoch_metrics.emptied()
        return self.replace(
            epoch=number, batch_idx=0, epoch_totals=torch.zeros_like(self.epoch_totals), epoch_metrics=metrics
        )

    def at_window_start(self) -> "TrainState":
        """The state before the window that a step in phases has begun, whose micro-batches will come again."""
        window = self.accumulator
        if window is None or window.open is None:
            return self
        return self.replace(
            accumulator=dataclasses.replace(window, count=0, open=None),
            batch_idx=self.batch_idx - window.count,
            samples_seen=self.samples_seen - window.open.examples,
        )

    def __repr__(self) -> str:
        """A few lines, not the numbers."""
        return as_text("TrainState", facts_of(self))

    def _repr_html_(self) -> str | None:
        """A small table, which notebooks show."""
        return as_html("TrainState", facts_of(self))

    def __copy__(self) -> "TrainState":
        """Another state with the same tensors."""
        return self.replace()

    def __deepcopy__(self, memo: dict[int, Any]) -> "TrainState":
        """A state with tensors of its own. What is constant over a run is shared: it never changes."""
        return copy_tensors(self.replace())

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        """Refuse `pickle` and `torch.save`, which cannot store the functions that a recipe is made of."""
        raise TypeError(
            "a TrainState cannot be pickled or saved with torch.save: its optimizer and objective are functions. Save "
            "it with functrain.Checkpointer(folder).save(state, step=state.step), which restores into a state that the "
            "same init_state makes; or the model alone: torch.save(functrain.to_module(state).state_dict(), path)"
        )

    @property
    def device(self) -> torch.device:
        """Where the state lives."""
        return self.epoch_totals.device

    @property
    def micro_step(self) -> int:
        """Micro-batches in the open accumulation window; 0 between windows."""
        return 0 if self.accumulator is None else self.accumulator.count


def consume(state: Any) -> None:
    """Mark a training state whose storage was taken over: any use of it raises from now on."""
    if isinstance(state, TrainState):
        object.__setattr__(state, "__class__", DonatedState)


class DonatedState(TrainState):
    """What a state becomes when a donating step has taken over its storage: any use raises."""

    def __repr__(self) -> str:
        """That it is gone; a debugger or a notebook may ask."""
        return "TrainState, donated: a compiled step has taken over its storage. Use the state that the step returned"

    def _repr_html_(self) -> None:
        """No table."""

    def __getattribute__(self, name: str) -> Any:
        """Raise for every field; leave Python's own attributes alone."""
        if name.startswith("__") or name == "_repr_html_":
            return object.__getattribute__(self, name)
        return _donated(name)


def _donated(name: str) -> NoReturn:
    raise DonatedStateError(
        "this state was donated: a step compiled with donate=True has written the next state into its "
        f"storage, so its {name!r} is gone. Use the state that the step returned, or compile with "
        "donate=False to keep both"
    )


def empty_accumulator(trainable: Params, buffers: Params) -> Accumulator:
    """The window before its first micro-batch."""
    device = next(iter(trainable.values())).device
    return Accumulator(
        grads={name: torch.zeros_like(p) for name, p in trainable.items()},
        sums=no_totals(device),
        buffers={name: b.clone() for name, b in buffers.items()},
        count=0,
        used=torch.zeros(len(trainable), dtype=torch.bool, device=device),
    )


def whole(state: TrainState) -> TrainState:
    """The state with whole leaves, if it is kept in shards: then all processes must ask together."""
    exchange = state.recipe.exchange
    return state if exchange is None else exchange.whole(state)


def require_state(name: str, state: Any, *, members: bool = False) -> None:
    """Refuse what is no training state, in the first place of a function's arguments.

    Args:
        name: the function's.
        state: what it was given.
        members: whether it takes a stack of members, too.

    Raises:
        TypeError: it is something else.
        ValueError: it is a stack, which the function does not take.
    """
    if not isinstance(state, TrainState):
        raise TypeError(
            f"{name} takes a TrainState first, as functrain.init_state(model, objective, optimizer) makes it; got "
            f"{type(state).__name__}"
        )
    if state.members is not None and not members:
        raise ValueError(
            f"{name} takes a state of one model, and this is a stack of {len(state.members)}: give it "
            "functrain.unstack(state)[number], one member"
        )
