"""Metrics of outputs that no target belongs to: entropy of attention, consistency of modalities."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon
from torch import nn

import functrain as ft
from functrain import metrics
from functrain.errors import MetricError
from functrain.metrics.measuring import Measures


def outputs(rows, seed):
    generator = torch.Generator().manual_seed(seed)
    attention = torch.randn(rows, 2, 3, 5, generator=generator).softmax(-1)
    spec, tab = torch.randn(2, rows, 4, generator=generator) * 2
    return {"attention_weights": attention, "aux_logits_spec": spec, "aux_logits_tab": tab}


METRICS = [
    metrics.attention_entropy(),
    metrics.attention_entropy(normalize=False),
    *(metrics.modality_consistency(measure=each) for each in ("divergence", "agreement", "cosine")),
]


def take(tree, rows):
    return {name: leaf[rows] for name, leaf in tree.items()}


@pytest.mark.parametrize("metric", METRICS)
@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_any_split_and_order_gives_the_same_value(metric, data):
    rows = data.draw(st.integers(1, 12))
    order = torch.tensor(data.draw(st.permutations(range(rows))))
    cut = data.draw(st.integers(0, rows))
    whole, targets = outputs(rows, data.draw(st.integers(0, 2**31))), torch.zeros(rows)
    weight = torch.tensor(data.draw(st.lists(st.sampled_from([0.0, 1.0, 2.5]), min_size=rows, max_size=rows)))
    accumulator = None
    for part in (order[:cut], order[cut:]):
        if len(part):
            accumulator = metric.update(accumulator, take(whole, part), targets[part], weight[part])
    torch.testing.assert_close(
        metric.compute(accumulator), metric(whole, targets, weight), rtol=1e-12, atol=1e-12, equal_nan=True
    )


@pytest.mark.parametrize("metric", METRICS)
def test_examples_of_weight_0_do_not_count(metric):
    whole = outputs(6, 0)
    broken = {name: leaf.clone() for name, leaf in whole.items()}
    for leaf in broken.values():
        leaf[4:] = math.nan
    weight = torch.tensor([1.0, 1, 1, 1, 0, 0])
    assert metric(broken, torch.zeros(6), weight) == metric(take(whole, slice(4)), torch.zeros(4))
    with pytest.raises(MetricError, match=f"{metric.name} found NaN in the predictions"):
        metric(broken, torch.zeros(6))


def test_entropy_of_known_distributions():
    def entropy(*rows, **options):
        weights = torch.tensor(rows)[None]
        return metrics.attention_entropy(**options)({"attention_weights": weights}, torch.zeros(1)).item()

    assert entropy([1.0, 0.0, 0.0, 0.0]) == 0.0
    assert entropy([0.25] * 4) == 1.0
    assert entropy([0.5, 0.5, 0.0, 0.0], normalize=False) == pytest.approx(math.log(2), abs=1e-15)
    assert entropy([0.25] * 4, [0.0] * 4) == 1.0  # a query whose keys are all masked
    assert entropy([1.0]) == 0.0


def test_several_layers_of_attention_are_taken_together():
    whole = outputs(3, 0)["attention_weights"]
    layers = {"attention_weights": (whole, {"b": whole[:, :1]})}
    one, other = (metrics.attention_entropy()({"attention_weights": w}, torch.zeros(3)) for w in (whole, whole[:, :1]))
    found = metrics.attention_entropy()(layers, torch.zeros(3))
    torch.testing.assert_close(found, (2 * one + other) / 3, rtol=1e-12, atol=0)  # by the number of their rows


def test_divergence_is_scipys():
    whole = outputs(7, 1)
    p, q = (whole[name].double().softmax(1).numpy() for name in ("aux_logits_spec", "aux_logits_tab"))
    expected = 1 - (jensenshannon(p, q, base=2, axis=1) ** 2).mean()
    assert metrics.modality_consistency()(whole, torch.zeros(7)).item() == pytest.approx(expected, abs=1e-12)
    same = {**whole, "aux_logits_tab": whole["aux_logits_spec"]}
    for measure in ("divergence", "agreement", "cosine"):
        value = metrics.modality_consistency(measure=measure)(same, torch.zeros(7)).item()
        assert value == pytest.approx(1.0, abs=1e-12)


def test_one_logit_is_that_of_yes_or_no():
    logits = torch.tensor([[2.0], [-1.0], [3.0]])
    two = torch.cat([torch.zeros(3, 1), logits], 1)
    for measure in ("divergence", "agreement"):
        metric = metrics.modality_consistency("a", "b", measure=measure)
        assert metric({"a": logits, "b": -logits}, torch.zeros(3)) == metric(
            {"a": two, "b": torch.cat([torch.zeros(3, 1), -logits], 1)}, torch.zeros(3)
        )


class TwoModalities(nn.Module):
    def __init__(self):
        super().__init__()
        self.spec, self.tab = nn.Linear(3, 2), nn.Linear(3, 2)

    def forward(self, x):
        spec, tab = self.spec(x), self.tab(x)
        weights = torch.stack([spec, tab], 1).softmax(-1)
        return {
            "logits": spec + tab,
            "aux_logits_spec": spec,
            "aux_logits_tab": tab,
            "attention_weights": weights,
        }


@pytest.mark.parametrize("compiled", [False, True])
def test_a_step_measures_them(compiled):
    asked = ["accuracy", "attention_entropy", "modality_consistency"]
    state = ft.init_state(TwoModalities(), ft.classification(), ft.optim.sgd(0.1), seed=0)
    x, y = torch.randn(9, 3, generator=torch.Generator().manual_seed(0)), torch.arange(9) % 2
    result = ft.fit(
        state,
        [(x[:6], y[:6]), (x[6:], y[6:])],
        eval_loader=[(x, y)],
        epochs=1,
        metrics=asked,
        compile=compiled,
        backend="aot_eager",
        progress=False,
    )
    record = result.history[-1]
    found = ft.to_module(result.state).eval()(x)
    expected = Measures((metrics.attention_entropy(), metrics.modality_consistency()))
    values = expected.of(None, y, None, found).values()
    for name in asked[1:]:
        assert record[f"eval_{name}"] == pytest.approx(values[name].item(), abs=1e-6)  # of float32 weights
        assert 0 <= record[f"train_{name}"] <= 1


def test_a_model_without_the_output_is_named():
    state = ft.init_state(nn.Linear(3, 2), ft.classification(), ft.optim.sgd(0.1))
    with pytest.raises(
        ValueError, match=r"metric 'attention_entropy': it takes the model's output 'attention_weights'"
    ):
        ft.evaluate(state, [(torch.ones(2, 3), torch.tensor([0, 1]))], metrics=["attention_entropy"])
    with pytest.raises(ValueError, match="must have one shape"):
        metrics.modality_consistency("a", "b")({"a": torch.ones(2, 3), "b": torch.ones(2, 4)}, torch.zeros(2))
    with pytest.raises(ValueError, match="measure must be one of"):
        metrics.modality_consistency(measure="mean")
