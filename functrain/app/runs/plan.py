"""`functrain plan`: what each process of a run on many takes, from one process."""

from typing import Any

from rich.console import Console

from functrain.app.config.build import build_state, build_training_loader, run_length, set_threads
from functrain.app.config.schema import Config
from functrain.app.plain_json import json_lines
from functrain.app.runs.sharing import check_sharing, shared
from functrain.app.tables import print_facts, print_lines
from functrain.data import Portion
from functrain.diagnostics.fake_ranks import fake_world
from functrain.diagnostics.planning import Plan, Rates, plan
from functrain.distributed import World, replicate
from functrain.foundation.errors import ConfigError
from functrain.loop.feeds import training_feed
from functrain.step import TrainState


def plan_run(config: Config, world: int, rates: Rates, as_json: bool, console: Console) -> None:
    """The command. One batch is read; nothing is computed or written.

    Args:
        config: the configuration.
        world: the number of processes.
        rates: of the machines.
        as_json: print JSON instead.
        console: what to print on.

    Raises:
        ConfigError: so many processes cannot share the run.
    """
    set_threads(config)
    found = planned(config, world, rates)
    if as_json:
        print_lines(console, json_lines({"config": config.name, **found.to_json()}))
        return
    chosen = config.distributed
    print_facts(console, f"{config.name}: {chosen.strategy}, {chosen.reduction} sums", list(found.facts().items()))


def planned(config: Config, world: int, rates: Rates) -> Plan:
    """What each process takes; see `plan_run`. The device is the CPU, so that the one to train on need not be here."""
    config = config.model_copy(update={"training": config.training.model_copy(update={"device": "cpu"})})
    ranks = World(0, world)
    sharing = check_sharing(config, ranks).dp
    if config.distributed.reduction == "fast" and config.data.batch_size < sharing:
        raise ConfigError(
            f"data.batch_size: {sharing} processes cannot share a micro-batch of {config.data.batch_size} examples: "
            f"set at least {sharing}, or fewer processes with --world"
        )
    loader = build_training_loader(config)
    length = run_length(config, loader)

    def batch_of(state: TrainState) -> tuple[Any, int]:
        feed = training_feed(state, loader, ranks, Portion())
        try:
            first = next(iter(feed.windows(0, 0, state.recipe.accumulate, "extend")))
        finally:
            feed.stream.close()
        return first.batch, first.examples

    def kept(state: TrainState) -> TrainState:
        state = shared(state, config)
        return replicate(state, ranks) if state.recipe.exchange is None else state

    with fake_world(world):
        try:
            return plan(build_state(config, length), kept, batch_of, world=world, rates=rates)
        except NotImplementedError as error:
            raise ConfigError(f"the model does not run on tensors without values: {error}") from error
