"""Which species are written: numbers and names in the lists, whichever formats, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from robpicker_jax.annotations import Particles, read_annotations
from robpicker_jax.commands import pick
from robpicker_jax.commands.cli import call
from robpicker_jax.models.model_file import save_model
from robpicker_jax.picking.calibration import ClassCalibration, save
from robpicker_jax.picking.finished import WrittenClass, entries
from robpicker_jax.picking.species_choice import SpeciesChoice
from robpicker_jax.system.errors import InputError
from robpicker_jax.volumes import write_mrc
from tests.tiny import untrained

pytestmark = pytest.mark.fast

NAMES = ("80S, free", "70S", "thyroglobulin")
PICKS = Particles(np.arange(15.0).reshape(5, 3), [3, 1, 2, 1, 3], scores=[0.9, 0.8, 0.7, 0.6, 0.5])


@pytest.mark.parametrize(
    ("given", "names", "labels"),
    [
        (["thyroglobulin,70S"], ["thyroglobulin", "70S"], [1, 2, 1]),
        (["70S=a", "80S, free"], ["a", "80S, free"], [2, 1, 2]),
        (["80S, free=b"], None, None),  # a comma divides; a name with one in it cannot be changed
        ([" 70S = ribosome , thyroglobulin = ribosome "], ["ribosome"], [1, 1, 1]),
        (["80S, free", "70S=80S, free"], None, None),
    ],
)
def test_picks_are_numbered_and_named_as_they_were_asked_for(
    given: list[str], names: list[str] | None, labels: list[int] | None
) -> None:
    if names is None or labels is None:
        with pytest.raises(InputError, match=r"--species: no species"):
            SpeciesChoice.of(given, NAMES)
        return
    choice = SpeciesChoice.of(given, NAMES)
    chosen = choice.of_picks(PICKS)
    assert choice.names == names
    assert chosen.labels.tolist() == labels
    assert chosen.class_names is not None
    assert chosen.class_names.tolist() == [names[label - 1] for label in labels]
    assert set(map(tuple, chosen.positions_vox.tolist())) <= set(map(tuple, PICKS.positions_vox.tolist()))


def test_all_species_are_written_as_they_are_unless_some_are_named() -> None:
    choice = SpeciesChoice.of([], NAMES)
    assert choice.is_everything
    assert choice.of_picks(PICKS) is PICKS
    assert not SpeciesChoice.of(["thyroglobulin", "70S", "80S, free"], NAMES).is_everything
    renamed = choice.renamed({"70S": "x", "thyroglobulin": "x"})
    assert (renamed.names, renamed.of_picks(PICKS).labels.tolist()) == (["x"], [1, 1, 1])
    assert renamed.species_of("x") == ["70S", "thyroglobulin"]
    assert len(SpeciesChoice.of(["70S"], NAMES).of_picks(PICKS.select([0]))) == 0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["70s"], "no species '70s'; the species are 80S, free, 70S, thyroglobulin"),
        (["70S", "70S=a"], "'70S' is named twice"),
        (["70S="], "gives '70S' no name"),
        ([""], "no species ''"),
    ],
)
def test_what_cannot_be_meant_is_refused(given: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        SpeciesChoice.of(given, NAMES)


@pytest.mark.parametrize("together", [False, True])
def test_pick_writes_the_chosen_species_with_their_own_scores(tmp_path: Path, together: bool) -> None:
    """Picks, dropped candidates and records hold the chosen species, each as if all were written."""
    save_model(tmp_path / "model.rpk", untrained(("a", "b", "c"), min_score=0.6))
    write_mrc(tmp_path / "in" / "t.mrc", np.random.default_rng(0).normal(size=(24, 28, 20)).astype(np.float32), 10.0)
    save(tmp_path, {"b": ClassCalibration((0.55, 0.2), (50, 60), (50, 51), 50)}, ["x"])

    def picked(out: str, *further: str) -> tuple[Particles, Particles]:
        arguments = [
            "--model",
            str(tmp_path / "model.rpk"),
            "--out",
            str(tmp_path / out),
            "--rejected",
            "--format",
            "csv",
        ]
        arguments += ["--together"] * together
        assert call(pick.main, [*arguments, *further, str(tmp_path / "in")]) == 0
        found = tmp_path / out / ("picks.csv" if together else "t.csv")
        return read_annotations(found), read_annotations(tmp_path / out / "rejected" / "t.csv")

    whole, some = picked("whole"), picked("some", "--species", "b=ribosome")
    for everything, chosen in zip(whole, some, strict=True):
        of_b = everything.select(everything.class_names == "b")
        assert len(of_b) > 3
        np.testing.assert_array_equal(chosen.positions_vox, of_b.positions_vox)
        assert set(chosen.class_names.tolist()) == {"ribosome"}
        assert set(chosen.labels.tolist()) == {1}
    (entry,) = entries(tmp_path / "some", "pick")
    assert entry.classes == {"ribosome": WrittenClass("b", 0.6)}
    picked("best", "--species", "b", "--thresholds", "best")  # of class a nothing is known
    (entry,) = entries(tmp_path / "best", "pick")
    assert entry.classes == {"b": WrittenClass("b", 0.55)}
    record = json.loads((tmp_path / "whole" / ".finished" / "pick" / "t.json").read_text())
    assert record["classes"]["a"] == {"species": "a", "min_score": 0.6}
