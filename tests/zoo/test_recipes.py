"""The recipes of docs/models-of-others.md run, where the libraries are installed (`make test-zoo`)."""

import re
import warnings
from pathlib import Path

import pytest
import torch

import functrain as ft

pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore")  # the libraries' own

PAGE = Path(__file__).parents[2] / "docs" / "models-of-others.md"
SECTION = re.compile(r"^## (.*?)\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def test_the_recipes_run_from_top_to_bottom(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fit, results = ft.fit, []

    def eagerly(*args, **options):
        results.append(fit(*args, **{**options, "compile": False, "progress": False}))
        return results[-1]

    monkeypatch.setattr(ft, "fit", eagerly)
    torch.manual_seed(0)
    known: dict = {}
    for title, text in SECTION.findall(PAGE.read_text()):
        for block in BLOCK.findall(text):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                exec(compile(block, f"{PAGE.name}, {title}", "exec"), known)
    assert len(results) == 8
    assert all(torch.isfinite(torch.tensor(result.history[-1]["train_loss"])) for result in results)
    assert (tmp_path / "bert-trained" / "model.safetensors").is_file()
    assert (tmp_path / "llama-lora" / "adapter_model.safetensors").is_file()
