"""Sums of named terms with weights, as one objective.

With T_i and W_i the sums of term i over the examples, R_j a penalty on the parameters, c the weights, s the learned
log-variances, and W the sum of weights of the first term:

    Loss.total  = sum_i c_i T_i + W (sum_j c_j R_j + sum of the s)
    Loss.weight = W

so what is minimised is `sum_i c_i T_i / W + sum_j c_j R_j + sum of the s`. All T_i and W are sums over examples, while
c, s and R are constant within an accumulation window: total and weight add up over micro-batches, and the update
of k micro-batches is that of their concatenation. The price is the one denominator: a term whose weights differ from
the first one's is taken per unit of the first one's weight (an auxiliary loss that half of the examples have counts
by half). Each term's metric is its own mean, T_i / W_i.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from functrain.foundation.numbers import is_number
from functrain.objectives.batch import unpack
from functrain.objectives.learned import LearnedWeights, unwrapped
from functrain.objectives.loss import Loss
from functrain.objectives.outputs import output_of
from functrain.objectives.supervised import ExampleMetric, Objective, call, example_metrics
from functrain.objectives.tasks import task_of_loss
from functrain.objectives.terms import LossTerm, Pass, Term

LEARNED = "learned"
TermWeight = float | str | Callable[[Any], Any]


def weighted_sum(
    terms: Mapping[str, Term],
    weights: Mapping[str, TermWeight] | None = None,
    *,
    metrics: Mapping[str, ExampleMetric] | None = None,
) -> Objective:
    """An objective that is a sum of named terms, from one forward pass.

    Args:
        terms: name -> a term of `objectives.terms`, or a function `Pass -> Loss` (sums over the examples) or
            `Pass -> 0-d tensor` (a value of the parameters). The first is the main one: its weight is the sum's.
        weights: name -> a number, default 1 (0: the term is logged only); a schedule, a function of the number of
            past updates such as `schedules.linear(0.0, 1000, end=0.5)`; or "learned", with a model wrapped in
            `LearnedWeights`.
        metrics: name -> `(outputs, targets) -> [B] values`, averaged over the examples.

    Returns:
        An objective with a metric for each term under its name, its own mean, and one `<name>_weight` for each
        weight that changes. If it has a schedule it must be called with the step, see `takes_step`.

    Raises:
        TypeError: if a term is no function, or a weight of no known kind.
        ValueError: for no terms, a name that is taken, a weight of a term that does not exist or that is not finite.

    Example:
        >>> import torch
        >>> from functrain.objectives.terms import l2_penalty, term
        >>> objective = weighted_sum({"error": term("squared_error"), "l2": l2_penalty("weight")}, {"l2": 0.5})
        >>> model = torch.nn.Linear(1, 1, bias=False)
        >>> loss = objective(model, (torch.zeros(4, 1), torch.ones(4, 1)))
        >>> bool(loss.total / loss.weight == 1 + 0.5 * model.weight.square().sum())
        True
        >>> sorted(loss.metrics)
        ['error', 'l2']

    References:
        Learned weights: Kendall, Gal and Cipolla 2018, "Multi-Task Learning Using Uncertainty to Weigh Losses".
    """
    given = dict(weights or {})
    _check(terms, given, metrics or {})
    chosen = tuple((name, term, given.get(name, 1.0)) for name, term in terms.items())
    return _WeightedSum(chosen, tuple((metrics or {}).items()))


@dataclass(frozen=True)
class _WeightedSum:
    terms: tuple[tuple[str, Term, TermWeight], ...]
    metrics: tuple[tuple[str, ExampleMetric], ...]
    takes_weight = True

    @property
    def takes_step(self) -> bool:
        """Whether a weight is a schedule, so that the number of past updates must be given."""
        return any(callable(weight) for _, _, weight in self.terms)

    # Reports, metrics and explanations are about what the main term compares.

    @property
    def _main(self) -> LossTerm | None:
        first = self.terms[0][1]
        return first if isinstance(first, LossTerm) else None

    @property
    def task(self) -> str | None:
        """What the main term is for."""
        return None if self._main is None else task_of_loss(self._main.loss.fn)

    @property
    def output(self) -> str | int | None:
        """Which of the outputs it looks at."""
        return None if self._main is None else self._main.output

    @property
    def ignore_index(self) -> int:
        """The label that it does not count."""
        return -100 if self._main is None else dict(self._main.loss.options).get("ignore_index", -100)

    def compared(self, outputs: Any, targets: Any) -> tuple[Any, Any]:
        """The output and the target that it compares."""
        if self._main is None:
            return output_of(outputs, None, "logits"), targets
        return self._main.compared(outputs, targets)

    def __call__(self, model: Any, batch: Any, step: Tensor | int | None = None) -> Loss:
        inputs, targets, weight = unpack(batch)
        seen = Pass(unwrapped(model), inputs, call(model, inputs), targets, weight)
        results = {name: term(seen) for name, term, _ in self.terms}
        unit = _unit(self.terms[0][0], results)
        total, sums = unit.new_zeros((), dtype=torch.promote_types(unit.dtype, torch.float32)), _Names()
        for name, _, kind in self.terms:
            loss = _over_examples(name, results[name], unit)
            sums.add({name: (loss.total, loss.weight), **_pairs(loss)})
            if isinstance(kind, (int, float)):
                total = total + kind * loss.total if kind else total
                continue
            factor, offset = _changing(name, kind, model, step)
            total = total + factor.to(total.dtype) * loss.total + offset * unit
            sums.add({f"{name}_weight": (factor * unit, unit)})
        sums.add(example_metrics(self.metrics, seen.outputs, targets, weight))
        return Loss(total, unit, sums.sums)


def learned_terms(objective: Objective) -> tuple[str, ...]:
    """The terms of an objective whose weights are learned, so that its model must be a `LearnedWeights` with these.

    Example:
        >>> from functrain.objectives.terms import term
        >>> learned_terms(weighted_sum({"error": term("huber"), "other": term("huber")}, {"other": "learned"}))
        ('other',)
    """
    if not isinstance(objective, _WeightedSum):
        return ()
    return tuple(name for name, _, weight in objective.terms if weight == LEARNED)


class _Names:
    """Metric sums under names that are each given once."""

    def __init__(self) -> None:
        self.sums: dict[str, Any] = {}

    def add(self, sums: Mapping[str, Any]) -> None:
        if taken := self.sums.keys() & sums.keys():
            raise ValueError(
                f"two metrics of a weighted_sum have the name {', '.join(sorted(taken))}; give the term another"
            )
        self.sums.update(sums)


def _unit(name: str, results: Mapping[str, Loss | Tensor]) -> Tensor:
    """The sum's weight, that of the first term; without gradient, whatever it was made of."""
    main = results[name]
    if not isinstance(main, Loss):
        raise ValueError(
            f"the first term of a weighted_sum gives its weight and must be a loss over examples, but {name!r} "
            f"returned {type(main).__name__}; put a loss first"
        )
    return torch.as_tensor(main.weight, device=main.total.device).detach()


def _over_examples(name: str, result: Loss | Tensor, unit: Tensor) -> Loss:
    """A term as sums; a value of the parameters is the same for each unit of weight."""
    if isinstance(result, Loss):
        return result
    if not isinstance(result, Tensor) or result.ndim:
        given = f"a tensor {list(result.shape)}" if isinstance(result, Tensor) else type(result).__name__
        raise TypeError(f"a term returns a Loss, or a 0-d tensor that belongs to no example; {name!r} returned {given}")
    return Loss(result * unit, unit)


def _pairs(loss: Loss) -> dict[str, Any]:
    return {name: sums if isinstance(sums, tuple) else (sums, loss.weight) for name, sums in loss.metrics.items()}


def _changing(name: str, kind: Any, model: Any, step: Tensor | int | None) -> tuple[Tensor, Tensor | float]:
    """A weight that changes, and what is added to the mean beside its term."""
    if kind == LEARNED:
        if not isinstance(model, LearnedWeights):
            raise TypeError(
                f"the weight of {name!r} is learned, so the model must be a LearnedWeights(model, terms), which holds "
                f"it; got {type(model).__name__}"
            )
        log_variance = model.log_variance(name)
        return (-log_variance).exp(), log_variance
    if step is None:
        raise ValueError(
            f"the weight of {name!r} is a schedule, so the objective must be called with the number of past updates: "
            "objective(model, batch, step=...)"
        )
    return torch.as_tensor(kind(step)), 0.0


def _check(terms: Mapping[str, Any], weights: Mapping[str, Any], metrics: Mapping[str, Any]) -> None:
    if not terms:
        raise ValueError("a weighted_sum needs a term; got none")
    if unknown := weights.keys() - terms.keys():
        raise ValueError(f"there is no term {', '.join(sorted(unknown))} to weigh; the terms are {', '.join(terms)}")
    if "loss" in {*terms, *metrics}:
        raise ValueError("'loss' is the name of the whole sum; give the term or metric another name")
    for name, term in terms.items():
        if not callable(term):
            raise TypeError(f"term {name!r} must be a function Pass -> Loss, such as term('huber'); got {term!r}")
    for name, weight in weights.items():
        number = is_number(weight)
        if not number and weight != LEARNED and (isinstance(weight, str) or not callable(weight)):
            raise TypeError(f"the weight of {name!r} must be a number, a schedule or {LEARNED!r}; got {weight!r}")
        if number and not math.isfinite(weight):
            raise ValueError(f"the weight of {name!r} must be finite, got {weight}")
