"""Weighted sums from plain values: equal to those that are written in Python, and with errors that say what to do."""

import pytest
import torch
from torch import nn

import functrain as ft
from functrain.objectives import LearnedWeights, composed, contrastive, l1_penalty, l2_penalty, learned_terms, term
from functrain.objectives.tasks import task_of


class Heads(nn.Module):
    def __init__(self):
        super().__init__()
        self.label, self.number, self.other = nn.Linear(4, 3), nn.Linear(4, 2), nn.Linear(4, 2)

    def forward(self, x):
        return {"logits": self.label(x), "number": self.number(x), "other": self.other(x)}


PLAIN = {
    "class": {"loss": "cross_entropy", "output": "logits", "target": "class", "options": {"label_smoothing": 0.1}},
    "number": {"loss": "huber", "output": "number", "target": "number", "example_weight": "known", "weight": 0.3},
    "contrast": {
        "contrastive": ["number", "other"],
        "temperature": 0.5,
        "symmetric": False,
        "weight": {"value": 0.2, "warmup_steps": 4},
    },
    "l1": {
        "penalty": "l1",
        "parameters": ["label.*", "number.bias"],
        "weight": {"schedule": "linear", "value": 0.1, "total_steps": 8},
    },
    "l2": {"penalty": "l2", "weight": 0},
}
WRITTEN = (
    {
        "class": term("cross_entropy", output="logits", target="class", options={"label_smoothing": 0.1}),
        "number": term("huber", output="number", target="number", weight="known"),
        "contrast": contrastive("number", "other", temperature=0.5, symmetric=False),
        "l1": l1_penalty(["label.*", "number.bias"]),
        "l2": l2_penalty(),
    },
    {
        "number": 0.3,
        "contrast": ft.schedules.warmup(ft.schedules.constant(0.2), 4),
        "l1": ft.schedules.linear(0.1, 8),
        "l2": 0,
    },
)


def batch():
    torch.manual_seed(1)
    targets = {"class": torch.tensor([0, 2, 1]), "number": torch.randn(3, 2), "known": torch.tensor([1.0, 0.0, 1.0])}
    return torch.randn(3, 4), targets


@pytest.mark.parametrize("step", [0, 2, 100])
def test_plain_values_make_the_sum_that_is_written_in_python(step):
    torch.manual_seed(0)
    model = Heads()
    found = composed(PLAIN)(model, batch(), step=step).totals().means()
    expected = ft.weighted_sum(*WRITTEN)(model, batch(), step=step).totals().means()
    assert found == expected


def test_a_weight_that_warms_up_reaches_its_value():
    torch.manual_seed(0)
    state = ft.init_state(Heads(), composed(PLAIN), ft.optim.sgd(0.0))
    weights = []
    for _ in range(6):
        state, metrics = ft.train_step(state, batch())
        weights.append(round(float(metrics["contrast_weight"]), 6))
    assert weights == [0.0, 0.05, 0.1, 0.15, 0.2, 0.2]


def test_the_main_term_is_what_reports_and_metrics_are_about():
    objective = composed({**PLAIN, "class": {**PLAIN["class"], "options": {"ignore_index": 7}}})
    inputs, targets = batch()
    outputs = Heads()(inputs)
    scores, labels = objective.compared(outputs, targets)
    assert task_of(objective) == "classification"
    assert (scores is outputs["logits"], labels is targets["class"]) == (True, True)
    assert (objective.output, objective.ignore_index) == ("logits", 7)
    own = ft.weighted_sum({"mine": lambda seen: ft.Loss(seen.outputs["logits"].sum(), 1.0)})
    assert (task_of(own), own.output, own.ignore_index) == (None, None, -100)
    assert own.compared(outputs, labels)[0] is outputs["logits"]


def test_learned_weights_are_named():
    terms = {
        "a": {"loss": "huber", "weight": "learned"},
        "b": {"loss": "huber"},
        "c": {"penalty": "l2", "weight": "learned"},
    }
    assert learned_terms(composed(terms)) == ("a", "c")
    assert learned_terms(ft.classification()) == ()
    model = LearnedWeights(nn.Linear(2, 2), ("a", "c"))
    assert composed(terms)(model, (torch.zeros(3, 2), torch.ones(3, 2))).totals().means()["a_weight"] == 1.0


@pytest.mark.parametrize(
    ("terms", "error", "message"),
    [
        ({}, ValueError, "a weighted_sum needs a term; got none"),
        ({"a": "huber"}, TypeError, "term 'a' is a mapping such as.*got 'huber'"),
        ({"a": {"output": "x"}}, ValueError, "needs one of the keys loss, contrastive, penalty.*it has none"),
        ({"a": {"loss": "huber", "penalty": "l1"}}, ValueError, "it has loss and penalty"),
        (
            {"a": {"loss": "huber", "outputs": "x"}},
            ValueError,
            "term 'a': there is no key 'outputs'; did you mean 'output'",
        ),
        ({"a": {"loss": "hubert"}}, ValueError, "term 'a': there is no loss 'hubert' here; known: cross_entropy"),
        ({"a": {"loss": "huber", "options": {"beta": 1}}}, ValueError, "term 'a': the loss huber has no option 'beta'"),
        ({"a": {"contrastive": "x"}}, ValueError, "term 'a': contrastive names two outputs"),
        ({"a": {"contrastive": ["x", "y"], "temperature": 0}}, ValueError, "temperature must be greater than 0"),
        ({"a": {"penalty": "l3"}}, ValueError, "term 'a': penalty must be one of l1, l2; got 'l3'"),
        ({"a": {"penalty": "l1", "parameters": []}}, ValueError, "term 'a': a penalty needs a pattern"),
        ({"a": {"loss": "huber", "weight": "learnt"}}, TypeError, "must be a number, a schedule or 'learned'"),
        ({"a": {"loss": "huber", "weight": {"warmup_steps": 3}}}, ValueError, "the weight of 'a' needs a value"),
        ({"a": {"loss": "huber", "weight": {"value": 1, "schedule": "cos"}}}, ValueError, "there is no schedule 'cos'"),
        ({"a": {"loss": "huber", "weight": {"value": 1, "warmup": 3}}}, TypeError, "the weight of 'a': .*'warmup'"),
        (
            {"a": {"loss": "huber", "weight": {"value": -1, "warmup_steps": 3}}},
            ValueError,
            "the weight of 'a': lr must be",
        ),
    ],
)
def test_terms_that_are_none_are_refused(terms, error, message):
    with pytest.raises(error, match=message):
        composed(terms)
