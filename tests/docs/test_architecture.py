"""The page on the architecture, its picture, and the site's generated pages, against the code."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

pytestmark = pytest.mark.fast

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


def script(name: str) -> ModuleType:
    """A script of docs/, which is no package, as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_table_has_every_room_in_the_order_of_the_import_contract() -> None:
    rooms = script("site_hooks").rooms()
    table = PAGE[PAGE.index("| room |") : PAGE.index("At the root of the package")]
    assert re.findall(r"^\| `(\w+)` \|", table, flags=re.MULTILINE) == rooms
    folders = {path.parent.name for path in (ROOT / "robpicker_jax").glob("*/__init__.py")}
    assert set(rooms) == folders


def test_the_picture_shows_the_imports_of_the_code() -> None:
    drawing = script("draw_architecture")
    imports = drawing.imports_of_rooms()
    assert drawing.imports_in_picture() == imports, "run python docs/draw_architecture.py"
    picture = drawing.PICTURE.read_text(encoding="utf-8")
    assert all(f">{room}<" in picture for room in imports)


def test_the_picture_leaves_out_only_what_a_longer_path_implies() -> None:
    drawing = script("draw_architecture")
    imports = drawing.imports_of_rooms()
    drawn = drawing.reduced(imports)
    for room in imports:
        assert set(drawn[room]) <= set(imports[room])
        assert drawing.reachable(drawn, room) == drawing.reachable(imports, room)


def test_the_changes_name_files_that_exist_and_cross_at_most_twelve_rooms() -> None:
    table = PAGE[PAGE.index("| change |") : PAGE.index("rooms and one door")]
    rows = re.findall(r"^\| (.+?) \| (.+?) \| (\d) \|", table, flags=re.MULTILINE)
    assert len(rows) == 10
    assert sum(int(rooms) for _, _, rooms in rows) == 11
    for _, files, rooms in rows:
        named = re.findall(r"`([\w/]+(?:\.py|/))`", files)
        assert all((ROOT / "robpicker_jax" / path).exists() for path in named), named
        touched = {path.split("/")[0] for path in named} | ({"new"} if "a new room" in files else set())
        assert len(touched) == int(rooms)


def test_links_of_the_repository_become_links_of_the_site() -> None:
    hooks = script("site_hooks")
    text = "[a](../robpicker_jax/bilevel/accumulation.py) [b](../CONTRIBUTING.md) [c](training.md#patches)"
    assert hooks.with_site_links(text) == "[a](reference/bilevel.md) [b](contributing.md) [c](training.md#patches)"
    assert hooks.with_site_links("[d](tutorials/a.ipynb) [e](a.ipynb)") == "[d](tutorials/a.md) [e](a.ipynb)"
    assert "](docs/" not in hooks.root_page("CONTRIBUTING.md")
