"""Counts the shapes of batches that a step is compiled for: warns of many, and bounds how many programs are kept."""

import warnings
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

FROM = 3
"""The number of shapes at which a warning says that each one is a compilation."""

LIMIT = 64
"""The number of programs that a step keeps for batches that differ in nothing but their shapes."""


class ShapeWarning(UserWarning):
    """A step is compiled again and again, for batches of other shapes."""


@dataclass
class Shapes:
    """The shapes of batches that programs were made for, by step and by all else that a program is compiled for."""

    _seen: dict[Any, set[str]] = field(default_factory=dict)

    def add(self, name: str, kind: Any, leaves: list[Any]) -> Any:
        """Take down the shapes of a batch that a program is made for, and warn of the third.

        Args:
            name: of the core.
            kind: what the program is compiled for besides the batch's shapes.
            leaves: the batch's.

        Returns:
            What programs for such batches have in common: all but the shapes.
        """
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        group = (name, kind, *((t.dtype, t.ndim, t.device) for t in tensors))
        seen = self._seen.setdefault(group, set())
        before = len(seen)
        seen.add(", ".join(str(list(t.shape)) for t in tensors))
        if before < len(seen) == FROM:
            warnings.warn(
                f"the {name} step is compiled for a third shape of the batch ({'; '.join(sorted(seen))}). Each new "
                "shape is a new compilation, which may take half a minute. Round lengths up to a few with pad_to "
                "(functrain.data.Loader or PaddedCollate), or run without compiling (compile=False; in a config "
                "compile: false)",
                ShapeWarning,
                stacklevel=2,
            )
        return group
