"""Loaders of members of a stack, one for each."""

from collections.abc import Iterator, Sequence
from typing import Any


class LoaderOfEach:
    """A loader for each member of a stack; see `per_member`.

    Attributes:
        loaders: they.
    """

    def __init__(self, loaders: Sequence[Any]) -> None:
        self.loaders = tuple(loaders)

    def __len__(self) -> int:
        """How many there are."""
        return len(self.loaders)

    def __iter__(self) -> Iterator[Any]:
        raise TypeError("per_member(loaders) is for fit and its eval_loader, with a state from functrain.stack")


def per_member(loaders: Sequence[Any]) -> LoaderOfEach:
    """A loader for each member of a stack, such as one fold for each: `fit(stacked, per_member(loaders))`.

    Each gives the batches that it would give the member alone, so all must give equally many.

    Args:
        loaders: functrain's `Loader`, or a map-style `torch.utils.data.DataLoader`, for each member.

    Raises:
        ValueError: there is none.

    Example:
        >>> import functrain as ft, torch
        >>> data = torch.utils.data.TensorDataset(torch.randn(6, 2), torch.randn(6, 1))
        >>> folds = [torch.utils.data.Subset(data, fold.train.tolist()) for fold in ft.data.k_fold(6, 3, seed=0)]
        >>> loaders = [ft.data.Loader(fold, batch_size=2) for fold in folds]
        >>> member = ft.init_state(torch.nn.Linear(2, 1), ft.regression(), ft.optim.sgd(0.1))
        >>> result = ft.fit(
        ...     ft.stack([member] * 3), ft.data.per_member(loaders), epochs=1, compile=False, progress=False
        ... )
        >>> result.state.step
        2
    """
    loaders = list(loaders)
    if not loaders:
        raise ValueError("per_member takes a loader for each member; got none")
    return LoaderOfEach(loaders)
