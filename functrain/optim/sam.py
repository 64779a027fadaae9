"""The ascent of sharpness-aware minimisation. Imports foundation only.

SAM takes two gradients for an update: one at the parameters, which leads uphill to the point given here, and
one of the same data there, which an ordinary optimizer applies to the parameters. Taking gradients is the
training step's part; this one is arithmetic.
"""

from functrain.foundation import trees
from functrain.foundation.trees import Tree
from functrain.optim.checks import require_positive
from functrain.optim.clipping import global_norm
from functrain.optim.foreach import aligned_leaves, foreach, overwrite

# Keeps the quotient finite for a zero gradient, as in the authors' code.
NORM_EPS = 1e-12


def sam_ascent(params: Tree, grads: Tree, rho: float = 0.05, *, adaptive: bool = False) -> Tree:
    """The parameters moved uphill, to where SAM takes the gradient that counts.

        p + rho g / |g|;  adaptive:  p + rho p² g / |p g|

    Args:
        params: tree of tensors.
        grads: their gradients, of the same structure.
        rho: radius of the neighbourhood, > 0; the authors' 0.05, for the adaptive form 10 times more.
        adaptive: measure distances relative to each parameter, so that rescaled layers change nothing (ASAM).

    Returns:
        The moved parameters, each in its dtype; the arguments are not changed.

    Raises:
        ValueError: `rho` is not positive, or the structures differ.

    References:
        Foret et al., Sharpness-Aware Minimization for Efficiently Improving Generalization, ICLR 2021,
        equation 2; Kwon et al., ASAM, ICML 2021, equation 8.

    Example:
        >>> import torch
        >>> sam_ascent({"w": torch.zeros(2)}, {"w": torch.tensor([3.0, 4.0])}, rho=1.0)
        {'w': tensor([0.6000, 0.8000])}
    """
    require_positive("rho", rho)
    spec, (leaves, slopes) = aligned_leaves(params=params, grads=grads)
    directions, scaled = slopes, slopes
    if adaptive:
        scaled = foreach("mul", leaves, slopes)
        directions = foreach("mul", leaves, scaled)
    factor = rho / (global_norm(scaled) + NORM_EPS)
    return trees.unflatten(spec, overwrite("add", foreach("mul", directions, factor), leaves))
