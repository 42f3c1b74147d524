"""Every command that the documentation prints in a block exists, and its flags and fields are those of the package."""

from __future__ import annotations

import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from robpicker_jax.commands.cli import split_overrides
from robpicker_jax.commands.sweep import _protected
from robpicker_jax.commands.verbs import verbs
from robpicker_jax.config import load_config

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
_BLOCK = re.compile(r"^```\w*\n(.*?)^```|((?:^    .+\n)+)", flags=re.DOTALL | re.MULTILINE)
_DOOR = re.compile(r"\s*(?:robpicker |python -m robpicker_jax\.)(?=[a-z])")
_OPTIONAL = re.compile(r"\[(--[^\]]*)\]")


def commands(text: str) -> Iterator[list[str]]:
    """The words of each command; what stands in brackets, because it may be left out, is kept."""
    for block in _BLOCK.findall(text):
        for line in "".join(block).replace("\\\n", " ").splitlines():
            if door := _DOOR.match(line):
                yield shlex.split(_OPTIONAL.sub(r"\1", line[door.end() :]), comments=True)


def check(verb: str, *arguments: str) -> None:
    """Parse a command as the package would; whatever is wrong is raised."""
    assert verb in verbs()
    # What a user or a cluster puts there: --defocus UM, --shard "$SLURM_ARRAY_TASK_ID/…".
    words = [{"UM": "2.5", "N": "2"}.get(word, re.sub(r"\$\w+", "1", word)) for word in arguments]
    rest, overrides = split_overrides(_protected(words) if verb == "sweep" else words)
    module = importlib.import_module(f"robpicker_jax.commands.{verb}")
    parser = module.match_parser() if verb == "match" else module._parser()
    parser.parse_args(rest)
    if any(override.startswith("data.dir=") for override in overrides):
        overrides.append("data.voxel_size_angstrom=10")  # which the quickstart's own data do without
    if "--picker" not in rest:  # other pickers than networks have fields of their own
        load_config(None, overrides)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_exist_and_their_flags_parse(page: Path) -> None:
    for words in commands(page.read_text(encoding="utf-8")):
        try:
            check(*words)
        except (SystemExit, Exception) as error:
            raise AssertionError(f"{shlex.join(words)}: {error}") from error


def test_commands_are_found_and_wrong_ones_are_seen() -> None:
    text = "```sh\ncd X\nrobpicker pick --workdir R \\\n    T.mrc  # why\n```\n\n"
    text += "    python -m robpicker_jax.audit --workdir R [--apply]\n"
    assert list(commands(text)) == [["pick", "--workdir", "R", "T.mrc"], ["audit", "--workdir", "R", "--apply"]]
    assert len([words for page in PAGES for words in commands(page.read_text(encoding="utf-8"))]) > 80
    for wrong in (["pick", "--workdr", "R", "T.mrc"], ["train", "--train.stepps", "3"], ["pikc", "T.mrc"]):
        with pytest.raises((SystemExit, Exception)):
            check(*wrong)
