"""Several losses in a configuration: weights that warm up or are learned, one's own losses, overrides."""

import json
import sys

import pytest

from functrain.app.config.build import build_state, build_training_loader, run_length
from functrain.app.config.loading import load_config
from functrain.objectives import LearnedWeights, learned_terms
from functrain.step import to_module

TERMS = "objective={name: weighted_sum, terms: {main: {loss: cross_entropy}, l2: {penalty: l2, weight: WEIGHT}}}"
OWN = """
import torch
from functrain.metrics.weighted_sums import PerExample

def cubed(logits, targets, power: int = 3):
    return PerExample(logits.abs().pow(power).sum(1), torch.ones(len(logits)))
"""


def terms(weight):
    return TERMS.replace("WEIGHT", weight)


def built(*overrides):
    config = load_config("tiny.yaml", overrides)
    return build_state(config, run_length(config, build_training_loader(config)))


def records(path):
    lines = map(json.loads, (path / "metrics.jsonl").read_text().splitlines())
    return [record for record in lines if record["kind"] == "epoch"]


def test_a_weight_warms_up_in_a_run_and_the_whole_is_logged(functrain, project):
    given = terms("{value: 0.01, warmup_steps: 6}")
    code, _, err = functrain("train", "tiny.yaml", "--no-progress", given, "metrics=[accuracy]")
    assert code == 0, err
    first, last = records(project / "runs/tiny")
    assert {"train_main", "train_l2", "train_l2_weight", "eval_accuracy"} <= set(first)
    assert first["train_l2_weight"] < last["train_l2_weight"] < 0.01
    code, _, err = functrain("train", "tiny.yaml", "--no-progress", "training.epochs=3", given, "metrics=[accuracy]")
    assert code == 0, err  # the recorded configuration is the same one
    assert records(project / "runs/tiny")[2]["train_l2_weight"] == pytest.approx(0.01)


def test_an_evaluation_has_the_weights_and_the_loss_of_the_runs_own(functrain, project):
    code, _, err = functrain("train", "tiny.yaml", "--no-progress", terms("{value: 0.01, warmup_steps: 6}"))
    assert code == 0, err
    last = records(project / "runs/tiny")[-1]
    assert last["eval_l2_weight"] > 0
    code, _, err = functrain("evaluate", "runs/tiny", "--split", "val", "--checkpoint", "last")
    assert code == 0, err
    found = json.loads((project / "runs/tiny/val/metrics.json").read_text())
    assert {name: found[name] for name in ("loss", "l2", "l2_weight")} == {
        name: last[f"eval_{name}"] for name in ("loss", "l2", "l2_weight")
    }


def test_learned_weights_wrap_the_model_that_the_configuration_names(project):
    state = built(terms("learned"))
    assert learned_terms(state.recipe.objective) == ("l2",)
    assert isinstance(to_module(state), LearnedWeights)
    assert {"log_variances"} < set(state.params)
    assert not isinstance(to_module(built(terms("0.1"))), LearnedWeights)


def test_an_override_names_a_term_by_its_path(project):
    objective = built(terms("0.1"), "objective.terms.l2.weight=0.5", "objective.terms.main.options.label_smoothing=0.1")
    assert [weight for _, _, weight in objective.recipe.objective.terms] == [1.0, 0.5]
    assert dict(objective.recipe.objective.terms[0][1].loss.options) == {"label_smoothing": 0.1}


def test_a_term_may_have_a_loss_of_ones_own(functrain, project, request):
    (project / "own_term.py").write_text(OWN)
    request.addfinalizer(lambda: sys.modules.pop("own_term", None))
    terms = "terms: {main: {loss: cross_entropy}, other: {loss: own_term:LOSS, weight: 0.1}}"
    given = f"objective={{name: weighted_sum, {terms}}}"
    code, _, err = functrain("train", "tiny.yaml", "--no-progress", given.replace("LOSS", "cubed"))
    assert code == 0, err
    assert records(project / "runs/tiny")[0]["train_other"] > 0
    code, _, err = functrain("train", "tiny.yaml", "--no-progress", given.replace("LOSS", "nope"), "--resume", "never")
    assert code == 2
    assert "has no 'nope'" in err


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("objective={name: weighted_sum}", "missing key 'terms' in objective: weighted_sum has no default for it"),
        ("objective={name: weighted_sum, terms: 3}", "objective.terms must be a section with keys of its own; got 3"),
        ("objective={name: weighted_sum, terms: {a: 3}}", "term 'a' is a mapping such as"),
        (
            "objective={name: weighted_sum, terms: {a: {los: huber}}}",
            "term 'a' needs one of the keys loss, contrastive",
        ),
        ("objective={name: weighted_sum, terms: {a: {loss: hubert}}}", "there is no loss 'hubert' here; known:"),
        (
            "objective={name: weighted_sum, term: {}}",
            "unknown key 'term' in objective (weighted_sum); did you mean 'terms'?",
        ),
    ],
)
def test_a_mistake_is_told_before_training(functrain, project, given, message):
    code, _, err = functrain("train", "tiny.yaml", "--no-progress", given)
    assert code == 2
    assert message in err
    assert not (project / "runs/tiny/metrics.jsonl").exists()
