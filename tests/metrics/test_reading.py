"""Metrics that read labels in one way read a batch once; what they cost in a compiled step."""

from collections import Counter

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

import functrain as ft
from functrain import metrics
from functrain.compiler import packages
from functrain.metrics.measuring import Measures

ASKED = ["accuracy", "f1", "confusion_matrix", "calibration_error"]
MEASURES = Measures((metrics.accuracy(), metrics.f1(), metrics.brier(), metrics.calibration_error()))


def test_several_metrics_look_for_nan_and_for_the_predicted_class_once():
    def accumulators(predictions, targets):
        return MEASURES.of(predictions, targets, None).accumulators

    graph = make_fx(accumulators)(torch.randn(6, 3), torch.arange(6) % 3).graph
    counts = Counter(str(node.target) for node in graph.nodes)
    assert (counts["aten.isnan.default"], counts["aten.argmax.default"]) == (1, 1)


@pytest.mark.parametrize("weight", [None, torch.tensor([1.0, 0.0, 0.5, 2.0, 1.0, 1.0])])
def test_metrics_that_share_what_they_read_count_what_each_counts_alone(weight):
    torch.manual_seed(0)
    predictions, targets = torch.randn(6, 3), torch.tensor([0, 1, 2, 7, 1, 0])
    predictions[1, 2] = float("nan")
    together = MEASURES.of(predictions, targets, weight)
    for statistic, accumulator in together.pairs():
        alone = statistic.of(predictions, targets, weight)
        assert alone.keys() == accumulator.keys()
        assert all(torch.equal(alone[name], accumulator[name]) for name in alone)


def test_metrics_that_read_labels_in_different_ways_share_nothing():
    measures = Measures((metrics.f1(threshold=0.2), metrics.accuracy(threshold=0.8)))
    values = measures.of(torch.zeros(4), torch.tensor([1, 1, 0, 0]), None).values()
    assert values["f1"] == 2 / 3  # all are taken for 1
    assert values["accuracy"] == 0.5  # all are taken for 0


def test_four_metrics_leave_the_calls_of_the_digits_network_optimized(monkeypatch):
    seen = []

    def aot_compile(_graph, _inputs, options):
        seen.append(options)
        raise InterruptedError

    monkeypatch.setattr("torch._inductor.aot_compile", aot_compile)
    monkeypatch.setattr(packages, "cpp_compiler", lambda: "g++")
    state = ft.init_state(ft.models.DigitsCNN(channels=2), ft.classification(), ft.optim.adamw(1e-3), metrics=ASKED)
    with pytest.raises(InterruptedError):
        ft.compile(ft.train_step, donate=True)(state, (torch.rand(4, 1, 8, 8), torch.arange(4)))
    assert seen
    assert all("aot_inductor.compile_wrapper_opt_level" not in each for each in seen)
