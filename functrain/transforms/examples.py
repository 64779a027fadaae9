"""The gradient of each example's own loss: `vmap` of `grad` over the rows of a batch.

References: the form is that of PyTorch's documentation, "Per-sample-gradients"; Rochette, Manoel and Tramel 2019,
"Efficient per-example gradient computations in convolutional neural networks", compares the ways to compute them.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from functrain.foundation.errors import FunctrainError
from functrain.foundation.trees import tree_map
from functrain.objectives.loss import Loss
from functrain.step.gradient import differentiate
from functrain.step.network import Network
from functrain.step.state import Params
from functrain.transforms.rows import Rows

LossOf = Callable[[Params, Any], Loss]  # trainable parameters and a batch -> its loss
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
_REASONS = ("vmap", "functorch", "setup_context", "saved tensor hooks", "batching rule")  # in torch's words


def each_gradient(
    loss_of: LossOf, params: Params, rows: Rows, *, chunk_size: int | None
) -> Iterator[tuple[Params, Any]]:
    """Gradients of the examples' summed losses, for one chunk of examples after another.

    Args:
        loss_of: the loss of a batch as a function of the trainable parameters.
        params: those parameters.
        rows: the examples.
        chunk_size: examples that are computed together; None: all. A chunk of one needs no `vmap`.

    Yields:
        For each chunk of c examples the gradients, name -> `[c, *shape]`, and the examples' sums: name of the metric
        -> (sum `[c]`, weight `[c]`), the loss first.
    """
    params = {name: p.detach() for name, p in params.items()}

    def of_one(params: Params, *tensors: Tensor) -> tuple[Tensor, dict[str, tuple[Tensor, Tensor]]]:
        loss = loss_of(params, rows.batch([tensor.unsqueeze(0) for tensor in tensors]))
        return loss.total.to(next(iter(params.values())).dtype), _sums(loss)

    size = rows.count if chunk_size is None else chunk_size
    with sdpa_kernel(SDPBackend.MATH):  # the others have no batching rule on a CPU
        for first in range(0, rows.count, size):
            tensors = [tensor[first : first + size] for tensor in rows.tensors]
            yield _single(of_one, params, tensors) if len(tensors[0]) == 1 else _together(of_one, params, tensors)


def _together(of_one: Callable[..., Any], params: Params, tensors: list[Tensor]) -> tuple[Params, Any]:
    gradient = torch.func.grad(of_one, has_aux=True)
    over = torch.func.vmap(gradient, in_dims=(None, *[0] * len(tensors)), randomness="different")
    grads, sums = over(params, *tensors)
    return grads, sums


def _single(of_one: Callable[..., Any], params: Params, tensors: list[Tensor]) -> tuple[Params, Any]:
    grads, _, sums = differentiate(lambda leaves: of_one(leaves, *[tensor[0] for tensor in tensors]), params)
    return tree_map(lambda leaf: leaf.unsqueeze(0), (grads, sums))


def _sums(loss: Loss) -> dict[str, tuple[Tensor, Tensor]]:
    def scalar(value: Any) -> Tensor:
        return torch.as_tensor(value, device=loss.total.device).detach()

    pairs = {name: v if isinstance(v, tuple) else (v, loss.weight) for name, v in loss.metrics.items()}
    pairs = {"loss": (loss.total, loss.weight), **pairs}
    return {name: (scalar(total), scalar(weight)) for name, (total, weight) in pairs.items()}


def norms_of(grads: Params) -> Tensor:
    """The norm of each example's gradient, all parameters as one vector: `[c]`.

    Example:
        >>> norms_of({"a": torch.tensor([[3.0], [0.0]]), "b": torch.tensor([4.0, 1.0])})
        tensor([5., 1.])
    """
    return torch.stack([grad.reshape(len(grad), -1).square().sum(1) for grad in grads.values()]).sum(0).sqrt()


def refuse_shared_statistics(network: Network) -> None:
    """Refuse a network in which one example's output depends on the others.

    Raises:
        FunctrainError: it has a BatchNorm that computes its statistics of the batch while it trains.
    """
    modules = dict(network.given())
    for name, module in modules.items():
        if isinstance(module, BATCH_NORMS) and (module.training or not modules[""].training):
            raise FunctrainError(
                f"{name or network.name!r} ({type(module).__name__}) normalises each example by its whole batch, so no "
                "example has a gradient of its own. Replace it by GroupNorm or LayerNorm, or put it in evaluation mode "
                "before init_state: module.eval() freezes its statistics"
            )


def explained(error: RuntimeError, network: Network) -> FunctrainError | None:
    """The error of a network that `vmap` cannot compute; None for other errors."""
    if not any(reason in str(error) for reason in _REASONS):
        return None
    return FunctrainError(
        f"{network.name} has code that torch.func.vmap cannot compute for several examples at once. Set chunk_size=1, "
        f"which computes one after another. torch said: {str(error).strip().splitlines()[0]}"
    )
