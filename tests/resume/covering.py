"""Settings such that each two levels of different factors meet at least once: a covering array of strength two.

The greedy one of AETG: each new row starts from a pair not met yet and takes, factor by factor, the level that meets
the most such pairs; of several rows the best is kept. It is far from the full product, and a fault that two levels
bring about together is still met.

References:
    Cohen, Dalal, Fredman, Patton (1997): The AETG system, IEEE Transactions on Software Engineering 23 (7).
"""

import random
from collections.abc import Mapping, Sequence
from itertools import combinations

Pair = frozenset[tuple[str, str]]


def pairs_of(row: Mapping[str, str]) -> set[Pair]:
    """The pairs of levels that meet in a row."""
    return {frozenset(two) for two in combinations(row.items(), 2)}


def all_pairs(factors: Mapping[str, Sequence[str]]) -> set[Pair]:
    """Each level of each factor with each level of each other factor."""
    return {
        frozenset({(one, a), (other, b)})
        for one, other in combinations(factors, 2)
        for a in factors[one]
        for b in factors[other]
    }


def covering(factors: Mapping[str, Sequence[str]], seed: int = 0, tries: int = 10) -> list[dict[str, str]]:
    """Rows, one level for each factor, in which all pairs meet; the same for the same seed.

    Example:
        >>> rows = covering({"a": "12", "b": "12", "c": "12"})
        >>> len(rows) < 8, set().union(*map(pairs_of, rows)) == all_pairs({"a": "12", "b": "12", "c": "12"})
        (True, True)
    """
    dice = random.Random(seed)
    missing = all_pairs(factors)
    rows = []
    while missing:
        row = max((_row(factors, missing, dice) for _ in range(tries)), key=lambda row: len(pairs_of(row) & missing))
        missing -= pairs_of(row)
        rows.append({name: row[name] for name in factors})
    return rows


def _row(factors: Mapping[str, Sequence[str]], missing: set[Pair], dice: random.Random) -> dict[str, str]:
    row = dict(dice.choice(sorted(map(sorted, missing))))
    for name in dice.sample(list(factors), len(factors)):
        if name not in row:
            met = {
                level: sum(frozenset({(name, level), other}) in missing for other in row.items())
                for level in factors[name]
            }
            most = max(met.values())
            row[name] = dice.choice([level for level in factors[name] if met[level] == most])
    return row
