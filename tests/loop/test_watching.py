"""An unknown metric in `watch` is refused before anything is compiled or kept, or, if its name cannot be told by then,
when the first record is saved.
"""

import pytest
import torch
from torch import nn

import functrain as ft
from functrain.compiler import package_engine

INPUTS, TARGETS = torch.randn(8, 3), torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])
BATCHES = [(INPUTS, TARGETS)] * 3
EVERY = "train_loss, train_accuracy, eval_loss, eval_accuracy"


def init(objective=None, **options):
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 3))
    return ft.init_state(model, objective or ft.classification(), ft.optim.sgd(0.1), **options)


def fit(state, **options):
    given = {"epochs": 2, "compile": False, "progress": False, "eval_loader": BATCHES, **options}
    return ft.fit(state, BATCHES, **given)


@pytest.mark.parametrize("watch", ["eval_auc", "train_auc"])
def test_nothing_is_compiled_or_left_behind(tmp_path, monkeypatch, watch):
    monkeypatch.setattr(package_engine, "trace", lambda *_, **__: pytest.fail("a step was compiled"))
    with pytest.raises(ValueError, match=f"watch must be one of {EVERY}; got '{watch}'"):
        fit(init(), compile=True, backend="aot_eager", watch=watch, run_dir=tmp_path / "a" / "run")
    assert not list(tmp_path.iterdir())


def test_a_resumed_run_is_asked_too(tmp_path):
    state = init()
    fit(state, epochs=1, run_dir=tmp_path)
    with pytest.raises(ValueError, match="got 'eval_auc'"):
        fit(state, watch="eval_auc", run_dir=tmp_path)
    assert fit(state, watch="eval_accuracy", run_dir=tmp_path).state.step == 6


def test_a_metric_of_evaluation_alone_can_be_watched(tmp_path):
    objective = ft.supervised(nn.functional.cross_entropy)

    def evaluated(model, batch):
        loss = objective(model, batch)
        return loss if model.training else ft.Loss(loss.total, loss.weight, {"late": loss.total})

    result = fit(init(evaluated), watch="eval_late", run_dir=tmp_path)
    best = ft.Checkpointer(tmp_path / "checkpoints", read_only=True).infos()
    assert [info.metric for info in best] == [record["eval_late"] for record in result.history]
    with pytest.raises(ValueError, match="one of train_loss, eval_loss, eval_late; got 'train_late'"):
        fit(init(evaluated), watch="train_late")


def test_looking_changes_no_bit():
    """The objective draws from the global generators, of torch, NumPy and Python."""
    import random

    import numpy as np

    def noisy(model, batch):
        inputs, targets = batch[0] + torch.randn(8, 3) + np.random.rand() + random.random(), batch[1]
        return ft.classification()(model, (inputs, targets))

    def trained(watch):
        np.random.seed(1)
        random.seed(1)
        torch.manual_seed(1)
        return fit(init(noisy), watch=watch).state

    assert not ft.diff_states(trained("eval_loss"), trained("eval_accuracy"))


def test_where_it_cannot_be_told_the_first_record_tells_and_is_saved(tmp_path, monkeypatch):
    def unknown(*_, **__):
        raise RuntimeError

    monkeypatch.setattr("functrain.loop.watching.metric_names", unknown)
    state = init()
    with pytest.raises(ValueError, match=f"watch must be one of {EVERY}; got 'eval_auc'"):
        fit(state, watch="eval_auc", eval_every=2, run_dir=tmp_path)
    result = fit(state, watch="eval_accuracy", epochs=3, run_dir=tmp_path)
    assert [record["epoch"] for record in result.history] == [1, 2, 3]


def test_a_batch_that_fits_into_memory_in_parts_only_is_looked_at_in_part():
    seen = []

    def objective(model, batch, weight=None):
        seen.append(len(batch[0]))
        return ft.classification()(model, batch)

    with pytest.raises(ValueError, match="got 'eval_auc'"):
        fit(init(objective), watch="eval_auc", micro_batch=2)
    assert set(seen) == {2}
