"""Confidence intervals: how much a number would change with other examples of the same kind.

A replicate of the Poisson bootstrap takes each example 0, 1, 2, ... times, by a Poisson distribution of mean 1. A
count of n examples is then a Poisson number of mean n, so counts are drawn as a whole, whatever the number of
examples. Sums over more than `BLOCKS` examples are drawn by blocks of examples, which has the same variance.

References:
    Hanley and MacGibbon 2006, "Creating non-parametric bootstrap samples using Poisson frequencies".
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
REPLICATES = 2000
_ENDS = (0.025, 0.975)
_NORMAL = 1.959963984540054  # the quantile of the normal distribution for that
BLOCKS = 10_000
SHARED = 2000
_SEED = 20
_AT_ONCE = 4_000_000  # drawn numbers


class Interval(NamedTuple):
    """Where the number lies with a confidence of 95 %."""

    low: float
    high: float


def interval(replicates: Numbers) -> Interval | None:
    """The middle 95 % of replicates `[R]`; None if most of them are not defined.

    Example:
        >>> interval(np.arange(101.0))
        Interval(low=2.5, high=97.5)
    """
    defined = replicates[np.isfinite(replicates)]
    if 2 * len(defined) < len(replicates) or not len(defined):
        return None
    low, high = np.quantile(defined, _ENDS)
    return Interval(float(low), float(high))


def share_interval(part: float, whole: float) -> Interval | None:
    """The interval of a share of examples, in closed form: no replicate of 35 right ones of 35 has a wrong one.

    Example:
        >>> share_interval(35, 35)
        Interval(low=0.9010..., high=1.0)

    References:
        Wilson 1927, "Probable inference, the law of succession, and statistical inference".
    """
    if whole <= 0:
        return None
    share, more = part / whole, _NORMAL**2 / whole
    middle, half = share + more / 2, _NORMAL * math.sqrt(share * (1 - share) / whole + more / (4 * whole))
    low, high = ((middle + sign * half) / (1 + more) for sign in (-1, 1))
    return Interval(0.0 if part == 0 else low, 1.0 if part == whole else high)


def counts(observed: Numbers, replicates: int = REPLICATES, seed: int = _SEED) -> Numbers:
    """Replicates of counts of examples.

    Args:
        observed: any shape; each example is counted once.
        replicates: how many, R.
        seed: of the draws.

    Returns:
        `[R, ...]`.
    """
    parts = list(counts_in_parts(observed, replicates, seed))
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def counts_in_parts(observed: Numbers, replicates: int = REPLICATES, seed: int = _SEED) -> Iterator[Numbers]:
    """Replicates of counts, some at a time: `[r, ...]`, which needs little memory; arguments as of `counts`."""
    generator = np.random.default_rng(seed)
    at_once = max(1, _AT_ONCE // max(observed.size, 1))
    for start in range(0, replicates, at_once):
        yield generator.poisson(observed, (min(at_once, replicates - start), *observed.shape)).astype(float)


class BlockSums:
    """Sums over examples that are given a part at a time; of many examples by blocks.

    Args:
        examples: how many there will be.
        columns: how many sums there are, K. Columns that are divided by one another share their draws.

    Attributes:
        values: `[B, K]`, of each block.

    Example:
        >>> sums = BlockSums(3, 1)
        >>> sums.add(np.array([[1.0], [2.0]]))
        >>> sums.add(np.array([[4.0]]))
        >>> sums.total.tolist(), sums.replicates().shape
        ([7.0], (2000, 1))
    """

    def __init__(self, examples: int, columns: int) -> None:
        self._place = blocks_of(examples, BLOCKS)
        self.values = np.zeros((min(examples, BLOCKS), columns))
        self._seen = 0

    def add(self, values: Numbers) -> None:
        """The next examples, `[n, K]`."""
        place = self._place[self._seen : self._seen + len(values)]
        self._seen += len(values)
        if len(self._place) <= BLOCKS:
            self.values[place] = values
            return
        for number, column in enumerate(values.T):
            self.values[:, number] += np.bincount(place, column, BLOCKS)

    @property
    def total(self) -> Numbers:
        """The sums over all examples, `[K]`."""
        return self.values.sum(0)

    def replicates(self, replicates: int = REPLICATES, seed: int = _SEED) -> Numbers:
        """Replicates of the sums, `[R, K]`."""
        generator = np.random.default_rng(seed)
        at_once = max(1, _AT_ONCE // max(len(self.values), 1))
        parts = [
            generator.poisson(1.0, (min(at_once, replicates - start), len(self.values))).astype(float) @ self.values
            for start in range(0, replicates, at_once)
        ]
        return np.concatenate(parts)


def sums(values: Numbers, replicates: int = REPLICATES, seed: int = _SEED) -> Numbers:
    """Replicates of sums over examples.

    Args:
        values: `[N, K]`, a row for each example. Columns that are divided by one another share their draws.
        replicates: how many, R.
        seed: of the draws.

    Returns:
        `[R, K]`.
    """
    blocks = BlockSums(*values.shape)
    blocks.add(values)
    return blocks.replicates(replicates, seed)


def blocks_of(examples: int, blocks: int) -> NDArray[np.int64]:
    """The block of each example `[N]`: each its own, or one of `blocks` at random."""
    if examples <= blocks:
        return np.arange(examples)
    return np.random.default_rng(_SEED).permutation(examples) % blocks


def shared_draws(examples: int) -> tuple[NDArray[np.int64], Numbers]:
    """Draws that several statistics of the same examples share, so that these vary together.

    Args:
        examples: how many there are, N.

    Returns:
        The block of each example `[N]`, and how often each replicate takes each block `[R, B]`.
    """
    count = min(examples, SHARED)
    return blocks_of(examples, SHARED), np.random.default_rng(_SEED).poisson(1.0, (REPLICATES, count)).astype(float)
