"""`functrain summary`: a model's layers, and what a step takes."""

import json

from rich.console import Console

from functrain.app.config.build import build_state, build_training_loader, run_length, set_threads
from functrain.app.config.schema import Config
from functrain.app.tables import print_facts, print_lines
from functrain.data import Portion
from functrain.diagnostics import model_summary
from functrain.diagnostics.layers import shapes_of
from functrain.distributed import World
from functrain.loop.feeds import training_feed


def summary(config: Config, depth: int, as_json: bool, console: Console) -> None:
    """The command. The model is built, and one batch is read; nothing is computed or written.

    Args:
        config: the configuration.
        depth: of the layers to show.
        as_json: print JSON instead, with all layers.
        console: what to print on.
    """
    set_threads(config)
    loader = build_training_loader(config)
    state = build_state(config, run_length(config, loader))
    rows = config.training.micro_batch
    feed = training_feed(state, loader, World(), Portion())
    batch = next(iter(feed.windows(0, 0, 1, "extend"))).batch
    feed.stream.close()
    found = model_summary(state, batch, depth=depth, micro_batch=rows if isinstance(rows, int) else None)
    if as_json:
        print_lines(console, json.dumps(found.to_json(), indent=2).splitlines())
        return
    print_facts(console, f"{config.name}: {config.model.name}", [("batch", shapes_of(batch, types=True))])
    print_lines(console, ["", *found.lines()])
