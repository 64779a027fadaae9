"""What a configuration with `training.members` cannot have. It imports neither torch nor pydantic."""

from collections.abc import Iterator
from typing import Any

from functrain.app.config.source import Path_, Problem, Source

KEY: Path_ = ("training", "members")
ONE_PROCESS = "the members of a stack train in one process"

# The value with which a key has no effect, why members cannot have another one, and what to do.
_REFUSED: dict[Path_, tuple[tuple[Any, ...], str]] = {
    ("stage",): ((None,), "a stage trains one model: leave training.members out, or train the ensemble without stages"),
    ("init_from",): (
        (None,),
        "members begin with initial parameters of their own: leave init_from out, or train each seed as a run, with "
        "functrain sweep CONFIG seed=0,1",
    ),
    ("training", "micro_batch"): (
        (None,),
        "batches of members are not split: take a smaller data.batch_size and training.accumulate",
    ),
    ("training", "early_stopping", "restore_best"): (
        (None, False),
        "members are best at different times: leave it out. A member that stops keeps its parameters",
    ),
    ("distributed", "strategy"): ((None, "ddp"), f"{ONE_PROCESS}: leave it out"),
    ("distributed", "offload_optimizer"): ((None,), f"{ONE_PROCESS}, whose optimizer is on its device: leave it out"),
    ("distributed", "sync_batchnorm"): ((None, False), f"{ONE_PROCESS}: leave it out"),
    ("distributed", "reduction"): ((None, "fast"), f"{ONE_PROCESS}: leave it out"),
}


def members_problems(source: Source) -> Iterator[Problem]:
    """What is wrong with a configuration of members, with the place of the key that they cannot have."""
    count = source.at(KEY)
    if type(count) is not int:
        return
    for path, (allowed, why) in _REFUSED.items():
        value = source.at(path)
        if value not in allowed:
            name = ".".join(map(str, path))
            yield Problem(path, f"{source.origin(path)}: {name} does not go with training.members={count}: {why}")
    processes = source.at(("distributed", "mesh", "dp"))
    if type(processes) is int and processes > 1:
        path = ("distributed", "mesh", "dp")
        yield Problem(path, f"{source.origin(path)}: distributed.mesh.dp={processes}: {ONE_PROCESS}: leave it out")
