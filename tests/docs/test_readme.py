"""Figures and links that are in more than one file agree."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

import robpicker_jax

pytestmark = pytest.mark.fast

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
LINK = re.compile(r"\]\((?!https?://|#)([^)\s#]+)(?:#([^)\s]+))?\)")


def test_the_quickstart_has_the_same_figures_everywhere() -> None:
    settings = (ROOT / "configs" / "quickstart.yaml").read_text(encoding="utf-8")
    time = re.search(r"\d+ minutes? \d+ seconds", README).group()
    assert time in settings
    table, beside = README.split("robpicker   supervised")
    scores = dict(
        re.findall(r"^ (\w+) (?:\(mean\))?.*?(\d\.\d{3})(?: \d\.\d{3}  \d\.\d\d)?$", table, flags=re.MULTILINE)
    )
    own = dict(re.findall(r"^ (\w+) (?:\(mean\))? +(\d\.\d{3}) +\d\.\d{3}$", beside, flags=re.MULTILINE))
    assert own == scores
    stated = re.search(r"macro F1 ([\d.]+) on the test tomogram \((.*?)\)", settings)
    assert f"{float(scores['macro']):.2f}" == stated.group(1)
    for species in stated.group(2).split(", "):
        name, score = species.split()
        assert f"{float(scores[name]):.2f}" == score


def test_links_lead_to_files_of_the_repository() -> None:
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")):
        for target, _ in LINK.findall(page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_citation_is_of_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == robpicker_jax.__version__
    assert citation["license"] == "Apache-2.0"
