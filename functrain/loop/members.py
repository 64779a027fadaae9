"""What a run of a stack does for each member: its numbers in the records, and its end."""

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from functrain.loop.decisions import Decisions
from functrain.loop.output.log_files import MEMBERS
from functrain.loop.output.progress_line import counted, exact
from functrain.loop.output.records import Record
from functrain.loop.settings import Settings
from functrain.loop.skips import reading_is_free
from functrain.metrics.totals import Totals
from functrain.step.members.stepping import failed, of_chosen, stopped
from functrain.step.state import Members, TrainState

Each = Sequence[float | None]


class Overall(Mapping[str, Any]):
    """Metrics of members as one number each, the mean over those that train; taken when it is asked for.

    Args:
        metrics: name -> `[N]`.
        members: whose.
    """

    def __init__(self, metrics: Mapping[str, Any], members: Members) -> None:
        self._metrics, self._train = metrics, members.train()

    def __getitem__(self, name: str) -> float:
        """The mean."""
        return mean_of(self._chosen(self._metrics[name].tolist()))

    def __iter__(self) -> Iterator[str]:
        return iter(self._metrics)

    def __len__(self) -> int:
        return len(self._metrics)

    def _chosen(self, values: Sequence[float]) -> list[float]:
        return [value for value, train in zip(values, self._train, strict=True) if train]

    def record(self) -> Record:
        """The means, and under "members" the value of each; None of one that has stopped."""
        return of_each({name: values.tolist() for name, values in self._metrics.items()}, self._train)


def of_each(values: Mapping[str, Each], train: Sequence[bool]) -> Record:
    """A record of members: the mean over those that train under each name, and the values of each.

    Example:
        >>> of_each({"loss": [1.0, 2.0, 9.0]}, [True, True, False])
        {'loss': 1.5, 'members': {'loss': [1.0, 2.0, None]}}
    """
    kept = {name: [one if own else None for one, own in zip(each, train)] for name, each in values.items()}
    return {**{name: mean_of(each) for name, each in kept.items()}, MEMBERS: kept}


def samples_of_each(members: Members) -> Record:
    """The record of how many examples each member has had; empty where all have had equally many."""
    different = len(set(members.samples)) > 1
    train = zip(members.samples, members.train(), strict=True)
    return {MEMBERS: {"samples": [count if own else None for count, own in train]}} if different else {}


def totals_of_each(totals: Totals, prefix: str, train: Sequence[bool]) -> Record:
    """The record of totals."""
    means = {f"{prefix}{name}": values.tolist() for name, values in totals.means().items()}
    return of_each(means, train)


def merged(record: Record, more: Record) -> Record:
    """Both records, with the values of each member together."""
    return {**record, **more, MEMBERS: {**record.get(MEMBERS, {}), **more.get(MEMBERS, {})}}


def mean_of(values: Each) -> float:
    """The mean of the numbers that are there; NaN of none."""
    there = [value for value in values if value is not None]
    return sum(there) / len(there) if there else math.nan


def most_refused(settings: Settings, state: TrainState) -> int | None:
    """So many refused updates in a row end a member's training; None: no number does."""
    adapts = state.loss_scale is not None and state.recipe.scaling is not None
    return 1 if settings.on_nonfinite == "stop" and not adapts else settings.max_consecutive_skips


class Failures:
    """Stops members whose updates are refused, as `on_nonfinite` and `max_consecutive_skips` say.

    Args:
        settings: the run's.
        state: its first, a stack.
    """

    def __init__(self, settings: Settings, state: TrainState) -> None:
        self._most = most_refused(settings, state)
        self._every = 1 if reading_is_free(state.device) else settings.log_every

    def after(self, state: TrainState) -> tuple[TrainState, list[str]]:
        """The state after an update, in which those that have failed train no more; and what there is to say."""
        members = state.members
        if self._most is None or members is None or state.step % self._every:
            return state, []
        numbers = failed(state, self._most)
        if not numbers:
            return state, []
        state = stopped(state, numbers)
        named = ", ".join(map(str, numbers))
        said = f"step {state.step}: member {named} has stopped, its loss or gradient was not finite {self._times()}"
        return state, [f"{said}; {'no member is left that trains' if have_ended(state) else 'the others train on'}"]

    def _times(self) -> str:
        return "once" if self._most == 1 else f"{self._most} times in a row"


def prepared(state: TrainState, decisions: Decisions) -> TrainState:
    """The stack with memories of rules that have met no metric yet in these rules' mode."""
    members = state.members
    assert members is not None
    alone = [
        decisions.prepared(state.replace(members=None, plateau=plateau, stopper=stopper))
        for plateau, stopper in zip(members.plateaus, members.stoppers)
    ]
    return state.replace(
        members=dataclasses.replace(
            members, plateaus=tuple(one.plateau for one in alone), stoppers=tuple(one.stopper for one in alone)
        )
    )


def decided(state: TrainState, metric: Each, decisions: Decisions) -> tuple[TrainState, list[str]]:
    """The stack, between epochs, after an evaluation in which each member has this metric; and what was decided."""
    members = state.members
    assert members is not None
    plateaus, stoppers = list(members.plateaus), list(members.stoppers)
    reduce, stop, said = [False] * len(members), list[int](), list[str]()
    for number, (value, train) in enumerate(zip(metric, members.train(), strict=True)):
        if value is None or not train:
            continue
        if decisions.plateau is not None:
            plateaus[number], reduction = decisions.plateau.update(plateaus[number], value)
            reduce[number] = reduction.reduce
        if decisions.early_stopping is not None:
            stoppers[number], end = decisions.early_stopping.update(stoppers[number], value)
            if end.stop:
                stop.append(number)
                bad = counted(stoppers[number].num_bad_epochs, "evaluation")
                said.append(f"member {number} has stopped: no improvement on {exact(stoppers[number].best)} for {bad}")
    if any(reduce) and decisions.plateau is not None:
        opt_state = of_chosen(reduce, decisions.plateau.apply(state.opt_state), state.opt_state)
        state = state.replace(opt_state=opt_state)
        named = ", ".join(str(number) for number, reduced in enumerate(reduce) if reduced)
        said.append(f"no improvement: the learning rate of member {named} is reduced")
    members = dataclasses.replace(members, plateaus=tuple(plateaus), stoppers=tuple(stoppers))
    state = state.replace(members=members)
    return (stopped(state, stop) if stop else state), said


def have_ended(state: TrainState) -> bool:
    """Whether no member trains any more."""
    return state.members is not None and not any(state.members.train())
