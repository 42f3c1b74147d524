"""From picks to a better model: the five commands of docs/review.md, with decisions such as a person makes."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path

import pytest
import yaml

from robpicker_jax.annotations import read_annotations, write_annotations
from robpicker_jax.reviewing.reading import ReviewedTomogram, review_lists
from tests.commands.test_docs_data import blocks
from tests.journeys import worlds
from tests.journeys.deciding import decided, is_right
from tests.journeys.test_journeys import PLAIN, SMALL, follow, nearest


@pytest.mark.slow
def test_five_commands_from_picks_to_a_model_trained_on_what_was_corrected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    volumes, truth = worlds.simulated(tmp_path / "simulated", test=2)
    monkeypatch.chdir(tmp_path)
    for folder in ("TOMOGRAMS", "LISTS", "TRUTH"):
        Path(folder).mkdir()
    for name, path in volumes.items():
        shutil.copy(path, f"TOMOGRAMS/{name}.mrc")
    for name in ("TS_01", "TS_02"):
        write_annotations(f"LISTS/{name}.xml", truth[name])
    write_annotations("TRUTH/TS_04.xml", truth["TS_04"])
    named = ",".join(f"{name}:{radius:g}" for name, radius in worlds.SPECIES.items())
    follow(
        f"robpicker init TOMOGRAMS --lists LISTS --species {named} --meta TS_02 --out my.yaml {SMALL} {PLAIN}",
        "robpicker train --config my.yaml --workdir RUN",
    )

    pick, review, apply, train, evaluate = blocks("review.md", "sh")[0].strip().splitlines()
    follow(pick, review)
    page = Path("REVIEW/review.html").read_text(encoding="utf-8")
    assert "viewer-data" in page
    (given,) = review_lists(
        Path("PICKS"), [ReviewedTomogram("TS_03", worlds.VOXEL, worlds.SHAPE)], list(worlds.SPECIES)
    )
    false, missed = decided(given, truth["TS_03"], Path("decisions.json"))
    follow(apply)
    picked, corrected = read_annotations("PICKS/TS_03.xml"), read_annotations("CORRECTED/TS_03.xml")
    assert len(corrected) == len(picked) - false + missed
    assert is_right(corrected, truth["TS_03"])

    follow(train, f"{evaluate} --json scores.json")
    resolved = yaml.safe_load(Path("BETTER/config.yaml").read_text())
    assert Path(resolved["train"]["init_from"]).resolve() == Path("RUN").resolve()
    assert resolved["train"]["steps"] == 16  # a third of those of RUN
    assert {path.stem for path in Path("BETTER/picks").glob("*.xml")} == {"TS_04"}  # TS_03 was trained on
    scores = json.loads(Path("scores.json").read_text())
    assert [entry["true"] for entry in scores["classes"]] == [8, 8]
    assert nearest(read_annotations("BETTER/picks/TS_04.xml").positions_vox, truth["TS_04"]) < 2.5
    with pytest.raises(AssertionError):
        follow(shlex.join([*shlex.split(apply)[:-1], "CORRECTED"]))  # the lists are there, and stay
