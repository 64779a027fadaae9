"""What a state is, in a few lines: for `repr`, where a tree of tensors would print all its numbers.

Nothing here reads a tensor's values: a state may be traced, stacked, on a device that is at work, or a tree of other
things, such as the shapes that a `tree_map` leaves in its place.
"""

import html
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import optree
from torch import Tensor

from functrain.foundation.trees import NAMESPACE

if TYPE_CHECKING:
    from functrain.step.state import TrainState


def facts_of(state: "TrainState") -> dict[str, str]:
    """What there is to say about a state, by name.

    Example:
        >>> import functrain as ft, torch
        >>> state = ft.init_state(torch.nn.Linear(2, 1), ft.regression(), ft.optim.adam(0.1))
        >>> facts_of(state)["parameters"], facts_of(state)["optimizer"]
        ('3', 'Adam')
    """
    recipe = state.recipe
    done = f"{state.epoch}" + (f", and {state.batch_idx} batches" if state.batch_idx else "")
    window = "" if recipe.accumulate == 1 else f", accumulate {recipe.accumulate}"
    members = {} if state.members is None else {"members": f"{len(state.members)}, {_training(state)}"}
    return {
        **members,
        "step": f"{state.step}{window}",
        "epochs": done,
        "samples": _grouped(state.samples_seen),
        "model": recipe.network.name,
        "parameters": _parameters(state),
        "optimizer": ", ".join(_optimizers(state.opt_state)) or "gradient descent",
        "precision": recipe.precision + (", with a moving average" if state.ema is not None else ""),
        "device": str(state.epoch_totals.device) if isinstance(state.epoch_totals, Tensor) else "unknown",
    }


def as_text(title: str, facts: Mapping[str, str]) -> str:
    """Facts in lines.

    Example:
        >>> print(as_text("TrainState", {"step": "3", "model": "Linear"}))
        TrainState
          step   3
          model  Linear
    """
    width = max(map(len, facts), default=0)
    return "\n".join([title, *(f"  {name:{width}}  {value}" for name, value in facts.items())])


def as_html(title: str, facts: Mapping[str, str]) -> str:
    """Facts in a small table, for notebooks.

    Example:
        >>> as_html("TrainState", {"step": "<3"})
        '<table><caption>TrainState</caption><tr><th>step</th><td>&lt;3</td></tr></table>'
    """
    rows = "".join(f"<tr><th>{html.escape(k)}</th><td>{html.escape(v)}</td></tr>" for k, v in facts.items())
    return f"<table><caption>{html.escape(title)}</caption>{rows}</table>"


def _training(state: "TrainState") -> str:
    assert state.members is not None
    train = sum(state.members.train())
    return "all training" if train == len(state.members) else f"{train} training"


def _parameters(state: "TrainState") -> str:
    counts = {name: leaf.numel() for name, leaf in state.params.items() if isinstance(leaf, Tensor)}
    frozen = sum(counts.get(name, 0) for name in state.recipe.network.frozen)
    return _grouped(sum(counts.values())) + (f", {_grouped(frozen)} of them frozen" if frozen else "")


def _optimizers(opt_state: Any) -> list[str]:
    """The kinds of states in an optimizer's, which are named after it."""
    name = type(opt_state).__name__
    own = [name.removesuffix("State")] if name.endswith("State") and name != "LearningRateState" else []
    if not optree.tree_is_leaf(opt_state, namespace=NAMESPACE):
        for child in optree.tree_flatten_one_level(opt_state, namespace=NAMESPACE)[0]:
            own += _optimizers(child)
    return list(dict.fromkeys(own))


def _grouped(number: Any) -> str:
    return f"{number:,}" if isinstance(number, int) else str(number)
