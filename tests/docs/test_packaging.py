"""The ways to install: recipe, container files and archives agree with pyproject.toml."""

from __future__ import annotations

import re
import runpy
import tomllib
from pathlib import Path

import pytest
import yaml

pytestmark = pytest.mark.fast

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
OTHERWISE_CALLED = {"matplotlib": "matplotlib-base"}
"""Packages whose name in conda-forge is another."""


def test_the_conda_recipe_requires_what_the_package_requires() -> None:
    text = (ROOT / "packaging" / "conda" / "meta.yaml").read_text(encoding="utf-8")
    section = text[text.index("  run:\n") : text.index("\ntest:")]
    listed = dict(re.findall(r"^ {4}- (\S+) (>=\S+)$", section, flags=re.MULTILINE))
    wanted = {"python": PROJECT["requires-python"]}
    for requirement in PROJECT["dependencies"]:
        name, bound = re.fullmatch(r"([\w.-]+)(>=\S+)", requirement).groups()
        wanted[OTHERWISE_CALLED.get(name, name).lower()] = bound
    assert listed == wanted


def test_the_conda_recipe_can_be_read_and_starts_what_the_package_starts() -> None:
    text = (ROOT / "packaging" / "conda" / "meta.yaml").read_text(encoding="utf-8")
    path, pattern = re.search(r'load_file="(.+?)", regex_pattern=\'(.+?)\'', text).groups()
    assert re.search(pattern, (ROOT / "packaging" / "conda" / path).read_text(encoding="utf-8"))
    plain = re.sub(r"{{ (\w+) }}", r"\1", re.sub(r"^{%.*%}$", "", text, flags=re.MULTILINE))
    recipe = yaml.safe_load(plain)
    assert recipe["package"]["name"] == PROJECT["name"]
    assert recipe["build"]["entry_points"] == [f"{name} = {start}" for name, start in PROJECT["scripts"].items()]
    assert recipe["about"]["license"] == PROJECT["license"]
    assert (ROOT / "packaging" / "conda" / recipe["source"]["path"]).resolve() == ROOT


def test_containers_are_given_what_the_wheel_is_built_from_and_no_more() -> None:
    rules = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert rules[1] == "*"
    allowed = {rule[1:] for rule in rules if rule.startswith("!")}
    definition = (ROOT / "packaging" / "robpicker.def").read_text(encoding="utf-8")
    copied = set(re.findall(r"^ {4}(\S+) /source/$", definition, flags=re.MULTILINE))
    hatch = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]
    wheel = hatch["build"]["targets"]["wheel"]
    needed = {*wheel["packages"], *wheel["force-include"], PROJECT["readme"], *PROJECT["license-files"]}
    assert allowed == copied == needed | {"pyproject.toml", "constraints.txt"}
    assert all((ROOT / name).exists() for name in allowed)


@pytest.mark.parametrize("file", ["Dockerfile", "robpicker.def"])
def test_container_files_name_extras_that_exist(file: str) -> None:
    text = (ROOT / "packaging" / file).read_text(encoding="utf-8")
    groups = re.findall(r"EXTRAS=([\w,]+)", text)
    assert len(groups) >= 2
    assert {extra for group in groups for extra in group.split(",")} <= set(PROJECT["optional-dependencies"])


def test_archives_without_something_or_with_too_much_are_found() -> None:
    contents = runpy.run_path(str(ROOT / ".ci" / "wheel_contents.py"))
    names = contents["expected"]()
    assert {"robpicker_jax/py.typed", "robpicker_jax/configs/quickstart.yaml"} <= names
    assert contents["wheel_faults"](names | {"robpicker_jax-0.1.0.dist-info/RECORD"}) == []
    assert contents["wheel_faults"](names - {"robpicker_jax/py.typed"}) == ["lacks robpicker_jax/py.typed"]
    assert contents["wheel_faults"](names | {"tests/tiny.py"}) == ["holds tests/tiny.py"]
    assert "lacks pyproject.toml" in contents["sdist_faults"](names)
