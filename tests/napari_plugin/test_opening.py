"""What the napari plug-in opens: runs, models' files and shipped models, tomograms by their names, radii in their voxels."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from robpicker_jax.annotations import write_annotations
from robpicker_jax.datasets import TomogramFiles
from robpicker_jax.models import shipped
from robpicker_jax.napari_plugin import opening
from robpicker_jax.napari_plugin.opening import open_for_review, tomograms_of_run
from robpicker_jax.system.errors import InputError
from robpicker_jax.training.export import load_trained_model
from robpicker_jax.volumes import open_volume, write_mrc
from tests.reviewing.review_cases import content, picks


def volume_of(run: Path) -> Path:
    """The test tomogram of the tiny run."""
    return run / "data" / "test" / "test_000.mrc"


def test_runs_files_and_shipped_models_open_alike(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shipped, "FOLDER", tmp_path / "weights")
    (tmp_path / "weights").mkdir()
    shutil.copy(tiny_run / "model.rpk", tmp_path / "weights" / "wide.rpk")
    lists = tmp_path / "lists"
    given = picks(name="test_000").particles
    given = given.with_(labels=np.ones(len(given), int), class_names=None)
    write_annotations(lists / "test_000.xml", given)
    card = load_trained_model(tiny_run).card
    for source in (tiny_run, tiny_run / "model.rpk", Path("wide")):
        opened = open_for_review(source, volume_of(tiny_run), lists)
        assert opened.given.name == "test_000"
        assert opened.given.class_names == card.class_names
        assert list(opened.radii_vox) == [species.radius_vox for species in card.data.species]
        assert content(opened.given.particles) == content(given)
    assert open_for_review(tiny_run, volume_of(tiny_run)).given.name == "test_000"
    assert next(iter(tomograms_of_run(tiny_run))) == "test_000"
    assert tomograms_of_run(tiny_run / "model.rpk") == tomograms_of_run(Path("wide")) == {}
    with pytest.raises(InputError, match=r"no picks of its own.*choose a list"):
        open_for_review(Path("wide"), volume_of(tiny_run))
    with pytest.raises(InputError, match="no such file, run or shipped model"):
        open_for_review(Path("wider"), volume_of(tiny_run), lists)
    with pytest.raises(InputError, match=r"no config\.yaml"):
        open_for_review(tmp_path, volume_of(tiny_run), lists)
    for name in ("a", "b"):
        write_mrc(tmp_path / "two" / f"{name}.mrc", np.zeros((4, 4, 4), np.float32), 10.0)
    with pytest.raises(InputError, match="a folder of 2 volumes"):
        open_for_review(tiny_run, tmp_path / "two", lists)


def test_radii_are_in_voxels_of_the_tomogram(tiny_run: Path, tmp_path: Path) -> None:
    card = load_trained_model(tiny_run).card
    assert card.voxel_size_angstrom is not None
    write_annotations(tmp_path / "fine.xml", picks(name="fine").particles)
    for factor in (0.5, 1.25):
        write_mrc(tmp_path / "fine.mrc", np.zeros((32, 32, 32), np.float32), factor * card.voxel_size_angstrom)
        opened = open_for_review(tiny_run, tmp_path / "fine.mrc", tmp_path / "fine.xml")
        assert opened.given.voxel_size_angstrom == pytest.approx(factor * card.voxel_size_angstrom, rel=1e-6)
        np.testing.assert_allclose(
            opened.radii_vox, [species.radius_vox / factor for species in card.data.species], rtol=1e-6
        )


def test_a_volume_is_called_as_the_data_set_calls_it(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a copick project: every run's volume has the same name, and lists are called after the runs."""
    files = {}
    for run in ("TS_1", "TS_2"):
        volume = tmp_path / run / "VoxelSpacing10.000" / "wbp.mrc"
        write_mrc(volume, np.zeros((32, 32, 32), np.float32), 10.0)
        files[run] = TomogramFiles(run, "test", volume)
        write_annotations(tmp_path / "picks" / f"{run}.xml", picks(name=run, seed=len(files)).particles)
    splits = {"train": [], "meta": [], "val": [], "test": list(files.values())}
    monkeypatch.setattr(opening, "dataset", lambda folder, data: splits)
    found = tomograms_of_run(tiny_run)
    assert found == files
    for seed, run in enumerate(files, start=1):
        for tomogram in (found[run], files[run].volume_path):
            opened = open_for_review(tiny_run, tomogram, tmp_path / "picks")
            assert opened.given.name == run
            assert content(opened.given.particles) == content(picks(name=run, seed=seed).particles)


def test_a_run_on_a_copick_project_opens_by_its_runs(tiny_run: Path, tmp_path: Path) -> None:
    copick = pytest.importorskip("copick", reason="the extra copick is not installed")
    pytest.importorskip("tensorstore", reason="the extra zarr is not installed")
    (tmp_path / "overlay").mkdir()
    config = {
        "name": "p",
        "description": "",
        "version": "1.0",
        "pickable_objects": [{"name": "ribosome", "is_particle": True, "label": 1, "radius": 150}],
        "config_type": "filesystem",
        "overlay_root": f"local://{tmp_path / 'overlay'}",
        "overlay_fs_args": {"auto_mkdir": True},
    }
    project = tmp_path / "copick_config.json"
    project.write_text(json.dumps(config))
    root, size = copick.from_file(str(project)), 10.0
    for name in ("TS_1", "TS_2"):
        tomogram = root.new_run(name).new_voxel_spacing(size).new_tomogram("wbp")
        tomogram.from_numpy(np.zeros((32, 32, 32), np.float32))
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run, ignore=shutil.ignore_patterns("data", "checkpoints"))
    text = (run / "config.yaml").read_text(encoding="utf-8")
    assert "\n  dir: null\n" in text
    section = f"\n  dir: {json.dumps(str(project))}\n  copick: {{voxel_spacing_angstrom: {size}}}\n"
    lines = text.replace("\n  dir: null\n", section).split("\n")
    own = next(index for index, line in enumerate(lines) if line == "  copick:")
    rest = next(index for index in range(own + 1, len(lines)) if not lines[index].startswith("    "))
    (run / "config.yaml").write_text("\n".join([*lines[:own], *lines[rest:]]), encoding="utf-8")
    write_annotations(run / "picks" / "TS_1.xml", picks(name="TS_1").particles)
    found = tomograms_of_run(run)
    assert list(found) == ["TS_1", "TS_2"]
    with open_volume(found["TS_1"].volume_path) as reader:
        assert reader.shape_zyx == (32, 32, 32)
    for tomogram in (found["TS_1"], found["TS_1"].volume_path):
        assert open_for_review(run, tomogram).given.name == "TS_1"
