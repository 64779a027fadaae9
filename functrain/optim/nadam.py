"""NAdam: Adam with Nesterov's momentum."""

import torch

from functrain.foundation import trees
from functrain.foundation.making import remembered
from functrain.foundation.trees import Tree, node
from functrain.optim.adam import bias_correction
from functrain.optim.base import Optimizer, chain, zero_count, zeros_like
from functrain.optim.checks import require_betas, require_non_negative, unless_schedule
from functrain.optim.foreach import aligned_leaves, average_squares, foreach, lerp, overwrite
from functrain.optim.masks import Mask
from functrain.optim.parts import ascend_if, decoupled_decay_if, weight_decay_if
from functrain.optim.rates import descend
from functrain.optim.schedules import Hyperparameter, value_at


@node
class NAdamState:
    """State of `scale_by_nadam`."""

    count: torch.Tensor  # updates so far, int64 []
    mu_product: torch.Tensor  # product of the momentum coefficients so far, float64 []
    exp_avg: Tree  # first moment, as params
    exp_avg_sq: Tree  # second moment, as params


@remembered
def scale_by_nadam(
    betas: tuple[Hyperparameter, Hyperparameter] = (0.9, 0.999),
    eps: Hyperparameter = 1e-8,
    momentum_decay: Hyperparameter = 4e-3,
) -> Optimizer:
    """As `scale_by_adam`, looking one update of the momentum ahead.

    References:
        Dozat, Incorporating Nesterov Momentum into Adam, ICLR 2016 workshop, algorithm 2.

    Example:
        >>> nadam, params = scale_by_nadam(), {"w": torch.tensor(0.0)}
        >>> nadam.update({"w": torch.tensor(-7.0)}, nadam.init(params), params)[0]
        {'w': tensor(-1.0565)}
    """
    require_betas(betas)
    unless_schedule(require_non_negative, eps=eps, momentum_decay=momentum_decay)

    def init(params: Tree) -> NAdamState:
        count = zero_count(params)
        return NAdamState(count, torch.ones_like(count, dtype=torch.float64), zeros_like(params), zeros_like(params))

    def update(updates: Tree, state: NAdamState, _params: Tree) -> tuple[Tree, NAdamState]:
        spec, (grads, means, squares) = aligned_leaves(
            updates=updates, exp_avg=state.exp_avg, exp_avg_sq=state.exp_avg_sq
        )
        beta1, beta2 = (value_at(beta, state.count) for beta in betas)
        count, speed = state.count + 1, value_at(momentum_decay, state.count)
        mu = beta1 * (1 - 0.5 * 0.96 ** (count.double() * speed))
        mu_next = beta1 * (1 - 0.5 * 0.96 ** ((count + 1).double() * speed))
        mu_product = state.mu_product * mu
        means = lerp(means, grads, 1 - beta1)
        squares = average_squares(squares, grads, beta2)
        denominators = overwrite("mul", foreach("sqrt", squares), 1 / bias_correction(beta2, count).sqrt())
        denominators = overwrite("add", denominators, value_at(eps, state.count))
        ahead = overwrite(
            "add",
            foreach("mul", grads, (1 - mu) / (1 - mu_product)),
            foreach("mul", means, mu_next / (1 - mu_product * mu_next)),
        )
        new_state = NAdamState(count, mu_product, trees.unflatten(spec, means), trees.unflatten(spec, squares))
        return trees.unflatten(spec, overwrite("div", ahead, denominators)), new_state

    return Optimizer(init, update)


@remembered
def nadam(
    lr: Hyperparameter = 2e-3,
    betas: tuple[Hyperparameter, Hyperparameter] = (0.9, 0.999),
    eps: Hyperparameter = 1e-8,
    weight_decay: Hyperparameter = 0.0,
    momentum_decay: Hyperparameter = 4e-3,
    decoupled_weight_decay: bool = False,
    *,
    maximize: bool = False,
    weight_decay_mask: Mask | None = None,
) -> Optimizer:
    """Adam with Nesterov's momentum, whose coefficient `mu` warms up.

        mu_t = beta1 (1 - 0.96^(t momentum_decay) / 2);  m, v as in `adam`
        d = mu_{t+1} m / (1 - mu_1 ... mu_{t+1}) + (1 - mu_t) g / (1 - mu_1 ... mu_t)
        p -= lr d / (sqrt(v / (1 - beta2^t)) + eps)

    Equal to torch.optim.NAdam.

    Args:
        lr: learning rate, number >= 0 or schedule.
        betas: decays of the first and second moment, each in [0, 1) or a schedule.
        eps: added to the denominator, >= 0 or schedule.
        weight_decay: coefficient, >= 0 or schedule.
        momentum_decay: speed of the warm-up of `mu`, >= 0 or schedule.
        decoupled_weight_decay: decay beside the step, as `adamw`, not inside the gradient.
        maximize: ascend.
        weight_decay_mask: which parameters decay; all by default.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: an argument is out of range.

    References:
        Dozat, Incorporating Nesterov Momentum into Adam, ICLR 2016 workshop, algorithm 2.

    Example:
        >>> params = {"w": torch.tensor(1.0)}
        >>> optimizer = nadam(0.1)
        >>> optimizer.update({"w": torch.tensor(2.0)}, optimizer.init(params), params)[0]
        {'w': tensor(-0.1056)}
    """
    direction = scale_by_nadam(betas, eps, momentum_decay)
    if decoupled_weight_decay:
        parts = direction, decoupled_decay_if(weight_decay, weight_decay_mask)
    else:
        parts = weight_decay_if(weight_decay, weight_decay_mask), direction
    return chain(ascend_if(maximize), *parts, descend(lr))
