"""Low-rank adapters (LoRA): a trained network stays as it is, and small matrices beside its linear layers are trained.

With weight W `[out, in]`, A `[rank, in]` and B `[out, rank]` an adapted layer computes

    x W^T + bias + scale * (x A^T) B^T,     scale = alpha / rank

B begins as 0, so the adapted network begins with the outputs of the network that it adapts.
"""

import copy
import math
from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from functrain.foundation.patterns import did_you_mean, fits, listed

_DOWN, _UP, _SCALE = "lora_down", "lora_up", "lora_scale"


class LoRALinear(nn.Linear):
    """A linear layer with a low-rank adapter. `add_lora` makes it of an `nn.Linear`, whose names stay.

    Attributes:
        lora_down: A, `[rank, in_features]`.
        lora_up: B, `[out_features, rank]`.
        lora_scale: `alpha / rank`, a 0-d buffer, so that it is saved with the adapter.
    """

    lora_down: nn.Parameter
    lora_up: nn.Parameter
    lora_scale: Tensor

    def forward(self, input: Tensor) -> Tensor:
        """The layer's output and the adapter's.

        Args:
            input: floating `[..., in_features]`.

        Returns:
            Floating `[..., out_features]`.
        """
        added = nn.functional.linear(nn.functional.linear(input, self.lora_down), self.lora_up)
        return super().forward(input) + self.lora_scale * added


def add_lora(
    model: nn.Module,
    layers: str | Sequence[str] = "*",
    *,
    rank: int = 8,
    alpha: float = 16.0,
    trained: Sequence[str] = (),
) -> nn.Module:
    """A copy of a model with adapters beside its linear layers; nothing else of it is trained.

    Only modules that are exactly `nn.Linear` are adapted. A subclass may read its weight elsewhere, as
    `nn.MultiheadAttention` does with its output layer's, and would pass over an adapter. A (`lora_down`) is drawn from
    torch's global generator, as the parameters of every module are.

    Args:
        model: any trained module; not changed.
        layers: paths of linear layers, or patterns such as "blocks.*.mixed".
        rank: of the adapters.
        alpha: the adapters' outputs are multiplied by `alpha / rank`.
        trained: names or patterns of parameters that are trained as well, such as "head.*".

    Returns:
        The adapted copy, with the parameter names of `model` beside `lora_down` and `lora_up`.

    Raises:
        ValueError: for an argument out of range, a pattern that fits nothing, or a model that has adapters already.

    References:
        Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models", section 4.1.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
        >>> adapted = add_lora(model, rank=2, trained=["2.bias"])
        >>> [name for name, p in adapted.named_parameters() if p.requires_grad]
        ['0.lora_down', '0.lora_up', '2.bias', '2.lora_down', '2.lora_up']
        >>> images = torch.ones(5, 64)
        >>> torch.equal(adapted(images), model(images))
        True
    """
    if not isinstance(rank, int) or rank < 1:
        raise ValueError(f"rank must be a whole number of at least 1, got {rank!r}")
    if not 0.0 < alpha < math.inf:
        raise ValueError(f"alpha must be greater than 0 and finite, got {alpha!r}")
    adapted = _frozen_copy(model)
    linear = {path: module for path, module in adapted.named_modules() if type(module) is nn.Linear}
    parameters = dict(adapted.named_parameters())
    patterns = [layers] if isinstance(layers, str) else list(layers)
    _require_fits("layers", patterns, "linear layer", list(linear))
    _require_fits("trained", trained, "parameter", list(parameters))
    for path, layer in linear.items():
        if fits(path, patterns):
            _adapt(layer, rank, alpha / rank)
    for name, parameter in parameters.items():
        if fits(name, trained):
            parameter.requires_grad_(True)
    return adapted


def merge_lora(model: nn.Module) -> nn.Module:
    """A copy of an adapted model with each adapter added to its layer's weight: an ordinary module again.

    Its outputs are those of `model` up to rounding, and cost what they cost without adapters. All of its parameters
    are trainable. A weight that was tied to another one is no longer, since only one of the two has changed.

    Raises:
        ValueError: if the model has no adapter.

    Example:
        >>> adapted = add_lora(nn.Sequential(nn.Linear(4, 2)), rank=1)
        >>> merge_lora(adapted)
        Sequential(
          (0): Linear(in_features=4, out_features=2, bias=True)
        )
    """
    merged = copy.deepcopy(model)
    for layer in _adapted_layers(merged).values():
        weight = layer.weight + layer.lora_scale * (layer.lora_up @ layer.lora_down)
        for name in (_DOWN, _UP, _SCALE):
            delattr(layer, name)
        layer.__class__ = nn.Linear  # type: ignore[assignment]
        layer.weight = nn.Parameter(weight.detach())
    return merged.requires_grad_(True)


def lora_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """What an adapted model has beyond the network that it adapts: the trained parameters, and all buffers.

    The buffers are there because training changes those of BatchNorm.

    Args:
        model: made by `add_lora`, and trained (`functrain.to_module(state)`).

    Raises:
        ValueError: if the model has no adapter.

    Example:
        >>> sorted(lora_state_dict(add_lora(nn.Sequential(nn.Linear(4, 2)), rank=1)))
        ['0.lora_down', '0.lora_scale', '0.lora_up']
    """
    _adapted_layers(model)
    wanted = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    wanted |= {name for name, _ in model.named_buffers()}
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items() if name in wanted}


def load_lora(model: nn.Module, tensors: Mapping[str, Tensor]) -> nn.Module:
    """A copy of a model with the adapters, and whatever else was trained, of a `lora_state_dict`.

    The tensors say which layers have adapters, of which rank and scale.

    Args:
        model: the network that was adapted; not changed.
        tensors: name -> tensor, such as `functrain.checkpoint.read_safetensors` reads.

    Raises:
        ValueError: if the tensors do not fit the model, or hold no adapter.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 2))
        >>> adapted = load_lora(model, lora_state_dict(add_lora(model, rank=1)))
        >>> adapted[0].lora_down.shape
        torch.Size([1, 4])
    """
    adapted = _frozen_copy(model)
    linear = {path: module for path, module in adapted.named_modules() if type(module) is nn.Linear}
    ranks = {name.rpartition(".")[0]: len(tensor) for name, tensor in tensors.items() if name.endswith(_DOWN)}
    if not ranks:
        raise ValueError(f"there is no adapter among the tensors: none has a name that ends in {_DOWN!r}")
    for path, rank in ranks.items():
        if path not in linear:
            raise ValueError(
                f"the tensors adapt the layer {path!r}, and the model has no linear layer of this name; it has "
                f"{listed(list(linear)) or 'none'}"
            )
        _adapt(linear[path], rank, 1.0)
    own = adapted.state_dict()
    for name, tensor in tensors.items():
        if name not in own or own[name].shape != tensor.shape:
            expected = f"{list(own[name].shape)} in the model" if name in own else "not in the model"
            raise ValueError(f"{name!r} does not fit the model: {list(tensor.shape)} in the tensors, {expected}")
    adapted.load_state_dict(tensors, strict=False)
    for name, parameter in adapted.named_parameters():
        parameter.requires_grad_(name in tensors)
    return adapted


def _frozen_copy(model: nn.Module) -> nn.Module:
    if any(isinstance(module, LoRALinear) for module in model.modules()):
        raise ValueError("the model has adapters already; merge_lora(model) adds them to its weights")
    return copy.deepcopy(model).requires_grad_(False)


def _adapt(layer: nn.Linear, rank: int, scale: float) -> None:
    """Make a `LoRALinear` of a layer, in place: what refers to it, and the hooks that it has, stay."""
    weight = layer.weight
    down, up = weight.new_empty(rank, layer.in_features), weight.new_zeros(layer.out_features, rank)
    nn.init.kaiming_uniform_(down, a=math.sqrt(5))  # as the weights of nn.Linear
    layer.__class__ = LoRALinear
    layer.register_parameter(_DOWN, nn.Parameter(down))
    layer.register_parameter(_UP, nn.Parameter(up))
    layer.register_buffer(_SCALE, weight.new_tensor(scale))


def _adapted_layers(model: nn.Module) -> dict[str, LoRALinear]:
    found = {path: module for path, module in model.named_modules() if isinstance(module, LoRALinear)}
    if not found:
        raise ValueError("the model has no adapter; add_lora(model) makes a copy that has")
    return found


def _require_fits(argument: str, patterns: Sequence[str], kind: str, names: Sequence[str]) -> None:
    for pattern in patterns:
        if not any(fits(name, [pattern]) for name in names):
            raise ValueError(
                f"{argument}: the pattern {pattern!r} fits no {kind}{did_you_mean(pattern, names)} The {kind}s are "
                f"{listed(names) or 'none'}"
            )
