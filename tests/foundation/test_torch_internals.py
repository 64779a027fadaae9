"""What functrain asks torch's internals, and the substitutes in a release that has renamed them."""

import importlib.util
from collections import namedtuple

import pytest
import torch
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode

from functrain.foundation import torch_internals
from functrain.foundation.errors import FunctrainError

PRIVATE = {
    "_interpreter": (torch._C._functorch, "peek_interpreter_stack"),
    "_dispatch_modes": (torch._C, "_len_torch_dispatch_stack"),
    "_proxy_mode": (torch.fx.experimental.proxy_tensor, "get_proxy_mode"),
    "_fake_tensor": (torch._subclasses, "FakeTensor"),
    "_has_flag": (torch.compiler, "_is_compiling_flag"),
    "TorchDispatchMode": (torch.utils._python_dispatch, "TorchDispatchMode"),
    "_use_count": (torch._C, "_storage_Use_Count"),
    "_register_node": (torch.utils._pytree, "register_pytree_node"),
    "_attribute_key": (torch.utils._pytree, "GetAttrKey"),
    "torch_nodes": (torch.utils._pytree, "SUPPORTED_NODES"),
}


@pytest.fixture
def without(monkeypatch):
    """The module as it is where torch lacks names."""

    def loaded(*missing: str):
        with monkeypatch.context() as patch:
            for name in missing:
                patch.delattr(*PRIVATE[name])
            spec = importlib.util.spec_from_file_location("torch_internals_elsewhere", torch_internals.__file__)
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
        return module

    return loaded


def test_this_release_has_every_name(without) -> None:
    for name, (owner, private) in PRIVATE.items():
        substitute = getattr(without(name), name)
        found = getattr(torch_internals, name)
        assert found is (True if name == "_has_flag" else getattr(owner, private)), name
        assert substitute is not found, name


class Nothing(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))


def answers(module) -> dict[str, tuple[bool, ...]]:
    """What a module says where."""
    x = torch.ones(3)
    told = {"plainly": (module.inside_transform(), module.is_eager(), module.is_traced(), module.have_no_values([x]))}

    def asked(where, y):
        told[where] = module.inside_transform(), module.is_eager(), module.is_traced(), module.have_no_values([y])
        return (y * y).sum()

    torch.func.grad(lambda y: asked("grad", y))(x)
    torch.func.vmap(lambda y: asked("vmap", y))(x)
    make_fx(lambda y: asked("traced", y), tracing_mode="fake")(x)
    with FakeTensorMode() as mode:
        asked("fake", mode.from_tensor(x))
    with Nothing():
        told["in a mode"] = (module.inside_transform(), module.is_eager())
    with module.compiling():
        told["compiling"] = (module.is_eager(), module.have_no_values([x]))
    return told


def test_it_knows_what_is_going_on() -> None:
    assert answers(torch_internals) == {
        "plainly": (False, True, False, False),
        "grad": (True, False, False, True),
        "vmap": (True, False, False, True),
        "traced": (False, False, True, True),
        "fake": (False, False, False, True),
        "in a mode": (False, False),
        "compiling": (False, True),
    }


@pytest.mark.parametrize("name", ["_interpreter", "_proxy_mode", "_fake_tensor"])
def test_without_one_of_these_it_still_knows(name, without) -> None:
    known, told = answers(torch_internals), answers(without(name))
    told["fake"] = known["fake"]  # a dispatch mode may be taken for a trace, which is the safe side
    assert told == known


def test_without_a_count_of_modes_nothing_is_taken_for_eager(without) -> None:
    told = answers(without("_dispatch_modes"))
    assert {where: each[1] for where, each in told.items() if where not in ("compiling", "in a mode")} == dict.fromkeys(
        ("plainly", "grad", "vmap", "traced", "fake"), False
    )
    assert told["traced"][2:] == (True, True)


def test_without_the_flag_code_runs_as_in_eager_mode(without) -> None:
    with without("_has_flag").compiling():
        assert not torch.compiler.is_compiling()


def test_without_modes_who_needs_one_is_told(without) -> None:
    with (
        pytest.raises(FunctrainError, match="has no TorchDispatchMode"),
        without("TorchDispatchMode").TorchDispatchMode(),
    ):
        pass


def test_references_are_those_to_object_and_memory(without) -> None:
    one = torch.ones(2)
    (plain,) = torch_internals.references([torch.ones(2)])
    (held,) = torch_internals.references([one])
    (shared,) = torch_internals.references([one.view(2, 1)])
    assert plain[0] < held[0]
    assert plain[1] < shared[1]
    assert without("_use_count").references([one]) is None


def test_where_torch_counts_no_references_no_memory_is_taken_over(monkeypatch) -> None:
    from functrain.optim import foreach

    assert foreach.are_ours([torch.ones(2)])
    monkeypatch.setattr(torch_internals, "_use_count", None)
    assert not foreach.are_ours([torch.ones(2)])


def test_without_lists_operators_each_leaf_has_its_own(monkeypatch) -> None:
    from functrain.optim.foreach import foreach, overwrite

    def computed() -> list[torch.Tensor]:
        x = [torch.arange(3.0), torch.tensor(2.0)]
        return [*overwrite("mul", foreach("add", x, torch.tensor(0.1)), 3.0), *foreach("addcmul", x, x, x, value=0.1)]

    expected = computed()
    for name in ("add", "mul", "mul_", "addcmul"):
        monkeypatch.delattr(torch, f"_foreach_{name}")
    assert all(torch.equal(*pair) for pair in zip(computed(), expected, strict=True))


def test_copies_without_the_operator_on_lists_are_the_same(monkeypatch) -> None:
    monkeypatch.delattr(torch, "_foreach_copy_")
    targets, sources = [torch.zeros(2), torch.zeros(3)], [torch.ones(2), torch.arange(3.0)]
    torch_internals.copy_all(targets, sources)
    assert all(torch.equal(*pair) for pair in zip(targets, sources, strict=True))


def test_operators_of_attention_that_are_not_there_are_left_out(monkeypatch) -> None:
    assert len(torch_internals.cpu_attention()) == 2
    monkeypatch.setattr(torch.ops, "aten", namedtuple("Nothing", ())())
    assert torch_internals.cpu_attention() == []


def test_without_torchs_pytree_types_are_registered_nowhere(without) -> None:
    module = without("_register_node", "_attribute_key", "torch_nodes")
    module.register_with_torch(int, None, None, ())
    assert module.torch_nodes == {}


def test_a_compiled_module_is_found_by_the_name_that_it_keeps_the_other_under(monkeypatch) -> None:
    inner = nn.Linear(2, 1)
    wrapper = torch.compile(inner, backend="eager")
    assert torch_internals.inside_compiled(inner) is None
    assert torch_internals.inside_compiled(wrapper) is inner
    monkeypatch.delattr(torch._dynamo, "OptimizedModule")
    assert torch_internals.inside_compiled(inner) is None
    assert torch_internals.inside_compiled(wrapper) is inner


@pytest.mark.parametrize("register", ["register_hook", "register_post_accumulate_grad_hook"])
def test_a_hook_on_a_gradient_is_seen(register) -> None:
    parameter = nn.Parameter(torch.ones(1))
    assert not torch_internals.has_gradient_hook(parameter)
    getattr(parameter, register)(lambda gradient: None)
    assert torch_internals.has_gradient_hook(parameter)


def test_a_hook_on_a_module_is_seen() -> None:
    module = torch.nn.Linear(1, 1)
    assert not torch_internals.has_forward_hook(module)
    handle = module.register_forward_hook(lambda *_: None)
    assert torch_internals.has_forward_hook(module)
    handle.remove()
    assert not torch_internals.has_forward_hook(module)


@pytest.fixture
def group(tmp_path):
    """A process group of this process alone."""
    torch.distributed.init_process_group(
        "gloo", store=torch.distributed.FileStore(str(tmp_path / "store"), 1), rank=0, world_size=1
    )
    yield torch.distributed.group.WORLD
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("private", [True, False])
def test_a_sum_over_ranks_is_a_new_tensor(private, group, monkeypatch) -> None:
    if not private:
        monkeypatch.setattr(torch_internals, "_collectives", lambda: None)
    x = torch.arange(3.0)
    total = torch_internals.all_reduced(x, group)
    assert torch.equal(total, x)
    assert total.data_ptr() != x.data_ptr()
