"""Whether a run's steps are compiled: `compile="auto"` decides it once, from counts, when a run begins."""

import os
from typing import Any, NamedTuple

from functrain.checkpoint import Checkpointer, read_info
from functrain.compiler.work import Estimate, Work, estimate, forward_work
from functrain.data import Transfer
from functrain.distributed import World, any_rank
from functrain.foundation.paths import absolute
from functrain.loop.batches import Feed
from functrain.loop.memory import split_batch
from functrain.loop.output.progress_line import counted
from functrain.loop.resume.metadata import metadata_of
from functrain.loop.settings import Settings
from functrain.objectives.examples import count_examples, takes_lists
from functrain.step.members.cores import member_of
from functrain.step.members.stepping import first_batch
from functrain.step.state import TrainState

FEWEST = 10  # updates; in fewer no compilation pays, and nothing need be counted
COUNTED = 2  # examples; BatchNorm takes no fewer


class Choice(NamedTuple):
    """Whether steps are compiled.

    Attributes:
        compile: whether they are.
        why: a line for people; empty where `compile` was True or False.
    """

    compile: bool
    why: str = ""


def choose(settings: Settings, state: TrainState, feed: Feed, world: World) -> Choice:
    """Whether the steps of a run are compiled. Every rank must ask, and gets the same answer.

    Args:
        settings: the run's.
        state: its first.
        feed: its training data.
        world: the ranks.

    Raises:
        CheckpointError: if a checkpoint is to be continued and cannot be read.
    """
    if settings.compile != "auto":
        return Choice(settings.compile is True)
    choice = _open_choice(settings, state, feed, world)
    agreed = any_rank(choice.compile, world)
    return choice if agreed == choice.compile else Choice(agreed, "steps are compiled: another rank counts more work")


def _open_choice(settings: Settings, state: TrainState, feed: Feed, world: World) -> Choice:
    if asked := settings.compiler_settings():
        return Choice(True, f"steps are compiled, as {asked} asks for it")
    recorded = _recorded(settings)
    if recorded:
        return Choice(recorded != "eager", f"steps are {_ways(recorded != 'eager')}, as this run began")
    updates = _updates_left(settings, state, feed)
    if updates is None:
        return Choice(True, "steps are compiled: the number of updates is not known")
    if updates < FEWEST:
        return Choice(False, f"steps are not compiled: {counted(updates, 'update')} are too few to gain by it")
    try:
        found = _estimate(settings, state, feed, world)
    except Exception as error:  # training will say what is wrong, if anything is
        return Choice(True, f"steps are compiled: their work cannot be counted ({type(error).__name__})")
    if found is None:
        return Choice(True, "steps are compiled: their work cannot be counted before the data are read")
    pays = found.pays(updates)
    return Choice(
        pays,
        f"steps are {_ways(pays)}: compiling would save about {_seconds(updates * found.saves)} in {updates:,} updates "
        f"and take about {_seconds(found.takes)}",
    )


def _recorded(settings: Settings) -> str:
    """How steps of the run that is continued ran, as a checkpoint records it; "" if none is, or it does not say."""
    if settings.run_dir is None or settings.resume == "never":
        return ""
    checkpoints = Checkpointer(absolute(settings.run_dir) / "checkpoints", read_only=True)
    if settings.resume != "auto":
        return metadata_of(read_info(checkpoints.locate(os.path.expanduser(settings.resume)))).compiled
    infos = checkpoints.infos()
    return metadata_of(infos[-1]).compiled if infos else ""


def _updates_left(settings: Settings, state: TrainState, feed: Feed) -> int | None:
    """How many updates there are to do at most; None if that is not known."""
    ends = [] if settings.steps is None else [settings.steps - state.step]
    per_epoch = feed.micro_batches(state.epoch, state.recipe.accumulate, settings.tail)
    if settings.epochs is not None and per_epoch is not None:
        micro_batches = per_epoch * (settings.epochs - state.epoch) - state.batch_idx
        ends.append(-(-micro_batches // state.recipe.accumulate))
    return min(ends, default=None)


def _estimate(settings: Settings, state: TrainState, feed: Feed, world: World) -> Estimate | None:
    """What compiling saves and takes, from the run's first batch; None if that cannot be read before its turn."""
    batch = feed.glimpse(state.epoch)
    if batch is None:
        return None
    if state.members is not None:  # the work of one for each
        count, state = len(state.members), member_of(state, 0)
        found = _estimate_of(settings, state, first_batch(batch), world)
        return found if count == 1 else found._replace(saves=found.saves * count)
    return _estimate_of(settings, state, batch, world)


def _estimate_of(settings: Settings, state: TrainState, batch: Any, world: World) -> Estimate:
    objective = state.recipe.objective
    examples, lists = count_examples(objective)(batch), takes_lists(objective)
    try:
        part = split_batch(batch, COUNTED, pads=False, lists=lists)[0]
    except TypeError:  # a batch without a row for each example
        part = batch
    rows = count_examples(objective)(part)
    work = forward_work(state, Transfer(state.device)(part))
    in_parts = -(-examples // settings.micro_batch) if isinstance(settings.micro_batch, int) else 1
    share = examples / rows / world.size / in_parts
    return estimate(state, Work(work.operations, work.elements * share), state.recipe.accumulate * in_parts)


def _ways(compiled: bool) -> str:
    return "compiled" if compiled else "not compiled"


def _seconds(seconds: float) -> str:
    """A rough time.

    Example:
        >>> _seconds(0.34), _seconds(21.4), _seconds(4000.0)
        ('0.3 s', '21 s', '4,000 s')
    """
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:,.0f} s"
