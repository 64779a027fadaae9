"""Whole groups to parts, so that each part has its share of every label: used by `split` and `k_fold`.

The balance is measured by Pearson's chi-square: the sum over parts and labels of (found - wanted)^2 / wanted, where the
number of examples counts as one more label. Groups are placed one by one, the largest first; then groups are moved and
exchanged as long as that improves the balance.
"""

from typing import NamedTuple

import numpy as np

MOST_EXCHANGED = 200  # groups: all pairs of more would take long, and of many groups the balance is good without
MOST_STEPS = 1_000
LARGEST = 10**8  # numbers in the table of groups and labels
DIGITS = 9  # of a change that are compared: the last ones depend on the processor


class _Table(NamedTuple):
    """Attributes:
    counts: examples of each label in each group, and of all labels, `[G, C + 1]`.
    wanted: of each label in each part, `[P, C + 1]`.
    """

    counts: np.ndarray
    wanted: np.ndarray


def assign_groups(groups: np.ndarray, labels: np.ndarray, shuffled: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """The part of each example, `[N]`.

    Args:
        groups: codes 0, 1, ..., `[N]`.
        labels: codes 0, 1, ..., `[N]`; all 0: only sizes are balanced.
        shuffled: a permutation of the examples, which decides between equally good choices.
        shares: of the parts, `[P]`, with the sum 1.

    Raises:
        ValueError: for so many labels and groups that labels are no classes.
    """
    if (groups.max() + 1) * (labels.max() + 1) > LARGEST:
        raise ValueError(
            f"there are {labels.max() + 1:,} labels in {groups.max() + 1:,} groups: stratify is for classes. Pass "
            "stratify=False if the labels are quantities"
        )
    counts = np.zeros((groups.max() + 1, labels.max() + 1))
    np.add.at(counts, (groups, labels), 1)
    counts = np.concatenate([counts, counts.sum(1, keepdims=True)], 1)
    table = _Table(counts, shares[:, None] * counts.sum(0))
    appearing = groups[shuffled][np.sort(np.unique(groups[shuffled], return_index=True)[1])]
    order = appearing[np.argsort(-counts[appearing, -1], kind="stable")]
    parts = _placed(table, order)
    _fill_empty(table, parts)
    _improve(table, parts)
    return parts[groups]


def _placed(table: _Table, order: np.ndarray) -> np.ndarray:
    """The part of each group; each goes where the balance is then best."""
    parts, apart = np.empty(len(order), int), -table.wanted
    for group in order:
        own = table.counts[group]
        change = ((2 * apart + own) * own / table.wanted).sum(1)
        parts[group] = int(np.argmin(_compared(change)))
        apart[parts[group]] += own
    return parts


def _fill_empty(table: _Table, parts: np.ndarray) -> None:
    """Give each empty part the group that it costs least to move, if there are groups enough."""
    for part in range(len(table.wanted)):
        sizes = np.bincount(parts, minlength=len(table.wanted))
        if sizes[part] == 0 and (sizes > 1).any():
            moves = np.where(sizes[parts] > 1, _moves(table, parts)[:, part], np.inf)
            parts[int(np.argmin(_compared(moves)))] = part


def _improve(table: _Table, parts: np.ndarray) -> None:
    """Make the best move or exchange, as long as there is one that improves the balance."""
    if len(parts) > MOST_EXCHANGED:
        return
    groups = np.arange(len(parts))
    for _ in range(MOST_STEPS):
        moves = _moves(table, parts)
        alone = np.bincount(parts, minlength=len(table.wanted))[parts] == 1
        single = _compared(np.where(alone[:, None], np.inf, moves))  # no part is left empty
        # If g goes from p to q and h from q to p, both changes meet in p and in q.
        inverse = 1 / table.wanted[parts]
        meeting = 2 * np.einsum("gc,hc->gh", table.counts * inverse, table.counts)
        pair = moves[groups[:, None], parts[None]] + moves[groups[:, None], parts[None]].T - meeting - meeting.T
        pair = _compared(np.where(parts[:, None] == parts[None], np.inf, pair))
        if min(single.min(), pair.min()) >= 0:
            return
        if single.min() <= pair.min():
            group, part = np.unravel_index(np.argmin(single), single.shape)
            parts[group] = part
        else:
            first, second = np.unravel_index(np.argmin(pair), pair.shape)
            parts[first], parts[second] = parts[second], parts[first]


def _moves(table: _Table, parts: np.ndarray) -> np.ndarray:
    """How the balance changes if a group goes to a part, `[G, P]`."""
    found = np.zeros_like(table.wanted)
    np.add.at(found, parts, table.counts)
    apart, own = found - table.wanted, table.counts[:, None]
    arriving = ((2 * apart + own) * own / table.wanted).sum(2)
    leaving = ((own - 2 * apart) * own / table.wanted).sum(2)[np.arange(len(parts)), parts]
    moves = arriving + leaving[:, None]
    moves[np.arange(len(parts)), parts] = np.inf  # it is there
    return moves


def _compared(change: np.ndarray) -> np.ndarray:
    """Changes with the digits that are the same on every machine."""
    return np.round(change, DIGITS)
