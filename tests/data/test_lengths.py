"""Sequences of unequal lengths: few shapes, the order unchanged, and padding that changes no result."""

from collections import UserDict

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

import functrain as ft
from functrain.data import Loader, PaddedCollate, as_stream, pad_length
from functrain.foundation.errors import DataError

LENGTHS = [3, 5, 9, 2, 16, 7, 4, 1, 12, 6]


class Texts(Dataset):
    """Next tokens of texts of unequal lengths."""

    def __len__(self):
        return len(LENGTHS)

    def __getitem__(self, index):
        tokens = torch.randint(1, 20, (LENGTHS[index] + 1,), generator=torch.Generator().manual_seed(index))
        return tokens[:-1], tokens[1:]


class Causal(nn.Module):
    """A recurrent network, causal by nature."""

    def __init__(self):
        super().__init__()
        self.embedding, self.out = nn.Embedding(20, 8), nn.Linear(8, 20)

    def forward(self, tokens):
        hidden = self.embedding(tokens)
        counts = torch.arange(1, tokens.shape[1] + 1, device=tokens.device).view(1, -1, 1)
        return self.out((hidden.cumsum(1) / counts).tanh() + hidden)


def make_state(**options):
    torch.manual_seed(0)
    return ft.init_state(Causal(), ft.language_modelling(), ft.optim.adam(1e-2), precision="fp64", **options)


def batches(loader):
    return list(as_stream(loader, 7).batches(0))


def longest(samples):
    """A user's own collate_fn: pads to the longest of the batch."""
    pad = nn.utils.rnn.pad_sequence
    inputs, targets = zip(*samples)
    return pad(inputs, batch_first=True), pad(targets, batch_first=True, padding_value=-100)


LOADERS = {
    "Loader": lambda pad_to: Loader(Texts(), 4, pad_to=pad_to),
    "Loader with a collate_fn": lambda pad_to: Loader(Texts(), 4, pad_to=pad_to, collate_fn=longest),
    "DataLoader": lambda pad_to: DataLoader(Texts(), 4, shuffle=True, collate_fn=PaddedCollate(pad_to)),
    "workers": lambda pad_to: Loader(Texts(), 4, pad_to=pad_to, num_workers=1),
}


@pytest.mark.parametrize("kind", LOADERS)
@pytest.mark.parametrize("pad_to", [8, (4, 10, 16)])
def test_lengths_are_few_and_the_order_and_the_tokens_are_those_without_padding(kind, pad_to):
    plain = batches(Loader(Texts(), 4, collate_fn=longest))
    allowed = {8, 16} if pad_to == 8 else set(pad_to)
    for (inputs, targets), (expected_inputs, expected_targets) in zip(
        batches(LOADERS[kind](pad_to)), plain, strict=True
    ):
        length = expected_inputs.shape[1]
        assert inputs.shape == targets.shape
        assert inputs.shape[1] == min(each for each in allowed if each >= length)
        assert torch.equal(inputs[:, :length], expected_inputs)
        assert torch.equal(targets[:, :length], expected_targets)
        assert inputs[:, length:].eq(0).all()
        assert targets[:, length:].eq(-100).all()


def test_training_and_evaluation_are_those_of_each_text_by_itself():
    """The law: the weighted mean over all tokens of the texts, each computed without a token of padding."""
    samples = [Texts()[index] for index in range(len(LENGTHS))]
    alone, metrics = make_state(accumulate=len(samples)), {}
    for inputs, targets in samples:
        alone, metrics = ft.train_step(alone, (inputs[None], targets[None]))
    assert metrics["weight_sum"] == sum(LENGTHS)
    together, found = ft.train_step(make_state(), PaddedCollate(8)(samples))
    for name, value in alone.params.items():
        torch.testing.assert_close(together.params[name], value, rtol=1e-12, atol=1e-12)
    for name in ("loss", "accuracy", "grad_norm", "weight_sum"):
        torch.testing.assert_close(found[name], metrics[name], rtol=1e-12, atol=1e-12)
    padded = ft.evaluate(make_state(), Loader(Texts(), 4, pad_to=8), compile=False)
    exact = ft.evaluate(make_state(), [(x[None], y[None]) for x, y in samples], compile=False)
    assert padded == pytest.approx(exact, rel=1e-12)


def test_a_compiled_step_meets_as_many_shapes_as_lengths():
    counted = []
    loader = Loader(Texts(), 5, pad_to=(8, 16))
    state = make_state()
    step = ft.compile(ft.train_step, backend="aot_eager")
    step.runner.on_compile = counted.append
    for epoch in range(3):
        for batch in loader.stream(1).batches(epoch):
            state, _ = step(state, batch)
    assert 1 <= len(counted) <= 2


@pytest.mark.parametrize(
    ("path", "dtype", "expected"),
    [
        ("input_ids", torch.int64, 0),
        ("attention_mask", torch.int64, 0),
        ("mask", torch.bool, False),
        ("signal", torch.float32, 0.0),
        ("labels", torch.int64, -100),
        ("targets", torch.int32, -100),
    ],
)
def test_each_kind_of_tensor_has_its_padding(path, dtype, expected):
    batch = {path: torch.ones(2, 3, dtype=dtype), "other": torch.ones(2, 3)}
    for container in (dict, UserDict):  # as tokenizers return it
        assert pad_length(container(batch), 4)[path][:, 3].tolist() == [expected] * 2


def test_what_is_padded_and_with_what_is_the_users_to_say():
    batch = ({"ids": torch.ones(2, 3), "features": torch.ones(2, 3)}, torch.ones(2, 3), torch.ones(2))
    inputs, targets, weight = pad_length(batch, 5, fill={"0/ids": 7, "1": float("nan")})
    assert inputs["ids"][:, 3:].eq(7).all()
    assert inputs["features"].shape == (2, 3)
    assert targets[:, 3:].isnan().all()
    assert weight.shape == (2,)
    with pytest.raises(ValueError, match=r"floating-point numbers for each position.*fill=\{\.\.\., '1': -100\.0\}"):
        pad_length(batch, 5)
    with pytest.raises(ValueError, match="fill names 'ids', but the batch's parts are '0/features', '0/ids', '1', '2'"):
        pad_length(batch, 5, fill={"ids": 7})
    with pytest.raises(ValueError, match="fill names '2', which has no dimension 1 to pad"):
        pad_length(batch, 5, fill={"2": 0})


@pytest.mark.parametrize("bad", [0, -8, True, 2.5, (), (8, 8), (16, 8), "64"])
def test_lengths_that_make_no_sense_are_refused_at_once(bad):
    for make in (
        lambda: Loader(Texts(), 2, pad_to=bad),
        lambda: PaddedCollate(bad),
        lambda: pad_length(Texts()[0], bad),
    ):
        with pytest.raises(ValueError, match="pad_to must be a whole number >= 1"):
            make()
    with pytest.raises(ValueError, match="give pad_to too"):
        Loader(Texts(), 2, fill={"0": 1})


def test_a_sequence_longer_than_all_lengths_is_refused():
    with pytest.raises(DataError, match=r"length 9 is longer than all of pad_to=\(4, 8\)"):
        batches(Loader(Texts(), 4, pad_to=(4, 8)))
