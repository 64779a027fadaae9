"""Computing as a checkpoint's run did: what its fingerprint says and a process can set.

For what trains again what was trained before. A resume sets nothing by itself: there the call of `fit` decides.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch

from functrain.checkpoint import CheckpointInfo
from functrain.foundation.tf32 import matmul_precision, tf32_as
from functrain.foundation.threads import use_threads
from functrain.loop.process.determinism import deterministic_run
from functrain.loop.resume.metadata import metadata_of


class StepOptions(NamedTuple):
    """How a run's steps were made: arguments of `fit`."""

    tail: str = "extend"
    compile: bool = True
    backend: str = "inductor"
    mode: str = "default"
    engine: str = "package"
    limit_batches: int | float | None = None
    overfit_batches: int | None = None
    eval_limit_batches: int | float | None = None


def recorded_options(info: CheckpointInfo, **given: Any) -> StepOptions:
    """How the run of a checkpoint made its steps.

    Args:
        info: the checkpoint.
        given: fields of `StepOptions` that count instead, unless they are None.
    """
    metadata = metadata_of(info)
    recorded: dict[str, Any] = metadata.limits | ({} if metadata.tail is None else {"tail": metadata.tail})
    backend, mode, engine, *_ = f"{metadata.compiled}///".split("/")
    if backend:
        recorded["compile"] = backend != "eager"
    if mode:
        recorded |= {"backend": backend, "mode": mode, "engine": engine or "package"}
    return StepOptions(**recorded | {name: value for name, value in given.items() if value is not None})


@contextmanager
def as_recorded(environment: Mapping[str, Any], device: torch.device) -> Iterator[None]:
    """Within, threads, deterministic algorithms and the precision of products are those of a fingerprint.

    Args:
        environment: from `functrain.loop.resume.environment.fingerprint`; what it lacks stays as it is.
        device: where will be computed.

    Example:
        >>> with as_recorded({"deterministic": True, "threads": 1}, torch.device("cpu")):
        ...     torch.are_deterministic_algorithms_enabled(), torch.get_num_threads()
        (True, 1)
        >>> torch.are_deterministic_algorithms_enabled()
        False
    """
    with ExitStack() as stack:
        threads = environment.get("threads")
        if threads is not None and threads != torch.get_num_threads():
            _set(stack, use_threads, threads, torch.get_num_threads())
        precision = environment.get("float32_matmul_precision")
        if precision is not None and precision != matmul_precision():
            _set(stack, torch.set_float32_matmul_precision, precision, matmul_precision())
        flags = environment.get("tf32")
        if flags is not None and device.type == "cuda":
            stack.enter_context(tf32_as(flags))
        deterministic = environment.get("deterministic")
        if deterministic:
            stack.enter_context(deterministic_run(device))
        elif deterministic is False and torch.are_deterministic_algorithms_enabled():
            warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
            stack.callback(torch.use_deterministic_algorithms, True, warn_only=warn_only)
            torch.use_deterministic_algorithms(False)
        yield


def _set(stack: ExitStack, setter: Callable[[Any], None], value: Any, before: Any) -> None:
    stack.callback(setter, before)
    setter(value)
