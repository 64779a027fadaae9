"""The optimizers users name: each an equation and a short chain of parts. Imports foundation only.

Names and defaults of the arguments are torch.optim's, and so are the results. In the equations p is a
parameter, g its gradient, t = 1, 2, ... the number of the update. In every optimizer

* `lr` is a number or a schedule (`optim.schedules`),
* `maximize` climbs instead of descending,
* `weight_decay_mask` says which parameters decay (`optim.masked`), `optim.no_decay_1d` for one.
"""

from collections.abc import Callable, Mapping

from functrain.optim.base import Optimizer, chain, identity
from functrain.optim.checks import require_non_negative
from functrain.optim.masks import Mask, masked
from functrain.optim.schedules import Schedule
from functrain.optim.transforms import (
    add_decayed_weights,
    scale,
    scale_by_adam,
    scale_by_learning_rate,
    scale_by_lion,
    trace,
)


def sgd(
    lr: float | Schedule = 1e-3,
    momentum: float = 0.0,
    dampening: float = 0.0,
    weight_decay: float = 0.0,
    nesterov: bool = False,
    *,
    maximize: bool = False,
    weight_decay_mask: Mask | None = None,
) -> Optimizer:
    """Stochastic gradient descent: `g += weight_decay p;  b = momentum b + (1 - dampening) g;  p -= lr b`.

    The first `b` is `g`; with `nesterov` the step is `lr (g + momentum b)`. Equal to torch.optim.SGD.

    Args:
        lr: learning rate, number >= 0 or schedule.
        momentum: decay of the momentum buffer, >= 0; 0 keeps no buffer.
        dampening: share of each gradient but the first that stays out of the buffer.
        weight_decay: L2 coefficient, >= 0.
        nesterov: Nesterov's momentum; needs momentum > 0 and no dampening.
        maximize: ascend.
        weight_decay_mask: which parameters decay; all by default.

    Returns:
        The optimizer.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: an argument is out of range.

    References:
        Sutskever et al., On the importance of initialization and momentum in deep learning, ICML 2013.

    Example:
        >>> import torch
        >>> params = {"w": torch.tensor(1.0)}
        >>> optimizer = sgd(0.1, momentum=0.9)
        >>> optimizer.update({"w": torch.tensor(2.0)}, optimizer.init(params), params)[0]
        {'w': tensor(-0.2000)}
    """
    require_non_negative("momentum", momentum)
    require_non_negative("dampening", dampening)
    if nesterov and (momentum == 0 or dampening != 0):
        raise ValueError(
            f"nesterov=True needs momentum > 0 and dampening = 0, got momentum={momentum!r} and dampening={dampening!r}"
        )
    return chain(
        _ascend_if(maximize),
        _weight_decay(weight_decay, weight_decay_mask),
        trace(momentum, dampening, nesterov) if momentum else identity(),
        scale_by_learning_rate(lr),
    )


def adam(
    lr: float | Schedule = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    *,
    maximize: bool = False,
    weight_decay_mask: Mask | None = None,
) -> Optimizer:
    """Adam, with L2 regularisation inside the gradient.

        g += weight_decay p
        m = beta1 m + (1 - beta1) g;  v = beta2 v + (1 - beta2) g²
        p -= lr (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)

    Equal to torch.optim.Adam without amsgrad.

    Args:
        lr: learning rate, number >= 0 or schedule.
        betas: decays of the first and second moment, each in [0, 1).
        eps: added to the denominator, >= 0.
        weight_decay: L2 coefficient, >= 0.
        maximize: ascend.
        weight_decay_mask: which parameters decay; all by default.

    Returns:
        The optimizer.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: an argument is out of range.

    References:
        Kingma & Ba, Adam: A Method for Stochastic Optimization, ICLR 2015, algorithm 1.

    Example:
        >>> import torch
        >>> params = {"w": torch.tensor(1.0)}
        >>> optimizer = adam(0.1)
        >>> optimizer.update({"w": torch.tensor(2.0)}, optimizer.init(params), params)[0]
        {'w': tensor(-0.1000)}
    """
    return chain(
        _ascend_if(maximize),
        _weight_decay(weight_decay, weight_decay_mask),
        scale_by_adam(betas, eps),
        scale_by_learning_rate(lr),
    )


def adamw(
    lr: float | Schedule = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 1e-2,
    *,
    maximize: bool = False,
    weight_decay_mask: Mask | None = None,
) -> Optimizer:
    """Adam with decoupled weight decay.

        m = beta1 m + (1 - beta1) g;  v = beta2 v + (1 - beta2) g²
        p -= lr ((m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps) + weight_decay p)

    Equal to torch.optim.AdamW without amsgrad.

    Args:
        lr: learning rate, number >= 0 or schedule.
        betas: decays of the first and second moment, each in [0, 1).
        eps: added to the denominator, >= 0.
        weight_decay: decay coefficient, >= 0; an update takes `lr * weight_decay` of a parameter.
        maximize: ascend; the decay still shrinks.
        weight_decay_mask: which parameters decay; all by default.

    Returns:
        The optimizer.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: an argument is out of range.

    References:
        Loshchilov & Hutter, Decoupled Weight Decay Regularization, ICLR 2019, algorithm 2.

    Example:
        >>> import torch
        >>> params = {"w": torch.tensor(1.0)}
        >>> optimizer = adamw(0.1, weight_decay=0.5)
        >>> optimizer.update({"w": torch.tensor(2.0)}, optimizer.init(params), params)[0]
        {'w': tensor(-0.1500)}
    """
    return chain(
        _ascend_if(maximize),
        scale_by_adam(betas, eps),
        _weight_decay(weight_decay, weight_decay_mask),
        scale_by_learning_rate(lr),
    )


def lion(
    lr: float | Schedule = 1e-4,
    betas: tuple[float, float] = (0.9, 0.99),
    weight_decay: float = 0.0,
    *,
    maximize: bool = False,
    weight_decay_mask: Mask | None = None,
) -> Optimizer:
    """Lion: the sign of a momentum, with decoupled weight decay and half of Adam's state.

        c = beta1 m + (1 - beta1) g;  m = beta2 m + (1 - beta2) g
        p -= lr (sign(c) + weight_decay p)

    Args:
        lr: learning rate, number >= 0 or schedule; the authors advise 3 to 10 times less than for AdamW.
        betas: weight of the momentum in the step, and its decay, each in [0, 1).
        weight_decay: decay coefficient, >= 0; 3 to 10 times AdamW's, so that `lr * weight_decay` is the same.
        maximize: ascend; the decay still shrinks.
        weight_decay_mask: which parameters decay; all by default.

    Returns:
        The optimizer.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: an argument is out of range.

    References:
        Chen et al., Symbolic Discovery of Optimization Algorithms, NeurIPS 2023, algorithm 2.

    Example:
        >>> import torch
        >>> params = {"w": torch.tensor(1.0)}
        >>> optimizer = lion(0.1)
        >>> optimizer.update({"w": torch.tensor(2.0)}, optimizer.init(params), params)[0]
        {'w': tensor(-0.1000)}
    """
    return chain(
        _ascend_if(maximize),
        scale_by_lion(betas),
        _weight_decay(weight_decay, weight_decay_mask),
        scale_by_learning_rate(lr),
    )


def _ascend_if(maximize: bool) -> Optimizer:
    return scale(-1.0) if maximize else identity()


def _weight_decay(weight_decay: float, mask: Mask | None) -> Optimizer:
    """The decay, where the mask says so; a decay of 0 costs nothing."""
    decay = add_decayed_weights(weight_decay)  # before the test for 0, for it refuses bad values
    if weight_decay == 0:
        return identity()
    return decay if mask is None else masked(decay, mask)


# What a configuration can name; the contract tests run over it.
REGISTRY: Mapping[str, Callable[..., Optimizer]] = {
    "sgd": sgd,
    "adam": adam,
    "adamw": adamw,
    "lion": lion,
}
