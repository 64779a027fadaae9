"""What turns raw inputs into those of a model, kept in the checkpoints of a run, so that it can be applied again."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader

from functrain.data.loader import Loader
from functrain.data.reading import owners_of


class Preprocessor(ABC):
    """What was fitted on the training split, or chosen for it: the attribute `preprocessor` of a data set.

    Checkpoints of `fit` hold what `to_json` gives, and `functrain predict` applies it to raw inputs.
    """

    classes: Sequence[str]  # the names of the classes that are predicted, in their order; empty: none are known

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """The value as JSON can hold it; "kind" says of which class it is."""

    def in_own_unit(self, scores: Tensor) -> Tensor:
        """Predictions in the unit of the raw targets, where these were scaled."""
        return scores


def class_names(loader: Any) -> tuple[str, ...]:
    """The names of the classes that a loader's data set predicts, in their order; empty if it does not know them.

    They are the `classes` of its preprocessor, or else of the data set itself, as torchvision's data sets have them.

    Args:
        loader: functrain's or torch's; others have no data set that is known.

    Example:
        >>> import torch
        >>> from functrain.data import Arrays
        >>> class_names(Loader(Arrays(torch.zeros(2)), 1))
        ()
    """
    if not isinstance(loader, (Loader, DataLoader)):
        return ()
    for owner in owners_of(loader.dataset):
        for source in (getattr(owner, "preprocessor", None), owner):
            names = getattr(source, "classes", None)
            if isinstance(names, (list, tuple)) and names and all(isinstance(name, str) for name in names):
                return tuple(names)
    return ()


def preprocessor_of(loader: Any) -> Mapping[str, Any]:
    """The preprocessor of a loader's data set as JSON; empty if there is none.

    Args:
        loader: functrain's or torch's; others have no data set that is known.

    Example:
        >>> import torch
        >>> from functrain.data import Arrays
        >>> preprocessor_of(Loader(Arrays(torch.zeros(2)), 1))
        {}
    """
    if not isinstance(loader, (Loader, DataLoader)):
        return {}
    found = (getattr(owner, "preprocessor", None) for owner in owners_of(loader.dataset))
    return next((each.to_json() for each in found if isinstance(each, Preprocessor)), {})
