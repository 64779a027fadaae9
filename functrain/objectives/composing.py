"""A weighted sum of terms from plain values, as a configuration has them."""

from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from functrain.objectives.combined import TermWeight, weighted_sum
from functrain.objectives.supervised import Objective
from functrain.objectives.terms import Term, contrastive, l1_penalty, l2_penalty, term
from functrain.optim import schedules

# The key that says what a term is -> its other keys.
KINDS: Mapping[str, tuple[str, ...]] = {
    "loss": ("output", "target", "example_weight", "per_example", "options"),
    "contrastive": ("temperature", "symmetric", "groups"),
    "penalty": ("parameters",),
}
PENALTIES: Mapping[str, Callable[..., Term]] = {"l1": l1_penalty, "l2": l2_penalty}


def composed(terms: dict[str, Any]) -> Objective:
    """A sum of named terms with weights: losses of several outputs, contrast between outputs, penalties.

    | a term with | is | further keys |
    |---|---|---|
    | `loss` | a loss of an output against a target | `output`, `target`, `example_weight`, `per_example`, `options` |
    | `contrastive` | InfoNCE between two outputs | `temperature`, `symmetric`, `groups` |
    | `penalty` | "l1" or "l2" of parameters | `parameters`: a pattern of names, or several |

    These are the arguments of `term` (whose `weight` is called `example_weight`), `contrastive` and `l1_penalty`.

    | `weight` of a term | the term counts |
    |---|---|
    | a number, 1 by default | so much always; with 0 it is logged only |
    | `{value: 0.3, warmup_steps: 100}` | from 0 at the first update to `value` after 100 of them |
    | `{schedule: cosine, value: 0.3, total_steps: 1000}` | as the schedule says, which starts at `value` |
    | "learned" | as the model learns it, which is then wrapped in `LearnedWeights` |

    Args:
        terms: name -> a mapping of the keys above. The first term is the main one: its weight is the sum's, and
            reports are about its output.

    Raises:
        ValueError: for a term that is not one of these.
        TypeError: for a value of another type.

    Example:
        >>> objective = composed(
        ...     {
        ...         "class": {"loss": "cross_entropy", "output": "logits"},
        ...         "spectra": {"loss": "cross_entropy", "output": "aux_logits_spec", "weight": 0.3},
        ...         "decay": {
        ...             "penalty": "l2",
        ...             "parameters": "*.weight",
        ...             "weight": {"value": 1e-4, "warmup_steps": 100},
        ...         },
        ...     }
        ... )
        >>> objective.task
        'classification'
    """
    for name, given in terms.items():
        if not isinstance(given, Mapping):
            raise TypeError(f"term {name!r} is a mapping such as {{'loss': 'cross_entropy'}}; got {given!r}")
    weights = {name: _weight(name, given["weight"]) for name, given in terms.items() if "weight" in given}
    return weighted_sum({name: _term(name, given) for name, given in terms.items()}, weights)


def _term(name: str, given: Mapping[str, Any]) -> Term:
    kinds = [kind for kind in KINDS if kind in given]
    if len(kinds) != 1:
        found = " and ".join(kinds) or "none"
        raise ValueError(
            f"term {name!r} needs one of the keys {', '.join(KINDS)}, which say what it is; it has {found}"
        )
    (kind,) = kinds
    allowed = (kind, *KINDS[kind], "weight")
    if unknown := [key for key in given if key not in allowed]:
        near = get_close_matches(unknown[0], allowed, 1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"term {name!r}: there is no key {unknown[0]!r}; {hint}known: {', '.join(allowed)}")
    options = {key: value for key, value in given.items() if key not in (kind, "weight")}
    try:
        return _BUILD[kind](given[kind], options)
    except (ValueError, TypeError) as error:
        raise type(error)(f"term {name!r}: {error}") from error


def _loss(loss: Any, options: dict[str, Any]) -> Term:
    return term(loss, weight=options.pop("example_weight", None), **options)


def _contrastive(outputs: Any, options: dict[str, Any]) -> Term:
    if not isinstance(outputs, Sequence) or isinstance(outputs, str) or len(outputs) != 2:
        raise ValueError(f"contrastive names two outputs, such as [spec_projection, tab_projection]; got {outputs!r}")
    return contrastive(*outputs, **options)


def _penalty(kind: Any, options: dict[str, Any]) -> Term:
    if kind not in PENALTIES:
        raise ValueError(f"penalty must be one of {', '.join(PENALTIES)}; got {kind!r}")
    return PENALTIES[kind](options.get("parameters", "*"))


_BUILD: Mapping[str, Callable[[Any, dict[str, Any]], Term]] = {
    "loss": _loss,
    "contrastive": _contrastive,
    "penalty": _penalty,
}


def _weight(name: str, given: Any) -> TermWeight:
    if not isinstance(given, Mapping):
        return given  # a number or "learned": `weighted_sum` checks it
    options = dict(given)
    if "value" not in options:
        raise ValueError(
            f"the weight of {name!r} needs a value, such as {{value: 0.3, warmup_steps: 100}}; got {given!r}"
        )
    value, schedule = options.pop("value"), options.pop("schedule", "constant")
    if schedule not in schedules.REGISTRY:
        raise ValueError(
            f"the weight of {name!r}: there is no schedule {schedule!r}; known: {', '.join(schedules.REGISTRY)}"
        )
    steps = options.pop("warmup_steps", 0)
    try:
        return schedules.warmup(schedules.REGISTRY[schedule](value, **options), steps)
    except (ValueError, TypeError) as error:
        raise type(error)(f"the weight of {name!r}: {error}") from error
