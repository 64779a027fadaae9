"""Ready-made objectives against torch's formulas, with weights, and what they refuse."""

import functools

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from functrain.metrics.weighted_sums import total
from functrain.objectives import classification, language_modelling, regression, segmentation, supervised
from functrain.objectives.supervised import takes_weight


def double(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def plain_cross_entropy(outputs, targets):
    return -outputs.log_softmax(-1).gather(-1, targets[:, None]).mean()


class OwnLoss(nn.Module):
    def forward(self, outputs, targets):
        return plain_cross_entropy(outputs, targets)


CROSS_ENTROPIES = {
    "function": F.cross_entropy,
    "module": nn.CrossEntropyLoss(),
    "partial": functools.partial(F.cross_entropy, reduction="mean"),
    "lambda": lambda o, t: plain_cross_entropy(o, t),
    "own module": OwnLoss(),
}
REGRESSIONS = {
    "function": F.mse_loss,
    "module": nn.MSELoss(),
    "lambda": lambda o, t: ((o - t) ** 2).mean(),
}


def mean(loss):
    return loss.total / loss.weight


@pytest.mark.parametrize("loss_fn", CROSS_ENTROPIES.values(), ids=CROSS_ENTROPIES)
def test_supervised_has_the_mean_of_its_loss_and_the_examples_as_weight(loss_fn):
    logits, labels = double(7, 3), torch.arange(7) % 3
    loss = supervised(loss_fn)(nn.Identity(), (logits, labels))
    torch.testing.assert_close(mean(loss), F.cross_entropy(logits, labels), rtol=1e-14, atol=0)
    assert loss.weight.item() == 7


@pytest.mark.parametrize("loss_fn", CROSS_ENTROPIES.values(), ids=CROSS_ENTROPIES)
def test_supervised_weighs_single_examples_of_a_cross_entropy(loss_fn):
    logits, labels, weight = double(7, 3), torch.arange(7) % 3, torch.tensor([0, 1, 2, 0.5, 0, 3, 1])
    loss = supervised(loss_fn)(nn.Identity(), (logits, labels, weight))
    expected = (F.cross_entropy(logits, labels, reduction="none") * weight).sum()
    torch.testing.assert_close(loss.total, expected, rtol=1e-14, atol=0)
    assert loss.weight.item() == 7.5


@pytest.mark.parametrize("shape", [(5,), (5, 1), (5, 3, 2)])
@pytest.mark.parametrize("loss_fn", REGRESSIONS.values(), ids=REGRESSIONS)
def test_supervised_weighs_single_examples_of_a_regression(loss_fn, shape):
    predictions, targets = double(2, *shape)
    weight = torch.tensor([0, 1, 2, 0.5, 3], dtype=torch.float64)
    loss = supervised(loss_fn)(nn.Identity(), (predictions, targets, weight))
    rows = ((predictions - targets) ** 2).flatten(1).mean(1) if len(shape) > 1 else (predictions - targets) ** 2
    torch.testing.assert_close(loss.total, (rows * weight).sum(), rtol=1e-14, atol=0)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=8))
@settings(max_examples=40, deadline=None)
def test_weights_of_one_change_nothing_and_an_example_of_weight_k_counts_k_times(counts):
    logits, labels = double(len(counts), 3), torch.arange(len(counts)) % 3
    weight = torch.tensor(counts, dtype=torch.float64)
    repeated = (logits.repeat_interleave(weight.long(), 0), labels.repeat_interleave(weight.long()))
    for objective in (supervised(F.cross_entropy), classification(label_smoothing=0.1)):
        weighted = objective(nn.Identity(), (logits, labels, weight))
        ones = objective(nn.Identity(), (logits, labels, torch.ones_like(weight)))
        torch.testing.assert_close(ones.total, objective(nn.Identity(), (logits, labels)).total, rtol=1e-13, atol=0)
        assert weighted.weight.item() == sum(counts)
        if sum(counts):
            torch.testing.assert_close(weighted.total, objective(nn.Identity(), repeated).total, rtol=1e-13, atol=1e-13)


def test_a_module_loss_is_not_changed_by_weights():
    loss_fn = nn.CrossEntropyLoss()
    supervised(loss_fn)(nn.Identity(), (double(2, 3), torch.tensor([0, 1]), torch.ones(2)))
    assert loss_fn.reduction == "mean"


def test_half_precision_losses_are_counted_and_summed_in_float32():
    outputs, targets = torch.ones(257, 1, dtype=torch.bfloat16), torch.zeros(257, 1, dtype=torch.bfloat16)
    for batch in ((outputs, targets), (outputs, targets, torch.ones(257))):
        for loss_fn in REGRESSIONS.values():
            loss = supervised(loss_fn)(nn.Identity(), batch)
            assert loss.weight.item() == loss.total.item() == 257


def test_supervised_metrics_are_averaged_like_the_loss():
    metrics = {"accuracy": lambda o, t: o.argmax(1) == t}
    logits, labels = torch.eye(4), torch.tensor([0, 1, 0, 0])
    objective = supervised(F.cross_entropy, metrics)
    assert objective(nn.Identity(), (logits, labels)).totals().means()["accuracy"].item() == 0.5
    weighted = objective(nn.Identity(), (logits, labels, torch.tensor([1.0, 1.0, 0.0, 6.0])))
    assert weighted.totals().means()["accuracy"].item() == 0.25


@pytest.mark.parametrize("metric", [lambda o, t: (o.argmax(1) == t).float().mean(), lambda o, t: o[:, :1]])
def test_a_metric_that_is_not_one_value_per_example_is_refused(metric):
    with pytest.raises(ValueError, match="one value per example"):
        supervised(F.cross_entropy, {"m": metric})(nn.Identity(), (torch.eye(3), torch.arange(3)))


def test_several_targets_are_counted_by_their_examples():
    def both(outputs, targets):
        return F.mse_loss(outputs["y"], targets["y"]) + F.l1_loss(outputs["z"], targets["z"])

    class TwoHeads(nn.Module):
        def forward(self, x):
            return {"y": x, "z": 2 * x}

    x, y, z = double(3, 5, 2)
    objective = supervised(both)
    loss = objective(TwoHeads(), (x, {"y": y, "z": z}))
    assert loss.weight.item() == 5
    torch.testing.assert_close(mean(loss), F.mse_loss(x, y) + F.l1_loss(2 * x, z))
    weighted = objective(TwoHeads(), (x, {"y": y, "z": z}, torch.ones(5)))
    torch.testing.assert_close(weighted.total, loss.total)


@pytest.mark.parametrize(
    "loss_fn",
    [
        nn.CrossEntropyLoss(weight=torch.ones(3)),
        nn.NLLLoss(weight=torch.ones(3)),
        functools.partial(F.cross_entropy, weight=torch.ones(3)),
    ],
)
def test_class_weights_are_refused(loss_fn):
    with pytest.raises(ValueError, match="class weights divides by the sum of the weights"):
        supervised(loss_fn)


@pytest.mark.parametrize(
    "loss_fn", [nn.CrossEntropyLoss(ignore_index=0), functools.partial(F.cross_entropy, ignore_index=255)]
)
def test_an_ignore_index_is_refused_and_the_way_out_named(loss_fn):
    with pytest.raises(ValueError, match=r"classification\(ignore_index=...\)"):
        supervised(loss_fn)


@pytest.mark.parametrize(
    "loss_fn", [nn.MSELoss(reduction="sum"), nn.CrossEntropyLoss(reduction="none"), nn.KLDivLoss(reduction="batchmean")]
)
def test_a_reduction_other_than_the_mean_is_refused(loss_fn):
    with pytest.raises(ValueError, match=f"got reduction='{loss_fn.reduction}'"):
        supervised(loss_fn)
    with pytest.raises(ValueError, match="got reduction='sum'"):
        supervised(functools.partial(F.mse_loss, reduction="sum"))


def test_weights_that_divide_by_the_number_of_examples_are_taken():
    supervised(nn.BCEWithLogitsLoss(pos_weight=torch.ones(1)))
    supervised(functools.partial(F.binary_cross_entropy_with_logits, pos_weight=torch.ones(1)))


def test_supervised_takes_functions_and_the_names_of_losses_only():
    with pytest.raises(ValueError, match=r"no loss 'mse' here; known: cross_entropy, .*squared_error"):
        supervised("mse")
    with pytest.raises(TypeError, match="got 3"):
        supervised(3)


@pytest.mark.parametrize("shape", [(4, 1), (1,), (3,), (1, 4)])
@pytest.mark.parametrize("objective", [supervised(F.mse_loss), regression(), classification()])
def test_a_weight_that_is_not_one_number_per_example_is_refused(objective, shape):
    targets = torch.zeros(4, 3) if objective != classification() else torch.zeros(4, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"one number for each example, \[4\] here"):
        objective(nn.Identity(), (torch.zeros(4, 3), targets, torch.ones(shape)))


@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
@pytest.mark.parametrize("ignore_index", [-100, 2])
@pytest.mark.parametrize(
    ("make", "shape", "class_dim"),
    [(classification, (9, 4), 1), (segmentation, (2, 4, 3, 5), 1), (language_modelling, (3, 6, 4), 2)],
)
def test_cross_entropy_objectives_have_torchs_mean_and_its_accuracy(
    make, shape, class_dim, ignore_index, label_smoothing
):
    torch.manual_seed(0)
    logits = double(*shape)
    targets = torch.randint(4, [size for dim, size in enumerate(shape) if dim != class_dim])
    targets[0, ...] = ignore_index
    loss = make(label_smoothing=label_smoothing, ignore_index=ignore_index)(nn.Identity(), (logits, targets))
    flat, flat_targets = logits.movedim(class_dim, -1).reshape(-1, 4), targets.reshape(-1)
    expected = F.cross_entropy(flat, flat_targets, label_smoothing=label_smoothing, ignore_index=ignore_index)
    torch.testing.assert_close(mean(loss), expected, rtol=1e-14, atol=1e-14)
    counted = flat_targets != ignore_index
    assert loss.weight.item() == counted.sum().item()
    correct = (flat.argmax(1) == flat_targets)[counted].double().mean()
    torch.testing.assert_close(loss.totals().means()["accuracy"], correct)


@pytest.mark.parametrize(
    ("objective", "logits", "targets"),
    [
        (segmentation(), double(2, 3, 4, 4), torch.randint(3, (2, 4, 4))),
        (language_modelling(), double(2, 5, 3), torch.randint(3, (2, 5))),
    ],
)
def test_an_example_weight_holds_for_each_of_its_pixels_and_tokens(objective, logits, targets):
    loss = objective(nn.Identity(), (logits, targets, torch.tensor([0.0, 2.0])))
    alone = objective(nn.Identity(), (logits[1:], targets[1:]))
    torch.testing.assert_close(loss.total, 2 * alone.total, rtol=1e-14, atol=0)
    assert loss.weight.item() == 2 * alone.weight.item()


@pytest.mark.parametrize("shape", [(5,), (5, 3)])
def test_regression_has_torchs_mean_squared_and_absolute_error(shape):
    predictions, targets = double(2, *shape)
    means = regression()(nn.Identity(), (predictions, targets)).totals().means()
    torch.testing.assert_close(means["loss"], F.mse_loss(predictions, targets), rtol=1e-14, atol=0)
    torch.testing.assert_close(means["mae"], F.l1_loss(predictions, targets), rtol=1e-14, atol=0)
    weight = torch.tensor([0.0, 0.0, 0.0, 4.0, 0.0], dtype=torch.float64)
    weighted = regression()(nn.Identity(), (predictions, targets, weight)).totals().means()
    torch.testing.assert_close(weighted["loss"], F.mse_loss(predictions[3], targets[3]), rtol=1e-14, atol=0)


def test_an_example_of_weight_zero_does_not_count_though_its_value_be_nan():
    logits, labels = torch.tensor([[1.0, 2.0], [float("nan"), 0.0]]), torch.tensor([0, 1])
    loss = classification()(nn.Identity(), (logits, labels, torch.tensor([1.0, 0.0])))
    assert torch.equal(loss.total, F.cross_entropy(logits[:1], labels[:1], reduction="sum"))
    assert total(torch.tensor([float("inf"), 2.0]), torch.tensor([0.0, 3.0])).item() == 6.0


@pytest.mark.parametrize(
    ("objective", "shape", "where"),
    [
        (classification(), (4, 3), [2]),
        (segmentation(), (2, 3, 2, 2), [1, 0, 1]),
        (language_modelling(), (2, 5, 3), [1, 4]),
    ],
)
@pytest.mark.parametrize("bad", [3, -1])
def test_a_label_out_of_range_makes_the_loss_nan_and_the_complaint_says_where(objective, shape, where, bad):
    logits = torch.zeros(shape)
    targets = torch.zeros(logits.movedim(objective.class_dim, -1).shape[:-1], dtype=torch.int64)
    assert objective.complaint(nn.Identity(), (logits, targets)) is None
    targets[tuple(where)] = bad
    assert objective(nn.Identity(), (logits, targets)).total.isnan()
    complaint = objective.complaint(nn.Identity(), (logits, targets))
    assert f"label {bad} at position {where}" in complaint
    assert "3 classes, so labels must be 0 to 2" in complaint
    targets[tuple(where)] = -100
    assert objective.complaint(nn.Identity(), (logits, targets)) is None


class Sum(nn.Module):
    def forward(self, a, b):
        return a + b


@pytest.mark.parametrize(
    "inputs", [(torch.ones(3, 1), torch.ones(3, 1)), {"b": torch.ones(3, 1), "a": torch.ones(3, 1)}]
)
@pytest.mark.parametrize("form", [lambda i, t: (i, t), lambda i, t: [i, t], lambda i, t: {"inputs": i, "targets": t}])
def test_models_of_several_inputs_take_a_tuple_or_names(inputs, form):
    assert regression()(Sum(), form(inputs, torch.zeros(3, 1))).total.item() == 12.0


def test_ready_made_objectives_respect_weights_and_one_of_your_own_must_say_so():
    for objective in (supervised(F.mse_loss), classification(), segmentation(), language_modelling(), regression()):
        assert takes_weight(objective)

    def own(model, batch):
        return None

    assert not takes_weight(own)
    own.takes_weight = True
    assert takes_weight(own)


def test_equal_objectives_are_equal_and_hashable():
    assert classification(label_smoothing=0.1) == classification(label_smoothing=0.1)
    assert len({classification(), segmentation(), language_modelling(), regression(), supervised(F.mse_loss)}) == 5
