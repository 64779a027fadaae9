"""What private training has cost: epsilon, by opacus's accountants."""

import contextlib
import warnings
from collections.abc import Iterator
from types import ModuleType

from functrain.foundation.numbers import is_integer
from functrain.optim.checks import require_number
from functrain.step.state import TrainState, require_state
from functrain.transforms.private import private_objective

ACCOUNTANTS = ("rdp", "prv", "gdp")


def privacy_spent(state: TrainState, *, sample_rate: float, delta: float, accountant: str = "rdp") -> float:
    """The epsilon of the updates that a private state has made.

    With probability all but `delta`, leaving out one example changes the probability of any result by a factor of at
    most `exp(epsilon)`. It holds for batches that are drawn independently, as `functrain.data.PoissonLoader` does.

    Args:
        state: from `private`, trained.
        sample_rate: the probability of an example to be in a batch, the loader's `sample_rate`.
        delta: usually below 1 / N, between 0 and 1.
        accountant: "rdp" (Renyi, an upper bound), "prv" (tighter, numerical) or "gdp" (Gaussian, an approximation).

    Returns:
        Epsilon; 0 before the first update, infinity without noise.

    Raises:
        FunctrainError: the state is not private.
        ValueError: an argument is out of range.
        ModuleNotFoundError: opacus is not installed.

    References:
        Mironov 2017, "Renyi Differential Privacy"; Gopi, Lee and Wutschitz 2021, "Numerical Composition of Differential
        Privacy"; Dong, Roth and Su 2019, "Gaussian Differential Privacy".

    Example:
        >>> import torch, functrain as ft
        >>> state = ft.init_state(torch.nn.Linear(2, 1), ft.regression(), ft.optim.sgd(0.1))
        >>> state = ft.transforms.private(state, max_grad_norm=1.0, noise_multiplier=1.1, expected_batch_size=16)
        >>> round(privacy_spent(state.replace(step=1000), sample_rate=0.01, delta=1e-5), 2)
        1.71
    """
    require_state("privacy_spent", state)
    objective = private_objective(state)
    _check(sample_rate, delta, accountant)
    steps = state.step - objective.first_step
    if steps <= 0:
        return 0.0
    if objective.noise_multiplier == 0:
        return float("inf")
    found = _opacus().create_accountant(accountant)
    found.history = [(objective.noise_multiplier, sample_rate, steps)]
    with _valid_bounds():
        return float(found.get_epsilon(delta))


def noise_multiplier_for(
    *, epsilon: float, delta: float, sample_rate: float, steps: int, accountant: str = "rdp"
) -> float:
    """The least noise with which so many updates stay within epsilon.

    Args:
        epsilon: the budget, > 0.
        delta, sample_rate, accountant: as of `privacy_spent`.
        steps: updates that will be made, 1 or more.

    Returns:
        The `noise_multiplier` of `private`; its epsilon is at most the budget, and closer than 0.01.

    Raises:
        ValueError: an argument is out of range, or no noise suffices.
        ModuleNotFoundError: opacus is not installed.

    Example:
        >>> round(noise_multiplier_for(epsilon=3.0, delta=1e-5, sample_rate=0.01, steps=1000), 2)
        0.87
    """
    _check(sample_rate, delta, accountant)
    require_number("epsilon", epsilon)
    if not epsilon > 0:
        raise ValueError(f"epsilon must be greater than 0; got {epsilon!r}")
    if not is_integer(steps, 1):
        raise ValueError(f"steps must be a whole number of updates, 1 or more; got {steps!r}")
    utils = _opacus().utils
    with _valid_bounds():
        found = utils.get_noise_multiplier(
            target_epsilon=epsilon, target_delta=delta, sample_rate=sample_rate, steps=steps, accountant=accountant
        )
    return float(found)


def _check(sample_rate: float, delta: float, accountant: str) -> None:
    for name, value in (("sample_rate", sample_rate), ("delta", delta)):
        require_number(name, value)
    if not 0 < sample_rate <= 1:
        raise ValueError(f"sample_rate must be a probability, greater than 0 and at most 1; got {sample_rate!r}")
    if not 0 < delta < 1:
        raise ValueError(f"delta must be between 0 and 1, and usually below 1 / N; got {delta!r}")
    if accountant not in ACCOUNTANTS:
        raise ValueError(f"accountant must be one of {', '.join(ACCOUNTANTS)}; got {accountant!r}")


@contextlib.contextmanager
def _valid_bounds() -> Iterator[None]:
    """Without the warning that a bound could be tighter at an order that opacus did not look at: it holds."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Optimal order is the")
        yield


def _opacus() -> ModuleType:
    try:
        import opacus.accountants
        import opacus.accountants.utils
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "the accountants of differential privacy are opacus's, which is not installed. Run: pip install "
            "'functrain[privacy]'"
        ) from error
    module: ModuleType = opacus.accountants
    return module
