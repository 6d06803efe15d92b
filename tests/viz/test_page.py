import math
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest

from yolov7_jax.errors import DataError, InputError
from yolov7_jax.image import write_image
from yolov7_jax.types import ClassResult
from yolov7_jax.viz.draw import relative_luminance
from yolov7_jax.viz.page import (
    STYLE,
    figure,
    folded,
    heading,
    links,
    listing,
    notice,
    report_page,
    table,
    write_page,
)

VOID = {"meta", "img", "br", "link", "input", "hr"}
CLASSES = [ClassResult("cat", 0.5, 0.75, 12), ClassResult("<b>dog</b>", math.nan, math.nan, 0)]


class Page(HTMLParser):
    """Elements of a page in order, each with its attributes and text; fails where tags do not balance."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict, list[str]]] = []
        self.open: list[tuple[str, dict, list[str]]] = []
        self.source = file.read_text(encoding="utf-8")
        self.feed(self.source)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        assert len(dict(attrs)) == len(attrs)
        element = (tag, dict(attrs), [])
        self.elements.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        for _, _, text in self.open:
            text.append(data)

    def texts(self, tag: str) -> list[str]:
        return ["".join(text) for name, _, text in self.elements if name == tag]

    def values(self, tag: str, attribute: str) -> list[str]:
        return [attributes[attribute] for name, attributes, _ in self.elements if name == tag]


def figure_in(folder: Path, name: str) -> Path:
    write_image(folder / name, np.zeros((4, 4, 3), np.uint8))
    return folder / name


def test_page_shows_facts_classes_and_figures(tmp_path: Path):
    pictures = [("Curves", figure_in(tmp_path, "curves.png")), ("Batch", figure_in(tmp_path / "run", "a/batch.png"))]
    file = report_page(tmp_path / "run", "Demo", {"AP50": 0.91239, "time": "4 min", "images": 512}, CLASSES, pictures)
    assert file == tmp_path / "run" / "index.html"
    page = Page(file)
    assert page.source.startswith("<!DOCTYPE html>")
    assert page.texts("title") == page.texts("h1") == ["Demo"]
    assert page.texts("dt") == ["AP50", "time", "images"]
    assert page.texts("dd") == ["0.912", "4 min", "512"]
    assert page.texts("tr") == ["classboxesAP50AP", "cat120.7500.500", "<b>dog</b>0--"]
    assert page.values("img", "src") == page.values("a", "href") == ["../curves.png", "a/batch.png"]
    assert page.values("img", "alt") == ["Curves", "Batch"]
    assert page.texts("h2") == ["Classes", "Curves", "Batch"]
    assert page.values("html", "lang") == ["en"]


def test_figures_are_found_under_any_name(tmp_path: Path):
    names = ["a b.png", "50% #1?.png", "ü&amp;<'\">.png", "a:b.png"]
    pictures = [(name, figure_in(tmp_path / "pictures", name)) for name in names]
    page = Page(report_page(tmp_path, "x", {}, [], pictures))
    assert [tmp_path / unquote(urlsplit(source).path) for source in page.values("img", "src")] == [
        file for _, file in pictures
    ]
    assert page.values("img", "alt") == names


@pytest.mark.parametrize("text", ["<script>alert(1)</script>", '"><img src=x>', "&lt; & '", "猫 ü"])
def test_text_stays_text(tmp_path: Path, text: str):
    figure = figure_in(tmp_path, "x.png")
    page = Page(report_page(tmp_path, text, {text: text}, [ClassResult(text, 0.5, 0.5, 1)], [(text, figure)]))
    for tag in ("title", "h1", "dt", "dd"):
        assert page.texts(tag) == [text]
    assert page.texts("h2")[1:] == [text]
    assert text in page.texts("th")
    assert page.values("img", "alt") == [text]
    assert len(page.values("img", "src")) == 1
    assert "script" not in [name for name, _, _ in page.elements]


def test_nothing_is_loaded_from_elsewhere(tmp_path: Path):
    page = Page(report_page(tmp_path, "x", {"AP": math.nan}, CLASSES, [("x", figure_in(tmp_path, "x.png"))]))
    assert not re.search(r"https?:|//|@import|url\(", page.source)
    assert {name for name, _, _ in page.elements}.isdisjoint({"script", "link", "iframe", "object"})
    assert page.texts("dd") == ["-"]


def test_bars_are_as_long_as_the_numbers(tmp_path: Path):
    page = Page(report_page(tmp_path, "x", {}, CLASSES, []))
    bars = [attributes["style"] for name, attributes, _ in page.elements if name == "td" and "style" in attributes]
    assert bars == ["--part: 75.0%", "--part: 50.0%", "--part: 0.0%", "--part: 0.0%"]


def test_a_page_of_other_parts(tmp_path: Path):
    text = "<i>a & b</i>"
    parts = [
        notice(text, f"{text}\nmore", kind="bad"),
        heading(text),
        table((text, "n"), [(text, text, 3, 0.25)]),
        folded(text, listing(text)),
        links([tmp_path / "a b#.txt"], tmp_path),
        figure(text, figure_in(tmp_path, "x y.png"), tmp_path, version=7),
    ]
    page = Page(write_page(tmp_path, text, parts, reload_s=60))
    assert page.texts("pre") == [f"{text}\nmore", text]
    assert page.texts("tr") == [f"{text}n", f"{text}{text}30.250"]
    assert page.texts("summary") == page.texts("strong") == [text]
    assert page.values("a", "href") == ["a%20b%23.txt", "x%20y.png"]
    assert page.values("img", "src") == ["x%20y.png?version=7"]
    assert not page.texts("i")
    assert [a["content"] for name, a, _ in page.elements if a.get("http-equiv") == "refresh"] == ["60"]
    assert "refresh" not in Page(write_page(tmp_path, text, parts)).source


def test_text_is_legible_by_day_and_night():
    day, night = STYLE.split("@media (prefers-color-scheme: dark)")
    for part in (day, night):
        colors = {name: _rgb(digits) for name, digits in re.findall(r"--(\w+): #([0-9a-f]+)", part)}
        for ink, paper in (
            ("ink", "paper"),
            ("ink", "bar"),
            ("ink", "card"),
            ("quiet", "card"),
            ("ink", "good"),
            ("ink", "bad"),
        ):
            lights = sorted(relative_luminance(colors[name]) for name in (ink, paper))
            assert (lights[1] + 0.05) / (lights[0] + 0.05) >= 4.5  # WCAG 2, level AA


def _rgb(digits: str) -> tuple[int, int, int]:
    digits = "".join(2 * digit for digit in digits) if len(digits) == 3 else digits
    red, green, blue = bytes.fromhex(digits)
    return red, green, blue


def test_a_missing_figure_is_named(tmp_path: Path):
    with pytest.raises(DataError, match=r"none.png: the figure 'Curves' of the report is not there"):
        report_page(tmp_path, "x", {}, [], [("Curves", tmp_path / "none.png")])
    assert not (tmp_path / "index.html").exists()


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path):
    (tmp_path / "index.html").mkdir()
    with pytest.raises(InputError, match=r"index.html: cannot be written"):
        report_page(tmp_path, "x", {}, [], [])
