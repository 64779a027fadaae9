"""Leaves out the C++ code that compares the shape of each input, which the runner has compared already."""

import contextlib
import importlib
from typing import Any

from functrain.compiler.patches.patch import Patch, replaced


def _enter() -> contextlib.AbstractContextManager[Any]:
    wrapper = importlib.import_module("torch._inductor.codegen.cpp_wrapper_cpu").CppWrapperCpu
    graph = importlib.import_module("torch._inductor.virtualized").V
    generate = wrapper.generate_input_output_runtime_checks

    def generate_none(self: Any) -> None:
        with replaced(graph.graph, "graph_inputs", {}):
            generate(self)

    return replaced(wrapper, "generate_input_output_runtime_checks", generate_none)


PATCH = Patch(
    name="input_checks",
    does="generates no function that checks the inputs; it would be off when a program runs",
    gain="3,500 of the 5,200 lines of the digits step's wrapper: 0.7 s, and minutes for 1,500 inputs",
    checked=("2.11", "2.13", "2.15"),
    needed="compile without it: the wrapper's source has __check_inputs_outputs",
    enter=_enter,
)
