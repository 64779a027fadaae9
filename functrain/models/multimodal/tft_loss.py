"""The loss of a multimodal classifier, for a plain loop; `functrain.weighted_sum` is the same as an objective.

It adds the cross-entropy of the fused logits, those of each modality's own logits, and the contrast between the two
embeddings of an example.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from functrain.metrics.weighted_sums import PerExample
from functrain.objectives.losses import cross_entropy, info_nce
from functrain.objectives.losses.labels import check_label_smoothing, class_numbers

LOGITS = {"main": "logits", "aux_spec": "aux_logits_spec", "aux_tab": "aux_logits_tab"}
PROJECTIONS = ("spec_projection", "tab_projection")
EMBEDDINGS = ("spec_embedding", "tab_embedding")
IGNORED = -100


class TFTLoss(nn.Module):
    """The weighted sum of a main loss, two auxiliary ones, and InfoNCE between the modalities; means over the batch.

    Args:
        main_weight: of the cross-entropy of "logits".
        aux_spec_weight: of the cross-entropy of "aux_logits_spec".
        aux_tab_weight: of the cross-entropy of "aux_logits_tab".
        contrastive_weight: of InfoNCE between the modalities: "spec_projection" and "tab_projection", or without these
            the two embeddings, which then need one width.
        temperature: of InfoNCE, greater than 0.
        label_smoothing: of the cross-entropies, 0 to 1.
        class_weights: one number for each class, of the cross-entropies.

    A term of weight 0 is left out, and its outputs need not be there.

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> import torch
        >>> outputs = dict.fromkeys(LOGITS.values(), torch.zeros(4, 2))
        >>> outputs |= {"spec_embedding": torch.eye(4), "tab_embedding": torch.eye(4)}
        >>> found = TFTLoss()(outputs, torch.tensor([0, 1, 0, 1]))
        >>> found["main_loss"], sorted(found)
        (tensor(0.6931), ['aux_spec_loss', 'aux_tab_loss', 'contrastive_loss', 'main_loss', 'total_loss'])
    """

    def __init__(
        self,
        main_weight: float = 1.0,
        aux_spec_weight: float = 0.3,
        aux_tab_weight: float = 0.3,
        contrastive_weight: float = 0.1,
        temperature: float = 0.07,
        *,
        label_smoothing: float = 0.0,
        class_weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.weights = {"main": main_weight, "aux_spec": aux_spec_weight, "aux_tab": aux_tab_weight}
        self.weights["contrastive"] = contrastive_weight
        for name, weight in self.weights.items():
            if not 0.0 <= weight < float("inf"):
                raise ValueError(f"{name}_weight must be 0 or more and finite, got {weight!r}")
        if not 0.0 < temperature < float("inf"):
            raise ValueError(f"temperature must be greater than 0 and finite, got {temperature!r}")
        check_label_smoothing(label_smoothing)
        self.temperature, self.label_smoothing = temperature, label_smoothing
        self.class_weights = None if class_weights is None else class_numbers(class_weights)

    def forward(self, outputs: Mapping[str, Any], labels: Tensor) -> dict[str, Tensor]:
        """The loss and its terms.

        Args:
            outputs: of a `TFTMultimodal` or an `AttentionMultimodal`.
            labels: int64 `[B]`, classes, or -100 for examples that do not count.

        Returns:
            "total_loss", and before they are weighed "main_loss", "aux_spec_loss", "aux_tab_loss" and
            "contrastive_loss", 0-d each.

        Raises:
            ValueError: for outputs that are missing.
        """
        found = {f"{name}_loss": self._term(name, outputs, labels) for name, weight in self.weights.items() if weight}
        weighted = [self.weights[name.removesuffix("_loss")] * value for name, value in found.items()]
        return {"total_loss": torch.stack(weighted).sum(), **found}

    def _term(self, name: str, outputs: Mapping[str, Any], labels: Tensor) -> Tensor:
        if name == "contrastive":
            pair = PROJECTIONS if PROJECTIONS[0] in outputs else EMBEDDINGS
            queries, keys = (_output(outputs, each) for each in pair)
            return _mean(info_nce(queries, keys, temperature=self.temperature, weight=(labels != IGNORED).to(queries)))
        smoothing, weights = self.label_smoothing, self.class_weights
        logits = _output(outputs, LOGITS[name])
        return _mean(cross_entropy(logits, labels, label_smoothing=smoothing, class_weights=weights))


def _mean(loss: PerExample) -> Tensor:
    total, weight = loss.sums()
    return total / weight


def _output(outputs: Mapping[str, Any], name: str) -> Tensor:
    found = outputs.get(name)
    if not isinstance(found, Tensor):
        raise ValueError(
            f"there is no output {name!r}; the outputs are {', '.join(outputs)}. A weight of 0 leaves its term out"
        )
    return found
