"""A configuration is trained by a function that prints nothing, as commands, stages and sweeps call it."""

from pathlib import Path

import functrain as ft
from functrain.app.config.loading import load_config
from functrain.app.runs.directory import RunDirectory
from functrain.app.runs.running import run_config


def test_a_configuration_is_trained_without_a_word_and_goes_on(project, capfd, monkeypatch):
    monkeypatch.chdir(project)
    run = RunDirectory(Path("r").absolute())
    config = load_config(Path("tiny.yaml"), ["training.epochs=2"])
    first = run_config(config, run, steps=1)
    assert (first.stopped_by, first.state.step) == ("steps", 1)
    result = run_config(config, run)
    assert (result.stopped_by, result.state.epoch) == ("epochs", 2)
    assert run.config_file.is_file()
    said = []
    again = run_config(load_config(Path("tiny.yaml"), ["training.epochs=2", "checkpoint.keep=1"]), run, say=said.append)
    assert ft.diff_states(again.state, result.state) == []
    assert said == [
        "the configuration has changed since this run was last started:",
        "  checkpoint.keep: 3 -> 1",
        "resumed from step 6, after epoch 2",
    ]
    assert capfd.readouterr() == ("", "")
