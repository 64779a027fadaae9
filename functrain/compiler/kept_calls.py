"""Keeps calls that have no traceable form as one operation of a graph, which torch's own kernel executes.

A recurrent network on a CPU is such a call: its fused kernel cannot be traced. Its steps one by one are a graph that
takes minutes to compile (40 steps of an LSTM: 238 s). `ctc_loss` reads its lengths on the host. The operation's
gradient calls torch again, with a graph for autograd.
"""

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from functrain.foundation.torch_internals import inside_transform

_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "lstm": torch.lstm,
    "gru": torch.gru,
    "rnn_tanh": torch.rnn_tanh,
    "rnn_relu": torch.rnn_relu,
    "ctc_loss": F.ctc_loss,
}

_library = torch.library.Library("functrain", "DEF")
_library.define("kept_call(str name, Tensor[] tensors, str others) -> Tensor[]")
_library.define("kept_call_backward(str name, Tensor[] tensors, str others, Tensor[] grads) -> Tensor[]")


class KeptCalls(TorchFunctionMode):
    """Within, these calls are kept, and embeddings have dense gradients: a graph has no sparse tensors."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call `func`, or what takes its place."""
        kwargs = kwargs or {}
        instead = _INSTEAD.get(func)
        return func(*args, **kwargs) if instead is None or inside_transform() else instead(func, *args, **kwargs)


def _recurrent(func: Any, *args: Any) -> Any:
    """A recurrent network, layer by layer: dropout between them is drawn in the graph."""
    if isinstance(args[3], (list, tuple)):  # packed sequences: how many there are is a value of a tensor
        return func(*args)
    name = str(func.__name__)
    x, state, params, biases, layers, dropout, train, both_ways, batch_first = args
    state = list(state) if name == "lstm" else [state]
    directions = 2 if both_ways else 1
    per_layer = len(params) // layers
    ends: list[list[Tensor]] = []
    for layer in range(layers):
        if layer and dropout and train:
            x = torch.dropout(x, dropout, train)
        begins = [part[layer * directions : (layer + 1) * directions] for part in state]
        own = list(params[layer * per_layer : (layer + 1) * per_layer])
        begin = begins if name == "lstm" else begins[0]
        x, *end = _keep(name, x, begin, own, biases, 1, 0.0, train, both_ways, batch_first)
        ends.append(end)
    return (x, *(torch.cat(parts) if layers > 1 else parts[0] for parts in zip(*ends)))


def _ctc_loss(
    _func: Any,
    log_probs: Tensor,
    targets: Tensor,
    input_lengths: Any,
    target_lengths: Any,
    blank: int = 0,
    reduction: str = "mean",
    zero_infinity: bool = False,
) -> Tensor:
    """CTC losses of each sequence, whose mean or sum is taken in the graph."""
    lengths = [x if isinstance(x, Tensor) else list(x) for x in (input_lengths, target_lengths)]
    (losses,) = _keep("ctc_loss", log_probs, targets, *lengths, blank, "none", zero_infinity)
    if reduction == "none":
        return losses
    if reduction == "sum":
        return losses.sum()
    return (losses / torch.as_tensor(target_lengths, device=losses.device).clamp(min=1).to(losses.dtype)).mean()


def _dense_gradient(func: Any, *args: Any, **kwargs: Any) -> Any:
    """An embedding, the gradient of whose table is dense."""
    at = _SPARSE_ARGUMENT[func]
    if len(args) > at:
        args = (*args[:at], False, *args[at + 1 :])
    else:
        kwargs["sparse"] = False
    return func(*args, **kwargs)


def _dropout(func: Any, x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Dropout, of the same bits. torch's asks whether `x` has elements, which is not known of `x[mask]`."""
    if not training or not 0 < p < 1 or all(isinstance(size, int) for size in x.shape):
        return func(x, p, training, inplace)
    noise = torch.empty_like(x).bernoulli_(1 - p).div_(1 - p)
    return x.mul_(noise) if inplace else x * noise


_SPARSE_ARGUMENT: dict[Any, int] = {F.embedding: 6, torch.embedding: 4, F.embedding_bag: 7, torch.embedding_bag: 5}
_INSTEAD: dict[Any, Callable[..., Any]] = {
    torch.lstm: _recurrent,
    torch.gru: _recurrent,
    torch.rnn_tanh: _recurrent,
    torch.rnn_relu: _recurrent,
    F.ctc_loss: _ctc_loss,
    F.dropout: _dropout,
    **dict.fromkeys(_SPARSE_ARGUMENT, _dense_gradient),
}


def _keep(name: str, *args: Any) -> list[Tensor]:
    """The results of a kept call."""
    tensors: list[Tensor] = []
    others = json.dumps([_without_tensors(arg, tensors) for arg in args])
    device = tensors[0].device.type
    if torch.is_autocast_enabled(device):  # which knows no operation of ours
        dtype = torch.float32 if name == "ctc_loss" else torch.get_autocast_dtype(device)
        tensors = [t.to(dtype) if t.is_floating_point() else t for t in tensors]
    return list(_Kept.apply(name, others, *tensors))


class _Kept(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, name: str, others: str, *tensors: Tensor) -> Any:
        """The call, as an operation."""
        ctx.call = name, others
        ctx.save_for_backward(*tensors)
        return tuple(torch.ops.functrain.kept_call(name, list(tensors), others))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        """The gradient, as another."""
        name, others = ctx.call
        tensors = ctx.saved_tensors
        found = iter(torch.ops.functrain.kept_call_backward(name, list(tensors), others, list(grads)))
        return (None, None, *(next(found) if t.is_floating_point() else None for t in tensors))


def _call(name: str, tensors: Sequence[Tensor], others: str) -> list[Tensor]:
    with torch.no_grad():
        return _separate(_results(name, tensors, others), tensors)


def _call_backward(name: str, tensors: Sequence[Tensor], others: str, grads: Sequence[Tensor]) -> list[Tensor]:
    with _autograd():
        leaves = [t.detach().requires_grad_(t.is_floating_point()) for t in tensors]
        results = _results(name, leaves, others)
        wanted = [t for t in leaves if t.requires_grad]
        given = torch.autograd.grad(results, wanted, list(grads), allow_unused=True, materialize_grads=True)
    return _separate(list(given), [*tensors, *grads])


@contextlib.contextmanager
def _autograd() -> Iterator[None]:
    """Autograd within an operation, whose caller may have left it out of the dispatch."""
    include, exclude = torch._C._dispatch_tls_local_include_set(), torch._C._dispatch_tls_local_exclude_set()
    key = torch._C.DispatchKey
    for kind in (key.AutogradCPU, key.AutogradCUDA, key.AutogradOther, key.ADInplaceOrView):
        exclude = exclude.remove(kind)
    with torch._C._ForceDispatchKeyGuard(include, exclude), torch.enable_grad():
        yield


def _results(name: str, tensors: Sequence[Tensor], others: str) -> list[Tensor]:
    rest = iter(tensors)
    results = _FUNCTIONS[name](*(_with_tensors(arg, rest) for arg in json.loads(others)))
    return list(results) if isinstance(results, tuple) else [results]


def _separate(results: list[Tensor], known: Sequence[Tensor]) -> list[Tensor]:
    """The results, contiguous, each in memory of its own, as a graph's memory plan expects them."""
    seen = {t.untyped_storage().data_ptr() for t in known}
    for number, result in enumerate(results):
        contiguous = result.detach().contiguous()
        if contiguous.untyped_storage().data_ptr() in seen:
            contiguous = contiguous.clone()
        seen.add(contiguous.untyped_storage().data_ptr())
        results[number] = contiguous
    return results


def _call_shapes(name: str, tensors: Sequence[Tensor], others: str) -> list[Tensor]:
    first = tensors[0]
    if name == "ctc_loss":
        return [first.new_empty(() if first.ndim == 2 else first.shape[1])]
    both_ways = json.loads(others)[-2]
    state = list(tensors[1 : 3 if name == "lstm" else 2])
    width = state[0].shape[-1] * (2 if both_ways else 1)
    return [first.new_empty((*first.shape[:-1], width)), *(first.new_empty(part.shape) for part in state)]


def _call_backward_shapes(_name: str, tensors: Sequence[Tensor], *_rest: Any) -> list[Tensor]:
    return [t.new_empty(t.shape) for t in tensors if t.is_floating_point()]


for _operation, _run, _shapes in (
    ("kept_call", _call, _call_shapes),
    ("kept_call_backward", _call_backward, _call_backward_shapes),
):
    _library.impl(_operation, _run, "CompositeExplicitAutograd")
    torch.library.register_fake(f"functrain::{_operation}", _shapes, lib=_library)


def _without_tensors(value: Any, tensors: list[Tensor]) -> Any:
    """A value as JSON has it; its tensors go to a list, in order."""
    if isinstance(value, Tensor):
        tensors.append(value)
        return {}
    return [_without_tensors(part, tensors) for part in value] if isinstance(value, (list, tuple)) else value


def _with_tensors(value: Any, tensors: Any) -> Any:
    if isinstance(value, dict):
        return next(tensors)
    return [_with_tensors(part, tensors) for part in value] if isinstance(value, list) else value
