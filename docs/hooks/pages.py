"""The pages of the site that follow from the repository: API, commands, examples, configurations, changes.

MkDocs calls `on_config` at the beginning, `on_files` before it makes the navigation, and `on_page_markdown` for each
page.
"""

import posixpath
import re
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

sys.path.insert(0, str(Path(__file__).parent))
from api_pages import API, api_pages, docstring_of

ROOT = Path(__file__).parents[2]
REST = "..."  # in the navigation: the pages of docs/ that it does not name
LINK = re.compile(r"(\]\()([^)\s#]+)")


def on_config(config: Any) -> Any:
    """Let the offline plugin load our script, not one from the network."""
    config.extra["polyfills"] = ["search-from-disk.js"]
    return config


def on_files(files: Files, *, config: Any) -> Files:
    """Add the pages, and put the pages of a folder where the navigation names it."""
    made = {page: _shown(ROOT / source) for page, source in _sources().items()}
    made["examples/index.md"] = _listing("Examples", "examples", "Each runs as it is: `python examples/01_fit.py`.")
    made["configs/index.md"] = _listing(
        "Configurations", "configs", "Each trains: `functrain train configs/digits.yaml`."
    )
    made["commands.md"] = _commands()
    for page, text in sorted((made | api_pages()).items()):
        files.append(File.generated(config, page, content=text))
    found = [file.src_uri for file in files.documentation_pages()]
    named = _paths(config.nav)
    rest = [page for page in found if not page.startswith(tuple(named)) and "/" not in page]
    config.nav = [_expanded(entry, found, sorted(rest)) for entry in config.nav]
    return files


def on_page_markdown(markdown: str, *, page: Page, **_: Any) -> str:
    """Let links to files of the repository lead to their pages here, and give two blocks side by side more room."""
    if '<div class="grid"' in markdown:
        page.meta["hide"] = ["toc"]
    if page.file.src_uri == "index.md":  # alone in its section
        page.meta["hide"] = ["navigation"]
    own = _sources().get(page.file.src_uri, f"docs/{page.file.src_uri}")
    pages = {source: page for page, source in _sources().items()}

    def here(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(own), match[2]))
        place = pages.get(target) or (target.removeprefix("docs/") if target.startswith("docs/") else None)
        if "://" in match[2] or place is None:
            return match[0]
        return match[1] + posixpath.relpath(place, posixpath.dirname(page.file.src_uri) or ".")

    return LINK.sub(here, markdown)


def _paths(entry: Any) -> list[str]:
    """All paths in the navigation, or in a part of it."""
    if isinstance(entry, str):
        return [entry]
    return [path for value in (entry.values() if isinstance(entry, Mapping) else entry) for path in _paths(value)]


def _expanded(entry: Any, pages: Iterable[str], rest: list[str]) -> Any:
    """An entry of the navigation, with the pages of a folder in the place of its path: the index first."""
    if isinstance(entry, Mapping):
        return {title: _expanded(value, pages, rest) for title, value in entry.items()}
    if isinstance(entry, list):
        without_rest = [_expanded(value, pages, rest) for value in entry if value != REST]
        return without_rest + (rest if REST in entry else [])
    if not entry.endswith("/"):
        return entry
    order = ["index", *API]  # by name where it says nothing
    names = {page: page.removeprefix(entry).removesuffix(".md") for page in pages if page.startswith(entry)}
    return sorted(names, key=lambda page: (order.index(names[page]) if names[page] in order else len(order), page))


@cache
def _sources() -> dict[str, str]:
    """Pages and files that show a file of the repository, with its path there."""
    listed = {
        "index.md": "README.md",
        "project/changes.md": "CHANGELOG.md",
        "project/contributing.md": "CONTRIBUTING.md",
        "project/license.txt": "LICENSE",
    }
    for path in (ROOT / "benchmarks/results").iterdir():
        listed[f"benchmarks/{path.name.replace('README', 'index')}"] = f"benchmarks/results/{path.name}"
    for path in [*(ROOT / "examples").iterdir(), *(ROOT / "configs").iterdir()]:
        if path.suffix in (".py", ".yaml", ".ipynb"):
            name = path.name if path.suffix == ".ipynb" else f"{path.stem}.md"
            listed[f"{path.parent.name}/{name}"] = f"{path.parent.name}/{path.name}"
    return listed


def _shown(path: Path) -> str:
    """A file's text: code in a block, anything else as it is."""
    text = path.read_text()
    if path.suffix not in (".py", ".yaml"):
        return text
    language = {".py": "python", ".yaml": "yaml"}[path.suffix]
    return f"# {path.name}\n\n{_first_line(path)}\n\n````{language}\n{text}````\n"


def _first_line(path: Path) -> str:
    """What an example or a configuration is for."""
    if path.suffix == ".py":
        return docstring_of(path).partition("\n")[0].partition("   Usage:")[0]
    comments = (line for line in path.read_text().splitlines() if line.startswith("# "))
    return next(line[2:] for line in comments if "yaml-language-server" not in line)


def _listing(title: str, folder: str, how: str) -> str:
    paths = [path for path in sorted((ROOT / folder).iterdir()) if path.suffix in (".py", ".yaml")]
    rows = "".join(f"| [{path.name}]({path.stem}.md) | {_first_line(path)} |\n" for path in paths)
    return f"# {title}\n\n{how}\n\n| file | what |\n|---|---|\n{rows}"


def _commands() -> str:
    """The help of all commands, as the tests pin it."""
    screens = ROOT / "tests/app/screens"
    overview = (screens / "help.txt").read_text()
    text = f"# Commands\n\n```\n{overview}```\n"
    for name in re.findall(r"^    ([a-z][\w-]+)", overview, re.MULTILINE):
        text += f"\n## functrain {name}\n\n```\n{(screens / f'help-{name}.txt').read_text()}```\n"
    return text
