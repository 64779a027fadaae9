"""Trees of tensors as a description in JSON and a list of tensors, so that no class is needed to read them back."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

Description = Any  # a value of JSON


def taken_apart(tree: Any, about: Callable[[Tensor], Any] = lambda _: True) -> tuple[Description, list[Tensor]]:
    """What a tree is made of: mappings with names as keys, sequences, None, and tensors.

    Args:
        tree: any other sequence than a list becomes a tuple, and any mapping a dictionary.
        about: what the description says about a tensor.

    Raises:
        TypeError: there is something else in it.

    Example:
        >>> import torch
        >>> description, leaves = taken_apart({"logits": torch.ones(2), "extra": (None,)})
        >>> description
        {'dict': {'logits': {'tensor': True}, 'extra': {'tuple': [None]}}}
        >>> put_together(description, leaves)
        {'logits': tensor([1., 1.]), 'extra': (None,)}
    """
    found: list[Tensor] = []

    def described(value: Any) -> Description:
        if isinstance(value, Tensor):
            found.append(value)
            return {"tensor": about(value)}
        if value is None:
            return None
        if isinstance(value, Mapping) and all(isinstance(name, str) for name in value):
            return {"dict": {name: described(part) for name, part in value.items()}}
        if isinstance(value, (tuple, list)):
            return {"list" if isinstance(value, list) else "tuple": [described(part) for part in value]}
        raise TypeError(f"a {type(value).__name__} is neither a tensor nor a container of tensors")

    return described(tree), found


def put_together(description: Description, leaves: Sequence[Any]) -> Any:
    """The tree of a description, with these leaves."""
    remaining = iter(leaves)

    def built(part: Description) -> Any:
        if part is None:
            return None
        ((kind, content),) = part.items()
        if kind == "tensor":
            return next(remaining)
        if kind == "dict":
            return {name: built(each) for name, each in content.items()}
        return (list if kind == "list" else tuple)(built(each) for each in content)

    return built(description)


def places(description: Description, path: str = "") -> list[tuple[str, Any]]:
    """Where each tensor is, and what the description says about it.

    Example:
        >>> places({"tuple": [{"tensor": "a"}, {"dict": {"mask": {"tensor": "b"}}}]})
        [('0', 'a'), ('1.mask', 'b')]
    """
    if description is None:
        return []
    ((kind, content),) = description.items()
    if kind == "tensor":
        return [(path, content)]
    parts = content.items() if kind == "dict" else enumerate(content)
    return [each for name, part in parts for each in places(part, f"{path}.{name}" if path else str(name))]
