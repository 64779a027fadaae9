"""The example notebook, cell by cell as a kernel runs it, in one namespace.

No kernel is started: that would take ipykernel and what it needs. What stands in for it is IPython's documented part
that functrain talks to (`get_ipython`, `display` with an id), so how a browser shows the output is not tested here.
"""

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest
from notebook_kernel import enter_kernel

NOTEBOOK = Path(__file__).parents[2] / "examples" / "04_notebook.ipynb"


def run_cell(source: str, namespace: dict[str, Any]) -> Any:
    """Run a cell; returns the value of its last line, which a notebook shows."""
    body = ast.parse(source)
    last = body.body.pop() if isinstance(body.body[-1], ast.Expr) else None
    exec(compile(body, str(NOTEBOOK), "exec"), namespace)
    return None if last is None else eval(compile(ast.Expression(last.value), str(NOTEBOOK), "eval"), namespace)


def test_the_example_notebook_runs_and_learns(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    outputs = enter_kernel(monkeypatch)
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    namespace: dict[str, Any] = {}
    shown = [run_cell("".join(cell["source"]), namespace) for cell in cells if cell["cell_type"] == "code"]
    assert all("<table>" in value._repr_html_() for value in shown[:2])
    assert len(outputs) == 2  # one for each call of fit
    assert "<polyline" in outputs[0].pages[-1]["text/html"]
    (accuracy,) = re.findall(r"test accuracy ([\d.]+)%", capsys.readouterr().out)
    assert float(accuracy) >= 94.0


def test_the_notebook_is_kept_without_outputs() -> None:
    page = json.loads(NOTEBOOK.read_text())
    assert (page["nbformat"], page["metadata"]["language_info"]["name"]) == (4, "python")
    for cell in page["cells"]:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None
