"""From picks to a better model: the five commands of docs/review.md, with decisions such as a person makes."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path

import pytest
import yaml

from benchmarks._general_data import CLASSES, MIDDLE, SHAPE, make
from robpicker_jax.annotations import read_annotations, write_annotations
from robpicker_jax.reviewing import write_decisions
from robpicker_jax.reviewing.reading import ReviewedTomogram, review_lists
from tests.commands.test_docs_data import blocks
from tests.commands.test_review import payload
from tests.journeys import worlds
from tests.journeys.deciding import decided, is_right, reviewed
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
    saved = payload(Path("REVIEW/review.html"))["decisions"]
    assert saved["next"] == apply
    (given,) = review_lists(
        Path("PICKS"), [ReviewedTomogram("TS_03", worlds.VOXEL, worlds.SHAPE)], list(worlds.SPECIES)
    )
    false, missed = decided(given, truth["TS_03"], Path(saved["file"]))
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


@pytest.mark.slow
def test_five_commands_from_tomograms_without_any_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    # With this seed there are three particles or more of each species in both tomograms.
    names = list(make(Path("simulated"), {"test": 2}, 2872))
    Path("TOMOGRAMS").mkdir()
    for name in names:
        shutil.move(f"simulated/test/{name}.mrc", f"TOMOGRAMS/{name}.mrc")

    pick, review, apply, init, train = blocks("review.md", "sh")[1].strip().splitlines()
    follow(pick, review)
    given = review_lists(Path("PICKS"), [ReviewedTomogram(name, MIDDLE, SHAPE) for name in names], list(CLASSES))
    truth = {name: read_annotations(f"simulated/test/{name}_objl.xml") for name in names}
    reviews = [reviewed(entry, truth[entry.name]) for entry in given]
    missed = sum(added for *_, added in reviews)
    assert missed < 0.3 * sum(map(len, truth.values()))  # which a person has to add
    saved = payload(Path("REVIEW/review.html"))["decisions"]
    assert saved["next"] == apply
    write_decisions(Path(saved["file"]), "the loop", [(review, {}) for review, *_ in reviews])
    follow(apply)
    for name in names:
        assert is_right(read_annotations(f"CORRECTED/{name}.xml"), truth[name])

    follow(f"{init} --train.steps=9 --train.batch_size=2 --train.validate_every=3 --train.checkpoint_every=3", train)
    resolved = yaml.safe_load(Path("RUN/config.yaml").read_text())
    assert (resolved["train"]["init_from"], resolved["train"]["steps"]) == ("general", 3)
