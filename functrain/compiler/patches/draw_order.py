"""Keeps random numbers in the order of the model's code in releases whose inductor may draw them in another one.

On a CPU a compiled step draws with torch's own generator, so a mask has the bits of the eager step's only if all draws
keep their order. Inductor sees to it since 2.13; before, two draws that do not depend on each other could be swapped.
"""

import importlib
import itertools
from typing import Any

import torch

from functrain.compiler.patches.patch import Patch
from functrain.foundation.torch_internals import draws


def _options(device: torch.device) -> dict[str, Any]:
    if device.type != "cpu":
        return {}
    post_grad = importlib.import_module("torch._inductor.fx_passes.post_grad")
    return {} if hasattr(post_grad, "_chain_random_ops_for_ordering") else {"post_grad_custom_post_pass": _in_order}


def _in_order(graph: torch.fx.Graph) -> None:
    """Let each draw wait for the one before it."""
    dependencies = importlib.import_module("torch._inductor.fx_passes.control_dependencies")
    ordered_set = importlib.import_module("torch.utils._ordered_set").OrderedSet
    pairs = itertools.pairwise(node for node in graph.nodes if draws(node.target))
    dependencies.preserve_node_ordering(graph, {later: ordered_set([earlier]) for earlier, later in pairs})


PATCH = Patch(
    name="draw_order",
    does="lets each draw of random numbers wait for the one before it, where inductor does not do so itself",
    gain="compiled steps with two dropouts have the masks of eager steps on 2.11",
    checked=("2.11", "2.13", "2.15"),
    needed="tests/compiler/patches/test_write_order.py fails without it (2.11; not 2.13 and later)",
    options=_options,
)
