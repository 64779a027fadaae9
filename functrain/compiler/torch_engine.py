"""The engine of torch's public functions alone: `torch.compile(fullgraph=True)` around a core.

It is slower than functrain's own at each call, since Dynamo's guards come before it, and keeps no program for the next
start. It is there for releases of torch whose internals have moved.
"""

import itertools
import types
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from functrain.compiler.draws import KeptDraws
from functrain.compiler.flat import FlatCore
from functrain.compiler.patches.write_order import avoided
from functrain.compiler.refusals import ValueNeededError, chooses, refused
from functrain.compiler.request import Made, Request
from functrain.compiler.session import run_model
from functrain.foundation.keys import torch_seed
from functrain.foundation.summation import repeatable_sums
from functrain.foundation.torch_internals import is_eager

_numbers = itertools.count()


def make(request: Request) -> Made:
    """Compile a core, by running it once on copies of its inputs.

    Raises:
        TracingError: naming the line that depends on a tensor's value.
    """
    core, device = request.core, request.device
    flat = FlatCore(core, request.state, request.batch, donate=request.donate)
    if request.on_compile is not None:
        request.on_compile(core.name)
    drew: list[bool] = []
    failed: list[Exception] = []  # as they are: Dynamo wraps them

    def kept(tensors: list[Tensor]) -> list[Tensor]:
        if is_eager():  # the backend "eager" runs this function as it is, at each call
            drew.append(True)
            return flat(tensors)
        # The generators move while tracing; a run draws from those that the runner has seeded.
        try:
            with torch_seed(0, device), _KeptDrawsWithoutValues(core.name) as draws:
                results = run_model(lambda: flat(tensors))
        except Exception as error:
            failed.append(error)
            raise
        drew.append(draws.any)
        return results

    compiled = _compiled(kept, request)

    def run(tensors: list[Tensor]) -> list[Tensor]:
        with torch.no_grad(), repeatable_sums(device):
            return compiled(tensors)

    try:
        with torch_seed(request.key(), device):
            run([tensor.clone() for tensor in request.inputs])
    except Exception as error:
        if not failed:
            raise
        raise (refused(core.name, failed[-1]) or failed[-1]) from error
    assert flat.out is not None
    return Made(run, flat.out, any(drew), "torch.compile")


class _KeptDrawsWithoutValues(KeptDraws):
    """Refuses operations whose result or its size depends on values: Dynamo would have symbols for them."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if torch.Tag.data_dependent_output in func.tags or chooses(func, args):
            raise ValueNeededError(str(func))
        return super().__torch_dispatch__(func, types, args, kwargs)


def _compiled(fn: Callable[[list[Tensor]], list[Tensor]], request: Request) -> Callable[[list[Tensor]], list[Tensor]]:
    in_graph = torch.compiler.allow_in_graph(fn)

    def call(tensors: list[Tensor]) -> list[Tensor]:
        return in_graph(tensors)

    # Dynamo keeps a few programs for each code object, and compiles no more; so each core has one of its own.
    code = call.__code__.replace(co_name=f"{request.core.name}_{next(_numbers)}")
    own = types.FunctionType(code, call.__globals__, code.co_name, None, call.__closure__)
    how: dict[str, Any] = {"options": _options(request.device)} if request.backend == "inductor" else {}
    return torch.compile(own, fullgraph=True, dynamic=False, backend=request.backend, **how)


def _options(device: torch.device) -> dict[str, Any]:
    """Inductor's: on a CPU the draws of the step without compiling, and nothing that gives wrong programs."""
    return {"fallback_random": device.type == "cpu", **avoided(device)}
