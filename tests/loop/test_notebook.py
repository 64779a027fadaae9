"""In a notebook the progress is one output that is rewritten in place."""

import re
import subprocess
import sys
from typing import Any

import pytest
import torch
from notebook_kernel import Handle, enter_kernel
from torch import nn

import functrain as ft
from functrain.loop.output import notebook, progress

DATA = [(torch.ones(4, 2), torch.zeros(4, 1))] * 3


def trained(**options: Any) -> ft.FitResult:
    state = ft.init_state(nn.Linear(2, 1), ft.regression(), ft.optim.sgd(0.01))
    return ft.fit(state, DATA, eval_loader=DATA, **{"epochs": 4, "compile": False, **options})


@pytest.fixture
def outputs(monkeypatch: pytest.MonkeyPatch) -> list[Handle]:
    monkeypatch.setattr(notebook.Notebook, "every", 0.0)
    return enter_kernel(monkeypatch)


def test_a_run_is_one_output_with_a_bar_that_is_gone_in_the_end(
    outputs: list[Handle], capsys: pytest.CaptureFixture[str]
) -> None:
    trained()
    (output,) = outputs
    *during, last = (page["text/html"] for page in output.pages)
    shares = [float(share) for page in during for share in re.findall(r'<progress value="([\d.]+)"', page)]
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (pytest.approx(1 / 12, abs=1e-4), 1.0)
    assert "<progress" not in last
    assert last.count("epoch") == 4
    assert "<svg" not in last
    assert output.pages[-1]["text/plain"].count("\n") == 3
    assert capsys.readouterr() == ("", "")


def test_the_curve_is_there_on_request(outputs: list[Handle]) -> None:
    trained(progress="curve")
    last = outputs[0].pages[-1]["text/html"]
    assert last.count("<polyline") == 2
    assert "training loss" in last
    assert "validation loss" in last
    assert "updates 1 to 12" in last
    numbers = re.findall(r"([\d.]+),([\d.]+)", re.findall(r'points="([^"]*)"', last)[0])
    assert all(0 <= float(x) <= notebook.WIDTH and 0 <= float(y) <= notebook.HEIGHT for x, y in numbers)
    assert [float(y) for _, y in numbers] == sorted(float(y) for _, y in numbers)  # the loss falls: down the page


def test_a_curve_of_a_long_run_has_few_points_and_none_that_is_not_finite() -> None:
    curve = notebook.Curve()
    for step in range(10_000):
        curve.add("training loss", step, float("nan") if step % 10 == 5 else 1.0 / (1 + step))
    drawn = curve.svg()
    assert drawn.count(",") < 3 * notebook.MOST_POINTS
    assert "nan" not in drawn
    assert "updates 0 to 9,999" in drawn


def test_a_terminal_and_a_file_have_what_they_had(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not notebook.in_notebook()
    assert type(progress.display(None)) is type(progress.display("curve")) is progress.Lines
    enter_kernel(monkeypatch)
    assert type(progress.display(None)) is notebook.Notebook
    assert type(progress.display(False)) is progress.Display


def test_nothing_of_it_is_imported_outside_of_a_notebook() -> None:
    code = "import sys, functrain.loop.fit; print('IPython' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
