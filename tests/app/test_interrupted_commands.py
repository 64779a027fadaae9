"""Ctrl-C and signals: exit codes, messages, and what is saved."""

import signal

import pytest


@pytest.mark.parametrize("moment", ["load_config", "build_state", "conclude"])
def test_ctrl_c_before_and_after_training_ends_with_130_and_no_traceback(functrain, monkeypatch, moment):
    def interrupted(*arguments, **keywords):
        raise KeyboardInterrupt

    monkeypatch.setattr(f"functrain.app.train.{moment}", interrupted)
    code, _, err = functrain("train", "tiny.yaml", "--no-progress")
    assert code == 130
    assert err.strip() == "functrain: interrupted"


@pytest.mark.parametrize(("number", "expected"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_while_training_saves_and_says_how_to_continue(functrain, project, monkeypatch, number, expected):
    from functrain.app import train

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
