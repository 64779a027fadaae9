"""The pages in docs/: their Python runs, and the tests that they name are there."""

import re
import shlex
import warnings
from collections import OrderedDict
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import functrain as ft
from functrain.app.parser import build_parser

PAGES = Path(__file__).parents[2] / "docs"
BLOCK = re.compile(r"^```python[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
FENCED = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"^(    .*\n)", re.MULTILINE)
COMMAND = re.compile(r"^ *functrain (?!0)([^#\n]*)", re.MULTILINE)
TEST = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")
NOT_RUN = "# Not run by our tests: "  # how a block begins that needs what is not installed
ELSEWHERE = {"models-of-others.md": "tests/zoo/test_recipes.py", "exchange.md": "tests/app/test_archives.py"}


def names():
    """What the pages leave to their reader."""
    torch.manual_seed(0)
    data = TensorDataset(torch.randn(32, 4), torch.randint(3, (32,)))
    parts = {"blocks": nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU()), "head": nn.Linear(8, 3)}
    model = nn.Sequential(OrderedDict(parts))
    loader = DataLoader(data, batch_size=16)
    objective = ft.classification()
    texts = [(torch.arange(length), torch.arange(length)) for length in range(1, 9)]
    return {
        "ft": ft,
        "torch": torch,
        "data": data,
        "labels": data.tensors[1],
        "weights": torch.ones(len(data)),
        "model": model,
        "objective": objective,
        "optimizer": ft.optim.adamw(1e-3),
        "loader": loader,
        "train_loader": loader,
        "val_loader": loader,
        "batches": list(loader),
        "texts": texts,
        "batch": (torch.zeros(2, 5), torch.zeros(2, 5, dtype=torch.int64)),
        "collator": ft.data.PaddedCollate(8),
        "state": ft.init_state(model, objective, ft.optim.adamw(1e-3)),
    }


def _evaluated(known):
    Path("runs/digits").mkdir(parents=True)
    Path("runs/digits/test").symlink_to(Path("test").absolute())  # which the page writes
    known |= {"small": known["state"], "large": known["state"], "test_loader": known["loader"]}
    known["forest"] = SimpleNamespace(predict_log_proba=known["model"])


def _trained(known):
    state = ft.init_state(known["model"], known["objective"], known["optimizer"], statistics="module")
    ft.fit(state, known["loader"], run_dir="runs/digits", log_every=1)
    known |= {"functrain": ft, "inputs": known["data"].tensors[0], "batch": known["batches"][0]}


# What a page finds on the disk, and names of its own.
MADE_BEFORE = {"evaluation.md": _evaluated, "output.md": _trained}
ALL = sorted(str(path.relative_to(PAGES)) for path in PAGES.rglob("*.md"))
WITH_PYTHON = ["../README.md", *(page for page in ALL if BLOCK.search((PAGES / page).read_text()))]
IN_EXAMPLES = {page for page in ALL if page.startswith("recipes/")}  # as tests/examples/test_recipe_pages.py checks


@pytest.mark.parametrize("page", [page for page in WITH_PYTHON if page not in {*ELSEWHERE, *IN_EXAMPLES}])
def test_the_python_of_a_page_runs_from_top_to_bottom(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    few = {"epochs": 2, "compile": False, "progress": False}
    fit = ft.fit
    monkeypatch.setattr(ft, "fit", lambda *args, **options: fit(*args, **{**options, **few}))
    known = names()
    if page in MADE_BEFORE:
        MADE_BEFORE[page](known)
    for block in BLOCK.findall((PAGES / page).read_text()):
        if block.startswith(NOT_RUN):
            continue
        with warnings.catch_warnings(action="ignore" if "import lightning" in block else None):
            exec(compile(block, page, "exec"), known)
        if not isinstance(known["state"], ft.TrainState):  # of a rule
            known["state"] = ft.init_state(known["model"], known["objective"], ft.optim.adamw(1e-3))


def test_pages_whose_python_another_test_runs_are_named_there():
    for page, test in ELSEWHERE.items():
        assert page in (PAGES.parent / test).read_text()


@pytest.mark.parametrize("page", ALL)
def test_the_tests_that_a_page_names_exist(page):
    for file, name in TEST.findall((PAGES / page).read_text()):
        path = PAGES.parent / file
        assert path.is_file(), file
        assert not name or re.search(rf"^def {name}\(", path.read_text(), re.MULTILINE), name


def test_the_commands_of_the_pages_are_accepted():
    """Those without alternatives (`A|B`, `[...]`), in fenced or indented blocks, by the parser alone."""
    pages = [page.read_text() for page in (PAGES.parent / "README.md", *PAGES.rglob("*.md"))]
    blocks = [block for text in pages for block in [*_plain(text), *INDENTED.findall(text)]]
    commands = [line for block in blocks for line in COMMAND.findall(block) if not re.search(r"[\[|]", line)]
    assert len(commands) > 8
    for command in commands:
        _, rest = build_parser()[0].parse_known_args(shlex.split(command.partition(" > ")[0]))
        assert not [word for word in rest if "=" not in word or word.startswith("-")], command


def _plain(page):
    return [block for language, block in FENCED.findall(page) if not language]
