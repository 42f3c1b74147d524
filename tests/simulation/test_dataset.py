"""Simulated data sets on disk: layout, reproducibility, resuming, and the command."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from robpicker_jax.annotations import read_annotations
from robpicker_jax.annotations.geometry import rotation_angle_deg
from robpicker_jax.commands import simulate
from robpicker_jax.commands.cli import call
from robpicker_jax.config import (
    Config,
    DataConfig,
    InferenceConfig,
    LabelNoiseConfig,
    PatchConfig,
    SimulationConfig,
    Species,
    dump_config,
)
from robpicker_jax.datasets.discovery import discover
from robpicker_jax.labels import shape_labels
from robpicker_jax.molecules import species_mask
from robpicker_jax.simulation import DatasetRecipe, Placement, is_finished, simulate_dataset
from robpicker_jax.simulation.jobs import read_placement
from robpicker_jax.system.errors import InputError
from robpicker_jax.volumes import read_volume, write_mrc

SPECIES = (
    Species("apoferritin", 5, phantom="apoferritin", copies=4),
    Species("albumin", 3, phantom="albumin", copies=6),
)
CONFIG = Config(
    data=DataConfig(species=SPECIES),
    simulation=SimulationConfig(shape_zyx=(32, 40, 48), tilt_step_deg=10.0, train=2, meta=1, val=1, test=1, snr=0.5),
    label_noise=LabelNoiseConfig(missing=0.2, false_picks=0.2, jitter_vox=0.5, swap=0.2),
    patches=PatchConfig(size=16, shift_vox=4),
    inference=InferenceConfig(overlap_vox=4),
)


RECIPE = DatasetRecipe(SPECIES, CONFIG.simulation, CONFIG.label_noise)


class Counter:
    def __init__(self) -> None:
        self.names: list[str] = []

    def advance(self, n: int = 1, **fields: object) -> None:
        self.names += [str(fields["tomogram"])] * n


def hashes(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("simulated") / "data"
    counter = Counter()
    simulate_dataset(RECIPE, out, counter)
    assert counter.names == ["train_000", "train_001", "meta_000", "val_000", "test_000"]
    assert RECIPE.count() == 5
    return out


def test_layout(made: Path) -> None:
    found = discover(made)
    assert {split: [t.name for t in tomograms] for split, tomograms in found.items()} == {
        "train": ["train_000", "train_001"],
        "meta": ["meta_000"],
        "val": ["val_000"],
        "test": ["test_000"],
    }
    for tomogram in (t for tomograms in found.values() for t in tomograms):
        assert tomogram.annotation_path is not None
        assert tomogram.annotation_path.name == f"{tomogram.name}_objl.xml"
        volume = read_volume(tomogram.volume_path)
        assert volume.data.shape == (32, 40, 48)
        assert volume.data.dtype == np.float32
        assert volume.voxel_size_angstrom == 10.0
        clean = tomogram.volume_path.with_name(f"{tomogram.name}_truth_objl.xml")
        assert clean.exists() == (tomogram.split == "train")
        truth = read_annotations(clean if clean.exists() else tomogram.annotation_path)
        assert np.bincount(truth.labels).tolist() == [0, 4, 6]
        assert truth.class_names is not None
        assert set(truth.class_names[truth.labels == 2]) == {"albumin"}
        assert tomogram.target_path is not None
        masks = [species_mask(species, 10.0) for species in SPECIES]
        drawn = shape_labels((32, 40, 48), truth, masks)
        stored = read_volume(tomogram.target_path, dtype=None).data
        assert (drawn != stored).mean() < 1e-3  # the file's angles are rounded to a millionth of a degree


def test_label_noise_of_train_is_recorded(made: Path) -> None:
    for name in ("train_000", "train_001"):
        noisy = read_annotations(made / "train" / f"{name}_objl.xml")
        truth = read_annotations(made / "train" / f"{name}_truth_objl.xml")
        record = json.loads((made / "train" / f"{name}_label_noise.json").read_text())
        assert len(noisy) == 10
        kept = record["kept"]
        assert len(kept) == 8
        assert noisy.extra["obj_id"].tolist() == [*kept, 10, 11]
        away = np.linalg.norm(noisy.positions_vox[:8] - truth.positions_vox[kept], axis=1)
        assert away.min() > 0
        assert away.max() < 3
        assert (noisy.labels[:8] != truth.labels[kept]).sum() == len(record["swapped"]) == 2
        assert noisy.rotations is not None
        assert truth.rotations is not None
        assert rotation_angle_deg(noisy.rotations[:8], truth.rotations[kept]).max() < 1e-4


def test_label_noise_of_meta_on_request(made: Path, tmp_path: Path) -> None:
    """The same tomogram, but its list has faults, of another draw than those of train."""
    noise = dataclasses.replace(RECIPE.label_noise, splits=("train", "meta"))
    one = dataclasses.replace(RECIPE.simulation, train=1, val=0)
    simulate_dataset(dataclasses.replace(RECIPE, simulation=one, label_noise=noise), tmp_path)
    one_by_one, clean = hashes(tmp_path), hashes(made)
    for name in ("meta/meta_000.mrc", "meta/meta_000_target.mrc", "train/train_000_objl.xml", "test/test_000_objl.xml"):
        assert one_by_one[name] == clean[name], name
    assert one_by_one["meta/meta_000_truth_objl.xml"] == clean["meta/meta_000_objl.xml"]
    records = [json.loads((tmp_path / s / f"{s}_000_label_noise.json").read_text()) for s in ("train", "meta")]
    assert [len(record["kept"]) for record in records] == [8, 8]
    assert records[0]["kept"] != records[1]["kept"]
    found = discover(tmp_path)["meta"][0]
    assert found.annotation_path is not None
    assert len(read_annotations(found.annotation_path)) == 10
    assert read_annotations(found.annotation_path).extra["obj_id"].tolist() == [*records[1]["kept"], 10, 11]


def test_a_complete_data_set_is_left_alone(made: Path) -> None:
    assert is_finished(RECIPE, made)
    before = {path: path.stat().st_mtime_ns for path in made.rglob("*")}
    counter = Counter()
    manifest = simulate_dataset(RECIPE, made, counter)
    assert manifest["finished"]
    assert len(counter.names) == 5
    assert {path: path.stat().st_mtime_ns for path in made.rglob("*")} == before


def test_same_settings_same_bytes_and_an_interrupted_run_is_completed(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from robpicker_jax.simulation import dataset

    make, count = dataset._make, 0

    def interrupted(*arguments: object) -> object:
        nonlocal count
        count += 1
        if count == 3:
            raise KeyboardInterrupt
        return make(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(dataset, "_make", interrupted)
    out = tmp_path / "again"
    with pytest.raises(KeyboardInterrupt):
        simulate_dataset(RECIPE, out)
    assert not is_finished(RECIPE, out)
    (out / "train" / ".tmp-left-over.mrc").write_bytes(b"of a run that was killed")
    (out / "train" / "train_000_target.mrc").unlink()
    simulate_dataset(RECIPE, out)
    assert count == 3 + 1 + 3  # two, the interruption; then one that lost a file, and the three that were missing
    assert hashes(out) == hashes(made)


def test_manifest_lists_every_file(made: Path) -> None:
    manifest = json.loads((made / "simulation.json").read_text())
    listed = {
        name: facts["sha256"] for entry in manifest["tomograms"].values() for name, facts in entry["files"].items()
    }
    assert listed == {name: digest for name, digest in hashes(made).items() if name != "simulation.json"}
    assert manifest["versions"]["numpy"] == np.__version__
    assert manifest["settings"]["simulation"]["snr"] == 0.5
    assert manifest["tomograms"]["test_000"]["particles"] == {"apoferritin": 4, "albumin": 6}


def test_tomograms_do_not_depend_on_how_many_there_are(made: Path, tmp_path: Path) -> None:
    fewer = dataclasses.replace(RECIPE, simulation=dataclasses.replace(RECIPE.simulation, train=1, meta=0, val=0))
    simulate_dataset(fewer, tmp_path / "fewer")
    one, other = hashes(tmp_path / "fewer"), hashes(made)
    assert all(other[name] == digest for name, digest in one.items() if name != "simulation.json")


def test_a_folder_of_something_else_is_refused(made: Path, tmp_path: Path) -> None:
    changed = dataclasses.replace(RECIPE, simulation=dataclasses.replace(RECIPE.simulation, snr=0.25))
    with pytest.raises(InputError, match=r"other settings \(simulation\.snr\)"):
        simulate_dataset(changed, made)
    clusters = [dataclasses.replace(entry, min_cluster_vox=7) for entry in SPECIES]
    assert is_finished(dataclasses.replace(RECIPE, species=tuple(clusters)), made)  # nothing to do with the data
    write_mrc(tmp_path / "train" / "mine.mrc", np.zeros((4, 4, 4), np.float32), 10.0)
    with pytest.raises(InputError, match=r"no simulation\.json"):
        simulate_dataset(RECIPE, tmp_path)
    (tmp_path / "simulation.json").write_text("[]")
    with pytest.raises(InputError, match="no manifest"):
        simulate_dataset(RECIPE, tmp_path)


def at(placement: Placement, **changes: Any) -> DatasetRecipe:
    """The recipe with its particles where an annotation file has them."""
    return dataclasses.replace(RECIPE, placements=(placement,), **changes)


@pytest.mark.parametrize("last", range(5))
def test_e2_a_run_killed_at_any_file_of_its_first_tomogram_goes_on(
    last: int, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = dataclasses.replace(RECIPE, simulation=dataclasses.replace(RECIPE.simulation, train=1, meta=1, val=0, test=0))
    renamed: list[str] = []

    def killed(source: str, target: Path) -> None:
        if len(renamed) > last:
            raise KeyboardInterrupt
        renamed.append(Path(target).name)
        replace(source, target)

    replace = os.replace
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            simulate_dataset(one, tmp_path)
    assert renamed[0] == "simulation.json"
    other = dataclasses.replace(one, simulation=dataclasses.replace(one.simulation, snr=3.0))
    assert not is_finished(other, tmp_path)  # before the first whole tomogram, other settings are no other data set
    simulate_dataset(one, tmp_path)
    found = hashes(tmp_path / "train")
    assert found.items() <= hashes(made / "train").items()


def test_particles_at_given_positions(made: Path, tmp_path: Path) -> None:
    source = made / "test" / "test_000_objl.xml"
    manifest = simulate_dataset(at(Placement("meta", source)), tmp_path / "at")
    assert list(manifest["tomograms"]) == ["meta_000"]
    given, placed = read_annotations(source), read_annotations(tmp_path / "at" / "meta" / "meta_000_objl.xml")
    np.testing.assert_array_equal(placed.positions_vox, given.positions_vox)
    np.testing.assert_array_equal(placed.labels, given.labels)
    assert given.rotations is not None
    assert placed.rotations is not None
    assert rotation_angle_deg(given.rotations, placed.rotations).max() < 1e-5
    small = dataclasses.replace(RECIPE.simulation, shape_zyx=(16, 40, 48))
    with pytest.raises(InputError, match=r"test_000_objl\.xml.*outside the volume"):
        simulate_dataset(at(Placement("meta", source), simulation=small), tmp_path / "small")
    with pytest.raises(InputError, match="no particle of tomogram 'x'"):
        simulate_dataset(at(Placement("meta", source, "x")), tmp_path / "x")
    with pytest.raises(InputError, match="unknown split"):
        simulate_dataset(at(Placement("training", source)), tmp_path / "y")


def test_a_real_list_of_several_tomograms(shared_data: Path) -> None:
    names = ["1bxn", "1qvr", "1s3x", "1u6g", "2cg9", "3cf3", "3d2f", "3gl1", "3h84", "3qm1", "4b4t", "4d8q"]
    species = tuple(Species(name, 5, phantom="albumin") for name in names)
    recipe = DatasetRecipe(species, SimulationConfig(shape_zyx=(200, 512, 512)))
    path = shared_data / "shrec2019" / "object_list_train.xml"
    with pytest.raises(InputError, match="several tomograms"):
        read_placement(Placement("train", path), recipe)
    eighth = read_placement(Placement("train", path, "8"), recipe)
    alone = read_annotations(shared_data / "shrec2019" / "object_list_valid.xml")
    assert len(eighth) == len(alone)


def test_the_command(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(dump_config(CONFIG))
    arguments = [
        "--config",
        str(path),
        "--out",
        str(tmp_path / "out"),
        "--simulation.train",
        "1",
        "--simulation.val",
        "0",
    ]
    assert call(simulate.main, arguments) == 0
    assert "apoferritin" in capsys.readouterr().out
    assert len(list((tmp_path / "out").glob("*/*_target.mrc"))) == 3
    assert call(simulate.main, arguments) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert call(simulate.main, [*arguments, "--simulation.snr", "9"]) == 2
    assert "simulation.snr" in capsys.readouterr().err
    source = made / "test" / "test_000_objl.xml"
    placed = ["--config", str(path), "--out", str(tmp_path / "at"), "--at", f"test={source}"]
    assert call(simulate.main, placed) == 0
    assert (tmp_path / "at" / "test" / "test_000.mrc").exists()
    for wrong in ("nonsense", "somewhere=x.xml", f"test={tmp_path}/absent.xml"):
        assert call(simulate.main, [*placed[:4], "--at", wrong]) == 2
        assert capsys.readouterr().err.count("error:") == 1
