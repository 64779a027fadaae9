"""BatchNorm with the statistics of the examples of all processes: what torch's nn.SyncBatchNorm is, on any device.

    mean = sum over processes of sum(x) / N        var = sum over processes of sum((x - mean)^2) / N

The sums stand within the forward pass, and sums of their gradients within the backward pass, and all processes go
through both together. torch's own module refuses CPUs, and what traces a step cannot look into its backward pass.
"""

from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from functrain.foundation.torch_internals import all_reduced


def synchronise(net: nn.Module) -> None:
    """Let each nn.SyncBatchNorm of a network, which is changed, run as this module says."""
    for module in net.modules():
        if isinstance(module, nn.SyncBatchNorm):
            vars(module)["forward"] = partial(_forward, module, module.forward)


class _SumOverProcesses(torch.autograd.Function):
    """A sum whose gradient is the sum of its gradients: each process's loss depends on it."""

    @staticmethod
    def forward(own: Tensor) -> Tensor:
        return all_reduced(own, dist.group.WORLD)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        """Nothing is kept."""

    @staticmethod
    def backward(_: Any, *grads: Tensor) -> Tensor:
        return all_reduced(grads[0].contiguous(), dist.group.WORLD)


def _forward(module: nn.SyncBatchNorm, alone: Any, inputs: Tensor) -> Tensor:
    of_batch = module.training or module.running_mean is None
    together = of_batch and dist.is_initialized() and dist.get_world_size() > 1
    if not together:
        result: Tensor = alone(inputs)
        return result
    dtype = torch.float64 if inputs.dtype == torch.float64 else torch.float32
    x, over = inputs.to(dtype), [0, *range(2, inputs.ndim)]
    count = x.new_full((1,), x.numel() // x.shape[1])
    sums = _SumOverProcesses.apply(torch.cat([x.sum(over), count]))
    total, shape = sums[-1].detach(), [1, -1] + [1] * (x.ndim - 2)
    mean = sums[:-1] / total
    centred = x - mean.view(shape)
    var = _SumOverProcesses.apply(centred.square().sum(over)) / total
    if module.training and module.track_running_stats:
        _track(module, mean.detach(), var.detach() * (total / (total - 1)))
    found = centred * (var + module.eps).rsqrt().view(shape)
    if module.affine:
        found = found * module.weight.view(shape) + module.bias.view(shape)
    return found.to(inputs.dtype)


@torch.no_grad()
def _track(module: nn.SyncBatchNorm, mean: Tensor, var: Tensor) -> None:
    """The running statistics after the batch, as torch moves them."""
    buffers: Any = module
    buffers.num_batches_tracked.add_(1)
    part: Any = module.momentum if module.momentum is not None else 1 / buffers.num_batches_tracked.to(mean.dtype)
    for running, new in ((buffers.running_mean, mean), (buffers.running_var, var)):
        running.copy_(running * (1 - part) + new.to(running.dtype) * part)
