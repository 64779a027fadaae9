"""A module without its tensors: the model as a function of parameters and buffers.

The network keeps a skeleton of the user's module whose parameters and buffers lie on the meta
device (no storage). Real, traced or vmapped tensors are put in the places of a copy's for the time of one call,
as `torch.func.functional_call` does. Calls that run at the same time, in several threads, have a copy each.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from functrain.foundation.torch_internals import has_gradient_hook, is_eager, is_traced, own_buffers, own_parameters
from functrain.step.activations import Seen, watching
from functrain.step.module_errors import named_by_module
from functrain.step.modules import containers, convert_purely, deep_copy, put_back, refuse_growth, refuse_unregistered
from functrain.step.recomputation import blocks_of, checkpoint_blocks, named_patterns
from functrain.step.sliced_layers import SlicedLayer, slice_layers
from functrain.step.synchronised import synchronise

Place = tuple[Any, Any]  # the dict or list, and the key in it, where a module keeps a tensor


class _Harness:
    """A copy of the module that can hold given tensors.

    Where each tensor belongs is found out once: `functional_call` does so, ties included, at every call, which
    costs a small network a tenth of its eager step.
    """

    def __init__(self, net: nn.Module) -> None:
        self.net = net
        self._places = _places(net, own_parameters) | _places(net, own_buffers)

    @contextlib.contextmanager
    def holding(self, tensors: Mapping[str, Tensor]) -> Iterator[None]:
        """Within, the module has these tensors."""
        held = [(members, key, members[key]) for name in tensors for members, key in self._places[name]]
        try:
            self.put(tensors)
            yield
        finally:
            for members, key, own in held:
                members[key] = own

    def put(self, tensors: Mapping[str, Tensor]) -> None:
        """Put these tensors in their places."""
        for name, tensor in tensors.items():
            for members, key in self._places[name]:
                members[key] = tensor

    def now(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What the module has in the places of these tensors; of tied places, in the first."""
        found = {}
        for name, tensor in tensors.items():
            members, key = self._places[name][0]
            found[name] = members.get(key, tensor)
        return found


class _Copies:
    """Copies of a skeleton, one for each of the calls that run at the same time. A call after another takes the same.

    Taking one from a list, and giving it back, is one operation of Python's: threads need no lock.
    """

    def __init__(self, make: Callable[[], nn.Module]) -> None:
        self._make = make
        self.all: list[_Harness] = []
        self._free = [self._another()]

    def _another(self) -> _Harness:
        harness = _Harness(self._make())
        self.all.append(harness)
        return harness

    @contextlib.contextmanager
    def holding(self, tensors: Mapping[str, Tensor]) -> Iterator[_Harness]:
        """A copy that has these tensors, within the context."""
        try:
            harness = self._free.pop()
        except IndexError:
            harness = self._another()
        try:
            # What a model keeps for later while it is traced is a part of the graph, not a tensor.
            with put_back(harness.net) if is_traced() else contextlib.nullcontext(), harness.holding(tensors):
                yield harness
        finally:
            self._free.append(harness)


def _places(net: nn.Module, own: Callable[[nn.Module], dict[str, Any]]) -> dict[str, list[Place]]:
    """Name, as `named_parameters` or `named_buffers` gives it, -> all places of the tensor; of tied ones several."""
    names: dict[int, str] = {}
    places: dict[str, list[Place]] = {}
    for path, module in net.named_modules():
        members = own(module)
        for key, tensor in members.items():
            if tensor is not None:
                name = names.setdefault(id(tensor), f"{path}.{key}" if path else key)
                places.setdefault(name, []).append((members, key))
    for module in net.modules():
        for container, items in containers(module):
            for key, value in items:
                if isinstance(value, Tensor) and id(value) in names:
                    places[names[id(value)]].append((container, key))
    return places


class Network:
    """The functionalised model.

    Attributes:
        trainable: names of the parameters that are updated (`requires_grad=True` when given).
        frozen: names of the other parameters.
        plain: the network that this one is, but for blocks.
        calls_backward: the network calls `backward()` within its own backward pass, as `torch.utils.checkpoint` does
            with use_reentrant=True. Found out by running it.
    """

    def __init__(
        self,
        model: nn.Module,
        activation_checkpointing: str | Sequence[str] = (),
        sliced: Sequence[SlicedLayer] = (),
    ) -> None:
        skeleton = _skeleton(model)
        self._original = skeleton
        self._recomputed = named_patterns(activation_checkpointing)
        self.plain = self
        self._training = _Copies(partial(_to_train, skeleton, activation_checkpointing, sliced))
        self._evaluation = _Copies(partial(_to_evaluate, skeleton))
        parameters = dict(model.named_parameters())
        self.trainable = tuple(name for name, p in parameters.items() if p.requires_grad)
        self.frozen = tuple(name for name, p in parameters.items() if not p.requires_grad)
        self.name = type(model).__name__
        self.calls_backward = False

    def with_blocks(self, patterns: str | Sequence[str]) -> tuple["Network", frozenset[str]]:
        """A network whose blocks run again in the backward pass, for parameters that are there while a block runs.

        Returns:
            It, and the names of the parameters that no module but those in one block has.

        Raises:
            TypeError, ValueError: as of `blocks_of`.
        """
        blocks = blocks_of(self._original, patterns, "blocks")
        network = Network(self._original, [*self._recomputed, *blocks])
        network.plain = self.plain
        names: dict[int, str] = {}
        elsewhere: set[str] = set()
        for path, p in self._original.named_parameters(remove_duplicate=False):
            first = names.setdefault(id(p), path)
            block = next((each for each in blocks if first.startswith(f"{each}.")), None)
            if block is None or not path.startswith(f"{block}."):
                elsewhere.add(first)
        return network, frozenset(names.values()) - elsewhere

    def with_settings(self, settings: Mapping[str, Mapping[str, Any]]) -> "Network":
        """A network whose modules have other attributes: path -> name -> value."""
        model = deep_copy(self._original)
        for path, values in settings.items():
            vars(model.get_submodule(path)).update(values)
        return Network(model, self._recomputed)

    def with_slices(self, layers: Sequence[SlicedLayer]) -> "Network":
        """A network that runs these layers in slices, where its parameters are such."""
        network = Network(self._original, self._recomputed, layers)
        network.plain = self.plain
        return network

    def apply(
        self,
        objective: Callable[[nn.Module, Any], Any],
        params: Mapping[str, Tensor],
        buffers: Mapping[str, Tensor],
        batch: Any,
        *,
        training: bool,
        seen: Seen | None = None,
        until: contextlib.ExitStack | None = None,
    ) -> tuple[Any, dict[str, Tensor]]:
        """Run `objective(model, batch)` with these parameters and buffers; `seen` takes down what modules give out.

        Args:
            until: the model keeps these tensors until this stack is closed, for code that reads them in the backward
                pass (an `autograd.Function` of the model's, a hook, `torch.utils.checkpoint`); by default until the
                objective ends.

        Returns:
            The objective's result, and the buffers as the forward pass left them; `buffers` itself is
            not written to.
        """
        copies = self._training if training else self._evaluation
        own = {name: b.clone() for name, b in buffers.items()}
        with contextlib.ExitStack() as here:
            harness = (here if until is None else until).enter_context(copies.holding({**params, **own}))
            with contextlib.nullcontext() if seen is None else watching(harness.net, seen):
                result = _called(objective, harness.net, batch)
            after = harness.now(own)
            if not is_eager():
                refuse_growth(buffers, after)
            return result, after

    @contextlib.contextmanager
    def put_back(self) -> Iterator[None]:
        """Forget at the end what modules, while they run within, keep for later: counters, caches."""
        with contextlib.ExitStack() as stack:
            for harness in (*self._training.all, *self._evaluation.all):
                stack.enter_context(put_back(harness.net))
            yield

    def evaluate_each(
        self,
        objective: Callable[[nn.Module, Any], Any],
        params: Mapping[str, Tensor],
        buffers: Mapping[str, Tensor],
        batches: Iterable[Any],
    ) -> list[Any]:
        """The results of `apply` in evaluation mode, for batches one after another, and not within a trace."""
        results = []
        with self._evaluation.holding({**params, **buffers}) as harness:
            for batch in batches:
                # anew for each: a forward pass may write to buffers, or put other tensors in the places of both
                harness.put(params)
                harness.put({name: b.clone() for name, b in buffers.items()})
                results.append(_called(objective, harness.net, batch))
        return results

    def running(self) -> Iterator[tuple[str, nn.Module]]:
        """Path and module of those that steps run, in training and in evaluation."""
        for harness in (*self._training.all, *self._evaluation.all):
            yield from harness.net.named_modules()

    def given(self) -> Iterator[tuple[str, nn.Module]]:
        """Path and module as the model was given; no step runs these."""
        yield from self._original.named_modules()

    def module(self, params: Mapping[str, Tensor], buffers: Mapping[str, Tensor]) -> nn.Module:
        """An ordinary module with copies of these tensors; ties and `requires_grad` as in the original."""
        memo: dict[int, Any] = {}
        for name, p in self._original.named_parameters():
            memo[id(p)] = nn.Parameter(params[name].detach().clone(), requires_grad=p.requires_grad)
        for name, b in self._original.named_buffers():
            memo[id(b)] = buffers[name].detach().clone()
        return deep_copy(self._original, memo)


def _called(objective: Callable[[nn.Module, Any], Any], net: nn.Module, batch: Any) -> Any:
    try:
        return objective(net, batch)
    except (RuntimeError, IndexError, ValueError) as error:
        named = named_by_module(error, net)
        if named is error:
            raise
        raise named from error


def _skeleton(model: nn.Module) -> nn.Module:
    """A deep copy that holds no storage: every parameter and buffer is a meta tensor, ties kept."""
    refuse_unregistered(model)
    memo: dict[int, Any] = {}
    for name, p in model.named_parameters():
        _refuse_lazy("parameter", name, p)
        _refuse_hook(name, p)
        memo[id(p)] = nn.Parameter(torch.empty_like(p, device="meta"), requires_grad=p.requires_grad)
    for name, b in model.named_buffers():
        _refuse_lazy("buffer", name, b)
        memo[id(b)] = torch.empty_like(b, device="meta")
    try:
        return deep_copy(model, memo)
    except Exception as error:
        raise ValueError(
            f"the model ({type(model).__name__}) cannot be copied: {error}. A module attribute that is a "
            "computed tensor must be a buffer (register_buffer), or be made in forward; in place of "
            "torch.nn.utils.weight_norm there is torch.nn.utils.parametrizations.weight_norm"
        ) from error


def _to_train(
    skeleton: nn.Module, activation_checkpointing: str | Sequence[str], sliced: Sequence[SlicedLayer]
) -> nn.Module:
    net = deep_copy(skeleton)
    convert_purely(net)
    synchronise(net)
    slice_layers(net, sliced)
    checkpoint_blocks(net, activation_checkpointing)
    return net if net.training else net.train()


def _to_evaluate(skeleton: nn.Module) -> nn.Module:
    net = deep_copy(skeleton)
    convert_purely(net)
    return net.eval()


def _refuse_hook(name: str, parameter: Tensor) -> None:
    if has_gradient_hook(parameter):
        raise ValueError(
            f"parameter {name!r} has a hook on its gradient (register_hook), which a step would not call: it "
            "differentiates with respect to the state's tensors. Let the optimizer change gradients (optim.chain), or "
            "put a hook on a module (register_full_backward_hook)"
        )


def _refuse_lazy(kind: str, name: str, tensor: Tensor) -> None:
    if nn.parameter.is_lazy(tensor):
        raise ValueError(
            f"{kind} {name!r} has no shape yet (a lazy module); run one batch through the model before init_state"
        )
