"""Where Python has a prompt, an interruption returns what was trained; a script ends with its exit code."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from loop_helpers import assert_same_bits, make_loader, make_state, quick_fit

import functrain as ft

CODE = """
import os, signal, functrain as ft, torch
state = ft.init_state(torch.nn.Linear(2, 1), ft.regression(), ft.optim.sgd(0.1))
data = [(torch.ones(4, 2), torch.zeros(4, 1))] * 3
send = ft.on("after_step")(lambda event: os.kill(os.getpid(), NUMBER) if event.state.step == 2 else None)
result = ft.fit(state, data, epochs=5, compile=False, progress=False, callbacks=[send])
print("returned", result.stopped_by, result.state.step, flush=True)
"""


def interrupting(number: int) -> Any:
    @ft.on("after_step")
    def send(event: ft.Event) -> None:
        if event.state.step == 2:
            os.kill(os.getpid(), number)

    return send


def test_at_a_prompt_an_interruption_returns_the_result_and_the_same_call_goes_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
    stopped = quick_fit(
        make_state(), make_loader(), epochs=2, callbacks=[interrupting(signal.SIGINT)], run_dir=tmp_path
    )
    assert (stopped.stopped_by, stopped.state.step) == ("signal", 2)
    whole = quick_fit(make_state(), make_loader(), epochs=2)
    assert_same_bits(quick_fit(make_state(), make_loader(), epochs=2, run_dir=tmp_path).state, whole.state)
    assert quick_fit(make_state(), make_loader(), epochs=9, max_time=1e-9).stopped_by == "time"


def test_at_a_prompt_the_end_of_the_process_and_an_explicit_choice_are_followed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
    for number, on_signal in ((signal.SIGTERM, "auto"), (signal.SIGINT, "exit")):
        with pytest.raises(ft.Interrupted) as caught:
            quick_fit(make_state(), make_loader(), epochs=2, callbacks=[interrupting(number)], on_signal=on_signal)
        assert caught.value.code == 128 + number


def test_a_second_interruption_at_a_prompt_ends_the_call_and_not_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
    monkeypatch.setattr("functrain.loop.process.signals.REPEATS_WITHIN", 0.0)

    @ft.on("after_step")
    def send_twice(_event: ft.Event) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        quick_fit(make_state(), make_loader(), epochs=2, callbacks=[send_twice])
    assert signal.getsignal(signal.SIGINT) is handler


@pytest.mark.parametrize(("prompt", "code"), [(["-i"], 0), ([], 130)])
def test_an_interpreter_with_a_prompt_goes_on_and_a_script_ends(prompt: list[str], code: int, tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(CODE.replace("NUMBER", "signal.SIGINT"))
    environment = {**os.environ, "PYTHONPATH": str(Path(ft.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, *prompt, str(script)], input="", capture_output=True, text=True, env=environment, timeout=300
    )
    assert done.returncode == code, done.stderr
    assert ("returned signal 2" in done.stdout) == (code == 0)
