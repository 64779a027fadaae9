"""Normal noise on the gradients, as a function of the number of past updates."""

import math

import torch

from functrain.foundation import trees
from functrain.foundation.keys import fold_in, root_key
from functrain.foundation.making import remembered
from functrain.foundation.trees import Tree
from functrain.optim.base import Optimizer, zero_count
from functrain.optim.checks import require_non_negative
from functrain.optim.foreach import add_scaled
from functrain.optim.parts import CountState

LAST = 2**31 - 1  # of 31 bits; factors are odd and no greater, so that no product leaves int64
# Shifts and factors: C. Wellons' prospector32 (github.com/skeeto/hash-prospector), with a third round.
ROUNDS = ((15, 0x2C1B3C6D), (12, 0x297A2D39), (15, 0x5C2D4E8B))


@remembered
def add_noise(eta: float = 0.01, gamma: float = 0.55, *, seed: int = 0) -> Optimizer:
    """Add normal noise of variance `eta / (1 + t)^gamma` to the gradients' elements, t the number of past updates.

    The noise is a hash of seed, parameter, element and t, no draw of a generator: an update stays a function of its
    arguments, with the same noise eager and compiled, on all ranks and after a resume. First in a chain.

    Args:
        eta: variance of the first update, >= 0; the paper's are 0.01, 0.3 and 1.
        gamma: how fast it falls, >= 0.
        seed: other seeds give other noise.

    Raises:
        TypeError: an argument is no number.
        ValueError: `eta` or `gamma` is negative or not finite.

    References:
        Neelakantan et al. 2015, "Adding Gradient Noise Improves Learning for Very Deep Networks", equation 1.

    Example:
        >>> noise, params = add_noise(eta=0.0), {"w": torch.tensor(3.0)}
        >>> noise.update(params, noise.init(params), params)
        ({'w': tensor(3.)}, CountState(count=tensor(1)))
    """
    require_non_negative("eta", eta)
    require_non_negative("gamma", gamma)
    root = root_key(seed)

    def update(updates: Tree, state: CountState, _params: Tree) -> tuple[Tree, CountState]:
        leaves, spec = trees.flatten(updates)
        keys = [fold_in(root, path) & LAST for path in trees.paths(updates)]
        noises = [_normal(leaf, key, state.count) for leaf, key in zip(leaves, keys)]
        deviation = (eta * (1 + state.count.double()) ** -gamma).sqrt()
        return trees.unflatten(spec, add_scaled(leaves, noises, deviation)), CountState(state.count + 1)

    return Optimizer(lambda params: CountState(zero_count(params)), update)


def _normal(leaf: torch.Tensor, key: int, count: torch.Tensor) -> torch.Tensor:
    """Numbers of mean 0 and variance 1 in the leaf's form, by Box and Muller from two hashes for each element."""
    dtype = torch.float64 if leaf.dtype == torch.float64 else torch.float32
    start = _mixed(_mixed(count & LAST) ^ key)
    cells = torch.arange(2 * leaf.numel(), device=leaf.device) & LAST
    uniform = (_mixed(_mixed(cells) ^ start) + 1).to(dtype) / (LAST + 1)  # in (0, 1]
    radius, angle = uniform.view(2, *leaf.shape)
    return ((-2 * radius.log()).sqrt() * (2 * math.pi * angle).cos()).to(leaf.dtype)


def _mixed(bits: torch.Tensor) -> torch.Tensor:
    """A permutation of the integers of 31 bits in which each bit depends on all."""
    for shift, factor in ROUNDS:
        bits = ((bits ^ (bits >> shift)) * factor) & LAST
    return bits ^ (bits >> 15)
