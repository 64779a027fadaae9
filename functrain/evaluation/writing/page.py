"""A report as one HTML page, which needs no other file and no network."""

import base64
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from functrain.evaluation.reports import Report
from functrain.evaluation.writing.cells import text_of

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; background: #fff; max-width: 72rem; margin: 2rem auto;
  padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .8rem; text-align: right; border-bottom: 1px solid #ddd; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } th { font-weight: 600; }
div.wide { overflow-x: auto; } div.figures { display: flex; flex-wrap: wrap; gap: 1rem; }
figure { margin: 0; flex: 1 1 24rem; max-width: 36rem; } img { width: 100%; height: auto; }
@media print { body { margin: 0; max-width: none; } figure { break-inside: avoid; } }
"""


def report_page(report: Report, title: str, about: Mapping[str, Any], figures: Mapping[str, Path]) -> str:
    """The page.

    Args:
        report: what was found.
        title: the heading.
        about: what was evaluated: name -> value.
        figures: title -> a PNG file, which is put into the page.
    """
    title = escape(title)
    numbers = [[number.name, number.value, number.interval] for number in report.numbers]
    tables = "\n".join(f"<h2>{escape(table.title)}</h2>{_table(table.header, table.rows)}" for table in report.tables)
    images = "\n".join(
        f'<figure><img alt="{escape(name)}" src="data:image/png;base64,{_encoded(path)}"></figure>'
        for name, path in figures.items()
    )
    shown = f'<h2>Figures</h2>\n<div class="figures">\n{images}\n</div>' if figures else ""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>{title}</h1>
{_table(None, list(about.items()))}
<h2>Metrics</h2>
{_table(("metric", "value", "95 % interval"), numbers)}
{tables}
{shown}
</body>
</html>
"""


def _table(header: Sequence[str] | None, rows: Sequence[Sequence[Any]]) -> str:
    head = "" if header is None else f"<thead>{_row('th', header)}</thead>"
    return f'<div class="wide"><table>{head}<tbody>{"".join(_row("td", row) for row in rows)}</tbody></table></div>'


def _row(tag: str, cells: Sequence[Any]) -> str:
    return f"<tr>{''.join(f'<{tag}>{escape(text_of(cell))}</{tag}>' for cell in cells)}</tr>"


def _encoded(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode("ascii")
