"""Batches in the types of other libraries, the real ones."""

import pytest
import torch

import functrain as ft
from functrain.data import pad_batch

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore")  # the libraries' own


class Tokens(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.head = torch.nn.Embedding(9, 4), torch.nn.Linear(4, 2)

    def forward(self, input_ids, attention_mask):
        return self.head((self.embedding(input_ids) * attention_mask[..., None]).mean(1))


def named(rows=4):
    tokens = torch.arange(12).reshape(4, 3)[:rows] % 9
    return {"input_ids": tokens, "attention_mask": torch.ones_like(tokens), "labels": tokens[:, 0] % 2}


@pytest.mark.parametrize("backend", [None, "aot_eager"])
def test_a_tokenizers_output_is_a_batch(backend):
    step = ft.train_step if backend is None else ft.compile(ft.train_step, backend=backend)
    state = ft.init_state(Tokens(), ft.classification(), ft.optim.sgd(0.1))
    expected, _ = ft.train_step(state, named())
    found, _ = step(state, transformers.BatchEncoding(named()))
    torch.testing.assert_close(found.params, expected.params)
    inputs = transformers.BatchEncoding({name: part for name, part in named().items() if name != "labels"})
    found, _ = step(state, (inputs, named()["labels"]))
    torch.testing.assert_close(found.params, expected.params)


def test_a_tokenizers_output_is_padded_and_stays_one():
    batch = transformers.BatchEncoding(named(3))
    padded = pad_batch(batch, 4)
    assert isinstance(padded, transformers.BatchEncoding)
    assert padded["weight"].tolist() == [1, 1, 1, 0]
    assert padded.input_ids.shape == (4, 3)
    assert "weight" not in batch


def test_a_ragged_last_batch_counts_by_its_rows():
    loader = [transformers.BatchEncoding(named()), transformers.BatchEncoding(named(1))]
    state = ft.init_state(Tokens(), ft.classification(), ft.optim.sgd(0.1), precision="fp64")
    result = ft.fit(state, loader, epochs=1, compile=False, progress=False)
    expected = state
    for batch in (named(), named(1)):
        expected, _ = ft.train_step(expected, batch)
    torch.testing.assert_close(result.state.params, expected.params, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("backend", [None, "aot_eager"])
def test_a_graph_is_a_batch_and_one_program_serves_graphs_of_one_shape(backend):
    data = pytest.importorskip("torch_geometric.data")
    gnn = pytest.importorskip("torch_geometric.nn")

    def graphs(seed):
        torch.manual_seed(seed)
        return data.Batch.from_data_list(
            [data.Data(x=torch.randn(5, 4), edge_index=torch.randint(5, (2, 9)), y=torch.tensor([n])) for n in range(3)]
        )

    def loss(model, batch):
        assert isinstance(batch, data.Data)
        assert batch.num_graphs == 3
        outputs = gnn.global_mean_pool(model(batch.x, batch.edge_index), batch.batch, size=3)
        return ft.Loss(torch.nn.functional.cross_entropy(outputs, batch.y, reduction="sum"), outputs.new_full((), 3))

    step = ft.train_step if backend is None else ft.compile(ft.train_step, backend=backend)
    state = expected = ft.init_state(gnn.GraphSAGE(4, 8, 2, 3), loss, ft.optim.sgd(0.1), precision="fp64")
    for seed in range(3):
        state, _ = step(state, graphs(seed))
        expected, _ = ft.train_step(expected, graphs(seed))
    torch.testing.assert_close(state.params, expected.params, rtol=1e-12, atol=1e-12)
    if backend is not None:
        assert step.runner.compilations["update"] == 1
