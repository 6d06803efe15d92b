"""Guides name code, settings and networks that are there."""

import dataclasses
import importlib
import re
from functools import reduce
from pathlib import Path
from typing import Any

import pytest
import yaml

from yolov7_jax.config import Config
from yolov7_jax.config_file import config_names, read_config
from yolov7_jax.graph.kinds import KINDS
from yolov7_jax.graph.zoo import zoo_names

ROOT = Path(__file__).resolve().parent.parent
GUIDES = sorted([*(ROOT / "docs").glob("*.md"), *ROOT.glob("*.md")])
PAPER_TO_CODE = (ROOT / "docs/paper_to_code.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.name)
def test_links_lead_to_files(guide: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", guide.read_text(encoding="utf-8"))
    missing = [link for link in links if "://" not in link and not (guide.parent / link).exists()]
    assert not missing


@pytest.mark.parametrize(
    ("guide", "least"), [("docs/paper_to_code.md", 60), ("docs/architecture.md", 40), ("CONTRIBUTING.md", 12)]
)
def test_symbols_are_defined_in_the_files_that_they_link_to(guide: str, least: int) -> None:
    text = (ROOT / guide).read_text(encoding="utf-8")
    references = re.findall(r"\[`([\w.]+)`\]\((?:\.\./)?([\w/]+\.py)\)", text)
    assert len(references) > least
    for symbol, path in references:
        if symbol != Path(path).stem:
            first = symbol.split(".")[0]
            assert re.search(rf"^(def|class) {first}\b|^{first}\b.* =", (ROOT / path).read_text(), re.MULTILINE), symbol
            assert named(symbol, path)


def named(symbol: str, path: str) -> Any:
    module = importlib.import_module(path.removesuffix(".py").replace("/", "."))
    return reduce(getattr, symbol.split("."), module)


def test_settings_are_those_of_configurations() -> None:
    sections = {field.name: type(getattr(Config(), field.name)) for field in dataclasses.fields(Config)}
    named = re.findall(rf"`({'|'.join(sections)})\.(\w+)(?:=(\w+))?`", PAPER_TO_CODE)
    assert len(named) > 30
    for section, key, value in named:
        assert key in {field.name for field in dataclasses.fields(sections[section])}, key
        if value:
            read_config("recipe-p6", [f"{section}.{key}={value}"])


def test_networks_and_layers_are_known() -> None:
    networks = re.findall(r"`(yolo[\w]*-[\w-]+)`", PAPER_TO_CODE)
    assert len(networks) > 30
    assert set(networks) <= {*zoo_names(), *config_names()}
    for kinds in re.findall(r"YAML: ((?:`[A-Z]\w+`(?:, )?)+)", PAPER_TO_CODE):
        assert set(re.findall(r"`(\w+)`", kinds)) <= set(KINDS)


def test_arguments_of_builders_are_theirs() -> None:
    for arguments, symbol, path in re.findall(
        r"((?:`\w+`, )*`\w+`) of \[`([\w.]+)`\]\(\.\./([\w/]+\.py)\)", PAPER_TO_CODE
    ):
        found = named(symbol, path)
        code = getattr(found, "__code__", None)
        names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount] if code else found.__annotations__
        assert set(re.findall(r"`(\w+)`", arguments)) <= set(names), symbol


def test_recipes_are_those_of_the_configurations() -> None:
    """And every setting that a recipe sets stands in the table."""
    text = (ROOT / "docs/recipes.md").read_text(encoding="utf-8")
    heading, _, *rows = [
        [cell.strip(" `") for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")
    ]
    configs = {name: read_config(name) for name in heading[1:]}
    assert sorted(configs) == sorted(name for name in config_names() if name.startswith("recipe-"))

    def value(config: Config, key: str) -> str:
        found = reduce(getattr, key.split("."), config)
        return f"{found:g}" if isinstance(found, int | float) else str(found)

    for key, *values in rows:
        assert values == [value(config, key) for config in configs.values()], key
    told = {row[0] for row in rows}
    for name in configs:
        sections = yaml.safe_load((ROOT / f"configs/{name}.yaml").read_text())
        given = {f"{part}.{key}" for part, keys in sections.items() if part != "base" for key in keys}
        assert given <= told, name
