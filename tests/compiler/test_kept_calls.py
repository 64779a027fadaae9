"""Recurrent networks, ctc_loss and sparse embeddings train compiled as they do eagerly."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import functrain as ft
from functrain.compiler.kept_calls import KeptCalls

X = torch.randn(5, 6, 3, generator=torch.Generator().manual_seed(1))


class Recurrent(nn.Module):
    """A recurrent network whose outputs, last states and learned first states all have a part in the result."""

    def __init__(self, kind, *, first=True, **options):
        super().__init__()
        self.net = kind(3, 4, **options)
        self.first = nn.ParameterList()
        if first:
            self.first += [nn.Parameter(torch.randn(state.shape) / 9) for state in self._states(self.net(X))]
        self.head = nn.LazyLinear(2)
        self(X)

    def _states(self, results):
        return results[1] if isinstance(results[1], tuple) else results[1:]

    def forward(self, x):
        first = None if not self.first else tuple(self.first) if len(self.first) == 2 else self.first[0]
        results = self.net(x, first)
        states = sum(state.square().sum() for state in self._states(results))
        return self.head(results[0]) + states


RECURRENT = {
    "LSTM": (nn.LSTM, {}),
    "LSTM, two layers, both ways, dropout": (nn.LSTM, {"num_layers": 2, "bidirectional": True, "dropout": 0.4}),
    "LSTM, projected, batch first": (nn.LSTM, {"proj_size": 2, "batch_first": True, "first": False}),
    "GRU, three layers, no bias": (nn.GRU, {"num_layers": 3, "bias": False}),
    "GRU, both ways, batch first": (nn.GRU, {"bidirectional": True, "batch_first": True, "first": False}),
    "RNN": (nn.RNN, {"num_layers": 2, "dropout": 0.3}),
    "RNN with relu": (nn.RNN, {"nonlinearity": "relu"}),
}


def squares(model, batch):
    outputs = model(batch)
    return ft.Loss(outputs.square().sum(), 5.0, {"sum": outputs.sum()})


@pytest.mark.filterwarnings("ignore:LSTM with projections:UserWarning")
@pytest.mark.parametrize(("name", "precision"), [("LSTM", "fp32"), *((name, "fp64") for name in RECURRENT)])
def test_recurrent_networks_train_and_evaluate_as_eagerly(name, precision, assert_close):
    kind, options = RECURRENT[name]
    eager = compiled = ft.init_state(Recurrent(kind, **options), squares, ft.optim.adam(0.01), precision=precision)
    step = ft.compile(ft.train_step, backend="eager")
    tolerance = 1e-10 if precision == "fp64" else 1e-4  # Adam divides by its own size what one rounding may change
    for _ in range(2):
        eager, expected = ft.train_step(eager, X)
        compiled, metrics = step(compiled, X)
        assert_close(metrics, expected, tolerance)
    assert_close(compiled.params, eager.params, tolerance)
    assert_close(ft.compile(ft.eval_step, backend="eager")(eager, X).sums, ft.eval_step(eager, X).sums, tolerance)


def test_a_long_sequence_is_no_longer_a_graph():
    from torch.fx.experimental.proxy_tensor import make_fx

    net = nn.LSTM(3, 4)

    def nodes(length):
        with KeptCalls():
            return len(make_fx(lambda x: net(x)[0].sum())(X.repeat(length, 1, 1)).graph.nodes)

    assert nodes(1) == nodes(10)


def connectionist(lengths, **options):
    def objective(model, batch):
        x, targets = batch
        log_probs = model(x).transpose(0, 1).log_softmax(-1)
        losses = F.ctc_loss(log_probs, targets, *lengths, **options)
        return ft.Loss(losses.sum(), 4.0)

    return objective


CTC = {
    "lists": connectionist(([6, 5, 6, 4], [3, 2, 1, 2])),
    "tensors, summed": connectionist((torch.tensor([6, 5, 6, 4]), torch.tensor([3, 2, 0, 2])), reduction="sum"),
    "each": connectionist((torch.tensor([6, 5, 6, 4]), torch.tensor([3, 2, 1, 2])), reduction="none", blank=2),
    "impossible ones": connectionist(([2, 5, 6, 4], [3, 2, 1, 2]), zero_infinity=True),
}


@pytest.mark.parametrize("name", CTC)
def test_ctc_losses_train_as_eagerly(name, assert_close):
    generator = torch.Generator().manual_seed(4)
    batch = torch.randn(4, 6, 3, generator=generator), torch.tensor([[1, 3, 1], [4, 1, 0], [3, 0, 0], [1, 4, 0]])
    state = ft.init_state(nn.Linear(3, 5), CTC[name], ft.optim.sgd(0.1), precision="fp64")
    assert_close(ft.compile(ft.train_step, backend="eager")(state, batch), ft.train_step(state, batch), 1e-10)


class Tables(nn.Module):
    def __init__(self, *, sparse):
        super().__init__()
        self.one = nn.Embedding(9, 4, sparse=sparse)
        self.two = nn.EmbeddingBag(9, 4, mode="sum", sparse=sparse)
        self.three = nn.Parameter(torch.randn(9, 4))
        self.sparse = sparse

    def forward(self, x):
        return self.one(x) + self.two(x[:, None]) + F.embedding(x, self.three, None, None, 2.0, False, self.sparse)


def test_sparse_embeddings_have_dense_gradients(assert_close):
    torch.manual_seed(0)
    dense, sparse = Tables(sparse=False), Tables(sparse=True)
    sparse.load_state_dict(dense.state_dict())
    indices = torch.tensor([1, 4, 4, 8, 0, 1])

    def trained(model, step):
        state = ft.init_state(model, squares, ft.optim.adamw(0.1), precision="fp64", clip_norm=0.5)
        for _ in range(2):
            state, metrics = step(state, indices)
        return state.params, metrics

    expected = trained(dense, ft.train_step)
    assert_close(trained(sparse, ft.train_step), expected, 1e-12)
    assert_close(trained(sparse, ft.compile(ft.train_step, backend="eager")), expected, 1e-12)


@pytest.mark.slow
def test_inductor_compiles_a_recurrent_network_with_a_ctc_loss(assert_close):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.head = nn.LSTM(3, 4, num_layers=2), nn.Linear(4, 5)

        def forward(self, x):
            return self.head(self.net(x)[0])

    batch = torch.randn(4, 6, 3), torch.tensor([[1, 3, 1], [4, 1, 0], [3, 0, 0], [1, 4, 0]])
    state = ft.init_state(Net(), CTC["tensors, summed"], ft.optim.sgd(0.1))
    step, again = ft.compile(ft.train_step), ft.compile(ft.train_step)
    found = step(state, batch)
    assert_close(found, ft.train_step(state, batch), 1e-5)
    assert_close(found, again(state, batch), 0)
    evaluate = ft.compile(ft.eval_step)
    assert_close(evaluate(state, batch).sums, ft.eval_step(state, batch).sums, 1e-5)
