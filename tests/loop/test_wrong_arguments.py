"""What users give by mistake in Python: each answer names what was given, what is allowed, and what to do."""

import inspect
import re

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import functrain as ft
from functrain.foundation.errors import DataError, FunctrainError
from functrain.optim.registry import REGISTRY

INPUTS, TARGETS = torch.randn(8, 3), torch.zeros(8, dtype=torch.int64)
BATCH = (INPUTS, TARGETS)


def net():
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 3))


def init(objective=None, optimizer=None, **options):
    return ft.init_state(net(), objective or ft.classification(), optimizer or ft.optim.sgd(0.1), **options)


def fit(loader=(BATCH,), state=None, **options):
    return ft.fit(state or init(), list(loader), **{"epochs": 1, "compile": False, "progress": False, **options})


WRONG = {
    "a torch optimizer's class": (
        lambda: init(optimizer=torch.optim.AdamW),
        r"optimizer is torch's AdamW, .* write optim\.from_torch\(torch\.optim\.AdamW, lr=\.\.\.\)",
    ),
    "a torch optimizer": (
        lambda: init(optimizer=torch.optim.SGD(net().parameters())),
        r"optimizer is torch's SGD, .* write optim\.from_torch\(torch\.optim\.SGD, lr=\.\.\.\)",
    ),
    "an optimizer not called": (lambda: init(optimizer=ft.optim.adamw), "must be a pair .* got function"),
    "an objective not called": (
        lambda: init(ft.classification),
        r"got classification\(.*\) .*does not take these two\. If classification makes an objective, call it",
    ),
    "torch's loss": (
        lambda: init(torch.nn.functional.cross_entropy),
        r"got torch's cross_entropy, .* write functrain\.supervised\(cross_entropy\)",
    ),
    "a loss module": (lambda: init(nn.CrossEntropyLoss()), r"got CrossEntropyLoss; .* functrain\.supervised\(loss\)"),
    "CUDA": (lambda: init(device="cuda:7"), r"device must be one of the devices .*\(cpu.*\); got 'cuda:7'"),
    "no device": (lambda: init(device="toaster"), r"device must be one of the devices .*; got 'toaster'"),
    "a seed": (lambda: init(seed=1.5), r"seed must be an int, got 1\.5"),
    "a norm": (lambda: init(clip_norm="1"), r"clip_norm must be a number, got '1'"),
    "a norm that is NaN": (lambda: init(clip_norm=float("nan")), r"clip_norm must be greater than 0, .* got nan"),
    "a decay": (lambda: init(ema_decay="x"), r"ema_decay must be a number, got 'x'"),
    "a scale": (lambda: init(loss_scale="dynamic"), r"loss_scale must be a number, got 'dynamic'"),
    "a scale that is True": (lambda: init(loss_scale=True), r"loss_scale must be a number, got True"),
    "label smoothing": (
        lambda: ft.classification(label_smoothing=2),
        r"label_smoothing must be between 0 and 1, got 2",
    ),
    "label smoothing as text": (
        lambda: ft.classification(label_smoothing="a"),
        r"label_smoothing must be a number between 0 and 1, got 'a'",
    ),
    "class weights in a dictionary": (
        lambda: ft.classification(class_weights={0: 1.0, 1: 2.0}),
        r"class_weights must be a sequence of numbers, .*; got \{0: 1\.0, 1: 2\.0\}",
    ),
    "class weights by name": (lambda: ft.classification(class_weights="balanced"), r"sequence .*; got 'balanced'"),
    "a negative class weight": (lambda: ft.classification(class_weights=[1, -1]), r"0 or more; class 1 has -1\.0"),
    "soft targets": (
        lambda: fit([(INPUTS, torch.ones(8, 3))]),
        r"no share of each class: \[1\.0, 1\.0, 1\.0\].* several labels .* take binary_classification\(\)",
    ),
    "labels in a column": (lambda: fit([(INPUTS, TARGETS[:, None])]), r"of size 1 off: targets\.squeeze\(1\)"),
    "labels that are floats": (
        lambda: fit([(INPUTS, TARGETS.float())]),
        r"write targets\.long\(\) if they are classes",
    ),
    "a label that another index leaves out": (
        lambda: fit([(INPUTS, TARGETS - 100)], init(ft.classification(ignore_index=0))),
        r"labels must be 0 to 2, or 0 \(ignore_index\) to be left out",
    ),
    "a mask by name": (
        lambda: init(optimizer=ft.optim.masked(ft.optim.sgd(0.1), "head.*")),
        r"a mask is a function .* got 'head\.\*'\. By patterns of names: optim\.partition",
    ),
    "a label for one logit": (
        lambda: fit([(INPUTS, TARGETS + 1)], ft.init_state(nn.Linear(3, 1), ft.classification(), ft.optim.sgd(0.1))),
        r"the model has 1 class, so one logit is not enough .* take binary_classification\(\)",
    ),
    "no targets": (
        lambda: fit([(INPUTS, None)]),
        r"the loss cross_entropy needs targets, and the batch's are None\. Give \(inputs, targets\)",
    ),
    "no targets of a regression": (
        lambda: fit([(INPUTS, None)], init(ft.regression())),
        r"squared_error needs targets",
    ),
    "one row for a BatchNorm": (
        lambda: fit(
            [(INPUTS[:1], TARGETS[:1])],
            ft.init_state(nn.Sequential(nn.BatchNorm1d(3), net()), ft.classification(), ft.optim.sgd(0.1)),
        ),
        r"module '0', BatchNorm1d\(3, .*cannot take an input of shape \[1, 3\], .* more than 1 value per channel",
    ),
    "names of classes": (
        lambda: ft.data.Arrays(INPUTS, np.array(list("abcabcab"))),
        r"Arrays takes numbers, got an array of <U1\. Names of classes .* numpy\.unique\(array, return_inverse=True\)",
    ),
    "a tuple of arrays": (
        lambda: ft.data.Loader((INPUTS, TARGETS), 4),
        r"got a tuple of arrays, .* give Loader\(Arrays\(inputs, targets\), batch_size\)",
    ),
    "a label that is NaN": (
        lambda: fit([(INPUTS, torch.full((8, 3), float("nan")))], init(ft.regression())),
        r"holds NaN or infinity \(in its part '1'\): look at the data\. An example of weight 0 is left out",
    ),
    "unequal lengths": (
        lambda: ft.fit(init(), ft.data.Loader([(torch.zeros(n), 0) for n in (3, 4)], 2), epochs=1),
        r"unequal shapes, \[3\] and \[4\] \(of '0'\); pad .* PaddedCollate|unequal shapes, \[4\] and \[3\]",
    ),
    "unequal lengths in torch's loader": (
        lambda: ft.fit(init(), DataLoader([(torch.zeros(n), 0) for n in (3, 4)], 2), epochs=1, progress=False),
        r"unequal shapes, \[3\] and \[4\] \(of '0'\); pad sequences with functrain's Loader\(\.\.\., pad_to=64\)",
    ),
    "unequal sizes beside lengths": (
        lambda: ft.data.PaddedCollate(4)([torch.zeros(3, 2), torch.zeros(2, 3)]),
        r"unequal shapes, \[4, 2\] and \[4, 3\]; pad",
    ),
    "segmentation of labels": (lambda: fit(state=init(ft.segmentation())), r"an example's pixels; got logits \[8, 3\]"),
    "language of labels": (lambda: fit(state=init(ft.language_modelling())), r"an example's tokens; got logits"),
    "the input's width": (
        lambda: fit([(torch.zeros(8, 5), TARGETS)]),
        r"the network's module '0', Linear\(in_features=3, .*\), cannot take an input of shape \[8, 5\], float32",
    ),
    "the input's type": (
        lambda: fit([(torch.zeros(8, 3, dtype=torch.int64), TARGETS)]),
        r"the network's module '0', Linear\(.*\), cannot take an input of shape \[8, 3\], int64",
    ),
    "the targets' shape": (lambda: fit([(INPUTS, TARGETS[:5])]), r"got logits \[8, 3\] and targets \[5\]"),
    "a batch of four": (lambda: fit([(*BATCH, *BATCH)]), r"a batch is \(inputs, targets\), .* got a tuple of 4"),
    "no batch": (lambda: fit([]), r"the loader has no batch in epoch 1"),
    "no tensor": (lambda: fit([("a", "b")]), r"a batch needs a.* tensor with a"),
    "examples": (lambda: ft.fit(init(), INPUTS, epochs=1), r"got Tensor of examples; pass functrain's Loader"),
    "a dataset": (lambda: ft.fit(init(), ft.data.Arrays(*BATCH), epochs=1), r"got Arrays, a data set; pass"),
    "workers": (
        lambda: ft.data.Loader(ft.data.Arrays(*BATCH), 4, num_workers=5000),
        r"num_workers must be \d+ or less",
    ),
    "a DataLoader's workers": (
        lambda: ft.fit(init(), _many_workers(), epochs=1, compile=False),
        r"num_workers must be \d+ or less on this machine, .* got 5000",
    ),
    "a model in a state's place": (
        lambda: ft.train_step(net(), BATCH),
        r"train_step takes a TrainState first, .*; got Seq",
    ),
    "a batch in a state's place": (
        lambda: ft.eval_step(BATCH, init()),
        r"eval_step takes a TrainState first, .* got tuple",
    ),
    "a loader in a state's place": (
        lambda: ft.evaluate([BATCH], init()),
        r"evaluate takes a TrainState first, .* got list",
    ),
    "predict with a model": (
        lambda: ft.predict(net(), [BATCH]),
        r"predict takes a TrainState first, .* got Sequential",
    ),
    "a module of a module": (lambda: ft.to_module(net()), r"to_module takes a TrainState first, .* got Sequential"),
    "torch's scheduler": (
        lambda: ft.optim.sgd(torch.optim.lr_scheduler.StepLR),
        r"lr must be a number or a schedule .* \(type\)\. Schedules are functrain's own, in optim\.schedules",
    ),
    "parameters for an optimizer": (
        lambda: ft.optim.adamw(net().parameters()),
        r"lr must be .* \(generator\)\. An optimizer takes no parameters here: init_state gives it those of the model",
    ),
    "a class as a momentum": (lambda: ft.optim.sgd(0.1, momentum=float), r"momentum must be a number, got <class"),
    "a warm-up of a number": (lambda: ft.schedules.warmup(0.1, 10), r"schedule must be a schedule, .* got 0\.1"),
    "epochs of a number": (lambda: ft.schedules.per_epoch(0.1, 10), r"schedule must be a schedule, .* got 0\.1"),
    "numbers joined": (lambda: ft.schedules.join([0.1, 0.2], [10]), r"each of the schedules must be .* got 0\.1"),
    "a schedule of text": (
        lambda: fit(state=init(optimizer=ft.optim.sgd(lambda step: "x"))),
        r"a schedule is a function from step to a number or a 0-d tensor; this one gave 'x' \(str\)",
    ),
    "groups in a list": (
        lambda: ft.optim.partition([ft.optim.sgd(0.1)]),
        r"partition takes a dictionary from patterns of parameters' names to optimizers",
    ),
    "a metric that is text": (
        lambda: fit(state=init(lambda model, batch: ft.Loss(model(batch[0]).sum(), 8, {"score": "good"}))),
        r"an objective's metrics are sums over the batch, .* got 'good'",
    ),
    "no length": (lambda: fit(epochs=None), r"give epochs, steps, or both"),
    "epochs": (lambda: fit(epochs="3"), r"epochs must be a whole number, 1 or more; got '3'"),
    "a state": (lambda: ft.fit(net(), [BATCH], epochs=1), r"fit takes a TrainState first, .*; got Sequential"),
    "a run directory": (lambda: fit(run_dir=3), r"run_dir must be the path of a directory, .* got 3"),
    "an empty run directory": (lambda: fit(run_dir=""), r"run_dir must be the path of a directory, .* got ''"),
    "an empty name": (
        lambda: fit(resume="", run_dir="nowhere"),
        r"a checkpoint's name or path must not be empty; give 'last', 'best' or a name",
    ),
    "resume": (lambda: fit(resume="yes", run_dir="nowhere"), r"there is no checkpoint 'yes': it is neither one in"),
    "a switch": (lambda: fit(compile="no"), r"compile must be True, False or 'auto'; got 'no'"),
    "another switch": (lambda: fit(deterministic=1), r"deterministic must be True or False; got 1"),
    "progress": (lambda: fit(progress="bar"), r"progress must be True, False, 'curve' or None; got 'bar'"),
    "keep": (lambda: fit(keep=0), r"keep must be a whole number of checkpoints, 1 or more; got 0"),
    "metadata": (lambda: fit(metadata=3), r"metadata must be a dictionary of what JSON can hold, or None; got 3"),
    "watch without evaluation": (lambda: fit(watch="eval_loss"), r"got 'eval_loss'; eval_\.\.\. needs an eval_loader"),
    "watch without averages": (
        lambda: fit(watch="ema_loss", eval_loader=[BATCH]),
        r"watch must be train_loss, eval_loss, .* got 'ema_loss'; ema_\.\.\. needs averages of the parameters",
    ),
    "watch": (lambda: fit(watch="train_f1"), r"watch must be one of train_loss, train_accuracy; got 'train_f1'"),
    "watch that is no name": (lambda: fit(watch=3), r"watch must be the name of a record, .* got 3"),
    "milestones": (lambda: ft.schedules.multi_step(0.1, 3), r"milestones must be a list of numbers .* got 3"),
    "a power": (lambda: ft.optim.schedule_free_sgd(0.1, r=float("nan")), r"r must be a finite number >= 0, got nan"),
}


def _many_workers():
    with pytest.warns(UserWarning, match="worker"):
        return DataLoader(TensorDataset(*BATCH), batch_size=4, num_workers=5000)


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_argument_is_told_in_words(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    give, message = WRONG[name]
    with pytest.raises((ValueError, TypeError, FunctrainError), match=message) as caught:
        give()
    assert "/functrain/" in str(caught.traceback[-1].path)
    assert not list(tmp_path.iterdir())


NUMBERS = (float("nan"), float("inf"), "x", [1])


def _updated(optimizer, params):
    return optimizer.update(params, optimizer.init(params), params)


@pytest.mark.parametrize("name", REGISTRY)
def test_every_hyperparameter_refuses_what_is_no_number(name):
    """By what its default is: numbers, pairs of numbers, and `maximize`."""
    function, params = REGISTRY[name], {"w": torch.ones(2, 2)}
    for parameter, described in inspect.signature(function).parameters.items():
        number = isinstance(described.default, float | int | tuple) and not isinstance(described.default, bool)
        for value in NUMBERS if number else ("no",) if parameter == "maximize" else ():
            with pytest.raises((ValueError, TypeError)) as caught:
                _updated(function(**{"lr": 0.1, parameter: value}), params)
            assert "must be" in str(caught.value), (parameter, value)
            assert re.match(rf"{parameter}\b", str(caught.value)), (parameter, value)


@pytest.mark.parametrize("call", ["train_step", "eval_step", "compiled", "evaluate", "predict"])
def test_a_wrong_width_names_the_module_whoever_calls_it(call):
    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.heads = nn.Linear(3, 4), nn.ModuleList([nn.Conv1d(2, 3, 1), nn.Linear(7, 3)])

        def forward(self, x):
            return self.heads[1](self.stem(x))

    state = ft.init_state(Branches(), ft.classification(), ft.optim.sgd(0.1))
    calls = {
        "train_step": lambda: ft.train_step(state, BATCH),
        "eval_step": lambda: ft.eval_step(state, BATCH),
        "compiled": lambda: ft.compile(ft.train_step, backend="aot_eager")(state, BATCH),
        "evaluate": lambda: ft.evaluate(state, [BATCH], compile=False),
        "predict": lambda: ft.predict(state, [BATCH], compile=False),
    }
    with pytest.raises(
        DataError, match=r"module 'heads\.1', Linear\(in_features=7, .* of shape \[8, 4\], float32 \(torch"
    ):
        calls[call]()


def test_an_error_of_the_users_own_code_stays_what_it_is():
    class Own(nn.Linear):
        def forward(self, x):
            return super().forward(x) @ torch.ones(7, 2)

    class Raising(nn.Linear):
        def forward(self, x):
            raise RuntimeError("mine")

    objective = ft.supervised(nn.NLLLoss())  # a module of torch's, and no part of the network
    with pytest.raises(ValueError, match=r"^Expected input batch_size \(8\) to match target batch_size \(5\)"):
        ft.train_step(init(objective), (INPUTS, TARGETS[:5]))
    for model, message in ((Own(3, 3), "mat1 and mat2"), (Raising(3, 3), "mine")):
        with pytest.raises(RuntimeError, match=message):
            ft.train_step(ft.init_state(model, ft.classification(), ft.optim.sgd(0.1)), BATCH)


def test_every_public_module_is_there_after_import():
    for name in ("checkpoint", "data", "distributed", "evaluation", "models", "optim", "losses", "schedules"):
        assert getattr(ft, name).__name__.startswith("functrain.")
        assert name in dir(ft)


def test_an_array_is_told_from_a_loader():
    with pytest.raises(TypeError, match="got ndarray of examples"):
        ft.fit(init(), np.zeros((4, 3)), epochs=1)


def test_a_run_directory_in_a_checkpoints_place_is_told(tmp_path):
    state = init()
    fit(state=state, run_dir=tmp_path)
    for call in (
        lambda: ft.replay(state, [BATCH], tmp_path),
        lambda: ft.find_nonfinite(state, [BATCH], checkpoint=tmp_path),
    ):
        with pytest.raises(FunctrainError, match=r"is the directory of a run, .* such as .*checkpoints/last$"):
            call()
    with pytest.raises(FunctrainError, match=r"it is the directory of a run, with its checkpoints in .*checkpoints$"):
        ft.Checkpointer(tmp_path, read_only=True).restore(state)


def test_a_folder_that_cannot_be_made_is_told_in_words(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(FunctrainError, match=r"cannot lock the run directory .*/file/x: Not a directory; choose a dir"):
        fit(run_dir=tmp_path / "file" / "x")
