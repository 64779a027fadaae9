"""Parameters, gradients and loops that the tests of optimizers share."""

import contextlib
import inspect

import torch
from torch._subclasses import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

from functrain import optim
from functrain.foundation import trees

SHAPES = {"matrix": (5, 3), "wide": (2, 6), "bias": (7,), "scalar": (), "one": (1, 1, 1), "empty": (0, 4)}


def make_params(dtype=torch.float64, shapes=SHAPES, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator, dtype=dtype) for name, shape in shapes.items()}


def gradients(params, count):
    """Noise that depends on the step, and a pull that depends on the parameters."""
    generator = torch.Generator().manual_seed(count)
    return {
        name: torch.randn(leaf.shape, generator=generator, dtype=leaf.dtype) + 0.1 * leaf
        for name, leaf in params.items()
    }


def run(optimizer, params, steps):
    state = optimizer.init(params)
    for count in range(steps):
        updates, state = optimizer.update(gradients(params, count), state, params)
        params = optim.apply_updates(params, updates)
    return params, state


def run_torch(make, params, steps, make_scheduler=None):
    params = {name: leaf.clone().requires_grad_() for name, leaf in params.items()}
    with default_float64():
        reference = make(list(params.values()))
        scheduler = make_scheduler(reference) if make_scheduler else None
        for count in range(steps):
            for leaf, grad in zip(params.values(), gradients(params, count).values()):
                leaf.grad = grad.detach()
            reference.step()
            if scheduler:
                scheduler.step()
    return {name: leaf.detach() for name, leaf in params.items()}


def one_step(optimizer):
    def step(params, state, grads):
        updates, new_state = optimizer.update(grads, state, params)
        return optim.apply_updates(params, updates), new_state, optim.learning_rate(new_state)

    return step


def traced(fn, *args):
    """The graph of `fn` as a function of trees, made as functrain.compiler does: a read of a value fails."""
    leaves, spec = trees.flatten(args)
    specs = []

    def flat(*leaves):
        results, result_spec = trees.flatten(fn(*trees.unflatten(spec, leaves)))
        specs.append(result_spec)
        return results

    # make_fx's own mode has symbols for unknown values, with which `.item()` would pass.
    with torch.no_grad():
        mode = FakeTensorMode(allow_fallback_kernels=True, allow_non_fake_inputs=True)
        fakes = [mode.from_tensor(leaf) for leaf in leaves]
        graph = make_fx(flat, tracing_mode="fake", _allow_non_fake_inputs=True)(*fakes)
    return lambda *args: trees.unflatten(specs[-1], graph(*trees.leaves(args))), graph


@contextlib.contextmanager
def default_float64():
    """torch.optim keeps NAdam's product of momenta in the default dtype."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def accepts(name, parameter):
    return parameter in inspect.signature(optim.REGISTRY[name]).parameters
