"""A compilation that fails with patches of torch's compiler is tried once without them."""

import warnings

import pytest
import torch
from torch import nn
from torch._inductor import exc
from torch._inductor.graph import GraphLowering

import functrain as ft
from functrain.compiler import backends, packages
from functrain.compiler.fingerprint import program_key
from functrain.compiler.patches import COMPILING
from functrain.compiler.patches.patch import Patch, PatchWarning, replaced
from functrain.compiler.store import Store
from functrain.foundation.errors import FunctrainError

EXAMPLES = [torch.zeros(2)]


@pytest.fixture
def attempts(monkeypatch):
    """Compilations raise these errors, one after another; the patches that each was tried with."""

    def arrange(*errors):
        left, tried = list(errors), []

        def compiled(graph, examples, mode, path, patches):
            tried.append(patches)
            if left and (error := left.pop(0)) is not None:
                raise error

        monkeypatch.setattr(packages, "_compile", compiled)
        return tried

    return arrange


def made(tmp_path):
    return packages.make(torch.fx.symbolic_trace(nn.ReLU()), EXAMPLES, "default", tmp_path / "program.pt2")


def test_one_that_succeeds_is_not_tried_again(attempts, tmp_path):
    tried = attempts()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert made(tmp_path) == COMPILING
    assert tried == [COMPILING]


@pytest.mark.parametrize(
    "error", [AttributeError("moved\nmore"), AssertionError("moved"), exc.CppCompileError(["g++"], "moved")]
)
def test_one_that_fails_is_tried_without_patches_and_a_warning_says_so(error, attempts, tmp_path):
    tried = attempts(error)
    with pytest.warns(PatchWarning, match=r"without functrain's patches.*write_order") as told:
        assert made(tmp_path) == ()
    assert tried == [COMPILING, ()]
    (warning,) = told
    assert f"({type(error).__name__}: " in str(warning.message)
    assert "more" not in str(warning.message)


def test_an_error_that_stays_is_the_one_without_patches(attempts, tmp_path):
    attempts(ValueError("first"), KeyError("second"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(KeyError, match="second") as caught:
            made(tmp_path)
    assert caught.value.__suppress_context__


def test_a_compiler_that_is_missing_is_looked_for_once(attempts, tmp_path):
    tried = attempts(exc.InvalidCxxCompiler())
    with pytest.raises(FunctrainError, match="none was found"):
        made(tmp_path)
    assert len(tried) == 1


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_who_ends_a_compilation_ends_it(error, attempts, tmp_path):
    tried = attempts(error())
    with pytest.raises(error):
        made(tmp_path)
    assert len(tried) == 1


def test_other_patches_are_another_key():
    keys = [program_key("digest", EXAMPLES, "default", donate=False, patches=p) for p in (COMPILING, COMPILING[1:], ())]
    assert len(set(keys)) == 3
    assert program_key("digest", EXAMPLES, "default", donate=False) == keys[0]


def test_a_program_without_patches_is_found_where_there_is_none_with(tmp_path, monkeypatch):
    store = Store(tmp_path / "store", limit=1000)
    monkeypatch.setattr(backends, "default_store", lambda: store)
    monkeypatch.setattr(packages, "load", lambda path, device: path.read_text())
    file = tmp_path / "made"

    def key(patches):
        return "patched" if patches else "plain"

    assert backends.kept(key, torch.device("cpu")) is None
    for name in ("plain", "patched"):
        file.write_text(name)
        store.put(name, file)
        assert backends.kept(key, torch.device("cpu")) == name


@pytest.mark.slow
def test_a_step_whose_patches_break_inductor_is_compiled_without_them(monkeypatch, assert_close, tmp_path):
    def broken(self, node):
        raise ZeroDivisionError("this release has no such thing")

    wrong = Patch(
        name="wrong", does="", gain="", checked=(), needed="", enter=lambda: replaced(GraphLowering, "run_node", broken)
    )
    monkeypatch.setenv("FUNCTRAIN_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(packages, "COMPILING", (wrong,))
    monkeypatch.setattr(backends, "COMPILING", (wrong,))
    state = ft.init_state(nn.Linear(4, 3), ft.classification(), ft.optim.sgd(0.1), precision="fp64")
    batch = (torch.arange(8.0).view(2, 4), torch.arange(2))
    told = []
    for first in (True, False):  # the second finds the program
        step = ft.compile(ft.train_step)
        step.runner.on_program = lambda form, how: told.append(how) if " made " in form else None
        with pytest.warns(PatchWarning) if first else warnings.catch_warnings():
            new, _ = step(state, batch)
        assert_close(new, ft.train_step(state, batch)[0])
    assert told == ["package, patches: none"] * 2
