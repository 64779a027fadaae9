"""functrain train --init-from and functrain export: parameters in from other files, and out for others."""

import pytest
import torch
import torch.nn.functional as F
import yaml
from safetensors.torch import load_file

from functrain.checkpoint import read_arrays


@pytest.fixture(autouse=True)
def _no_figure(monkeypatch):
    monkeypatch.setattr("functrain.evaluation.figures.training_curves", lambda _records, path, **_: path)  # 1 s each


@pytest.fixture
def run(functrain, project):
    code, _, err = functrain("train", "tiny.yaml", "--no-progress", "training.ema_decay=0.5", "name=source")
    assert code == 0, err
    return project / "runs" / "source"


def module():
    import tiny_project

    return tiny_project.net(width=8, dropout=0.0)


def params_of(checkpoint, group="params"):
    return read_arrays(checkpoint)[group]


def equal(found, expected):
    return found.keys() == expected.keys() and all(torch.equal(found[name], value) for name, value in expected.items())


def begun(functrain, project, *arguments):
    """The parameters that a run of a tiny learning rate, trained for one update, still has."""
    options = ["--no-progress", "optimizer.lr=0", "training.steps=1", "model.dropout=0.0", "name=begun"]
    code, out, err = functrain("train", "tiny.yaml", *options, "--resume", "never", *arguments)
    assert code == 0, err
    assert "begins with the parameters in " in out
    return params_of(project / "runs/begun/checkpoints/last")


@pytest.mark.parametrize("source", ["runs/source", "runs/source/checkpoints/last", "x.pt", "x.safetensors"])
def test_a_run_begins_with_the_parameters_of_a_run_a_checkpoint_or_a_file(functrain, project, run, source):
    for name in ("x.pt", "x.safetensors"):
        assert functrain("export", "runs/source", name)[0] == 0
    assert equal(begun(functrain, project, "--init-from", source), params_of(run / "checkpoints/last"))
    written = yaml.safe_load((project / "runs/begun/config.yaml").read_text())
    expected = {"path": str(project / source), "stage": None, "which": "last", "new": [], "dropped": [], "prefix": ""}
    assert written["init_from"] == expected


def test_a_path_in_a_configuration_is_relative_to_it(functrain, project, run):
    (project / "configs").mkdir()
    text = (project / "tiny.yaml").read_text() + "init_from: {path: ../runs/source}\ncode: ..\n"
    (project / "configs/begins.yaml").write_text(text)
    code, out, _ = functrain("train", "configs/begins.yaml", "--no-progress", "training.epochs=1")
    assert code == 0
    assert f"begins with the parameters in {project}/runs/source\n" in out


def test_the_same_command_goes_on_and_ends_as_an_uninterrupted_run(functrain, project, run):
    command = ["train", "tiny.yaml", "--no-progress", "--init-from", "runs/source"]
    assert functrain(*command, "name=whole")[0] == 0
    assert functrain(*command, "name=parts", "training.epochs=1")[0] == 0
    (project / "runs/source").rename(project / "runs/gone")  # a run that goes on does not need it
    code, out, _ = functrain(*command, "name=parts")
    assert code == 0
    assert "resumed from step 3, after epoch 1" in out
    assert "begins with" not in out
    assert functrain("diff", "runs/whole", "runs/parts")[0] == 0
    code, out, _ = functrain("train", "tiny.yaml", "--no-progress", "name=parts")
    assert code == 0
    assert "init_from has no effect here: this run goes on. --resume never starts afresh\n" in out


def test_what_does_not_fit_is_named_by_leaf_and_may_be_allowed(functrain, project, run):
    wider = ["train", "tiny.yaml", "--no-progress", "model.width=9", "name=wider", "--init-from", "runs/source"]
    code, _, err = functrain(*wider)
    assert code == 2
    assert "  0.weight: float32 (8, 2) in the file, float32 (9, 2) in the state\n" in err
    assert "In a configuration: init_from.new=[...]" in err
    assert not (project / "runs/wider/checkpoints").exists()
    assert functrain(*wider, "init_from.new=['*']")[0] == 0
    code, _, err = functrain(*wider, "init_from.new=[haed.*]", "name=other")
    assert (code, err.startswith("functrain: error: init_from.new names 'haed.*', which fits nothing;")) == (2, True)


def test_a_file_of_lightning_needs_its_prefix(functrain, project, run):
    functrain("export", "runs/source", "x.pt")
    weights = torch.load("x.pt", weights_only=True)["model_state_dict"]
    torch.save({"state_dict": {f"model.{name}": value for name, value in weights.items()}}, "lightning.ckpt")
    code, _, err = functrain("train", "tiny.yaml", "--no-progress", "--init-from", "lightning.ckpt")
    assert code == 2
    assert "all names of the model are there behind 'model.': give that as prefix" in err
    found = begun(functrain, project, "--init-from", "lightning.ckpt", "init_from.prefix=model.")
    assert equal(found, params_of(run / "checkpoints/last"))


@pytest.mark.parametrize("name", ["x.pt", "x.pth", "x.safetensors"])
@pytest.mark.parametrize("averaged", [False, True])
def test_a_plain_module_loads_what_was_exported(functrain, project, run, name, averaged):
    code, out, err = functrain("export", "runs/source", name, *(["--ema"] if averaged else []))
    assert (code, err) == (0, "")
    assert out.startswith(f"{name}: {'averaged ' if averaged else ''}parameters of ")
    weights = load_file(name) if name.endswith("safetensors") else torch.load(name, weights_only=True)
    if not name.endswith("safetensors"):
        assert (weights["step"], weights["epoch"]) == (6, 2)
        weights = weights["model_state_dict"]
    plain = module()
    plain.load_state_dict(weights, strict=True)
    expected = params_of(run / "checkpoints/last", "ema" if averaged else "params")
    found = dict(plain.named_parameters())
    assert found
    for parameter, value in found.items():
        assert torch.equal(value, expected[f"params/{parameter}" if averaged else parameter])


OPTIMIZERS = {
    "adam": (torch.optim.Adam, "optimizer={name: adam, betas: [0.8, 0.9], amsgrad: true}"),
    "adamw": (torch.optim.AdamW, "optimizer={name: adamw, weight_decay: 0.1, weight_decay_mask: no_decay_1d}"),
    "sgd": (torch.optim.SGD, "optimizer={name: sgd, momentum: 0.9, nesterov: true}"),
}


def groups_of(plain, name):
    if name != "adamw":
        return plain.named_parameters()
    return [
        {"params": [(n, p) for n, p in plain.named_parameters() if (p.ndim >= 2) is many]} for many in (True, False)
    ]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_torch_trains_on_with_the_exported_optimizer_as_the_run_goes_on(functrain, project, name):
    kind, text = OPTIMIZERS[name]
    settings = [text, "optimizer.lr=1e-2", "training.precision=fp64", "model.dropout=0.0", "data.count=24"]
    command = ["train", "tiny.yaml", "--no-progress", *settings, "checkpoint.save_every=1", "checkpoint.keep=9"]
    code, _, err = functrain(*command, "optimizer.schedule={name: step, step_size: 2, gamma: 0.5}", "training.steps=4")
    assert code == 0, err
    assert functrain("export", "runs/tiny/checkpoints/step-00000002", "x.pt", "--optimizer")[0] == 0
    saved = torch.load("x.pt", weights_only=True)
    plain = module().double()
    plain.load_state_dict(saved["model_state_dict"])
    optimizer = kind(groups_of(plain, name), lr=9.0)
    optimizer.load_state_dict(saved["optimizer_state_dict"])
    # The rate of the last update, the second of the schedule; the run's third is half of it.
    assert [group["lr"] for group in optimizer.param_groups] == [1e-2] * len(optimizer.param_groups)
    for group in optimizer.param_groups:
        group["lr"] = 5e-3
    inputs, targets = third_batch()
    F.cross_entropy(plain(inputs), targets).backward()
    optimizer.step()
    expected = params_of(project / "runs/tiny/checkpoints/step-00000003")
    for parameter, value in plain.named_parameters():
        # One float64 update by two implementations.
        torch.testing.assert_close(value.detach(), expected[parameter], rtol=1e-11, atol=1e-12)


def third_batch():
    """What the run trained on in its third update: the order of the data is a function of the seed."""
    from functrain.app.config.build import build_training_loader
    from functrain.app.config.loading import load_config
    from functrain.data import as_stream
    from functrain.foundation.keys import fold_in, root_key

    loader = build_training_loader(load_config("tiny.yaml", ["data.count=24"]))
    inputs, targets = list(as_stream(loader, fold_in(root_key(0), "train"), what="loader").batches(0))[2]
    return inputs.double(), targets


MISTAKES = [
    (["export", "nope", "x.pt"], "nope is neither a run with checkpoints nor a checkpoint: there is no such directory"),
    (["export", "runs/source", "x"], "x: the suffix says the format; use .pt, .pth (torch.save), .safetensors or "),
    (["export", "runs/source", "x.onnx"], "x.onnx: the suffix says the format; use .pt, .pth (torch.save), .saf"),
    (["export", "runs/source", "x.safetensors", "--optimizer"], "--optimizer: a .safetensors file holds the model's"),
    (["export", "runs/source", "no/such/x.pt"], "could not write no/such/x.pt: there is no directory no/such"),
    (["export", "runs/plain", "x.pt", "--ema"], "--ema: the run of "),
    (["export", "runs/plain", "x.pt", "--optimizer"], "--optimizer: the run's optimizer is lion; torch.optim has the"),
    (["train", "tiny.yaml", "--init-from", "nope.pt"], "cannot read "),
    (["train", "tiny.yaml", "--init-from", "tiny.yaml"], "{project}/tiny.yaml is a text file, not a file of weights"),
    (["train", "tiny.yaml", "--init-from", "."], ""),
    (["train", "tiny.yaml", "--init-from", "runs/source", "--resume", "last"], "--init-from begins a run with"),
    (["train", "tiny.yaml", "init_from=runs/source"], "override 'init_from=runs/source': init_from must be a section"),
    (["train", "tiny.yaml", "init_from.new=[a]"], "override 'init_from.new=[a]': init_from begins with a path (a f"),
]


def test_mistakes_are_messages_and_exit_code_2(functrain, project, run):
    assert functrain("train", "tiny.yaml", "--no-progress", "optimizer.name=lion", "name=plain")[0] == 0
    for arguments, message in MISTAKES:
        code, _, err = functrain(*arguments)
        assert code == 2, err
        assert err.startswith(f"functrain: error: {message.replace('{project}', str(project))}"), err
        assert "Traceback" not in err


def test_a_checkpoint_without_a_configuration_says_what_to_use_instead(functrain, project):
    from functrain.checkpoint import Checkpointer

    with Checkpointer(project / "own") as checkpointer:
        checkpointer.save({"params": {"w": torch.ones(1)}}, step=1)
    code, _, err = functrain("export", "own/last", "x.pt")
    assert code == 2
    assert "carries no configuration" in err
    assert "functrain.checkpoint.save_torch" in err
