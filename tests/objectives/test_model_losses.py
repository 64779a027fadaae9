"""Models that return an object, or their own loss: the objectives find what they need, and sums stay exact."""

import collections
import dataclasses
import types
from collections import UserDict

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import functrain as ft

GENERATOR = torch.Generator().manual_seed(7)
TOKENS = torch.randint(9, (6, 5), generator=GENERATOR)
LABELS = torch.where(torch.rand(6, 5, generator=GENERATOR) < 0.3, -100, TOKENS)


@dataclasses.dataclass
class Output:
    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None


class Tokens(nn.Module):
    """A language model in the manner of other libraries: named arguments, an object as its output."""

    def __init__(self, shifts=False, kind=Output):
        super().__init__()
        torch.manual_seed(0)
        self.embedding, self.head = nn.Embedding(9, 4), nn.Linear(4, 9)
        self.shifts, self.kind = shifts, kind

    def forward(self, input_ids, labels=None):
        logits = self.head(self.embedding(input_ids).cumsum(1))
        if labels is None:
            return self.kind(logits=logits)
        shifted, targets = (logits[:, :-1], labels[:, 1:]) if self.shifts else (logits, labels)
        return self.kind(loss=F.cross_entropy(shifted.flatten(0, 1), targets.flatten()), logits=logits)


def state_of(objective, model=None, **options):
    return ft.init_state(model or Tokens(), objective, ft.optim.sgd(0.5), precision="fp64", **options)


def by_hand(model, batches):
    """Three updates in plain torch: the model's own mean over the whole batch."""
    model = model.double()
    optimizer = torch.optim.SGD(model.parameters(), 0.5)
    for batch in batches:
        optimizer.zero_grad()
        model(**batch).loss.backward()
        optimizer.step()
    return dict(model.named_parameters())


def assert_close(state, expected):
    for name, value in expected.items():
        torch.testing.assert_close(state.params[name], value.detach(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("shifts", "mean_over"), [(False, "labels"), (True, "next_labels")])
@pytest.mark.parametrize("backend", [None, "eager"])
def test_uneven_micro_batches_are_the_update_of_the_whole_batch(shifts, mean_over, backend):
    whole = {"input_ids": TOKENS, "labels": LABELS}
    parts = [dict(zip(whole, cut)) for cut in zip(TOKENS.split((1, 2, 3)), LABELS.split((1, 2, 3)))]
    step = ft.train_step if backend is None else ft.compile(ft.train_step, backend=backend)
    state = state_of(ft.model_loss(mean_over=mean_over), Tokens(shifts), accumulate=3)
    for part in parts * 3:
        state, _ = step(state, part)
    assert_close(state, by_hand(Tokens(shifts), [whole] * 3))
    assert state.step == 3


def test_a_micro_batch_whose_labels_are_all_ignored_changes_nothing():
    part = {"input_ids": TOKENS, "labels": LABELS}
    nothing = {"input_ids": TOKENS, "labels": torch.full_like(LABELS, -100)}
    state = state_of(ft.model_loss(mean_over="labels"), accumulate=2)
    for batch in (nothing, part):
        state, metrics = ft.train_step(state, batch)
    assert_close(state, by_hand(Tokens(), [part]))
    assert metrics["loss"].isfinite()


def test_the_weight_is_what_was_counted():
    def weight(batch, **options):
        return ft.model_loss(**options)(Tokens(), batch).weight.item()

    batch = {"input_ids": TOKENS, "labels": LABELS}
    assert weight(batch, mean_over="labels") == (LABELS != -100).sum()
    assert weight(batch, mean_over="next_labels") == (LABELS[:, 1:] != -100).sum()
    assert weight(batch, mean_over="examples") == 6
    assert weight(batch, mean_over=lambda given: given["labels"].numel()) == 30
    with pytest.raises(ValueError, match=r"integers \[6, 5\].*'labels'.*'next_labels'"):
        weight(batch)


class Returns(nn.Module):
    """Returns what it was told to, made of a loss."""

    def __init__(self, make):
        super().__init__()
        self.weight, self.make = nn.Parameter(torch.ones(())), make

    def forward(self, x, *rest, labels=None):
        return self.make((self.weight * torch.as_tensor(x[0]).sum()).square())


Named = collections.namedtuple("Named", ["loss", "logits"])
X = torch.ones(4, 2)


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (lambda loss: loss, {}),
        (lambda loss: {"loss": loss, "logits": X}, {}),
        (lambda loss: UserDict(loss=loss), {}),
        (lambda loss: Output(loss), {}),
        (lambda loss: Named(loss, X), {}),
        (lambda loss: types.SimpleNamespace(loss=loss), {}),
        (lambda loss: (loss, X), {"loss": 0}),
        (lambda loss: {"mse": loss}, {"loss": "mse"}),
        (lambda loss: {"box": 0.25 * loss, "class": 0.75 * loss}, {}),
    ],
    ids=["tensor", "dict", "UserDict", "dataclass", "namedtuple", "object", "tuple", "other name", "several losses"],
)
@pytest.mark.parametrize("batch", [{"x": X}, (X, "more"), X], ids=["named", "positional", "alone"])
def test_the_loss_is_found_wherever_the_model_puts_it(make, options, batch):
    loss = ft.model_loss(**options)(Returns(make), batch)
    assert loss.weight.item() == 4
    assert (loss.total / loss.weight).item() == 4.0  # of X[0] = [1, 1], squared


def test_several_losses_are_logged_by_name_and_metrics_beside_them():
    def make(loss):
        return {"box": 0.25 * loss, "class": 0.75 * loss}

    objective = ft.model_loss(metrics={"twice": lambda outputs, batch: 2 * outputs["box"].detach()})
    means = objective(Returns(make), (X,)).totals().means()
    assert {name: value.item() for name, value in means.items()} == {"loss": 4, "box": 1, "class": 3, "twice": 2}


def test_a_list_of_images_has_one_example_for_each():
    images = [torch.ones(3, 8, 8), torch.ones(3, 6, 9)]
    assert ft.model_loss()(Returns(lambda loss: loss), (images, [{}, {}])).weight.item() == 2


@pytest.mark.parametrize(
    ("labels", "expected"),
    [(None, 4), (torch.zeros(4, 3), 4), (torch.tensor([0, 1, -100, 2]), 3), ([{}], 4)],
    ids=["none", "several labels", "classes, one ignored", "no tensor"],
)
def test_without_a_word_the_mean_is_over_examples_or_classes(labels, expected):
    batch = {"x": X} if labels is None else {"x": X, "labels": labels}
    assert ft.model_loss()(Returns(lambda loss: loss), batch).weight.item() == expected


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda loss: {"logits": X, "boxes": None},
            r"returned a dict with 'logits'.*no loss at 'loss'.*model_loss\(loss=...\)",
        ),
        (lambda loss: [{"boxes": X}], "returned a list of 1.*no loss at 'loss'"),
        (lambda loss: (loss, X), r"returned a tuple of 2.*model_loss\(loss=...\)"),
        (lambda loss: X, r"'loss' must be a mean, a 0-d floating-point tensor; got a tensor \[4, 2\], torch.float32"),
        (
            lambda loss: {"loss": torch.tensor(3)},
            r"'loss' must be .* floating-point tensor; got a tensor \[\], torch.int64",
        ),
        (lambda loss: {"loss": 1.5}, "the model's loss at 'loss' must be a tensor, which has a gradient; got 1.5"),
        (lambda loss: {"a": loss, "b": None}, "no loss at 'loss', and not all are losses to be added up: 'b' is None"),
        (lambda loss: {}, "returned an empty dict, with no loss at 'loss'"),
    ],
)
def test_a_model_without_a_loss_is_refused_with_what_it_returned(make, message):
    objective = ft.model_loss() if "0-d" in message else ft.model_loss(loss="loss")
    with pytest.raises(TypeError, match=message):
        objective(Returns(make), {"x": X})


def test_what_a_models_loss_cannot_do_is_refused():
    with pytest.raises(ValueError, match=r"mean_over must be one of examples, labels, next_labels.*got 'tokens'"):
        ft.model_loss(mean_over="tokens")
    with pytest.raises(TypeError, match="takes the mean of its loss itself"):
        ft.model_loss()(Returns(lambda loss: loss), {"x": X, "weight": torch.ones(4)})
    with pytest.raises(TypeError, match="needs a batch that is a mapping with a tensor 'labels'"):
        ft.model_loss(mean_over="labels")(Returns(lambda loss: loss), (X, X))


# Objectives of logits.


class Logits(nn.Module):
    def __init__(self, kind):
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.kind = nn.Linear(2, 3), kind

    def forward(self, x):
        return self.kind(self.layer(x))


KINDS = {
    "a dataclass": (lambda logits: Output(logits=logits), None),
    "a mapping": (lambda logits: {"loss": None, "logits": logits}, None),
    "a named tuple": (lambda logits: Named(None, logits), None),
    "another name": (lambda logits: {"out": logits, "aux": logits * 0}, "out"),
    "a tuple": (lambda logits: (logits * 0, logits), 1),
}
INPUTS, CLASSES = torch.arange(8.0).reshape(4, 2), torch.tensor([0, 2, 1, -100])
OBJECTIVES = {
    "classification": (ft.classification, CLASSES),
    "binary": (ft.binary_classification, torch.tensor([[0.0, 1, 1]] * 4)),
    "regression": (ft.regression, torch.ones(4, 3)),
}


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("kind", KINDS)
def test_an_objective_of_logits_takes_an_output_object(name, kind):
    (make, output), (objective, targets) = KINDS[kind], OBJECTIVES[name]
    expected = objective()(Logits(lambda logits: logits), (INPUTS, targets))
    found = objective(output=output)(Logits(make), (INPUTS, targets))
    assert torch.equal(found.totals().sums, expected.totals().sums)
    named = objective(output=output)(Logits(make), {"x": INPUTS, "labels": targets})
    assert torch.equal(named.totals().sums, expected.totals().sums)


@pytest.mark.parametrize(
    ("make", "output", "message"),
    [
        (lambda x: (x, x), None, "returned a tuple of 2.*output=0"),
        (lambda x: {"out": x}, None, "returned a dict with 'out'.*under 'logits'.*output='out'"),
        (lambda x: {"out": x}, "logit", "needs a tensor at 'logit'.*output='out'"),
        (lambda x: [x], 3, "returned a list of 1.*a tensor at 3.*output=0"),
    ],
)
def test_an_output_that_is_not_there_is_refused_with_what_there_is(make, output, message):
    with pytest.raises(TypeError, match=message):
        ft.classification(output=output)(Logits(make), (INPUTS, CLASSES))


def test_language_modelling_takes_logits_and_shifts_where_it_is_told_to():
    model = Tokens()
    logits = model(TOKENS).logits
    batch = {"input_ids": TOKENS, "labels": LABELS}
    aligned = ft.language_modelling()(model, ({"input_ids": TOKENS}, LABELS))
    torch.testing.assert_close(aligned.total, F.cross_entropy(logits.movedim(-1, 1), LABELS, reduction="sum"))
    shifted = ft.language_modelling(next_token=True)(model, batch)
    expected = F.cross_entropy(logits[:, :-1].movedim(-1, 1), LABELS[:, 1:], reduction="sum")
    torch.testing.assert_close(shifted.total, expected)
    assert shifted.weight == (LABELS[:, 1:] != -100).sum()
    torch.testing.assert_close(ft.language_modelling(next_token=False)(model, batch).total, aligned.total)
    with pytest.raises(ValueError, match="next_token=False or next_token=True"):
        ft.language_modelling()(model, batch)


def test_supervised_takes_an_output_by_name():
    for loss in (F.cross_entropy, "cross_entropy"):
        expected = ft.supervised(loss)(Logits(lambda logits: logits), (INPUTS, CLASSES))
        found = ft.supervised(loss, output="logits")(Logits(lambda logits: Output(logits=logits)), (INPUTS, CLASSES))
        assert torch.equal(found.totals().sums, expected.totals().sums)


def test_fit_counts_a_list_of_images_by_its_images():
    batches = [([torch.ones(3, 4, 4), torch.ones(3, 5, 5)], [{}, {}])] * 3
    state = ft.init_state(Returns(lambda loss: loss * 1e-4), ft.model_loss(), ft.optim.sgd(1e-6))
    result = ft.fit(state, batches, epochs=1, compile=False, progress=False)
    assert result.state.samples_seen == 6


def test_fit_trains_evaluates_and_predicts_with_batches_of_named_arguments():
    rows = [{"input_ids": TOKENS[i], "labels": LABELS[i]} for i in range(6)]
    loader = torch.utils.data.DataLoader(
        rows, batch_size=4, collate_fn=lambda samples: UserDict(torch.utils.data.default_collate(samples))
    )
    result = ft.fit(
        state_of(ft.model_loss(mean_over="labels")), loader, eval_loader=loader, epochs=1, compile=False, progress=False
    )
    parts = [{"input_ids": TOKENS[rows], "labels": LABELS[rows]} for rows in (slice(0, 4), slice(4, 6))]
    expected = by_hand(Tokens(), parts)
    assert_close(result.state, expected)
    model = ft.to_module(result.state)
    whole = model(TOKENS, LABELS)
    assert result.history[-1]["eval_loss"] == pytest.approx(whole.loss.item(), rel=1e-12)
    outputs = ft.predict(result.state, loader)
    torch.testing.assert_close(outputs.logits, whole.logits.detach(), rtol=1e-12, atol=1e-12)
