"""Adam and AdamW."""

import torch

from functrain.foundation import trees
from functrain.foundation.making import remembered
from functrain.foundation.trees import Tree, node
from functrain.optim.base import Optimizer, chain, zero_count, zeros_like
from functrain.optim.checks import require_betas, require_non_negative, unless_schedule
from functrain.optim.foreach import Scalar, aligned_leaves, average_squares, divide_into, foreach, lerp, overwrite
from functrain.optim.masks import Mask
from functrain.optim.parts import ascend_if, decoupled_decay_if, weight_decay_if
from functrain.optim.rates import descend
from functrain.optim.schedules import Hyperparameter, value_at


@node
class AdamState:
    """State of `scale_by_adam`."""

    count: torch.Tensor  # updates so far, int64 []
    exp_avg: Tree  # first moment, as params
    exp_avg_sq: Tree  # second moment, as params
    max_exp_avg_sq: Tree  # its largest value so far, as params; () without amsgrad


@remembered
def scale_by_adam(
    betas: tuple[Hyperparameter, Hyperparameter] = (0.9, 0.999), eps: Hyperparameter = 1e-8, amsgrad: bool = False
) -> Optimizer:
    """Divide the bias-corrected mean of the gradients by the root of their bias-corrected mean square.

    Args:
        betas: decays of the two means, each in [0, 1) or a schedule.
        eps: added to the root, >= 0 or schedule.
        amsgrad: divide by the root of the largest mean square so far.

    References:
        Kingma & Ba, Adam: A Method for Stochastic Optimization, ICLR 2015, algorithm 1; Reddi et al., On the
        Convergence of Adam and Beyond, ICLR 2018, algorithm 2 (amsgrad).

    Example:
        >>> adam, params = scale_by_adam(), {"w": torch.tensor(0.0)}
        >>> adam.update({"w": torch.tensor(-7.0)}, adam.init(params), params)[0]
        {'w': tensor(-1.0000)}
    """
    require_betas(betas)
    unless_schedule(require_non_negative, eps=eps)

    def init(params: Tree) -> AdamState:
        largest = zeros_like(params) if amsgrad else ()
        return AdamState(zero_count(params), zeros_like(params), zeros_like(params), largest)

    def update(updates: Tree, state: AdamState, _params: Tree) -> tuple[Tree, AdamState]:
        spec, (grads, means, squares) = aligned_leaves(
            updates=updates, exp_avg=state.exp_avg, exp_avg_sq=state.exp_avg_sq
        )
        beta1, beta2 = (value_at(beta, state.count) for beta in betas)
        count = state.count + 1
        means = lerp(means, grads, 1 - beta1)
        squares = average_squares(squares, grads, beta2)
        largest, divisors = state.max_exp_avg_sq, squares
        if amsgrad:
            divisors = foreach("maximum", trees.leaves(largest), squares)
            largest = trees.unflatten(spec, divisors)
        # (sqrt(v) / root + eps) correction, both in the denominator, whose memory is written again; in two passes.
        correction, root = bias_correction(beta1, count), bias_correction(beta2, count).sqrt()
        denominators = overwrite("mul", foreach("sqrt", divisors), correction / root)
        denominators = overwrite("add", denominators, value_at(eps, state.count) * correction)
        directions = divide_into(denominators, means)
        new_state = AdamState(count, trees.unflatten(spec, means), trees.unflatten(spec, squares), largest)
        return trees.unflatten(spec, directions), new_state

    return Optimizer(init, update)


def bias_correction(beta: Scalar, count: torch.Tensor) -> torch.Tensor:
    """`1 - beta^count`, the weight that an average which began at zero has gathered.

    In float64: in float32, `1 - 0.999` would be off by 5e-5 of its value.

    Example:
        >>> bias_correction(0.5, torch.tensor(2))
        tensor(0.7500, dtype=torch.float64)
    """
    return 1 - beta ** count.double()


@remembered
def adam(
    lr: Hyperparameter = 1e-3,
    betas: tuple[Hyperparameter, Hyperparameter] = (0.9, 0.999),
    eps: Hyperparameter = 1e-8,
    weight_decay: Hyperparameter = 0.0,
    amsgrad: bool = False,
    *,
    maximize: bool = False,
    decoupled_weight_decay: bool = False,
    weight_decay_mask: Mask | None = None,
) -> Optimizer:
    """Adam, with L2 regularisation inside the gradient.

        g += weight_decay p
        m = beta1 m + (1 - beta1) g;  v = beta2 v + (1 - beta2) g²
        p -= lr (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)

    Equal to torch.optim.Adam.

    Args:
        lr: learning rate, number >= 0 or schedule.
        betas: decays of the first and second moment, each in [0, 1) or a schedule.
        eps: added to the denominator, >= 0 or schedule.
        weight_decay: L2 coefficient, >= 0 or schedule.
        amsgrad: take the largest v so far for v.
        maximize: ascend.
        decoupled_weight_decay: decay as `adamw` does.
        weight_decay_mask: which parameters decay; all by default.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: an argument is out of range.

    References:
        Kingma & Ba, Adam: A Method for Stochastic Optimization, ICLR 2015, algorithm 1.

    Example:
        >>> params = {"w": torch.tensor(1.0)}
        >>> optimizer = adam(0.1)
        >>> optimizer.update({"w": torch.tensor(2.0)}, optimizer.init(params), params)[0]
        {'w': tensor(-0.1000)}
    """
    direction = scale_by_adam(betas, eps, amsgrad)
    if decoupled_weight_decay:
        parts = direction, decoupled_decay_if(weight_decay, weight_decay_mask)
    else:
        parts = weight_decay_if(weight_decay, weight_decay_mask), direction
    return chain(ascend_if(maximize), *parts, descend(lr))


@remembered
def adamw(
    lr: Hyperparameter = 1e-3,
    betas: tuple[Hyperparameter, Hyperparameter] = (0.9, 0.999),
    eps: Hyperparameter = 1e-8,
    weight_decay: Hyperparameter = 1e-2,
    amsgrad: bool = False,
    *,
    maximize: bool = False,
    weight_decay_mask: Mask | None = None,
) -> Optimizer:
    """Adam with decoupled weight decay: `adam`'s step, and `p -= lr weight_decay p` beside it.

    Equal to torch.optim.AdamW. The arguments are those of `adam`, the default decay differs; `maximize`
    climbs the gradient, while the decay still shrinks.

    References:
        Loshchilov & Hutter, Decoupled Weight Decay Regularization, ICLR 2019, algorithm 2.

    Example:
        >>> params = {"w": torch.tensor(1.0)}
        >>> optimizer = adamw(0.1, weight_decay=0.5)
        >>> optimizer.update({"w": torch.tensor(2.0)}, optimizer.init(params), params)[0]
        {'w': tensor(-0.1500)}
    """
    return adam(
        lr,
        betas,
        eps,
        weight_decay,
        amsgrad,
        maximize=maximize,
        decoupled_weight_decay=True,
        weight_decay_mask=weight_decay_mask,
    )
