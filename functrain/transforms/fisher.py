"""The diagonal of the Fisher information, from gradients of single examples.

    F = mean over examples of E_y [ (d log p(y | x) / d params)^2 ]

with y drawn from the model's own distribution; with the data's labels in its place it is the "empirical" Fisher, which
is another matrix: see Kunstner, Balles and Hennig 2019, "Limitations of the empirical Fisher approximation".
"""

from collections.abc import Mapping
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor

from functrain.compiler import runner_for
from functrain.foundation.dtypes import cast_floating
from functrain.foundation.keys import fold_in, root_key
from functrain.foundation.numbers import is_integer
from functrain.objectives.batch import has_labels, replaced, unpack
from functrain.objectives.judged import CHOICES
from functrain.objectives.supervised import call
from functrain.objectives.tasks import compared_by, ignored_by, task_of
from functrain.step.execution import Core
from functrain.step.objective import precision
from functrain.step.state import Params, TrainState, require_state
from functrain.transforms.batches import Batches
from functrain.transforms.per_sample import chunks_of, gradient_part, run_over_examples
from functrain.transforms.vectors import trainable_params

LABELS = ("data", "model")


def fisher_diagonal(
    state: TrainState,
    loader: Any,
    *,
    labels: str = "model",
    draws: int = 1,
    seed: int = 0,
    chunk_size: int | None = None,
    compile: bool = False,
) -> Params:
    """The diagonal of the Fisher information over a loader, the model in evaluation mode.

    It says how sensitive the model's predictions are to each parameter: elastic weight consolidation and pruning use
    it.

    Args:
        state: any state; not changed.
        loader: as for `fit`; its first pass is read once.
        labels: "model": drawn from the model's own predictions, for classification, segmentation and language models;
            "data": those of the data, for any loss (the empirical Fisher).
        draws: labels for each example, with `labels="model"`.
        seed: of the draws.
        chunk_size, compile: as of `per_sample_gradients`, and whether to compile it first.

    Returns:
        Name -> tensor like each trainable parameter: the mean of squared gradients over the examples of weight > 0.

    Raises:
        ValueError: an argument is out of range, or `labels="model"` with another task.
        DataError: the loader gives no batch.

    References:
        Amari 1998, "Natural Gradient Works Efficiently in Learning"; Kirkpatrick et al. 2017, "Overcoming catastrophic
        forgetting in neural networks", equation 3.

    Example:
        >>> import functrain as ft
        >>> state = ft.init_state(torch.nn.Linear(2, 3), ft.classification(), ft.optim.sgd(0.1))
        >>> found = fisher_diagonal(state, [(torch.ones(4, 2), torch.zeros(4, dtype=torch.int64))])
        >>> found["weight"].shape
        torch.Size([3, 2])
    """
    require_state("fisher_diagonal", state)
    _check(state, labels, draws)
    core = _squares(chunk_size, labels == "model", draws)
    part, run = gradient_part(state), runner_for(compile)
    total: Params = {name: torch.zeros_like(p) for name, p in trainable_params(state).items()}
    counts = []
    for number, batch in enumerate(Batches(state, loader)):
        key = partial(fold_in, root_key(seed), "fisher", number)
        squares, count = run_over_examples(core, part, batch, key, run)
        total = {name: total[name] + squares[name] for name in total}
        counts.append(count)
    divisor = torch.stack(counts).sum().clamp(min=1) * (draws if labels == "model" else 1)
    return {name: leaf / divisor.to(leaf.dtype) for name, leaf in total.items()}


@lru_cache(maxsize=64)
def _squares(chunk_size: int | None, drawn: bool, draws: int) -> Core:
    fn = partial(_sum_of_squares, chunk_size=chunk_size, draws=draws if drawn else None)
    return Core(fn, "fisher", carries_state=False)


def _sum_of_squares(
    state: TrainState, batch: Any, *, chunk_size: int | None, draws: int | None
) -> tuple[Params, Tensor]:
    """The sum of the squared gradients of all examples and draws, and the number of examples that count."""
    batch = cast_floating(batch, state.recipe.param_dtype)
    batches = [batch] if draws is None else [drawn_batch(state, batch) for _ in range(draws)]
    total: Params = {}
    for each in batches:
        count: list[Tensor] = []
        for grads, sums in chunks_of(state, each, chunk_size, training=False):
            count.append((sums["loss"][1] > 0).sum())
            for name, grad in grads.items():
                squared = grad.square().sum(0)
                total[name] = total[name] + squared if name in total else squared
    return total, torch.stack(count).sum()


def drawn_batch(state: TrainState, batch: Any) -> Any:
    """The batch with labels drawn from the model's predictions; labels that the objective ignores stay."""
    inputs, targets, _ = unpack(batch)
    objective = state.recipe.objective
    with torch.no_grad(), precision(state):
        outputs, _ = state.recipe.network.apply(call, state.params, state.buffers, inputs, training=False)
    logits, own = compared_by(objective, outputs, targets)
    logits = logits.detach().to(torch.float32 if logits.dtype.itemsize < 4 else logits.dtype)
    if task_of(objective) == "binary_classification":
        drawn = torch.bernoulli(logits.sigmoid()).view(targets.shape).to(targets.dtype)
        return _with_targets(batch, drawn)
    rows = logits.movedim(1, -1)
    drawn = torch.multinomial(rows.softmax(-1).reshape(-1, rows.shape[-1]), 1).view(rows.shape[:-1])
    if own.shape != drawn.shape or own.is_floating_point():  # soft targets
        return _with_targets(batch, drawn)
    return _with_targets(batch, torch.where(own == ignored_by(objective), own, drawn.to(own.dtype)))


def _with_targets(batch: Any, targets: Tensor) -> Any:
    if isinstance(batch, Mapping):
        return replaced(batch, "labels" if has_labels(batch) else "targets", targets)
    return (batch[0], targets, *batch[2:])


def _check(state: TrainState, labels: str, draws: int) -> None:
    if labels not in LABELS:
        raise ValueError(f"labels must be one of {', '.join(LABELS)}; got {labels!r}")
    if not is_integer(draws, 1):
        raise ValueError(f"draws must be a whole number of labels, 1 or more; got {draws!r}")
    allowed = (*CHOICES, "binary_classification")
    task = task_of(state.recipe.objective)
    if labels == "model" and task not in allowed:
        raise ValueError(
            f"labels='model' draws labels of {', '.join(allowed)}; the objective's task is {task!r}. Take labels='data'"
        )
