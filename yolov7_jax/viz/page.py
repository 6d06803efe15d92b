"""Reports as web pages: one file that needs nothing but the figures beside it, and its parts."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from yolov7_jax.errors import DataError
from yolov7_jax.files import write_atomically
from yolov7_jax.types import ClassResult

Fact = str | int | float

STYLE = """
:root { color-scheme: light dark; --ink: #20262e; --paper: #fff; --card: #f2f4f6; --line: #d5dae0; --bar: #cfe3ef;
  --quiet: #56606c; --good: #d3ecd9; --bad: #f8d7d3; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ed; --paper: #15181c; --card: #20252b; --line: #3a424b; --bar: #24465a; --quiet: #a3adb8;
    --good: #1f4a2e; --bad: #5e2622; } }
body { margin: 0 auto; max-width: 68rem; padding: clamp(0.8rem, 3vw, 1.5rem); background: var(--paper);
  color: var(--ink); font: 1rem/1.5 system-ui, sans-serif; }
h1 { font-size: 1.7rem; margin: 0 0 1rem; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2rem 0 0.6rem; }
dl { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(11rem, 45%), 1fr)); gap: 0.8rem; margin: 0; }
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
td.text { overflow-wrap: anywhere; }
figure { margin: 0; overflow-x: auto; }
img { display: block; max-width: 100%; max-height: 36rem; border-radius: 0.4rem; background: #fff; }
.notice { background: var(--bar); border-radius: 0.5rem; padding: 0.7rem 0.9rem; margin: 0 0 1rem; }
.good { background: var(--good); }
.bad { background: var(--bad); }
.notice strong { overflow-wrap: anywhere; }
.notice pre { background: none; padding: 0; margin: 0.5rem 0 0; }
pre { background: var(--card); border-radius: 0.5rem; padding: 0.7rem 0.9rem; margin: 0; max-height: 28rem;
  overflow: auto; white-space: pre-wrap; overflow-wrap: anywhere; font: 0.85rem/1.45 ui-monospace, monospace; }
.wide { overflow-x: auto; }
summary { cursor: pointer; margin: 1rem 0 0.5rem; }
a { color: inherit; }
@media (max-width: 40rem) { img { max-width: none; width: 40rem; height: auto; max-height: none; } }
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
    parts = [cards(facts)]
    if classes:
        rows = [(row.name, row.boxes, row.AP50, row.AP) for row in classes]
        parts += [heading("Classes"), table(("class", "boxes", "AP50", "AP"), rows)]
    parts += [figure(name, file, folder) for name, file in figures]
    return write_page(folder, title, parts)


def write_page(folder: Path, title: str, parts: Iterable[str], *, reload_s: int | None = None) -> Path:
    """Writes index.html into a folder and returns its path.

    Args:
        folder: made if need be.
        title: of the page.
        parts: below the title, each by one of the functions here.
        reload_s: seconds after which browsers read the page again; None: never.

    Raises:
        InputError: it cannot be written.
    """
    page = folder / "index.html"
    body = "\n".join([f"<h1>{escape(title)}</h1>", *parts])
    write_atomically(page, _document(title, body, reload_s))
    return page


def _document(title: str, body: str, reload_s: int | None) -> str:
    reload = "" if reload_s is None else f'<meta http-equiv="refresh" content="{reload_s}">\n'
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
{reload}<title>{escape(title)}</title>
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


def heading(text: str) -> str:
    """A heading of the second level."""
    return f"<h2>{escape(text)}</h2>"


def cards(facts: Mapping[str, Fact]) -> str:
    """Figures by name, each in a box."""
    each = (f"<div><dt>{escape(name)}</dt><dd>{escape(_text(value))}</dd></div>" for name, value in facts.items())
    return "\n".join(["<dl>", *each, "</dl>"])


def notice(title: str, text: str = "", *, kind: Literal["neutral", "good", "bad"] = "neutral") -> str:
    """A colored box: a line in bold, and more below it as it is."""
    more = f"\n<pre>{escape(text)}</pre>" if text else ""
    return f'<div class="notice {kind}"><strong>{escape(title)}</strong>{more}</div>'


def listing(text: str) -> str:
    """Lines as they are, such as of a log."""
    return f"<pre>{escape(text)}</pre>"


def links(files: Sequence[Path], folder: Path) -> str:
    """A line of links to files, by their paths from the folder of the page."""
    each = (f'<a href="{_address(file, folder)}">{escape(file.name)}</a>' for file in files)
    return f"<p>{', '.join(each)}</p>"


def folded(summary: str, part: str) -> str:
    """A part that shows when one asks for it."""
    return f"<details>\n<summary>{escape(summary)}</summary>\n{part}\n</details>"


def table(headings: Sequence[str], rows: Iterable[Sequence[Fact]]) -> str:
    """A table whose rows begin with a name; fractions have bars as long as they are."""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in headings)
    body = (f'<tr><th scope="row">{escape(_text(row[0]))}</th>{"".join(map(_cell, row[1:]))}</tr>' for row in rows)
    top = f"<thead><tr>{head}</tr></thead>"
    return "\n".join(['<div class="wide">', "<table>", top, "<tbody>", *body, "</tbody>", "</table>", "</div>"])


def _cell(value: Fact) -> str:
    if isinstance(value, str):
        return f'<td class="text">{escape(value)}</td>'
    if isinstance(value, int):
        return f"<td>{value}</td>"
    part = 0 if math.isnan(value) else 100 * value
    return f'<td class="bar" style="--part: {part:.1f}%">{_text(value)}</td>'


def figure(name: str, file: Path, folder: Path, *, version: int | None = None) -> str:
    """A figure under its heading, which leads to its file.

    version: changes with the content, so that browsers do not show the old one that they keep.

    Raises:
        DataError: the file is not there.
    """
    if not file.is_file():
        raise DataError(f"{file}: the figure '{name}' of the report is not there; draw it first, or leave it out")
    address = _address(file, folder)
    shown = address if version is None else f"{address}?version={version}"
    return (
        f"{heading(name)}\n"
        f'<figure><a href="{address}"><img src="{shown}" alt="{escape(name)}" loading="lazy"></a></figure>'
    )


def _address(file: Path, folder: Path) -> str:
    return escape(quote(Path(os.path.relpath(file, folder)).as_posix()))


def _text(value: Fact) -> str:
    if isinstance(value, float):
        return "-" if math.isnan(value) else f"{value:.3f}"
    return str(value)
