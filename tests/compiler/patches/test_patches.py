"""Compilations made shorter: inductor as it was afterwards, and the same programs."""

import gc
import importlib
import threading
from pathlib import Path

import pytest
import torch
from torch._inductor import compile_fx, cpu_vec_isa
from torch._inductor.choices import InductorChoices
from torch._inductor.codegen.cpp_wrapper_cpu import CppWrapperCpu
from torch._inductor.cpp_builder import CppBuilder, CppOptions
from torch._inductor.dtype_propagation import DtypePropagationOpsHandler
from torch._inductor.graph import GraphLowering
from torch._inductor.scheduler import SchedulerNode
from torch._inductor.virtualized import V
from torch.fx.experimental.proxy_tensor import make_fx

from functrain.compiler import preparation
from functrain.compiler.patches import COMPILING, TRACING, parallel_wrapper, whole_files
from functrain.compiler.patches.patch import Patch, applied

CHANGED = [
    (DtypePropagationOpsHandler, "__init__"),
    (CppWrapperCpu, "generate_input_output_runtime_checks"),
    (CppBuilder, "build"),
    (cpu_vec_isa, "valid_vec_isa_list"),
    (GraphLowering, "mark_buffer_mutated"),
    (GraphLowering, "run_node"),
    (SchedulerNode, "recompute_size_and_body"),
    (InductorChoices, "can_fuse"),
    (compile_fx, "aot_export_module"),
    (compile_fx, "_unlift_graph"),
]


def test_every_part_is_in_force_in_this_release_of_torch_and_undone_afterwards() -> None:
    before = [vars(owner)[name] for owner, name in CHANGED]
    with applied(COMPILING) as patched:
        assert patched.names == tuple(patch.name for patch in COMPILING)
        assert all(vars(owner)[name] is not old for (owner, name), old in zip(CHANGED, before))
    assert [vars(owner)[name] for owner, name in CHANGED] == before


def test_every_patch_says_what_it_gains_and_where_that_was_checked() -> None:
    names = [patch.name for patch in (*TRACING, *COMPILING)]
    assert len(set(names)) == len(names)
    for patch in (*TRACING, *COMPILING):
        assert all((patch.does, patch.gain, patch.needed))
        assert "2.13" in patch.checked


def test_garbage_is_sought_less_often_while_a_program_is_compiled() -> None:
    thresholds = gc.get_threshold()
    with preparation.fewer_collections():
        assert gc.get_threshold()[0] > thresholds[0]
    assert gc.get_threshold() == thresholds


def test_all_is_undone_after_an_error_too() -> None:
    before = [vars(owner)[name] for owner, name in CHANGED]
    with pytest.raises(ZeroDivisionError), applied(COMPILING):
        raise ZeroDivisionError
    assert [vars(owner)[name] for owner, name in CHANGED] == before


def test_a_garbage_collector_that_was_off_stays_off() -> None:
    thresholds = gc.get_threshold()
    gc.set_threshold(0)
    try:
        with preparation.fewer_collections():
            assert gc.get_threshold()[0] == 0
    finally:
        gc.set_threshold(*thresholds)


def test_a_release_without_a_part_compiles_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(CppWrapperCpu, "generate_input_output_runtime_checks")
    with applied(COMPILING) as patched:
        assert not hasattr(CppWrapperCpu, "generate_input_output_runtime_checks")
    assert set(patched.names) == {patch.name for patch in COMPILING} - {"input_checks"}


def test_a_patch_that_sets_what_inductor_lacks_is_left_out() -> None:
    unknown = Patch(name="a", does="", gain="", checked=(), needed="", options=lambda device: {"cpp.no_such": 1})
    with applied([unknown, *COMPILING]) as patched:
        assert "a" not in patched.names
        assert "cpp.no_such" not in patched.options


def test_dtype_rules_are_as_without_the_change() -> None:
    importlib.import_module("torch._inductor.lowering")  # which defines them
    with applied(COMPILING):
        handler = DtypePropagationOpsHandler()
        assert vars(handler)["add"](torch.ones(1).int(), torch.ones(1)) == torch.float32
        rules = dict(vars(handler))
        assert vars(DtypePropagationOpsHandler())["add"] is rules["add"]  # not made anew
    assert vars(DtypePropagationOpsHandler()).keys() == rules.keys()


def overwritten(moment: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    """Two values between that nobody uses after the third, and one of the old moment that is a result."""
    doubled = moment * 2
    new = moment + (gradient - moment) * 0.1
    moment.copy_(new)
    return doubled


def places() -> int:
    """How many values have a place in memory when `overwritten` is lowered."""
    examples = (torch.ones(64), torch.ones(64))
    module = make_fx(overwritten, tracing_mode="fake")(*examples)
    graph = GraphLowering(module, example_inputs=list(examples))
    with V.set_graph_handler(graph):
        graph.run(*examples)
    return len(graph.buffers)


def test_before_a_tensor_is_overwritten_only_values_that_are_used_later_are_kept() -> None:
    assert places() == 5
    with applied(COMPILING):
        assert places() == 3  # the new moment, its copy, what was doubled before


class Set:
    """Vector instructions: `tried` is written down."""

    def __init__(self, name: str, works: bool, tried: list[str]) -> None:
        self.name, self.works, self.tried = name, works, tried

    def __str__(self) -> str:
        return self.name

    def __bool__(self) -> bool:
        self.tried.append(self.name)
        return self.works


def instruction_sets(monkeypatch: pytest.MonkeyPatch, **works: bool) -> list[str]:
    """Let inductor's list be these, best first; the names of those tried, as they are."""
    tried: list[str] = []
    sets = [Set(name, does, tried) for name, does in works.items()]
    monkeypatch.setattr(cpu_vec_isa, "supported_vec_isa_list", sets)
    monkeypatch.setattr(cpu_vec_isa, "x86_isa_checker", lambda: ["good", "fair", "poor"])
    monkeypatch.setattr(cpu_vec_isa, "valid_vec_isa_list", lambda: [s for s in sets if s])
    monkeypatch.delenv("ATEN_CPU_CAPABILITY", raising=False)
    return tried


def test_the_best_instructions_that_work_are_picked_and_no_others_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = instruction_sets(monkeypatch, unknown=True, good=False, fair=True, poor=True)
    with applied(COMPILING):
        assert str(cpu_vec_isa.pick_vec_isa()) == str(cpu_vec_isa.pick_vec_isa()) == "fair"
    assert tried == ["good", "fair"]


def test_instructions_that_the_user_names_are_picked_among_all(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = instruction_sets(monkeypatch, good=True, fair=True, poor=True)
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "default")
    with applied(COMPILING):
        assert cpu_vec_isa.pick_vec_isa() is cpu_vec_isa.invalid_vec_isa
    assert tried == ["good", "fair", "poor"]


def test_where_no_instructions_work_none_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    instruction_sets(monkeypatch, good=False, poor=False)
    with applied(COMPILING):
        assert cpu_vec_isa.pick_vec_isa() is cpu_vec_isa.invalid_vec_isa


class Build:
    """A builder of one file; `wrapper` waits until the kernel's has been built."""

    def __init__(self, target: str) -> None:
        self.target = target

    def get_target_file_path(self) -> str:
        return self.target


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    names: list[str] = []
    kernel_done = threading.Event()

    def build(self: Build) -> None:
        if self.target == "fails.wrapper.o":
            raise RuntimeError("g++ does not like it")
        if self.target.endswith(".wrapper.o"):
            assert kernel_done.wait(20)
        names.append(self.target)
        if self.target.endswith(".kernel.o"):
            kernel_done.set()

    monkeypatch.setattr(CppBuilder, "build", build)
    return names


def test_the_wrapper_compiles_beside_the_kernels_and_before_the_linker(built: list[str]) -> None:
    with applied([parallel_wrapper.PATCH]):
        for target in ("a.wrapper.o", "a.kernel.o", "a.so"):
            CppBuilder.build(Build(target))  # type: ignore[arg-type]
    assert built == ["a.kernel.o", "a.wrapper.o", "a.so"]


def test_a_wrapper_that_does_not_compile_stops_the_linker(built: list[str]) -> None:
    with applied([parallel_wrapper.PATCH]):
        CppBuilder.build(Build("fails.wrapper.o"))  # type: ignore[arg-type]
        CppBuilder.build(Build("a.kernel.o"))  # type: ignore[arg-type]
        with pytest.raises(RuntimeError, match="does not like it"):
            CppBuilder.build(Build("a.so"))  # type: ignore[arg-type]
    assert built == ["a.kernel.o"]


@pytest.fixture
def builder(tmp_path: Path) -> CppBuilder:
    (tmp_path / "one.cpp").write_text("int one() { return 1; }")
    return CppBuilder("one", [str(tmp_path / "one.cpp")], CppOptions(compile_only=True), str(tmp_path))


def test_what_a_compiler_has_built_is_where_inductor_looks_for_it(builder: CppBuilder, tmp_path: Path) -> None:
    with applied([whole_files.PATCH]):
        builder.build()
    assert {path.name for path in tmp_path.iterdir()} == {"one.cpp", Path(builder.get_target_file_path()).name}


def test_half_of_a_file_is_never_taken_over(
    builder: CppBuilder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(self: CppBuilder) -> None:
        part = self.get_command_line().split(" -o ")[1].split()[0]
        Path(part).write_bytes(b"half")
        assert not Path(self.get_target_file_path()).exists()
        raise RuntimeError("killed")

    monkeypatch.setattr(CppBuilder, "build", killed)
    with applied([whole_files.PATCH]), pytest.raises(RuntimeError, match="killed"):
        builder.build()
    assert [path.name for path in tmp_path.iterdir()] == ["one.cpp"]
