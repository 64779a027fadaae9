"""From a configuration to its optimizer (schedules by the epoch, sharpness-aware minimisation), loss scale and data."""

import pytest
import torch

from functrain import optim
from functrain.app.config.build import build_loader, build_state, build_training_loader, run_length
from functrain.app.config.loading import load_config
from functrain.data import balanced_weights
from functrain.foundation.errors import ConfigError
from functrain.optim import schedules
from functrain.step import LossScaling, train_step

SIX_UPDATES = ["training.epochs=2"]  # 20 examples, batches of 8


def rates(path, *overrides):
    """The learning rate of every update of the run."""
    config = load_config(path, [*SIX_UPDATES, *overrides])
    loader = build_training_loader(config)
    length = run_length(config, loader)
    state, found = build_state(config, length), []
    batch = torch.zeros(4, 2), torch.zeros(4, dtype=torch.long)
    for _ in range(length.updates * config.training.accumulate):
        state, metrics = train_step(state, batch)
        if "lr" in metrics:
            found.append(metrics["lr"].item())
    return found


def test_a_schedule_by_the_epoch_is_constant_within_each(project):
    schedule = "optimizer.schedule={name: multi_step, milestones: [1], gamma: 0.5, per: epoch}"
    assert rates("tiny.yaml", schedule) == [0.01] * 3 + [0.005] * 3


def test_its_total_steps_are_the_runs_epochs_and_its_warmup_is_in_updates(project):
    cosine = schedules.cosine(0.01, 2)
    schedule = "optimizer.schedule={name: cosine, per: epoch, warmup_steps: 2}"
    assert rates("tiny.yaml", schedule) == [0.0, cosine(0) / 2, *[cosine(0)], *[cosine(1)] * 3]


def test_with_accumulation_an_epoch_has_fewer_updates(project):
    schedule = "optimizer.schedule={name: step, step_size: 1, gamma: 0.5, per: epoch}"
    found = rates("tiny.yaml", schedule, "training.accumulate=2", "training.tail=short")
    assert len(found) == 4  # two in an epoch
    config = load_config("tiny.yaml", [schedule, "training.accumulate=2", "training.tail=short"])
    assert run_length(config, build_training_loader(config)).epochs == 2


def test_what_a_schedule_counts_is_update_or_epoch(project):
    with pytest.raises(ConfigError, match="per must be 'update' or 'epoch'; got 'batch'"):
        load_config("tiny.yaml", ["optimizer.schedule={name: constant, per: batch}"])


def test_sam_stands_around_the_optimizer_with_its_schedule(project):
    overrides = [*SIX_UPDATES, "optimizer.sam={rho: 0.5}", "optimizer.schedule={name: cosine}"]
    config = load_config("tiny.yaml", overrides)
    state = build_state(config, run_length(config, build_training_loader(config)))
    assert isinstance(state.opt_state, optim.SamState)
    assert (state.opt_state.rho, state.opt_state.adaptive) == (0.5, False)
    assert optim.learning_rate(state.opt_state).item() == config.optimizer.lr
    with pytest.raises(ConfigError, match=r"optim\.sam needs the batch of an update whole, got accumulate=2"):
        build_state(load_config("tiny.yaml", [*overrides, "training.accumulate=2"]), None)
    with pytest.raises(ConfigError, match=r"optimizer\.sam\.rho must be greater than 0; got 0"):
        load_config("tiny.yaml", ["optimizer.sam={rho: 0}"])


def test_a_loss_scale_is_constant_or_adapts_itself_by_a_rule(project):
    rule = ["training.loss_scaling={init_scale: 8, growth_interval: 3}", "training.precision=fp16"]
    recipe = build_state(load_config("tiny.yaml", rule), None).recipe
    assert recipe.scaling == LossScaling(init_scale=8.0, growth_interval=3)
    constant = build_state(load_config("tiny.yaml", ["training.loss_scale=8"]), None)
    assert (constant.loss_scale.scale.item(), constant.recipe.scaling) == (8.0, None)
    with pytest.raises(ConfigError, match=r"is constant \(loss_scale\) or adapts itself \(loss_scaling\), not both"):
        load_config("tiny.yaml", [*rule, "training.loss_scale=8"])


def test_sam_trains_by_a_command(functrain, project):
    code, out, err = functrain("train", "tiny.yaml", "optimizer.sam={}")
    assert code == 0, out + err


def test_training_is_balanced_and_evaluation_is_not(project):
    config = load_config("tiny.yaml", ["data.balanced=true"])
    training, validation = build_training_loader(config), build_loader(config, "val")
    labels = training.dataset.tensors[1]
    assert torch.equal(training.sampling_weights, balanced_weights(labels))
    assert validation.sampling_weights is None
    assert build_training_loader(load_config("tiny.yaml", [])).sampling_weights is None


def test_data_whose_labels_are_unknown_cannot_be_balanced(project):
    (project / "silent.py").write_text("def data(split): return [([1.0, 2.0], 0)] * 8\n")
    config = load_config("tiny.yaml", ["data={name: 'silent:data', balanced: true}"])
    with pytest.raises(
        ConfigError, match=r"data \(silent:data, split 'train'\): the data set \(list\) does not say its"
    ):
        build_training_loader(config)
