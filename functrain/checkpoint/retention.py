"""Which checkpoints are kept. Pure; imports the neighbouring modules only.

The rules, all of them functions of what the checkpoints themselves say, so that a resumed run decides as
an uninterrupted one does:

* kept are the newest `keep` and the best `keep_best`; both are at least 1, so neither the last nor the
  best one is ever deleted;
* a checkpoint with a metric takes the place of earlier ones of the same update that have none: a loop that cannot
  know that an epoch is over saves its last update first and the whole epoch next;
* of equal metrics the earlier is the better, so a later one that only draws level displaces nothing;
* NaN and no metric at all are never among the best; an infinite metric is compared like any other.
"""

import math
from collections.abc import Sequence
from typing import Literal

from functrain.checkpoint.info import CheckpointInfo

Mode = Literal["min", "max"]


def rank_by_metric(infos: Sequence[CheckpointInfo], mode: Mode) -> list[CheckpointInfo]:
    """Best first; of equal ones the earliest first. Those without a metric, or with NaN, are left out.

    Args:
        infos: oldest first.
        mode: whether a smaller ("min") or larger ("max") metric is better.
    """
    sign = 1.0 if mode == "min" else -1.0
    rated = [(sign * info.metric, info) for info in infos if info.metric is not None and not math.isnan(info.metric)]
    return [info for _, info in sorted(rated, key=lambda pair: pair[0])]


def retained(infos: Sequence[CheckpointInfo], keep: int, mode: Mode, keep_best: int = 1) -> set[str]:
    """The names of the newest `keep` checkpoints and of the best `keep_best`.

    Deleting the others after every save leaves the same as deleting them once at the end would, for what
    is not among the best now will not be later.

    Args:
        infos: oldest first.
        keep: at least 1.
        mode: as in `rank_by_metric`.
        keep_best: at least 1.
    """
    rated = {(info.step, info.micro_step): number for number, info in enumerate(infos) if info.metric is not None}
    newest = [
        info
        for number, info in enumerate(infos)
        if info.metric is not None or rated.get((info.step, info.micro_step), -1) < number
    ]
    kept = {info.name for info in newest[-keep:]}
    return kept | {info.name for info in rank_by_metric(infos, mode)[:keep_best]}
