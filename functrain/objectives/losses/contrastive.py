"""Losses that compare the examples of a batch with each other.

Such a loss has no value of a single example, so it does not add up by itself: over a window of micro-batches the
negatives are those of each micro-batch. The law that holds is that of groups: negatives come from an example's own
group only, so the sums over any parts that keep groups whole add up to the sum over all. A micro-batch without
`groups` is one group; k of them have the update of their concatenation with `groups` the micro-batch's number.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from functrain.metrics.weighted_sums import PerExample, one_each, wide


def info_nce(
    queries: Tensor,
    keys: Tensor,
    *,
    temperature: float | Tensor = 0.07,
    symmetric: bool = True,
    weight: Tensor | None = None,
    groups: Tensor | None = None,
) -> PerExample:
    """Cross-entropy of finding each query's own key among the keys of its group, by cosine similarity.

    `-log(exp(s_ii / temperature) / sum_j exp(s_ij / temperature))`; symmetric: the mean of this and of finding
    each key's query.

    Args:
        queries: floating `[B, D]`; row i belongs to row i of the keys.
        keys: floating `[B, D]`.
        temperature: greater than 0; a 0-d tensor to learn it.
        symmetric: look for queries by keys too, as CLIP does.
        weight: `[B]`; an example of weight 0 (padding) is nobody's negative. Else it changes nothing here.
        groups: int `[B]`; only examples of the same number are compared. Default: all.

    Returns:
        Values `[B]`, weights one.

    Raises:
        ValueError: for shapes that do not fit, or a temperature out of range.

    Example:
        >>> info_nce(torch.eye(2), torch.eye(2), temperature=1.0).values  # log(1 + 1 / e)
        tensor([0.3133, 0.3133])

    References:
        van den Oord et al. 2018, "Representation Learning with Contrastive Predictive Coding", equation 4;
        Radford et al. 2021, "Learning Transferable Visual Models From Natural Language Supervision", figure 3.
    """
    if queries.ndim != 2 or queries.shape != keys.shape:
        raise ValueError(
            f"info_nce takes queries and keys of one shape, [B, D]; got {list(queries.shape)} and {list(keys.shape)}"
        )
    if not isinstance(temperature, Tensor) and not 0.0 < temperature < float("inf"):
        raise ValueError(f"temperature must be greater than 0 and finite, got {temperature}")
    compared = _compared(queries, weight, groups)
    if weight is not None:
        counted = (weight != 0)[:, None]
        queries, keys = torch.where(counted, queries, 0.0), torch.where(counted, keys, 0.0)
    # A temperature multiplies the rounding of the products: half precision would leave one digit.
    with torch.autocast(queries.device.type, enabled=False):
        similarity = F.normalize(wide(queries), dim=1) @ F.normalize(wide(keys), dim=1).T / temperature
    own = similarity.diagonal()
    values = _log_sum(similarity, compared) - own
    if symmetric:
        values = (values + _log_sum(similarity.T, compared) - own) / 2
    return PerExample(values, torch.ones_like(values))


def _compared(queries: Tensor, weight: Tensor | None, groups: Tensor | None) -> Tensor:
    """bool `[B, B]`: whether column j takes part in row i's sum. One's own always does, so no sum is empty."""
    examples = len(queries)
    compared = torch.ones(examples, examples, dtype=torch.bool, device=queries.device)
    if groups is not None:
        if groups.shape != (examples,):
            raise ValueError(f"groups has one number for each example, [{examples}] here; got {list(groups.shape)}")
        compared = groups[:, None] == groups[None, :]
    if weight is not None:
        compared = compared & (one_each(weight, examples) != 0)[None, :]
    return compared | torch.eye(examples, dtype=torch.bool, device=queries.device)


def _log_sum(similarity: Tensor, compared: Tensor) -> Tensor:
    return similarity.masked_fill(~compared, float("-inf")).logsumexp(1)
