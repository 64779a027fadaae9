"""`functrain find-batch-size`: find the largest batch that fits into memory."""

from rich.console import Console

from functrain.app.config.build import build_state, build_training_loader, set_threads
from functrain.app.config.schema import Config
from functrain.app.tables import print_facts, print_table
from functrain.diagnostics import find_batch_size as search


def find_batch_size(config: Config, limit: int | None, compiled: bool, console: Console) -> None:
    """The command: try batches, print what fits and how fast it is, and how to use it.

    Args:
        config: the configuration.
        limit: the largest to try; None: as many as there are examples.
        compiled: compile the steps.
        console: what to print on.
    """
    set_threads(config)
    loader = build_training_loader(config)
    found = search(build_state(config, None), loader, limit=limit, compile=compiled)
    rows = [
        [f"{trial.batch_size:,}", "does not fit", ""]
        if trial.seconds is None
        else [f"{trial.batch_size:,}", f"{1000 * trial.seconds:.1f}", f"{trial.examples_per_second:,.0f}"]
        for trial in found.trials
    ]
    print_table(console, ["batch", "ms a step", "examples/s"], rows, left=0)
    edge = "larger ones do not fit" if found.bounded else "larger ones were not tried"
    given = config.data.batch_size
    facts = [
        ("largest", f"data.batch_size={found.largest} ({edge})"),
        ("fastest", f"data.batch_size={found.fastest} (within 5 % of the most examples a second)"),
        ("as it is", f"data.batch_size={given}, which {'fits' if given <= found.largest else 'does not fit'}"),
    ]
    if found.bounded and given > found.largest:
        facts.append(("instead", "training.micro_batch=auto: the same updates in less memory"))
    print_facts(console, f"{config.name}: {config.optimizer.name}", facts)
