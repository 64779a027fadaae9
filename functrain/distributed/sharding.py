"""A state that several processes train together, each of which keeps a part of it: `shard` and `unshard`."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from functrain.distributed.elementwise import draws_at_random, is_elementwise
from functrain.distributed.layout import Layout, cut_of
from functrain.distributed.mesh import Mesh, Sizes, mesh_of, sizes_of
from functrain.distributed.offloading import Offloaded, moved
from functrain.distributed.replicas import replicate
from functrain.distributed.shards import Sharding
from functrain.distributed.slices import layers_of, sliced_network, slicing
from functrain.distributed.tensor_parallel import TensorParallel
from functrain.distributed.world import current_world
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
    tensor_parallel: Mapping[str, str] | None = None,
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
        mesh: how the processes are arranged: their number, `{"dp": n}`, `{"dp_replicate": n, "dp_shard": m}`, or a
            torch DeviceMesh with such names. Of n x m processes, each m neighbours keep the shards of one state, and
            n have each shard (hybrid sharding): messages of parameters stay among the m. By default all share one.
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
        tensor_parallel: which linear layers the `tp` processes of a mesh share, pattern of module paths -> "column"
            (each has some of the outputs), "row" (some of the inputs), or "column:3" (a column layer of three parts,
            such as queries, keys and values in one): `functrain.models.TENSOR_PARALLEL`, for example. These processes
            need the same micro-batches.

    Returns:
        The state to train: with `fit`, or with `train_step` on this process's micro-batches.

    Raises:
        TypeError: for anything but a state.
        ValueError: for a strategy or a reduction that does not exist, or that this state or world does not allow.

    References:
        Rajbhandari et al., ZeRO: Memory optimizations toward training trillion parameter models, SC 2020.
        Ren et al., ZeRO-Offload: Democratizing billion-scale model training, USENIX ATC 2021.
        Shoeybi et al., Megatron-LM: Training multi-billion parameter language models using model parallelism, 2019.

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
    sizes = sizes_of(mesh, world)
    _check(state, sizes, strategy, reduction)
    _check_offload(offload_optimizer)
    if sizes.tp > 1:
        _check_tensor_parallel(sizes, tensor_parallel, offload_optimizer, blocks)
    if named_patterns(blocks, "blocks") and strategy != "zero3":
        raise ValueError(f"blocks are gathered from the shards of zero3; got blocks with strategy={strategy!r}")
    if state.recipe.exchange is not None:
        state = unshard(state)
    layers = layers_of(state.recipe.network, tensor_parallel or {}, sizes.tp)
    state = replicate(state, world)
    trainable = {name: state.params[name] for name in state.recipe.network.trainable}
    # A draw in a graph that begins with a pass is of this process, and an update must be that of all.
    in_graph = strategy == "ddp" and reduction == "fast" and not draws_at_random(state.recipe.optimizer, trainable)
    if in_graph and state.recipe.accumulate == 1 and offload_optimizer is None and sizes.tp == 1:
        return state  # whose sums stand within the step's graph; they would be sent for each micro-batch of a window
    arranged = mesh_of(sizes if strategy != "ddp" else Sizes(1, sizes.dp, sizes.tp), world)
    by_element = is_elementwise(state.recipe.optimizer, trainable)
    network = state.recipe.network
    exchange: Exchange
    if sizes.tp > 1:
        network = sliced_network(network, layers, arranged.tensor)
        cuts = slicing(state, layers, arranged.tensor)
        sharding = _sharding(cuts.own(state), arranged, strategy, reduction, by_element=by_element)
        exchange = TensorParallel(sharding, arranged.tensor, cuts, by_element)
    else:
        in_blocks = None
        if named_patterns(blocks, "blocks"):
            network, in_blocks = network.with_blocks(blocks)
        sharding = _sharding(state, arranged, strategy, reduction, by_element=by_element, blocks=in_blocks)
        exchange = dataclasses.replace(sharding, in_graph=in_graph)
    if offload_optimizer is not None:
        exchange = Offloaded(exchange, state.device)
    whole = state.replace(
        recipe=dataclasses.replace(state.recipe, network=network, exchange=exchange, collectives=ALONE)
    )
    return exchange.kept(whole)


def _sharding(
    state: TrainState,
    mesh: Mesh,
    strategy: str,
    reduction: str,
    *,
    by_element: bool,
    blocks: frozenset[str] | None = None,
) -> Sharding:
    """How a state, whole or of slices, is kept in shards."""
    in_tree, ranks = reduction == "exact", mesh.shards.size
    pieces = state.recipe.accumulate if in_tree else ranks
    layout = Layout.of(
        state, chunks=pieces, ranks=ranks, cuts_params=strategy == "zero3", cuts_updates=strategy != "ddp"
    )
    names = state.recipe.network.trainable
    chunks = tuple((name, cut_of(state.params[name], pieces, ranks)) for name in names)
    return Sharding(mesh, strategy, in_tree, layout, chunks, by_element or not layout.is_cut, blocks=blocks)


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


def _check(state: TrainState, sizes: Sizes, strategy: str, reduction: str) -> None:
    """Refuse what `shard` cannot do."""
    for name, value, allowed in (("strategy", strategy, STRATEGIES), ("reduction", reduction, REDUCTIONS)):
        if value not in allowed:
            raise ValueError(f"{name} must be one of {', '.join(allowed)}; got {value!r}")
    if strategy == "ddp" and 1 < sizes.dp_shard < sizes.dp:
        raise ValueError(
            f"dp_shard={sizes.dp_shard} processes share the shards of a state, and strategy='ddp' keeps no shards: "
            "choose zero1, zero2 or zero3, or a mesh of dp alone"
        )
    recipe = state.recipe
    if recipe.statistics is not None or recipe.activations:
        raise ValueError(
            "statistics of layers are those of one process: make the state without statistics and activations, or "
            "train it without functrain.shard"
        )
    check_whole_batches(state.opt_state, "a state that several processes train")
    if reduction == "exact":
        _check_window(recipe.accumulate, sizes.dp)
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


def _check_tensor_parallel(
    sizes: Sizes, plan: Mapping[str, str] | None, offload_optimizer: str | None, blocks: str | Sequence[str]
) -> None:
    """Refuse what processes that share layers cannot do."""
    if not plan:
        raise ValueError(
            f"a mesh with tp={sizes.tp} needs a plan of the layers that these processes share: give "
            'tensor_parallel={"pattern of paths": "column" or "row"}, such as functrain.models.TENSOR_PARALLEL'
        )
    if offload_optimizer is not None or named_patterns(blocks, "blocks"):
        raise ValueError(
            "tensor parallelism goes with the optimizer on the device, and without blocks: leave out "
            f"{'offload_optimizer' if offload_optimizer else 'blocks'}, or tp"
        )


def _check_window(accumulate: int, ranks: int) -> None:
    if accumulate & (accumulate - 1) or accumulate % ranks:
        raise ValueError(
            f"reduction='exact' shares out the micro-batches of an update: their number must be a power of two that "
            f"the number of processes divides; got accumulate={accumulate} and {ranks} processes. Give init_state "
            f"accumulate={max(8, 1 << (ranks - 1).bit_length())}, for example, with smaller batches; or take "
            "reduction='fast'"
        )
