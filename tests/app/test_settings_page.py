"""docs/settings.md is what the declarations of the settings generate."""

from pathlib import Path

from functrain.app.config.keys import keys_in
from functrain.app.config.schema import Config
from functrain.app.config.settings_page import page

ROOT = Path(__file__).parents[2]


def test_the_page_of_settings_is_the_generated_one():
    hint = "run: python -m functrain.app.config.settings_page docs/settings.md"
    assert (ROOT / "docs/settings.md").read_text() == page(), hint


def test_each_key_has_a_row_and_says_what_it_does():
    rows = [line for line in page().splitlines() if line.startswith("| `")]
    for key in keys_in(Config):
        if key.section is None:
            assert key.info.description, key.dotted
            assert any(row.startswith(f"| `{key.path[-1]}` |") for row in rows), key.dotted


def test_each_row_of_a_table_has_its_cells():
    for line in page().splitlines():
        if line.startswith("|"):
            assert line.replace("\\|", "").count("|") in (3, 6), line
