"""The benchmarks of evaluation: their loops by hand compute what `evaluate` and `predict` do."""

import dataclasses

import pytest
import torch

from benchmarks import evaluation
from benchmarks.peers import evaluating
from benchmarks.peers.networks import NETWORKS


@pytest.mark.parametrize("name", evaluation.NETWORKS)
def test_the_loops_by_hand_compute_what_functrain_does(name):
    ways, batches = evaluation.contestants(name, 150)
    loss, accuracy = ways["evaluate by hand"]()
    expected = {"loss": pytest.approx(loss, rel=1e-5), "accuracy": pytest.approx(accuracy, rel=1e-6)}
    assert batches == 3
    assert ways["evaluate"]() == ways["evaluate, a list"]() == expected
    torch.testing.assert_close(ways["predict"](), ways["predict by hand"]())


class Rounds:
    def __init__(self):
        self.begun, self.ended = 0, 0

    def begin(self):
        self.begun += 1

    def end(self):
        self.ended += 1


@pytest.mark.parametrize("name", evaluating.EVALUATED)
def test_functrains_rows_beside_others_run(name):
    network = dataclasses.replace(NETWORKS[name], steps=2)
    for evaluate in (evaluating.by_hand, lambda *a: evaluating.functrain(*a, compiled=False)):
        clock = Rounds()
        evaluate(network, clock, 3)
        assert (clock.begun, clock.ended) == (3, 3)
