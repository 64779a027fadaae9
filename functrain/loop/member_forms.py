"""Which form the step of a stack takes: vectorised over its members, or one after the other in one graph."""

from time import perf_counter
from typing import Any

from functrain.checkpoint import Checkpointer, read_info
from functrain.data import Transfer
from functrain.foundation.paths import absolute
from functrain.loop.batches import Feed
from functrain.loop.resume.metadata import metadata_of
from functrain.loop.settings import Settings
from functrain.step.members.stack import in_form
from functrain.step.state import TrainState
from functrain.step.train import train_step

ROUNDS, MOST_UNROLLED, WORTH_IT = 3, 16, 0.8  # the graph, and so the time to compile it, grows with each member


def with_faster_form(state: TrainState, feed: Feed, settings: Settings) -> tuple[TrainState, str]:
    """The stack in the faster form, and a line for people; as it is where the user, or an earlier start, has chosen.

    Args:
        state: a stack, or any other state.
        feed: its training data.
        settings: the run's.
    """
    stacked = state.recipe.stacked
    if stacked is None or stacked.chosen or stacked.form == "unroll":
        return state, ""
    recorded = _recorded(settings)
    if recorded:
        return in_form(state, recorded), ""
    if len(stacked.recipes) > MOST_UNROLLED:
        return state, ""
    batch = feed.glimpse(state.epoch)
    if batch is None:
        return state, ""
    batch = Transfer(state.device)(batch)
    try:
        vectorised = _seconds(state, batch)
    except Exception as error:  # the unrolled step says whether it is the model
        return in_form(state, "unroll"), f"members are trained one after the other: {error}"
    unrolled = in_form(state, "unroll")
    if _seconds(unrolled, batch) < WORTH_IT * vectorised:
        return unrolled, "members are trained one after the other in one graph: a measurement found that faster"
    return state, "members are trained vectorised: a measurement found that faster"


def _recorded(settings: Settings) -> str:
    """The form in which the run that is continued began; "" if none is, or it does not say."""
    if settings.run_dir is None or settings.resume == "never":
        return ""
    checkpoints = Checkpointer(absolute(settings.run_dir) / "checkpoints", read_only=True)
    infos = checkpoints.infos() if settings.resume == "auto" else [read_info(checkpoints.locate(settings.resume))]
    return str(metadata_of(infos[-1]).settings.get("members", "")).rpartition(" ")[2] if infos else ""


def _seconds(state: TrainState, batch: Any) -> float:
    """The shortest of a few eager steps; the first finds out what members draw."""
    found = []
    for _ in range(ROUNDS + 1):
        began = perf_counter()
        train_step(state, batch)
        found.append(perf_counter() - began)
    return min(found)
