"""The report of a run as a web page: one file that needs nothing but the figures beside it."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

from yolov7_jax.errors import DataError
from yolov7_jax.files import write_atomically
from yolov7_jax.types import ClassResult

Fact = str | int | float

STYLE = """
:root { color-scheme: light dark; --ink: #20262e; --paper: #fff; --card: #f2f4f6; --line: #d5dae0; --bar: #cfe3ef;
  --quiet: #56606c; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ed; --paper: #15181c; --card: #20252b; --line: #3a424b; --bar: #24465a; --quiet: #a3adb8; } }
body { margin: 0 auto; max-width: 68rem; padding: 1.5rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; }
h1 { font-size: 1.7rem; margin: 0 0 1rem; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2rem 0 0.6rem; }
dl { display: grid; grid-template-columns: repeat(auto-fill, minmax(11rem, 1fr)); gap: 0.8rem; margin: 0; }
dl div { background: var(--card); border-radius: 0.5rem; padding: 0.7rem 0.9rem; display: flex;
  flex-direction: column-reverse; justify-content: flex-end; overflow-wrap: anywhere; }
dt { color: var(--quiet); font-size: 0.85rem; }
dd { margin: 0; font-size: 1.4rem; font-weight: 600; font-variant-numeric: tabular-nums; }
table { border-collapse: collapse; min-width: min(100%, 30rem); }
th, td { padding: 0.3rem 0.8rem; border-bottom: 1px solid var(--line); text-align: right;
  font-variant-numeric: tabular-nums; }
th:first-child { text-align: left; overflow-wrap: anywhere; }
tbody th { font-weight: 400; }
td.bar { background: linear-gradient(90deg, var(--bar) var(--part), transparent var(--part)); }
figure { margin: 0; }
img { display: block; max-width: 100%; height: auto; border-radius: 0.4rem; background: #fff; }
""".strip()


def report_page(
    folder: Path,
    title: str,
    facts: Mapping[str, Fact],
    classes: Sequence[ClassResult],
    figures: Sequence[tuple[str, Path]],
) -> Path:
    """Writes index.html into a folder and returns its path.

    Args:
        folder: made if need be.
        title: of the page.
        facts: the headline figures by name, in order; fractions are shown with three decimals.
        classes: what was found of each class.
        figures: title and file of each, shown by its path from the folder.

    Raises:
        DataError: a figure is not there. InputError: the page cannot be written.
    """
    parts = [f"<h1>{escape(title)}</h1>", _facts(facts)]
    if classes:
        parts += ["<h2>Classes</h2>", _table(classes)]
    parts += [_figure(name, file, folder) for name, file in figures]
    page = folder / "index.html"
    write_atomically(page, _document(title, "\n".join(parts)))
    return page


def _document(title: str, body: str) -> str:
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>
{STYLE}
</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""


def _facts(facts: Mapping[str, Fact]) -> str:
    cards = (f"<div><dt>{escape(name)}</dt><dd>{escape(_text(value))}</dd></div>" for name, value in facts.items())
    return "\n".join(["<dl>", *cards, "</dl>"])


def _table(classes: Sequence[ClassResult]) -> str:
    headings = "".join(f'<th scope="col">{name}</th>' for name in ("class", "boxes", "AP50", "AP"))
    rows = (
        f'<tr><th scope="row">{escape(row.name)}</th><td>{row.boxes}</td>{_bar(row.AP50)}{_bar(row.AP)}</tr>'
        for row in classes
    )
    return "\n".join(
        ["<table>", f"<thead><tr>{headings}</tr></thead>", "<tbody>", *rows, "</tbody>", "</table>"],
    )


def _bar(fraction: float) -> str:
    """A cell with a number, and a bar as long as it."""
    part = 0 if math.isnan(fraction) else 100 * fraction
    return f'<td class="bar" style="--part: {part:.1f}%">{_text(fraction)}</td>'


def _figure(name: str, file: Path, folder: Path) -> str:
    if not file.is_file():
        raise DataError(f"{file}: the figure '{name}' of the report is not there; draw it first, or leave it out")
    address = escape(quote(Path(os.path.relpath(file, folder)).as_posix()))
    return (
        f"<h2>{escape(name)}</h2>\n"
        f'<figure><a href="{address}"><img src="{address}" alt="{escape(name)}" loading="lazy"></a></figure>'
    )


def _text(value: Fact) -> str:
    if isinstance(value, float):
        return "-" if math.isnan(value) else f"{value:.3f}"
    return str(value)
