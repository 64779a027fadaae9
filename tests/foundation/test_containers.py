"""Batches of other libraries' types are trees: their tensors are found, and put back into the same type."""

import collections
import dataclasses
import types
from collections.abc import Mapping

import optree
import pytest
import torch
import torch.utils._pytree as torch_pytree

import functrain as ft
from functrain.data import pad_batch
from functrain.data.transfer import to_device
from functrain.diagnostics.batch_size import repeated
from functrain.distributed import World, part_of
from functrain.foundation import trees
from functrain.foundation.containers import objects_in, register_containers
from functrain.loop.memory import split_batch


class Encoding(collections.UserDict):
    """As a tokenizer's output: keys are attributes too, and it carries more than its items."""

    def __init__(self, data, pieces=None):
        super().__init__(data)
        self.pieces = pieces

    def __getattr__(self, name):
        if name == "data" or name not in self.data:
            raise AttributeError(name)
        return self.data[name]


class Fields(dict):
    pass


class Frozen(Mapping):
    def __init__(self, items):
        self._items = dict(items)

    def __getitem__(self, key):
        return self._items[key]

    def __iter__(self):
        return iter(self._items)

    def __len__(self):
        return len(self._items)


class Registered:
    def __init__(self, x, y, options):
        self.x, self.y, self.options = x, y, options


torch_pytree.register_pytree_node(
    Registered, lambda r: ([r.x, r.y], [r.options]), lambda children, context: Registered(*children, *context)
)


class OfOptree:
    def __init__(self, x):
        self.x = x


optree.register_pytree_node(
    OfOptree,
    lambda r: ((r.x,), None),
    lambda _, children: OfOptree(*children),
    namespace=optree.registry.__GLOBAL_NAMESPACE,
)


class Graph:
    """An object that nobody registered: nodes, edges, a name, and a way round in it."""

    def __init__(self, nodes, edges, name="g"):
        self.store = {"x": nodes, "edge_index": edges}
        self.name, self.again, self.itself = name, nodes, self


@dataclasses.dataclass
class Record:
    x: torch.Tensor
    y: torch.Tensor


X, Y = torch.arange(8.0).reshape(4, 2), torch.tensor([0, 1, 0, 1])
CONTAINERS = {
    "a UserDict": (Encoding({"x": X, "y": Y}, pieces=["a"]), lambda b: (b["x"], b.y)),
    "a subclass of dict": (Fields(x=X, y=Y), lambda b: (b["x"], b["y"])),
    "another mapping": (Frozen({"x": X, "y": Y}), lambda b: (b["x"], b["y"])),
    "a mapping proxy": (types.MappingProxyType({"x": X, "y": Y}), lambda b: (b["x"], b["y"])),
    "a type of torch's pytree": (Registered(X, Y, {"unhashable": []}), lambda b: (b.x, b.y)),
    "a type of optree's": (OfOptree((X, Y)), lambda b: b.x),
    "an object": (Graph(X, Y), lambda b: (b.store["x"], b.store["edge_index"])),
    "a dataclass": (Record(X, Y), lambda b: (b.x, b.y)),
    "objects within": ([Graph(X, Y), {"n": Encoding({"z": X})}], lambda b: (b[0].store["x"], b[0].store["edge_index"])),
}


@pytest.fixture(params=CONTAINERS)
def container(request):
    return CONTAINERS[request.param]


def test_the_tensors_of_a_container_are_found_and_put_back(container):
    batch, parts = container
    register_containers(batch)
    assert {id(X), id(Y)} <= {id(leaf) for leaf in trees.leaves(batch)}
    doubled = trees.tree_map(lambda leaf: leaf * 2 if isinstance(leaf, torch.Tensor) else leaf, batch)
    assert torch.equal(parts(doubled)[0], X * 2)
    assert torch.equal(parts(doubled)[1], Y * 2)
    assert parts(batch)[0] is X  # the given batch is left as it was
    assert parts(batch)[1] is Y
    assert len(set(trees.paths(batch))) == len(trees.leaves(batch))


def test_equal_structures_are_equal_and_others_are_not(container):
    batch, _ = container
    register_containers(batch)
    again = trees.tree_map(lambda leaf: leaf, batch)
    register_containers(again)
    assert trees.structure(again) == trees.structure(trees.tree_map(lambda leaf: leaf, again))
    assert hash(trees.structure(again)) == hash(trees.structure(trees.tree_map(lambda leaf: leaf, again)))
    assert trees.structure(batch) != trees.structure((batch, X))


def test_what_a_container_is_stays_so():
    encoding, graph = Encoding({"x": X}, pieces=["a"]), Graph(X, Y, "other")
    register_containers([encoding, graph])
    new_encoding, new_graph = trees.tree_map(torch.clone, [encoding, graph])
    assert type(new_encoding) is Encoding
    assert new_encoding.pieces == ["a"]
    assert new_graph.name == "other"
    assert new_graph.again is new_graph.store["x"]  # what was one tensor is one
    assert new_graph.itself is new_graph
    assert trees.structure(Graph(X, Y, "other")) != trees.structure(Graph(X, Y, "name"))


def test_a_structure_keeps_no_tensor_alive():
    encoding = Encoding({"x": X.clone()})
    register_containers(encoding)
    [tensor], structure = trees.flatten(encoding)
    assert structure.unflatten([1]).data == {"x": 1}
    import gc
    import weakref

    alive = weakref.ref(tensor)
    del tensor, encoding
    gc.collect()
    assert alive() is None


def test_objects_without_tensors_and_models_are_leaves():
    class Name:
        pass

    leaves = [Name(), torch.nn.Linear(1, 1), torch.Generator(), "text", 3, None]
    register_containers(leaves)
    assert len(trees.leaves(leaves)) == 5  # None is no leaf
    register_containers([Name(), lambda: X])
    assert objects_in(leaves) == []


def classify(model, batch):
    loss = torch.nn.functional.cross_entropy(model(batch[0]), batch[1], reduction="sum")
    return ft.Loss(loss, loss.new_full((), 4.0))


@pytest.mark.parametrize("backend", [None, "eager"])
def test_a_step_on_any_container_is_that_on_a_tuple(container, backend):
    batch, parts = container

    def objective(model, given):
        assert parts(given)[0].dtype == torch.float64
        return classify(model, parts(given))

    torch.manual_seed(0)
    model = torch.nn.Linear(2, 2)
    step = ft.train_step if backend is None else ft.compile(ft.train_step, backend=backend)
    expected, _ = ft.train_step(ft.init_state(model, classify, ft.optim.sgd(0.1), precision="fp64"), (X, Y))
    state, _ = step(ft.init_state(model, objective, ft.optim.sgd(0.1), precision="fp64"), batch)
    for name, value in expected.params.items():
        assert torch.equal(state.params[name], value)
    evaluate = ft.eval_step if backend is None else ft.compile(ft.eval_step, backend=backend)
    assert torch.equal(evaluate(state, batch).sums, ft.eval_step(expected, (X, Y)).sums)


def test_one_program_serves_all_batches_of_one_structure():
    def objective(model, batch):
        return classify(model, (batch.store["x"], batch.store["edge_index"]))

    state = ft.init_state(torch.nn.Linear(2, 2), objective, ft.optim.sgd(0.1))
    step = ft.compile(ft.train_step, backend="eager")
    for _ in range(3):
        state, _ = step(state, Graph(torch.randn(4, 2), Y))
    assert step.runner.compilations["update"] == 1


def test_tensors_in_a_container_are_moved(container):
    batch, parts = container
    moved = parts(to_device(batch, "meta"))
    assert moved[0].device.type == moved[1].device.type == "meta"


def test_a_tokenizers_output_is_padded_and_split_as_a_dict_is():
    batch = Encoding({"x": X[:3], "labels": Y[:3]})
    padded = pad_batch(batch, 4)
    assert type(padded) is Encoding
    assert padded["weight"].tolist() == [1, 1, 1, 0]
    assert "weight" not in batch
    assert [part["x"].tolist() for part in split_batch(Encoding({"x": X}), 2, pads=False)] == [
        X[:2].tolist(),
        X[2:].tolist(),
    ]


@pytest.mark.parametrize(
    "cut",
    [
        lambda batch: pad_batch(batch, 9),
        lambda batch: split_batch(batch, 2, pads=False),
        lambda batch: part_of(batch, World(0, 2)),
        lambda batch: repeated(batch, 9),
    ],
    ids=["pad", "split", "ranks", "repeat"],
)
def test_an_object_is_not_cut_into_examples(cut):
    with pytest.raises(TypeError, match="holds a Graph, which cannot be cut into examples"):
        cut((Graph(X, torch.zeros(2, 7)), Y))


def test_fit_takes_batches_of_any_type(container):
    batch, parts = container
    state = ft.init_state(torch.nn.Linear(2, 2), lambda m, b: classify(m, parts(b)), ft.optim.sgd(0.1))
    expected = ft.init_state(torch.nn.Linear(2, 2), classify, ft.optim.sgd(0.1)).replace(params=state.params)
    result = ft.fit(state, [batch] * 2, epochs=1, compile=False, progress=False)
    expected = ft.fit(expected, [(X, Y)] * 2, epochs=1, compile=False, progress=False)
    for name, value in expected.state.params.items():
        assert torch.equal(result.state.params[name], value)


def test_an_objective_with_weights_takes_ragged_batches_of_objects_unpadded():
    class Sums(torch.nn.Linear):
        def forward(self, graph):
            return super().forward(graph.store["x"])

    batches = [(Graph(X, Y), Y), (Graph(X[:3], Y), Y[:3])]
    state = ft.init_state(Sums(2, 2), ft.classification(), ft.optim.sgd(0.1))
    result = ft.fit(state, batches, epochs=1, compile=False, progress=False)
    expected = state
    for batch in batches:
        expected, _ = ft.train_step(expected, batch)
    for name, value in expected.params.items():
        assert torch.equal(result.state.params[name], value)
