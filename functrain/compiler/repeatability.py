"""Whether a core computes the same at each call: a graph always does.

Tracing keeps what Python did once. A model that counts its calls, or draws from Python's random generator, would train
as if it had stopped counting. So a core is run twice before it is compiled; what is not repeated is refused by name.
"""

import random
import sys
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from functrain.compiler.layout import Layout
from functrain.compiler.recording import Recording, record
from functrain.foundation.errors import TracingError
from functrain.step.execution import Core
from functrain.step.state import TrainState

_OF_EVERY_MODULE = frozenset(vars(nn.Module()))
Attributes = dict[tuple[int, str, str], Any]  # (module, description, attribute) -> what tells values apart


def record_twice(
    core: Core,
    state: Layout,
    batch: Layout,
    inputs: list[Tensor],
    *,
    key: Callable[[], int],
    known: Callable[[Recording], bool],
) -> Recording | None:
    """A core's recording, if it is the same at each call; None if there is none, or none that is `fixed`.

    The second may differ from the first, where that filled a cache, if the third is as the second. One will do if the
    computation is `known`, once compared, and left modules and Python's generators as they were.

    Raises:
        TracingError: if calls differ, naming the modules' attributes that changed.
    """
    before, drawn = _attributes(state, inputs), _generators()
    recording = record(core, state, batch, inputs, key=key)
    untouched = _attributes(state, inputs) == before and _generators() == drawn
    if recording is not None and recording.fixed and untouched and known(recording):
        return recording
    for _ in range(2):
        again = None if recording is None else record(core, state, batch, inputs, key=key)
        if recording is None or again is None:
            return None
        if again.digest == recording.digest:
            return again if again.fixed else None
        recording = again
    changed = [name for name, value in _attributes(state, inputs).items() if before.get(name) != value]
    raise TracingError(
        f"the {core.name} step cannot be compiled: it computes something else each time it is called, but a compiled "
        f"step is one fixed graph. {_cause(changed)}, or run without compiling (compile=False)"
    )


def _generators() -> tuple[Any, ...]:
    """The states of Python's and NumPy's random generators."""
    numpy = sys.modules.get("numpy")
    kind, numbers, *rest = numpy.random.get_state() if numpy else ("", b"")
    return random.getstate(), kind, bytes(numbers), *rest


def _cause(changed: list[tuple[int, str, str]]) -> str:
    if not changed:
        return (
            "No module has changed, so the model or the objective draws from Python's or NumPy's random generator, or "
            "counts elsewhere. Draw with torch, count in a buffer"
        )
    _, where, name = changed[0]
    others = f" (and {len(changed) - 1} more such attributes)" if len(changed) > 1 else ""
    return f"In forward {where} changes its attribute {name!r}{others}. Make it a buffer (register_buffer)"


def _attributes(layout: Layout, inputs: list[Tensor]) -> Attributes:
    """The Python attributes of the modules that a state's steps run."""
    state = layout.fill(inputs[: sum(layout.is_tensor)])
    if not isinstance(state, TrainState):
        return {}
    return {
        (id(module), f"module {path!r} ({type(module).__name__})" if path else type(module).__name__, name): _mark(
            value
        )
        for path, module in state.recipe.network.running()
        for name, value in vars(module).items()
        if name not in _OF_EVERY_MODULE
    }


def _mark(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return (id(value), len(value)) if isinstance(value, (list, dict, set)) else id(value)
