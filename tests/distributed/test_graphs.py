"""The laws of an update in one graph with its sums over the processes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import functrain as ft
from functrain import optim
from functrain.diagnostics.fake_ranks import fake_world

PROGRAM = Path(__file__).with_name("graph_process.py")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}


def test_compiled_updates_of_two_ranks_are_those_of_one_and_one_graph_serves_both(tmp_path):
    command = [sys.executable, str(PROGRAM), str(tmp_path / "of"), "1", "2"]
    found = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=300, check=False)
    assert found.returncode == 0, found.stderr
    alone, *ranks = [json.loads((tmp_path / f"of.{name}").read_text()) for name in ("1.0", "2.0", "2.1")]
    for name in ("even", "uneven"):
        for each in ranks:
            # In float64, and as of eager steps: 2^-50 each, and Adam's quotients keep that.
            given, expected = (torch.tensor(run[name]["numbers"], dtype=torch.float64) for run in (each, alone))
            torch.testing.assert_close(given, expected, rtol=1e-12, atol=1e-12)
            assert each[name]["seen"] == alone[name]["seen"] == [3, 10, 80]
            assert each[name]["compilations"] == {"pass": 1, "update": 1}
        assert ranks[0][name]["digest"] == ranks[1][name]["digest"]
    assert ranks[0]["even"]["programs"] == ranks[1]["even"]["programs"] != []
    assert ranks[0]["random"]["digest"] == ranks[1]["random"]["digest"]
    assert ranks[0]["random"]["programs"] == ranks[1]["random"]["programs"]


def test_a_process_without_a_micro_batch_is_refused_where_the_sums_are_in_the_graph():
    with fake_world(2):
        state = ft.shard(ft.init_state(nn.Linear(6, 3), ft.classification(), optim.sgd(0.1), accumulate=2))
        step = ft.compile(ft.train_step, backend="aot_eager")
        with pytest.raises(ValueError, match="that ends in one graph with the sums over the processes"):
            step(state, None, end_window=True)


def test_an_optimizer_that_draws_is_kept_out_of_graphs_that_begin_with_a_pass():
    """A pass draws by rank; what an update draws must be the same on all."""
    noise = optim.stateless(lambda updates, _: {name: u + torch.randn_like(u) for name, u in updates.items()})
    with fake_world(2):
        for accumulate in (1, 2):
            made = ft.init_state(
                nn.Linear(6, 3), ft.classification(), optim.chain(noise, optim.sgd(0.1)), accumulate=accumulate
            )
            assert ft.shard(made).recipe.exchange.within is None
