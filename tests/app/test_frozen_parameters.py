"""Parameters that are not trained, and patterns that name parameters."""

import pytest
import torch
from staged_runs import bits_of

from functrain.app.config.loading import load_config
from functrain.checkpoint.reader import read_arrays
from functrain.foundation.errors import ConfigError


def test_frozen_parameters_keep_every_bit_and_have_no_state(functrain, staged_run):
    first, last = (read_arrays(staged_run / each) for each in ("one/checkpoints/best", "two/checkpoints/last"))
    names = {name for name in last["params"] if name.startswith("0.")}
    assert names == {"0.weight", "0.bias"}
    for name, value in last["params"].items():
        assert torch.equal(value, first["params"][name]) == (name in names)
    assert not any(name.rpartition("/")[2].startswith("0.") for name in last["opt_state"])
    assert any(name.rpartition("/")[2].startswith("3.") for name in last["opt_state"])
    assert "67 parameters, 24 of them frozen" in (staged_run / "two/README.md").read_text()


def test_patterns_that_fit_nothing_name_the_nearest(functrain, project):
    code, _, err = functrain("train", "tiny.yaml", "freeze=['0.weigth']")
    assert (code, err) == (
        2,
        "functrain: error: freeze: the pattern '0.weigth' fits no parameter; did you mean '0.weight'? The parameters "
        "are 0.weight, 0.bias, 1.weight, 1.bias, 3.weight, 3.bias\n",
    )
    code, _, err = functrain("train", "tiny.yaml", "freeze=['*']")
    assert (code, "has no trainable parameter" in err) == (2, True)
    assert functrain("train", "tiny.yaml", "--no-progress", "--run-dir", "a")[0] == 0
    begin = ["train", "tiny.yaml", "--run-dir", "b", "model.width=4", "--init-from", "a"]
    code, _, err = functrain(*begin)
    assert code == 2
    assert "0.weight: float32 (8, 2) in the file, float32 (4, 2) in the state" in err
    for key in ("new", "dropped"):
        code, _, err = functrain(*begin, f"init_from.{key}=[0.wieght]")
        assert (code, f"init_from.{key} names '0.wieght', which fits nothing; there are " in err) == (2, True)
        assert "; did you mean '0.weight'?" in err
    # What is dropped is not taken over even where it fits.
    both = [f"init_from.{key}=['3.*', '0.*', '1.*']" for key in ("new", "dropped")]
    code, _, err = functrain(*begin, *both, "model.width=8", "--run-dir", "c", "--no-progress")
    assert code == 0, err
    assert functrain("train", "tiny.yaml", "--run-dir", "d", "--no-progress")[0] == 0
    assert bits_of("c/checkpoints/last") == bits_of("d/checkpoints/last")
    code, _, err = functrain(*begin[:-1], "a/checkpoints/last", "init_from.which=best")
    assert (code, "a/checkpoints/last is a checkpoint itself, so leave out which=best" in err) == (2, True)


def test_a_caching_models_parameters_are_free_again(functrain, project):
    from functrain.step.freezing import frozen

    net = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 1))
    net[1].bias.requires_grad_(False)
    with frozen(net, ["0.*", "1.bias"]):
        assert [p.requires_grad for p in net.parameters()] == [False, False, True, False]
    assert [p.requires_grad for p in net.parameters()] == [True, True, True, False]
    net[1].weight = net[0].weight
    with frozen(net, ["1.weight"]):
        assert not net[0].weight.requires_grad
    with pytest.raises(ConfigError):
        load_config("tiny.yaml", ["freeze=3"])
