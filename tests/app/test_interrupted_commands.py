"""Ctrl-C and signals: exit codes, messages, and what is saved."""

import json
import os
import signal
import subprocess
import sys

import pytest


@pytest.mark.parametrize("moment", ["stages.load_stages", "training.build", "training.conclude"])
def test_ctrl_c_before_and_after_training_ends_with_130_and_no_traceback(functrain, monkeypatch, moment):
    def interrupted(*arguments, **keywords):
        raise KeyboardInterrupt

    monkeypatch.setattr(f"functrain.app.runs.{moment}", interrupted)
    code, _, err = functrain("train", "tiny.yaml", "--no-progress")
    assert code == 130
    assert err.strip() == "functrain: interrupted"


@pytest.mark.parametrize(("number", "expected"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_while_training_saves_and_says_how_to_continue(functrain, project, monkeypatch, number, expected):
    from functrain.app.runs import running as train

    usual = train.fit

    def fit(state, loader, **options):
        from functrain import on

        @on("after_step")
        def interrupt(event):
            if event.state.step == 2:
                signal.raise_signal(number)

        return usual(state, loader, **{**options, "callbacks": [*options["callbacks"], interrupt]})

    monkeypatch.setattr(train, "fit", fit)
    code, _, err = functrain("train", "tiny.yaml", "--no-progress", "training.epochs=3", "--run-dir", "r")
    assert code == expected
    assert err == (
        "functrain: interrupted at step 2 (epoch 1); everything is saved in r\nTo continue: "
        "functrain train tiny.yaml training.epochs=3 --run-dir r\n"
    )
    monkeypatch.setattr(train, "fit", usual)
    assert "interrupted: step 2, in epoch 1 after batch 2" in functrain("show", "r")[1]
    code, out, _ = functrain("train", "tiny.yaml", "--no-progress", "training.epochs=3", "--run-dir", "r")
    assert code == 0
    assert "resumed from step 2, in epoch 1 after batch 2, where it was interrupted\n" in out


@pytest.mark.parametrize("broken", ["stdout", "stderr"])
def test_training_goes_on_when_nobody_reads_what_it_prints(project, broken):
    """`functrain train ... | head -1`; the pipe is closed from the start."""
    reader, writer = os.pipe()
    os.close(reader)
    other = "stderr" if broken == "stdout" else "stdout"
    command = [sys.executable, "-m", "functrain", "train", "tiny.yaml", "--run-dir", "r"]
    with (project / "other").open("w+") as file:
        code = subprocess.run(command, **{broken: writer, other: file}, check=False, timeout=300).returncode
        os.close(writer)
        file.seek(0)
        printed = file.read()
    assert code == 0
    assert json.loads((project / "r" / "metrics.jsonl").read_text().splitlines()[-1])["epoch"] == 2
    assert (project / "r" / "training_curves.png").is_file()
    lines = printed.splitlines()
    if broken == "stdout":
        assert [line.split()[:2] for line in lines] == [["epoch", "1"], ["epoch", "2"]]
    else:
        assert any(line.startswith("best checkpoint:") for line in lines)
