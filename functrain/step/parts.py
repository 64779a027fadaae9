"""Sums of the micro-batches of a window, for a step in phases."""

from collections.abc import Callable

from functrain.optim.foreach import are_ours, foreach, overwrite
from functrain.step.finish import joined
from functrain.step.state import Params, Part


def add_grads(left: Params, right: Params) -> Params:
    """Gradients added by name: a state that was restored or mapped may have its dictionaries in another order."""
    return dict(zip(left, foreach("add", list(left.values()), [right[name] for name in left])))


def add_to_new(left: Params, new: Params) -> Params:
    """As `add_grads`. `new` is emptied: its memory, where nobody else holds it, is the sum's. The bits are the same."""
    values = [new.pop(name) for name in left]
    add = overwrite if are_ours(values) and all(value.is_contiguous() for value in values) else foreach
    return dict(zip(left, add("add", values, list(left.values()))))


Add = Callable[[Params, Params], Params]


def add_parts(left: Part, right: Part, add: Add = add_grads) -> Part:
    """The sum of two parts; integers among the buffers are those of the left one.

    Args:
        left, right: both.
        add: of gradients.
    """
    buffers = {
        name: buffer + right.buffers[name] if buffer.is_floating_point() else buffer
        for name, buffer in left.buffers.items()
    }
    return _added(left, right, buffers, add)


def in_order(before: Part, part: Part) -> Part:
    """The sum of a part and the next micro-batch, which went on from its buffers."""
    return _added(before, part, part.buffers, add_to_new)


def _added(left: Part, right: Part, buffers: Params, add: Add) -> Part:
    return Part(
        add(left.grads, right.grads),
        left.sums + right.sums,
        buffers,
        left.used | right.used,
        joined(left.metrics, right.metrics),
        left.names or right.names,
    )
