"""The pages of the recipes: their Python is that of the examples, which other tests run."""

import re

import pytest
from recipes import FOLDER, PAGES

BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
EXAMPLE = re.compile(r"`examples/(\w+\.py)`")
RECIPES = sorted(path.name for path in PAGES.glob("*.md") if path.name != "index.md")


@pytest.mark.parametrize("page", RECIPES)
def test_the_python_of_a_page_stands_in_its_example(page):
    text = (PAGES / page).read_text()
    [name] = set(EXAMPLE.findall(text))
    source = (FOLDER / name).read_text()
    blocks = BLOCK.findall(text)
    assert blocks
    for block in blocks:
        assert _unindented(block) in _unindented(source), f"not in {name}:\n{block}"


def test_the_index_names_every_page():
    index = (PAGES / "index.md").read_text()
    assert [page for page in RECIPES if f"({page})" not in index] == []


def _unindented(source):
    """The lines that are not empty, without the spaces around them: the formatter aligns a block to the left."""
    return "".join(f"{line.strip()}\n" for line in source.splitlines() if line.strip())
