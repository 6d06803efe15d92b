"""docs/model_zoo.md is what tools/model_zoo.py writes (its --check counts all rows)."""

import re

import pytest

from tools.model_zoo import DOCUMENT, HEADINGS, INTRODUCTION, NOTES, PUBLISHED, SECTIONS, rows
from yolov7_jax.graph.zoo import zoo_names

TEXT = DOCUMENT.read_text(encoding="utf-8")
REMEDY = "run python tools/model_zoo.py"


def test_every_network_has_its_place() -> None:
    assert sorted(name for names in SECTIONS.values() for name in names) == sorted(zoo_names())
    assert set(PUBLISHED) <= set(zoo_names())


def test_the_document_lists_the_networks_of_the_zoo() -> None:
    listed = dict.fromkeys(re.findall(r"^\| (yolo\S+|[rx]50\S+) \|", TEXT, re.MULTILINE))
    assert list(listed) == [name for names in SECTIONS.values() for name in names], REMEDY
    assert TEXT.startswith(INTRODUCTION), REMEDY
    assert TEXT.count("\n".join(HEADINGS)) == len(SECTIONS), REMEDY


@pytest.mark.parametrize("name", zoo_names()[::6])
def test_rows_are_what_is_counted(name: str) -> None:
    for row in rows(name):
        assert row + "\n" in TEXT, REMEDY


def test_published_figures_are_those_of_the_tool() -> None:
    for name, published in PUBLISHED.items():
        for row in published:
            printed = re.findall(
                rf"^\| {name} \| [\d, ]+ \| {row.size} \|(?: [\d.]+ \|){{3}} (.*)$", TEXT, re.MULTILINE
            )
            assert printed == [row.cells().removeprefix("| ")], REMEDY


def test_every_note_is_used_and_printed() -> None:
    used = {published.note for rows in PUBLISHED.values() for published in rows if published.note}
    assert used == set(NOTES)
    assert all(f"[^{key}]: {text}\n" in TEXT for key, text in NOTES.items()), REMEDY


def test_what_differs_from_the_published_figures_has_a_note() -> None:
    lines = re.findall(r"^\| (?:yolo|[rx]50).*\|$", TEXT, re.MULTILINE)
    for line in lines:
        _, name, _, _, training, inference, gflops, millions, published_gflops, _, source, _ = map(
            str.strip, line.split("|")
        )
        if published_gflops:
            # 1 % for biases, 0.05 for the published figure's rounding, 0.005 for ours
            agree = abs(float(inference) - float(millions)) < 0.0551 and (
                0.99 * float(published_gflops) - 0.055 < float(gflops) < float(published_gflops) + 0.055
            )
            assert agree or "[^" in source, name
        assert float(inference) <= float(training)
