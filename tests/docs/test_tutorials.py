"""The notebooks of docs/tutorials: executed, clean, with commands that exist; and, slowly, executed anew."""

from __future__ import annotations

import ast
import importlib
import json
import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from robpicker_jax.commands.cli import split_overrides
from robpicker_jax.commands.verbs import verbs
from robpicker_jax.config import load_config
from tests.docs.test_architecture import script
from tests.docs.test_readme import LINK, README

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "tutorials"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
BYTES_AT_MOST = 1_000_000
_END = {"|", ">", "2>&1", ">/dev/null", ";"}
# Python's own warnings hold the name of their class; those of the package's commands begin their line.
_FAULTS = re.compile(r"Traceback|\w*Warning\b|^\s*(?:error|warning):", flags=re.MULTILINE)
_PATHS = re.compile(r"(?<![\w.~])/(?:home|root|tmp|usr|opt|Users|work|var|mnt|scratch)/|[A-Z]:\\Users|ipykernel_\d")

each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read(path: Path) -> Mapping[str, Any]:
    content: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def code_cells(path: Path) -> list[Mapping[str, Any]]:
    return [cell for cell in read(path)["cells"] if cell["cell_type"] == "code"]


def texts(cell: Mapping[str, Any]) -> Iterator[str]:
    """What a cell has printed or shown in words."""
    for output in cell["outputs"]:
        data = output.get("data", {})
        yield "".join(output.get("text", "" if "image/png" in data else data.get("text/plain", "")))


def commands(path: Path) -> list[list[str]]:
    """The words of each `robpicker` command of a notebook."""
    found = []
    for cell in code_cells(path):
        source = "".join(cell["source"])
        if not source.startswith("%%bash\n"):
            continue
        for line in source.replace("\\\n", " ").splitlines():
            if "robpicker " in line:
                words = shlex.split(line[line.index("robpicker ") :].replace(";", " ; "))
                end = next((place for place, word in enumerate(words) if word in _END), len(words))
                found.append(words[1:end])
    return found


def test_there_are_three() -> None:
    assert {path.stem for path in NOTEBOOKS} == {"relion_warp", "copick", "own_bilevel_problem"}


@each
def test_a_notebook_is_executed_from_top_to_bottom_without_an_error(path: Path) -> None:
    cells = code_cells(path)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    for cell in cells:
        assert all(output["output_type"] != "error" for output in cell["outputs"])
        said = "\n".join(texts(cell))
        assert not _FAULTS.search(said), said


@each
def test_a_notebook_is_small_clean_and_has_pictures(path: Path) -> None:
    content = read(path)
    assert path.stat().st_size < BYTES_AT_MOST
    assert content["metadata"]["kernelspec"]["name"] == "python3"
    assert set(content["metadata"]) == {"kernelspec", "language_info"}
    assert all(not cell["metadata"] for cell in content["cells"])
    said = "\n".join(text for cell in code_cells(path) for text in texts(cell))
    assert not _PATHS.search(said), _PATHS.search(said)
    assert "\x1b" not in said
    pictures = [o for cell in code_cells(path) for o in cell["outputs"] if "image/png" in o.get("data", {})]
    assert len(pictures) >= 3


@pytest.mark.parametrize(
    "text",
    [
        "a\nwarning: the contrast seems to be inverted",
        "error: no such file",
        "x.py:3: UserWarning: y",
        "Traceback (most",
    ],
)
def test_errors_and_warnings_are_seen(text: str) -> None:
    assert _FAULTS.search(text)
    assert not _FAULTS.search("0 errors, 2 warnings\nno warning: all is well\nthe error: 3 %")


@pytest.mark.parametrize("text", ["/home/ann/x", "see /scratch/ab12/x", "'/usr/share/x'", r"C:\Users\ann"])
def test_paths_of_a_machine_are_seen(text: str) -> None:
    assert _PATHS.search(text)
    assert not _PATHS.search("runs/tutorial warp_tiltseries/tmp/x ../simulated /dev/null")


@each
def test_commands_exist_and_their_flags_parse(path: Path) -> None:
    found = commands(path)
    assert len(found) >= (0 if path.stem == "own_bilevel_problem" else 4)  # that one is about a library, not a command
    for verb, *arguments in found:
        assert verb in verbs()
        rest, overrides = split_overrides(arguments)
        importlib.import_module(f"robpicker_jax.commands.{verb}")._parser().parse_args(rest)
        load_config(None, overrides)


@each
def test_code_compiles_and_links_lead_to_pages(path: Path) -> None:
    for cell in read(path)["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "code" and not source.startswith("%%"):
            ast.parse(source)
        if cell["cell_type"] == "markdown":
            for target, _ in LINK.findall(source):
                assert (FOLDER / target).exists(), target


def test_the_site_the_readme_and_the_start_name_each_notebook() -> None:
    navigation = json.dumps(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"])
    start = (ROOT / "docs" / "start.md").read_text(encoding="utf-8")
    for path in NOTEBOOKS:
        assert f"tutorials/{path.stem}.md" in navigation
        assert f"(docs/tutorials/{path.name})" in README
        assert f"(tutorials/{path.name})" in start


@each
def test_the_page_of_a_notebook_shows_all_of_it(path: Path) -> None:
    page, pictures = script("site_hooks").notebook_page(path)
    assert page.startswith("# ")
    assert f"]({path.name})" in page.splitlines()[2]
    assert re.findall(r"^!\[.*\]\((.+)\)$", page, flags=re.MULTILINE) == list(pictures)
    assert all(picture.startswith(b"\x89PNG") for picture in pictures.values())
    for cell in code_cells(path):
        for text in texts(cell):
            assert text.rstrip() in page
    for words in commands(path):
        assert f"robpicker {words[0]} " in page


def test_a_notebook_that_takes_longer_than_its_limit_is_stopped(tmp_path: Path) -> None:
    """The limit is of all cells together."""
    nbformat = pytest.importorskip("nbformat", reason="the extra tutorials is not installed")
    exceptions = pytest.importorskip("nbclient.exceptions", reason="the extra tutorials is not installed")
    pytest.importorskip("ipykernel", reason="the extra tutorials is not installed")
    cells = [nbformat.v4.new_code_cell(f"import time; time.sleep({seconds})") for seconds in (1.5, 60)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "long.ipynb")
    with pytest.raises(exceptions.CellTimeoutError, match="60"):
        script("run_tutorials").executed(tmp_path / "long.ipynb", limit_s=3)


def test_a_tutorial_may_take_five_minutes() -> None:
    assert script("run_tutorials").LIMIT_S == 300


@pytest.mark.slow
@pytest.mark.timeout(1000)
@each
def test_a_notebook_runs(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within three times the limit, since a test shares its machine; `--durations=0` shows what each took."""
    for needed in ("nbclient", "ipykernel", "nbformat"):
        pytest.importorskip(needed, reason="the extra tutorials is not installed")
    if path.stem == "copick":
        pytest.importorskip("copick", reason="the extra copick is not installed")
        pytest.importorskip("tensorstore", reason="the extra zarr is not installed")
    monkeypatch.delenv("JAX_NUMPY_RANK_PROMOTION", raising=False)  # which the tests set, and users do not
    before = read(path)
    run_tutorials = script("run_tutorials")
    after = run_tutorials.executed(path, limit_s=3 * run_tutorials.LIMIT_S)
    assert [cell.source for cell in after.cells] == ["".join(cell["source"]) for cell in before["cells"]]
    for old, new in zip(before["cells"], after.cells, strict=True):
        kinds = [output["output_type"] for output in old.get("outputs", [])]
        assert [output.output_type for output in new.get("outputs", [])] == kinds
