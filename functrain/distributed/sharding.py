"""A state that several processes train together, each of which keeps a part of it: `shard` and `unshard`."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from functrain.distributed.elementwise import is_elementwise
from functrain.distributed.layout import Layout, cut_of
from functrain.distributed.offloading import Offloaded, moved
from functrain.distributed.replicas import replicate
from functrain.distributed.shards import Sharding
from functrain.distributed.world import World, current_world
from functrain.step.arguments import check_whole_batches
from functrain.step.collectives import ALONE, Exchange
from functrain.step.recomputation import named_patterns
from functrain.step.state import TrainState, require_state

STRATEGIES = ("ddp", "zero1", "zero2", "zero3")
REDUCTIONS = ("fast", "exact")
OFFLOADS = ("cpu",)


def shard(
    state: TrainState,
    mesh: Any = None,
    strategy: str = "ddp",
    *,
    reduction: str = "fast",
    offload_optimizer: str | None = None,
    blocks: str | Sequence[str] = (),
) -> TrainState:
    """The state as this process keeps it, to be trained by all processes together. All of them must call it.

    Values are those of process 0. What a strategy keeps in shards is cut along the first dimension of each leaf:

    | strategy | parameters | optimizer's state, average | sums of gradients in a window |
    |----------|------------|----------------------------|-------------------------------|
    | ddp      | whole      | whole                      | whole                         |
    | zero1    | whole      | shards                     | whole, then shards            |
    | zero2    | whole      | shards                     | shards; whole if exact        |
    | zero3    | shards     | shards                     | shards; whole if exact        |

    With zero2 and zero3 and fast sums all processes need as many micro-batches in each window, since gradients travel
    with each of them.

    Args:
        state: any state, whole.
        mesh: how many processes there are, if it is said: a number, `{"dp": n}`, or a torch DeviceMesh of one
            dimension; by default all.
        strategy: one of those.
        reduction: "exact": the micro-batches of a window are shared out, and their sums added in one binary tree, so
            that the bits do not depend on the number of processes nor on the strategy: that of the processes must
            divide `accumulate`, a power of two. "fast": each micro-batch's examples are shared out.
        offload_optimizer: "cpu": the optimizer's state and the average are kept in the CPU's memory, and updates are
            computed there. Each update sends the gradients, or this process's shard of them, to the CPU, and the
            parameters there and back. None: all of it is where the state is.
        blocks: patterns of the paths of modules, such as "layers.*", for zero3: the parameters of such a module are
            gathered when it runs, and forgotten when it has; it runs again in the backward pass, as with
            `activation_checkpointing`. Passes are not compiled then, and all processes need as many micro-batches.

    Returns:
        The state to train: with `fit`, or with `train_step` on this process's micro-batches.

    Raises:
        TypeError: for anything but a state.
        ValueError: for a strategy or a reduction that does not exist, or that this state or world does not allow.

    References:
        Rajbhandari et al., ZeRO: Memory optimizations toward training trillion parameter models, SC 2020.
        Ren et al., ZeRO-Offload: Democratizing billion-scale model training, USENIX ATC 2021.

    Example:
        >>> import functrain as ft, torch
        >>> state = ft.init_state(torch.nn.Linear(2, 1), ft.regression(), ft.optim.sgd(0.1), accumulate=2)
        >>> state = shard(state, strategy="zero3", reduction="exact")  # ft.shard
        >>> for _ in range(2):
        ...     state, metrics = ft.train_step(state, (torch.ones(4, 2), torch.zeros(4, 1)))
        >>> unshard(state).step
        1
    """
    require_state("shard", state)
    world = current_world()
    _check(state, mesh, strategy, reduction, world)
    _check_offload(offload_optimizer)
    if named_patterns(blocks, "blocks") and strategy != "zero3":
        raise ValueError(f"blocks are gathered from the shards of zero3; got blocks with strategy={strategy!r}")
    if state.recipe.exchange is not None:
        state = unshard(state)
    state = replicate(state, world)
    if strategy == "ddp" and reduction == "fast" and state.recipe.accumulate == 1 and offload_optimizer is None:
        return state  # whose sums stand within the step's graph; they would be sent for each micro-batch of a window
    in_tree, cuts = reduction == "exact", strategy != "ddp"
    pieces = state.recipe.accumulate if in_tree else world.size
    layout = Layout.of(
        state,
        chunks=pieces,
        ranks=world.size,
        cuts_params=strategy == "zero3",
        cuts_updates=cuts,
    )
    trainable = {name: state.params[name] for name in state.recipe.network.trainable}
    by_element = not layout.is_cut or is_elementwise(state.recipe.optimizer, trainable)
    chunks = tuple((name, cut_of(leaf, pieces, world.size)) for name, leaf in trainable.items())
    network, in_blocks = state.recipe.network, None
    if named_patterns(blocks, "blocks"):
        network, in_blocks = network.with_blocks(blocks)
    exchange: Exchange = Sharding(world.rank, world.size, strategy, in_tree, layout, chunks, by_element, in_blocks)
    if offload_optimizer is not None:
        exchange = Offloaded(exchange, state.device)
    whole = state.replace(
        recipe=dataclasses.replace(state.recipe, network=network, exchange=exchange, collectives=ALONE)
    )
    return exchange.kept(whole)


def unshard(state: TrainState) -> TrainState:
    """The whole state, as `init_state` makes them, equal on all processes. All of them must call it.

    Example:
        >>> import functrain as ft, torch
        >>> state = ft.init_state(torch.nn.Linear(2, 1), ft.regression(), ft.optim.sgd(0.1))
        >>> ft.digest(unshard(shard(state, strategy="zero3"))) == ft.digest(state)
        True
    """
    require_state("unshard", state)
    return moved(gather_state(state), state.device)


def gather_state(state: TrainState, *, on_first: bool = False) -> TrainState:
    """The whole state where it is kept: what is offloaded stays there, as a device may have no room for it.

    Args:
        state: any. All processes must call it.
        on_first: process 0 alone gets it, and the others nothing that is of use.

    Example:
        >>> import functrain as ft, torch
        >>> state = ft.init_state(torch.nn.Linear(2, 1), ft.regression(), ft.optim.sgd(0.1))
        >>> ft.digest(gather_state(shard(state, offload_optimizer="cpu"))) == ft.digest(state)
        True
    """
    exchange = state.recipe.exchange
    if exchange is None:
        return state
    start = state.at_window_start()
    whole = exchange.whole_on_first(start) if on_first else exchange.whole(start)
    return whole.replace(recipe=dataclasses.replace(state.recipe, network=state.recipe.network.plain, exchange=None))


def _check(state: TrainState, mesh: Any, strategy: str, reduction: str, world: World) -> None:
    """Refuse what `shard` cannot do."""
    for name, value, allowed in (("strategy", strategy, STRATEGIES), ("reduction", reduction, REDUCTIONS)):
        if value not in allowed:
            raise ValueError(f"{name} must be one of {', '.join(allowed)}; got {value!r}")
    _check_mesh(mesh, world)
    recipe = state.recipe
    if recipe.statistics is not None or recipe.activations:
        raise ValueError(
            "statistics of layers are those of one process: make the state without statistics and activations, or "
            "train it without functrain.shard"
        )
    check_whole_batches(state.opt_state, "a state that several processes train")
    if reduction == "exact":
        _check_window(recipe.accumulate, world)
        given = dict(recipe.network.given())
        if names := [path for path, module in given.items() if isinstance(module, nn.SyncBatchNorm)]:
            raise ValueError(
                f"SyncBatchNorm ({', '.join(names[:3])}) takes the statistics of the examples that all processes have "
                "at one time; under reduction='exact' a process has its micro-batches one after another, and the bits "
                "would depend on how many processes there are. Use nn.BatchNorm, whose statistics are averaged over "
                "the window's micro-batches, or reduction='fast'"
            )


def _check_offload(to: str | None) -> None:
    if to is not None and to not in OFFLOADS:
        raise ValueError(f"offload_optimizer must be one of {', '.join(OFFLOADS)}, or None; got {to!r}")


def _check_mesh(mesh: Any, world: World) -> None:
    sizes: dict[str, int] = {}
    if isinstance(mesh, int):
        sizes = {"dp": mesh}
    elif isinstance(mesh, Mapping):
        sizes = dict(mesh)
    elif mesh is not None:
        sizes = dict(zip(mesh.mesh_dim_names or ("dp",), mesh.mesh.shape, strict=True))
    if others := [name for name, size in sizes.items() if name != "dp" and size != 1]:
        raise ValueError(f"a mesh has one dimension, 'dp', over which data are shared out; got {', '.join(others)} too")
    if sizes.get("dp", world.size) != world.size:
        raise ValueError(f"the mesh has {sizes['dp']} processes, and {world.size} were started")


def _check_window(accumulate: int, world: World) -> None:
    if accumulate & (accumulate - 1) or accumulate % world.size:
        raise ValueError(
            f"reduction='exact' shares out the micro-batches of an update: their number must be a power of two that "
            f"the number of processes divides; got accumulate={accumulate} and {world.size} processes. Give init_state "
            f"accumulate={max(8, 1 << (world.size - 1).bit_length())}, for example, with smaller batches; or take "
            "reduction='fast'"
        )
