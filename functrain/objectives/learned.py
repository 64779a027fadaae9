"""Weights of terms that are learned with the model."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


class LearnedWeights(nn.Module):
    """A model together with one log-variance s for each of several terms of its loss.

    `weighted_sum(terms, {"main": "learned", ...})` then minimises `exp(-s) L + s` for each of these terms: a term
    that stays large gets a small weight, and the `s` keeps all weights from falling to 0. At first s is 0, the
    weights 1. Called as the model itself; without the weights it is the attribute `model`.

    That is twice Gaussian log-likelihood with variance exp(s), the paper's equation 7 for a squared error; for a
    cross-entropy, equation 10 has `s / 2` where this has `s`. Leave `log_variances` out of weight decay, which would
    pull the weights to 1 (`optim.no_decay_1d` does).

    Attributes:
        model: what is wrapped.
        terms: names of the terms.
        log_variances: s of each, `[len(terms)]`.

    Example:
        >>> model = LearnedWeights(nn.Linear(2, 1), ("main", "auxiliary"))
        >>> [name for name, _ in model.named_parameters()]
        ['log_variances', 'model.weight', 'model.bias']

    References:
        Kendall, Gal and Cipolla 2018, "Multi-Task Learning Using Uncertainty to Weigh Losses".
    """

    def __init__(self, model: nn.Module, terms: Sequence[str]) -> None:
        super().__init__()
        if isinstance(terms, str) or not terms or len(set(terms)) < len(terms):
            raise ValueError(f"LearnedWeights takes the names of the terms, each once; got {terms!r}")
        like = next(iter(model.parameters()), torch.zeros(()))
        self.model = model
        self.terms = tuple(terms)
        self.log_variances = nn.Parameter(torch.zeros(len(self.terms), device=like.device))

    def forward(self, *inputs: Any, **named_inputs: Any) -> Any:
        """The model's outputs."""
        return self.model(*inputs, **named_inputs)

    def log_variance(self, term: str) -> Tensor:
        """s of a term, 0-d.

        Raises:
            ValueError: if there is no such term.

        Example:
            >>> LearnedWeights(nn.Linear(2, 1), ("main",)).log_variance("main").item()
            0.0
        """
        if term not in self.terms:
            raise ValueError(f"LearnedWeights has no term {term!r}; it was given {', '.join(self.terms)}")
        return self.log_variances[self.terms.index(term)]


def unwrapped(model: Any) -> Any:
    """The model without the learned weights, if it has any."""
    return model.model if isinstance(model, LearnedWeights) else model
