"""SHREC 2019's lists and maps as a data set of a study: which tomogram is where, and that it is made from them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.paper import shrec
from benchmarks.paper.measure import carry_out
from benchmarks.paper.runner import Runner, folder_of, read_result
from benchmarks.paper.study import Run, load_study
from robpicker_jax.annotations import read_annotations
from robpicker_jax.config import Config, SimulationConfig
from robpicker_jax.simulation.jobs import DatasetRecipe, read_placement
from robpicker_jax.system.errors import InputError
from robpicker_jax.volumes import write_mrc
from tests.benchmarks.paper_cases import TOY, write_studies

SHAPE = (32, 40, 48)
PLACES = {"1bxn": [(10, 10, 12), (36, 30, 18)], "4d8q": [(24, 20, 16)]}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Lists as SHREC 2019's, of two proteins and ten small tomograms, and balls as density maps."""
    root = tmp_path / "shrec"
    (root / "shrec2019").mkdir(parents=True)
    (root / "densities").mkdir()
    grid = np.indices((13, 13, 13)) - 6
    for name, radius in (("1bxn", 3), ("4v94", 5)):
        write_mrc(root / "densities" / f"{name}.mrc", ((grid**2).sum(0) <= radius**2).astype(np.float32), 22.0)
    objects = "".join(
        f'<object tomo_idx="{tomogram}" class_label="{label}" x="{x + (tomogram + 1) / 10}" y="{y}" z="{z}"/>'
        for tomogram in range(9)
        for label, places in enumerate(PLACES.values(), start=1)
        for x, y, z in places
    )
    (root / "shrec2019" / "object_list_train.xml").write_text(f"<objlist>{objects}</objlist>")
    rows = [f"{name} {z + 1} {y + 1} {x + 1} 0 0 0" for name, places in PLACES.items() for x, y, z in places]
    (root / "shrec2019" / "particle_locations_model_9.txt").write_text("\n".join(rows) + "\n")
    monkeypatch.setenv("ROBPICKER_TEST_DATA", str(root))
    return root


def study_with_lists(folder: Path, **changes: Any) -> Any:
    """The toy study with a data set at the lists' places, at full scale alone."""
    species = [
        {"name": "1bxn", "radius_vox": 3, "molecular_weight_kda": 560},
        {"name": "4d8q", "radius_vox": 5, "molecular_weight_kda": 1953},
    ]
    listed = {
        "label": "lists",
        "scales": ["full"],
        "places": "shrec_2019",
        "full": {"data.species": species, "data.meta_labels": "sphere"} | changes,
    }
    write_studies(folder, data_sets={"few": TOY["data_sets"]["few"], "lists": listed}, full={"train.steps": 4})
    return load_study("toy", "full", folder)


def test_a_data_set_of_one_scale_is_no_part_of_the_other(tmp_path: Path) -> None:
    full = study_with_lists(tmp_path)
    assert {run.data_set for run in full.runs([0])} == {"few", "lists"}
    assert {run.data_set for run in load_study("toy", "cpu", tmp_path).runs([0])} == {"few"}
    assert full.further(Run("lists", "robpicker", 0)) == {"places": "shrec_2019"}
    assert full.further(Run("few", "robpicker", 0)) == {}


def test_the_seed_turns_the_ten_tomograms(folder: Path) -> None:
    def dealt(seed: int) -> list[tuple[str, str]]:
        simulation = SimulationConfig(train=6, meta=1, val=1, test=2, seed=seed)
        return [(each.split, each.tomogram or "9") for each in shrec.placements(folder, simulation)]

    assert [number for _, number in dealt(0)] == [str(number) for number in range(10)]
    assert [split for split, _ in dealt(3)] == ["train"] * 6 + ["meta", "val", "test", "test"]
    tested = [{number for split, number in dealt(seed) if split == "test"} for seed in range(5)]
    assert tested[:3] == [{"8", "9"}, {"9", "0"}, {"0", "1"}]
    assert all(len(set(dealt(seed))) == 10 for seed in range(5))


@pytest.mark.slow
def test_a_run_trains_on_what_the_lists_say(folder: Path, tmp_path: Path) -> None:
    study = study_with_lists(tmp_path / "studies", **{"simulation.train": 2})
    run = Run("lists", "robpicker", 7)  # train has the tomograms 7 and 8, meta the one of the other list, test number 0
    runner = Runner(study, tmp_path / "out", [7])
    runner._prepare(folder_of(tmp_path / "out", study, run), run)
    result = carry_out(folder_of(tmp_path / "out", study, run))
    assert np.isfinite(result["metrics"]["plain/f1/macro"])
    data = Path((folder_of(tmp_path / "out", study, run) / "job.yaml").read_text().split("dir: ")[1].split("\n")[0])
    labels = {"1bxn": 1, "4d8q": 2}
    for split, shift in (("meta", 0.0), ("test", 0.1)):  # tomogram n of the first list is shifted by (n + 1) / 10
        (path,) = (data / split).glob("*.xml")
        found = read_annotations(path, voxel_size_angstrom=22.0, class_labels=labels)
        expected = [(x + shift, y, z) for places in PLACES.values() for x, y, z in places]
        np.testing.assert_allclose(found.positions_vox, expected, atol=1e-6)
    recorded = read_result(folder_of(tmp_path / "out", study, run))
    assert recorded is not None
    assert recorded["fingerprint"] == study.fingerprint(run)
    assert str(folder) not in json.dumps(recorded)  # records are made public, and say nothing of this machine
    assert runner.missing() == [other for other in study.runs([7]) if other != run]


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("densities/4v94.mrc", "no density map of 4d8q"),
        ("shrec2019/particle_locations_model_9.txt", "no such list"),
        (None, "not part of this repository"),
    ],
)
def test_missing_lists_and_maps_are_named(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str | None, message: str
) -> None:
    if missing is None:
        monkeypatch.delenv("ROBPICKER_TEST_DATA")
    else:
        (folder / missing).unlink()
    study = study_with_lists(tmp_path / "studies")
    with pytest.raises(InputError, match=message):
        shrec.recipe(study.config(Run("lists", "robpicker", 0)))


def test_more_tomograms_than_there_are_lists_of_are_refused(folder: Path) -> None:
    with pytest.raises(InputError, match="11 tomograms, and SHREC 2019 has 10"):
        shrec.placements(folder, SimulationConfig(train=8, meta=1, val=1, test=1))


def test_the_study_of_rivals_has_the_real_lists_and_maps(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROBPICKER_TEST_DATA", str(shared_data))
    study = load_study("main", "full")
    config: Config = study.config(Run("shrec_2019", "robpicker", 1))
    recipe: DatasetRecipe = shrec.recipe(config)
    assert len(config.data.species) == 12
    assert all(Path(species.density or "").is_file() for species in recipe.species)
    counts = [len(read_placement(placement, recipe)) for placement in recipe.placements]
    assert sum(counts) == 22_446 + 2_540
