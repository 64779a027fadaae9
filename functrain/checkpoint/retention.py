"""Which checkpoints are kept. Pure; imports the neighbouring modules only."""

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


def retained(infos: Sequence[CheckpointInfo], keep: int, mode: Mode) -> set[str]:
    """The names of the newest `keep` checkpoints and of the best one.

    Args:
        infos: oldest first.
        keep: at least 1.
        mode: as in `rank_by_metric`.
    """
    kept = {info.name for info in infos[-keep:]}
    return kept | {info.name for info in rank_by_metric(infos, mode)[:1]}
