"""A deep ensemble against NumPy and scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, log_loss, mean_squared_error
from torch import nn

import functrain as ft


def states_of(objective, outputs, count=4):
    found = []
    for number in range(count):
        torch.manual_seed(number)
        found.append(ft.init_state(nn.Linear(3, outputs), objective, ft.optim.sgd(0.1), precision="fp64"))
    return found


def batches_of(targets):
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(len(targets), 3, generator=generator, dtype=torch.float64)
    return inputs, [(inputs[:20], targets[:20]), (inputs[20:], targets[20:])]


def probabilities_of(states, inputs):
    with torch.no_grad():
        return torch.stack([ft.to_module(state)(inputs).softmax(1) for state in states]).numpy()


def entropy(p):
    return -(p * np.log(p)).sum(-1)


@pytest.mark.parametrize("stacked", [True, False])
def test_classes_are_judged_by_the_mean_probabilities(stacked):
    labels = torch.randint(4, (50,), generator=torch.Generator().manual_seed(1))
    states = states_of(ft.classification(), 4)
    inputs, batches = batches_of(labels)
    found = ft.evaluate_ensemble(ft.stack(states) if stacked else states, batches)
    each = probabilities_of(states, inputs)
    mean = each.mean(0)
    assert found.ensemble["loss"] == pytest.approx(log_loss(labels, mean), abs=1e-12)
    assert found.ensemble["accuracy"] == pytest.approx(accuracy_score(labels, mean.argmax(1)), abs=1e-12)
    for member, p in zip(found.members, each, strict=True):
        assert member["loss"] == pytest.approx(log_loss(labels, p), abs=1e-12)
        assert member["accuracy"] == pytest.approx(accuracy_score(labels, p.argmax(1)), abs=1e-12)
    total, data = entropy(mean).mean(), entropy(each).mean()
    votes = each.argmax(-1)
    differ = np.mean([(votes[a] != votes[b]).mean() for a in range(4) for b in range(4) if a != b])
    expected = {"total": total, "data": data, "model": total - data, "disagreement": differ}
    assert found.uncertainty == pytest.approx(expected, abs=1e-12)


def test_ignored_labels_do_not_count():
    labels = torch.randint(4, (50,), generator=torch.Generator().manual_seed(1))
    ignored = torch.where(torch.arange(50) % 5 == 0, -100, labels)
    states = states_of(ft.classification(), 4)
    inputs, batches = batches_of(ignored)
    found, kept = ft.evaluate_ensemble(states, batches), ignored != -100
    each = probabilities_of(states, inputs[kept])
    assert found.ensemble["loss"] == pytest.approx(log_loss(labels[kept], each.mean(0)), abs=1e-12)
    assert found.uncertainty["total"] == pytest.approx(entropy(each.mean(0)).mean(), abs=1e-12)


def test_two_classes_are_judged_by_the_mean_probability():
    labels = torch.randint(2, (50,), generator=torch.Generator().manual_seed(1))
    states = states_of(ft.binary_classification(), 1)
    inputs, batches = batches_of(labels.double())
    found = ft.evaluate_ensemble(states, batches)
    with torch.no_grad():
        each = torch.stack([ft.to_module(state)(inputs)[:, 0].sigmoid() for state in states]).numpy()
    assert found.ensemble["loss"] == pytest.approx(log_loss(labels, each.mean(0)), abs=1e-12)
    two = np.stack([1 - each, each], -1)
    assert found.uncertainty["model"] == pytest.approx(entropy(two.mean(0)).mean() - entropy(two).mean(), abs=1e-12)


def test_values_are_judged_by_their_mean():
    targets = torch.randn(50, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    states = states_of(ft.regression(), 2)
    inputs, batches = batches_of(targets)
    found = ft.evaluate_ensemble(states, batches)
    with torch.no_grad():
        each = torch.stack([ft.to_module(state)(inputs) for state in states]).numpy()
    assert found.ensemble["mse"] == pytest.approx(mean_squared_error(targets, each.mean(0)), abs=1e-12)
    assert found.uncertainty["model"] == pytest.approx(np.sqrt(each.var(0).mean()), abs=1e-12)


def test_one_member_does_not_disagree_with_itself():
    found = ft.evaluate_ensemble(
        states_of(ft.classification(), 4, 1), batches_of(torch.zeros(30, dtype=torch.int64))[1]
    )
    assert found.uncertainty["disagreement"] == 0
    assert found.uncertainty["model"] == pytest.approx(0, abs=1e-12)
    assert found.ensemble == pytest.approx(found.members[0], abs=1e-12)


def test_metrics_that_are_asked_for_are_those_of_the_mean():
    found = ft.evaluate_ensemble(
        states_of(ft.classification(), 2), batches_of(torch.arange(50) % 2)[1], metrics=["f1", "auroc"]
    )
    assert {"loss", "f1", "auroc"} <= found.ensemble.keys()


@pytest.mark.parametrize(
    ("objective", "outputs", "targets", "same"),
    [
        (ft.classification(), 4, torch.arange(50) % 4, {"log_loss": "loss", "accuracy": "accuracy"}),
        (ft.binary_classification(), 1, (torch.arange(50) % 2).double(), {"log_loss": "loss", "accuracy": "accuracy"}),
        (ft.regression(), 2, torch.arange(100.0, dtype=torch.float64).view(50, 2) / 50, {"mse": "mse", "mae": "mae"}),
    ],
    ids=["classes", "two classes", "values"],
)
def test_the_report_of_a_stack_is_that_of_its_mean_prediction(objective, outputs, targets, same, tmp_path):
    states = states_of(objective, outputs)
    _, batches = batches_of(targets)
    found = ft.evaluate_ensemble(states, batches)
    report = ft.evaluation_report(ft.stack(states), batches, tuning=batches)
    numbers = {number.name: number.value for number in report.numbers}
    for name, metric in same.items():
        assert numbers[name] == pytest.approx(found.ensemble[metric], rel=1e-6), name
    assert numbers["model_uncertainty"] == found.uncertainty["model"]
    members = next(table for table in report.tables if table.name == "members")
    assert [row[0] for row in members.rows] == ["mean prediction", *(f"member {number}" for number in range(4))]
    assert [row[1:] for row in members.rows[1:]] == [list(member.values()) for member in found.members]
    files = {path.name for path in ft.write_report(report, tmp_path)}
    assert f"members_{next(iter(found.ensemble))}.png" in files
    assert ("disagreement.png" in files) == (outputs != 2)


def test_the_metrics_that_the_states_were_asked_for_are_measured():
    states = [
        ft.init_state(nn.Linear(3, 2), ft.classification(), ft.optim.sgd(0.1), precision="fp64", metrics=["f1"])
        for _ in range(2)
    ]
    assert {"accuracy", "brier", "f1"} <= ft.evaluate_ensemble(
        states, batches_of(torch.arange(50) % 2)[1]
    ).ensemble.keys()


def test_what_has_no_mean_prediction_is_refused():
    def objective(model, batch):
        return ft.Loss(model(batch[0]).sum(), 1.0)

    with pytest.raises(ft.errors.FunctrainError, match="this objective's task is not known"):
        ft.evaluate_ensemble(states_of(objective, 2), batches_of(torch.zeros(30))[1])
    with pytest.raises(ValueError, match="one member at least"):
        ft.evaluate_ensemble([], [])
