"""What a model computes on the way to its outputs: embeddings and attention weights."""

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from functrain.data import as_stream, batch_length
from functrain.evaluation.explaining.explanation import Explained
from functrain.evaluation.prediction import targets_of
from functrain.foundation.containers import register_containers
from functrain.foundation.errors import DataError
from functrain.foundation.keys import fold_in
from functrain.foundation.trees import leaves_with_paths, tree_map
from functrain.objectives.outputs import at
from functrain.objectives.supervised import call
from functrain.step.state import TrainState, require_state

EMBEDDING, ATTENTION, GATES = "embedding", "attention_weights", "gates"


class Observed(NamedTuple):
    """What a model computes for some examples, on the CPU.

    Attributes:
        embedding: `[N, D]`; None: the model has no linear layer, and returns no output named "embedding".
        place: where the embedding was taken.
        targets: of the examples; None: the loader gives none.
        attention: attention weights by name, `[N, ..., K]`; none, if the model returns none.
        gates: values of gates by name, `[N, K]`, from 0 (closed) to 1 (open); likewise.
    """

    embedding: Tensor | None
    place: str
    targets: Any
    attention: dict[str, Tensor]
    gates: Mapping[str, Tensor] = MappingProxyType({})


@torch.no_grad()
def observe(
    state: TrainState,
    loader: Any,
    *,
    layer: str | None = None,
    attention: str = ATTENTION,
    gates: str = GATES,
    ema: bool = False,
) -> Observed:
    """The embeddings, attention weights and gates of all examples of a loader, in evaluation mode.

    Args:
        state: any state; not changed.
        loader: as for `predict`, without shuffling.
        layer: path of the module whose output is the embedding, such as "encoder.norm". None: the model's output named
            "embedding"; or else the input of the linear layer that is called last.
        attention: name of the model's output with the weights: a tensor `[B, ..., K]` whose last dimension sums to 1,
            or several in a tuple, list or mapping.
        gates: name of the model's output with gates: a tensor `[B, ...]` of numbers from 0 to 1, or several likewise.
        ema: use the averaged parameters.

    Raises:
        ValueError: if there is no such layer.
        DataError: if the loader gives no batch.

    Example:
        >>> import functrain as ft
        >>> net = torch.nn.Sequential(torch.nn.Linear(2, 5), torch.nn.ReLU(), torch.nn.Linear(5, 3))
        >>> state = ft.init_state(net, ft.classification(), ft.optim.sgd(0.1))
        >>> found = observe(state, [(torch.ones(4, 2), torch.zeros(4, dtype=torch.long))])
        >>> found.embedding.shape, found.place
        (torch.Size([4, 5]), 'input of layer 2')
    """
    require_state("observe", state)
    model = Explained(state, ema=ema, precision=None)
    stream = as_stream(loader, fold_in(state.key, "eval"), what="given")
    parts: list[tuple[Tensor | None, str, Any, dict[str, Tensor], dict[str, Tensor]]] = []
    try:
        for batch in stream.batches(0):
            outputs, embedding, place = model.run(_Observing(layer), model.inputs(batch))
            found = None if embedding is None else embedding.flatten(1).cpu()
            named = _named(outputs, attention), _named(outputs, gates)
            parts.append((found, place, targets_of(batch), *named))
    finally:
        stream.close()
    if not parts:
        raise DataError("there is nothing to observe: the loader gave no batch")
    embeddings, places, targets, weights, openings = zip(*parts)
    known = all(isinstance(each, Tensor) for each in targets)
    return Observed(
        None if embeddings[0] is None else torch.cat(embeddings),
        places[0],
        torch.cat(targets) if known else None,
        {name: torch.cat([each[name] for each in weights]) for name in weights[0]},
        {name: torch.cat([each[name].reshape(len(each[name]), -1) for each in openings]) for name in openings[0]},
    )


class _Observing:
    """Calls a model; gives its outputs, the embedding, and where that was taken."""

    def __init__(self, layer: str | None) -> None:
        self._layer = layer

    def __call__(self, model: nn.Module, inputs: Any) -> tuple[Any, Tensor | None, str]:
        modules = dict(model.named_modules())
        if self._layer is not None and self._layer not in modules:
            near = get_close_matches(self._layer, modules, 3) or list(modules)[1:4]
            others = f"it has {', '.join(near)}, ..." if near else "it has no parts; leave layer out"
            raise ValueError(f"the model has no layer {self._layer!r}; {others}")
        seen: list[tuple[Tensor, str]] = []
        handles = []
        for path, module in modules.items():
            if path == self._layer:
                handles.append(module.register_forward_hook(lambda _m, _i, out: seen.append((out, self._layer or ""))))
            elif self._layer is None and isinstance(module, nn.Linear):
                handles.append(
                    module.register_forward_pre_hook(
                        lambda _module, given, name=path: seen.append((given[0], f"input of layer {name}"))
                    )
                )
        try:
            outputs = call(model, inputs)
        finally:
            for handle in handles:
                handle.remove()
        register_containers(outputs)
        own = None if isinstance(outputs, Tensor) else at(outputs, EMBEDDING)
        if self._layer is None and isinstance(own, Tensor):
            return outputs, own, f"output {EMBEDDING!r}"
        if self._layer is not None and not (seen and isinstance(seen[-1][0], Tensor)):
            raise ValueError(f"the layer {self._layer!r} was not called, or gives no tensor")
        return outputs, *(seen[-1] if seen else (None, ""))


def _named(outputs: Any, name: str) -> dict[str, Tensor]:
    """The tensors of an output of a batch, by name, on the CPU."""
    found = None if isinstance(outputs, Tensor) else at(outputs, name)
    if isinstance(found, Tensor):
        return {name: found.cpu()}
    if not isinstance(found, (Mapping, tuple, list)):
        return {}
    return {f"{name} {path}": leaf.cpu() for path, leaf in leaves_with_paths(found) if isinstance(leaf, Tensor)}


def spread_examples(loader: Any, length: int, count: int) -> Iterator[Any]:
    """Batches of at most so many examples of a loader, at equal distances: data may be sorted by class.

    Args:
        loader: as for `predict`, without shuffling.
        length: examples of the loader.
        count: how many to take.

    Example:
        >>> [batch.tolist() for batch in spread_examples((each for each in torch.arange(10.0).split(4)), 10, 4)]
        [[0.0, 3.0], [6.0], [9.0]]
    """
    chosen = torch.linspace(0, length - 1, min(count, length), dtype=torch.float64).round().long().unique()
    stream, begin = as_stream(loader, 0, what="given"), 0
    try:
        for batch in stream.batches(0):
            rows = batch_length(batch)
            here = chosen[(chosen >= begin) & (chosen < begin + rows)] - begin
            begin += rows
            if len(here):
                yield tree_map(lambda leaf, at=here: leaf[at] if isinstance(leaf, Tensor) else leaf, batch)
    finally:
        stream.close()
