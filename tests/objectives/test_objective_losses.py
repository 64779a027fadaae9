"""The ready-made objectives with a loss of choice: by name, by function, with options."""

import functools

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx

from functrain.objectives import (
    binary_classification,
    classification,
    language_modelling,
    losses,
    regression,
    segmentation,
    supervised,
)
from functrain.objectives.losses import PerExample


def images(examples=3):
    return torch.randn(examples, 4, 3, 2, dtype=torch.float64), torch.randint(4, (examples, 3, 2))


def own_loss(logits, targets, *, power: float = 2.0) -> PerExample:
    values = losses.cross_entropy(logits, targets).values ** power
    return PerExample(values, torch.ones_like(values))


@pytest.mark.parametrize("make", [classification, segmentation])
@pytest.mark.parametrize("name", losses.CLASSES)
def test_an_objective_of_classes_is_its_loss_and_counts_correct_positions(make, name):
    logits, targets = images()
    targets[0, 0] = 2
    objective = make(name, ignore_index=2)
    loss = objective(nn.Identity(), (logits, targets))
    total, weight = losses.CLASSES[name](logits, targets, ignore_index=2).sums()
    assert torch.equal(loss.total, total)
    assert torch.equal(loss.weight, weight)
    counted = targets != 2
    accuracy = (logits.argmax(1) == targets)[counted].double().mean()
    torch.testing.assert_close(loss.totals().means()["accuracy"], accuracy)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize(("make", "shape", "dim"), [(classification, (9, 3), 1), (language_modelling, (2, 5, 3), 2)])
def test_class_weights_have_torchs_mean_and_leave_the_accuracy_alone(make, shape, dim, label_smoothing):
    logits = torch.randn(shape, dtype=torch.float64)
    targets = torch.randint(3, shape[:-1])
    options = {"label_smoothing": label_smoothing}
    loss = make(class_weights=(0.5, 1.0, 4.0), **options)(nn.Identity(), (logits, targets))
    weight = torch.tensor([0.5, 1.0, 4.0], dtype=torch.float64)
    expected = F.cross_entropy(logits.reshape(-1, 3), targets.reshape(-1), weight, **options)
    torch.testing.assert_close(loss.total / loss.weight, expected, rtol=1e-13, atol=0)
    accuracy = (logits.argmax(-1) == targets).double().mean()
    torch.testing.assert_close(loss.totals().means()["accuracy"], accuracy)


@pytest.mark.parametrize("name", losses.BINARY)
def test_an_objective_of_yes_or_no_is_its_loss_and_counts_correct_labels(name):
    logits, targets = torch.randn(4, 1, 3, dtype=torch.float64), torch.randint(2, (4, 3))
    targets[1] = -100
    loss = binary_classification(name)(nn.Identity(), (logits, targets))
    total, weight = losses.BINARY[name](logits, targets).sums()
    assert torch.equal(loss.total, total)
    assert torch.equal(loss.weight, weight)
    correct = ((logits.squeeze(1) > 0) == targets)[targets >= 0].double().mean()
    torch.testing.assert_close(loss.totals().means()["accuracy"], correct)


def test_a_binary_label_out_of_range_has_a_complaint_that_says_where():
    objective = binary_classification()
    batch = (torch.zeros(2, 2), torch.tensor([[0, 1], [3, -100]]))
    assert objective(nn.Identity(), batch).total.isnan()
    assert objective.complaint(nn.Identity(), batch) == (
        "label 3 at position [1, 0] of the batch is out of range: labels must be 0 to 1"
    )
    assert objective.complaint(nn.Identity(), (torch.zeros(2), torch.tensor([0, 1]))) is None


@pytest.mark.parametrize("name", losses.VALUES)
def test_regression_takes_every_loss_of_values_and_keeps_its_metric(name):
    predictions, targets = torch.randn(2, 5, 3, dtype=torch.float64)
    loss = regression(name)(nn.Identity(), (predictions, targets))
    assert torch.equal(loss.total, losses.VALUES[name](predictions, targets).sums()[0])
    torch.testing.assert_close(loss.totals().means()["mae"], F.l1_loss(predictions, targets))


def test_options_reach_the_loss():
    logits, targets = images()
    by_name = segmentation("focal", options={"gamma": 0.5})(nn.Identity(), (logits, targets))
    assert torch.equal(by_name.total, losses.focal(logits, targets, gamma=0.5).sums()[0])
    by_function = supervised(functools.partial(losses.focal, gamma=0.5))(nn.Identity(), (logits, targets))
    assert torch.equal(by_function.total, by_name.total)
    embedded = torch.randn(4, 3)
    contrastive = supervised("info_nce", options={"temperature": 1.0})(nn.Identity(), (embedded, embedded))
    assert torch.equal(contrastive.total, losses.info_nce(embedded, embedded, temperature=1.0).sums()[0])


def test_a_function_of_ones_own_is_taken_with_its_options():
    logits, targets = images()
    weight = torch.tensor([1.0, 0.0, 2.0], dtype=torch.float64)
    expected = (own_loss(logits, targets, power=3.0).values.flatten(1).sum(1) * weight).sum()
    for objective in (segmentation(own_loss, options={"power": 3.0}), supervised(own_loss, options={"power": 3.0})):
        loss = objective(nn.Identity(), (logits, targets, weight))
        torch.testing.assert_close(loss.total, expected)
        assert loss.weight.item() == 18


def test_a_loss_that_is_not_reduced_must_say_so():
    def silent(outputs, targets):
        return losses.squared_error(outputs, targets)

    with pytest.raises(TypeError, match="by its annotation: -> PerExample"):
        supervised(silent)(nn.Identity(), (torch.zeros(2), torch.zeros(2)))
    with pytest.raises(TypeError, match="mse_loss returned Tensor, not a PerExample"):
        regression(F.mse_loss)(nn.Identity(), (torch.zeros(2), torch.zeros(2)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: classification("focl"), "no loss 'focl' here; known: cross_entropy, focal, dice, iou"),
        (lambda: classification("huber"), "no loss 'huber' here"),
        (lambda: classification("dice", label_smoothing=0.1), "dice has no option 'label_smoothing'; it has smooth"),
        (lambda: classification("dice", class_weights=(1.0, 2.0)), "dice has no option 'class_weights'"),
        (lambda: segmentation(own_loss, ignore_index=255), "own_loss has no option 'ignore_index'; it has power"),
        (lambda: regression("huber", options={"beta": 1.0}), "huber has no option 'beta'; it has delta"),
        (lambda: supervised(F.mse_loss, options={"reduction": "sum"}), r"take functools.partial\(loss"),
    ],
)
def test_a_setting_that_the_loss_does_not_have_is_refused_and_never_dropped(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_options_are_values():
    assert classification(class_weights=[1, 2]) == classification(class_weights=torch.tensor([1.0, 2.0]))
    assert hash(supervised("binary_cross_entropy", options={"pos_weight": [1.0, 2.0]}))
    with pytest.raises(TypeError, match="option 'pos_weight' must be a value that can be hashed"):
        supervised("binary_cross_entropy", options={"pos_weight": {}})


@pytest.mark.parametrize("make", [classification, regression])
def test_weights_are_counted_beyond_what_half_precision_can_count(make):
    outputs = torch.ones(300, 2, dtype=torch.bfloat16)
    targets = torch.zeros(300, dtype=torch.int64) if make is classification else torch.zeros_like(outputs)
    assert make()(nn.Identity(), (outputs, targets)).weight.item() == 300


@pytest.mark.parametrize(
    "objective",
    [
        segmentation(class_weights=(0.5, 1.0, 2.0, 3.0), label_smoothing=0.1),
        segmentation("focal", class_weights=(0.5, 1.0, 2.0, 3.0), options={"gamma": 0.5}),
        segmentation("dice"),
    ],
)
def test_a_traced_objective_with_options_gives_the_bits_of_the_eager_one(objective):
    logits, targets = images()

    def run(logits):
        def total(logits):
            loss = objective(nn.Identity(), (logits, targets))
            return loss.total, (loss.weight, loss.totals().sums)

        return torch.func.grad_and_value(total, has_aux=True)(logits)

    graph = make_fx(run, tracing_mode="fake", _allow_non_fake_inputs=True)(logits)
    other, _ = images()
    (grad, (total, rest)), (eager_grad, (eager_total, eager_rest)) = graph(other), run(other)
    for traced, eager in zip((grad, total, *rest), (eager_grad, eager_total, *eager_rest)):
        assert torch.equal(traced, eager)
