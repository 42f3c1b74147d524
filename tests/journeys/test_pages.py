"""The commands of docs/start.md and docs/training.md, counted, and followed as they are printed."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from robpicker_jax.annotations import read_annotations, write_annotations
from robpicker_jax.config import load_config
from robpicker_jax.datasets import dataset
from robpicker_jax.reviewing import Edit, Review, write_decisions
from robpicker_jax.reviewing.reading import ReviewedTomogram, review_lists
from tests.commands.test_docs_data import blocks
from tests.journeys import worlds
from tests.journeys.deciding import is_right, reviewed
from tests.journeys.test_journeys import PLAIN, SMALL, check_fine_tuned, follow

PAGE = "start.md"


def commands(block: str) -> list[str]:
    """The `robpicker` commands of a block, without those that are called optional."""
    lines = [line for line in block.strip().splitlines() if line.startswith("robpicker ")]
    return [line.partition("  #")[0].strip() for line in lines if not line.endswith("# optional")]


def tomograms(names: Iterable[str]) -> list[ReviewedTomogram]:
    return [ReviewedTomogram(name, worlds.VOXEL, worlds.SHAPE) for name in names]


def save(apply: str, reviews: Sequence[tuple[Review, Mapping[str, float]]]) -> None:
    """Write decisions to where the command that is to carry them out expects them."""
    words = shlex.split(apply)
    write_decisions(Path(words[words.index("--apply") + 1]), "the page", reviews)


@pytest.mark.parametrize("world", [0, 1])
def test_the_way_from_files_to_a_fine_tuned_model_is_six_commands(world: int) -> None:
    found = commands(blocks(PAGE, "sh")[world]) + commands(blocks(PAGE, "sh")[2])
    assert [shlex.split(line)[1] for line in found] == ["init", "train", "pick", "review", "review", "train"]
    assert "it is six commands" in Path(__file__).parents[2].joinpath("docs", PAGE).read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_six_commands_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, truth = worlds.warp_project(tmp_path)
    monkeypatch.chdir(folder)
    init, train, pick = commands(blocks(PAGE, "sh")[0])
    review, apply, fine_tune = commands(blocks(PAGE, "sh")[2])
    follow(f"{init} {SMALL} {PLAIN}", train, pick, review)
    names = {f"{name}_10.00Apx": particles for name, particles in truth.items()}
    given = review_lists(Path("PICKS/picks.star"), tomograms(names), list(worlds.SPECIES))
    save(apply, [(reviewed(entry, names[entry.name])[0], {}) for entry in given])
    follow(apply, fine_tune)
    for name, particles in names.items():
        assert is_right(read_annotations(f"CORRECTED/{name}.xml"), particles)
    check_fine_tuned(Path("BETTER"), Path("RUN"), Path("CORRECTED/TS_03_10.00Apx.xml"))  # which had no list before


@pytest.mark.slow
def test_lists_that_an_audit_has_cleaned_are_trained_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    volumes, truth = worlds.simulated(tmp_path / "simulated")
    monkeypatch.chdir(tmp_path)
    for folder in ("TOMOGRAMS", "LISTS"):
        Path(folder).mkdir()
    for name, path in volumes.items():
        path.rename(f"TOMOGRAMS/{name}.mrc")
    for name in ("TS_01", "TS_02"):
        write_annotations(f"LISTS/{name}.xml", truth[name])
    named = ",".join(f"{name}:{radius:g}" for name, radius in worlds.SPECIES.items())
    follow(
        f"robpicker init TOMOGRAMS --lists LISTS --species {named} --meta TS_02 --out my.yaml {SMALL} {PLAIN}",
        "robpicker train --config my.yaml --workdir RUN",
    )
    first, second = (
        block for block in blocks("training.md", "sh") if " --out AUDIT" in block or "AUDIT/audit" in block
    )
    audit, train = commands(first)
    follow(audit, train)
    check_fine_tuned(Path("BETTER"), Path("RUN"), Path("AUDIT/cleaned/TS_01.xml"))
    data = load_config("BETTER/config.yaml").data
    used = {split: [files.annotation_path for files in found] for split, found in dataset("TOMOGRAMS", data).items()}
    assert [path.as_posix() for path in used["train"]] == [f"{tmp_path}/AUDIT/cleaned/TS_01.xml"]
    assert [path.as_posix() for path in used["meta"]] == [f"{tmp_path}/LISTS/TS_02.xml"]

    # One by one: of an audit, an annotation stays unless it is rejected.
    (given,) = review_lists(Path("AUDIT/audit.csv"), tomograms(["TS_01"]), list(worlds.SPECIES))
    annotated = np.flatnonzero(given.particles.extra["row"] > 0)
    assert len(annotated) == len(truth["TS_01"])
    review = Review(given)
    review.do(Edit("reject", int(annotated[0])))
    (apply,) = commands(second)
    save(apply, [(review, {})])
    follow(apply, train.replace("AUDIT/cleaned", "CLEANED").replace("BETTER", "BEST"))
    check_fine_tuned(Path("BEST"), Path("RUN"), Path("CLEANED/TS_01.xml"))
    assert len(read_annotations("CLEANED/TS_01.xml")) == len(truth["TS_01"]) - 1
