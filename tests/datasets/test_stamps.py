"""Kind: inputs that changed since are not noticed (field row A18)."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorstore
from hypothesis import given
from hypothesis import strategies as st

from robpicker_jax.config import DataConfig
from robpicker_jax.datasets import Scalings, TomogramFiles, open_tomogram
from robpicker_jax.datasets.stamps import changed_files, stamp, stamps
from robpicker_jax.system.errors import InputError
from robpicker_jax.volumes import write_mrc


def chunked(path: Path) -> Any:
    """The array of an OME-Zarr image, open for writing."""
    spec = {"driver": "zarr", "kvstore": {"driver": "file", "path": str(path / "0")}}
    return tensorstore.open(spec, open=True).result()


def ome_zarr(path: Path, data: np.ndarray) -> Path:
    """An OME-Zarr image of several chunks."""
    metadata = {"shape": list(data.shape), "chunks": [4, 4, 4], "dtype": "<f4", "compressor": None}
    kvstore = {"driver": "file", "path": str(path / "0")}
    spec = {"driver": "zarr", "kvstore": kvstore, "metadata": metadata, "create": True}
    tensorstore.open(spec).result()[...] = data
    axes = [{"name": name, "type": "space", "unit": "angstrom"} for name in "zyx"]
    scale = {"type": "scale", "scale": [10.0, 10.0, 10.0]}
    level = {"path": "0", "coordinateTransformations": [scale]}
    (path / ".zattrs").write_text(json.dumps({"multiscales": [{"version": "0.4", "axes": axes, "datasets": [level]}]}))
    return path


def density(seed: int = 0) -> np.ndarray:
    """Densities of a small volume."""
    return np.random.default_rng(seed).normal(3.0, 2.0, (8, 8, 8)).astype(np.float32)


@given(at=st.integers(0, 511), value=st.floats(50, 100, width=32))
def test_a18_a_voxel_written_into_any_chunk_shows(
    at: int, value: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = ome_zarr(tmp_path_factory.mktemp("zarr") / "t.zarr", density())
    before = stamp(path)
    assert stamp(path) == before
    chunked(path)[np.unravel_index(at, (8, 8, 8))] = value
    assert stamp(path) != before


def test_a18_a_copy_is_the_same_and_files_that_came_went_or_changed_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "train"
    folder.mkdir(parents=True)
    for name in "xyz":
        (folder / f"{name}.mrc").write_bytes(name.encode() * 3_000_000)
    tomograms = {"train": [TomogramFiles(name, "train", folder / f"{name}.mrc") for name in "xy"]}
    before = stamps(tomograms)
    moved = tmp_path / "b"
    shutil.copytree(folder, moved)
    again = {"train": [TomogramFiles(name, "train", moved / f"{name}.mrc") for name in "xy"]}
    assert not changed_files(before, stamps(again))
    os.utime(moved / "y.mrc", ns=(0, 0))
    assert changed_files(before, stamps(again)) == ["train/y.mrc changed"]
    assert not changed_files(before, stamps(again), surely=True)
    (moved / "x.mrc").write_bytes(b"w" * 3_000_000)
    now = {"train": [TomogramFiles(name, "train", moved / f"{name}.mrc") for name in "xz"]}
    assert changed_files(before, stamps(now)) == ["train/x.mrc changed", "train/y.mrc is gone", "train/z.mrc is new"]


def test_a18_the_scaling_of_an_ome_zarr_that_became_constant_is_not_used(tmp_path: Path) -> None:
    path = ome_zarr(tmp_path / "t.zarr", density())
    files, data = TomogramFiles("t", "test", path), DataConfig()
    kept = Scalings(tmp_path / "scalings.json")
    kept.remember(files, data, open_tomogram(files, data, mode="streamed").scaling)
    kept.save()
    assert Scalings(tmp_path / "scalings.json").known(files, data) is not None
    chunked(path)[...] = 5.0
    assert Scalings(tmp_path / "scalings.json").known(files, data) is None


@pytest.mark.parametrize("mode", ["memory", "mapped", "streamed"])
def test_a18_a_scaling_that_does_not_fit_the_voxels_is_found_again(mode: str, tmp_path: Path) -> None:
    """Where neither size nor time nor samples tell, the normalised densities do."""
    path = tmp_path / "t.mrc"
    write_mrc(path, density(), 10.0)
    files, data = TomogramFiles("t", "test", path), DataConfig()
    with open_tomogram(files, data, mode="streamed") as tomogram:
        scaling = tomogram.scaling
    write_mrc(path, 1000 * density(1), 10.0)
    with open_tomogram(files, data, mode=mode, scaling=scaling) as tomogram:  # type: ignore[arg-type]
        assert np.asarray(tomogram).std() == pytest.approx(1, abs=0.01)
    write_mrc(path, np.full((8, 8, 8), 3.0, np.float32), 10.0)
    with pytest.raises(InputError, match="all voxels have the same value"):
        open_tomogram(files, data, mode=mode, scaling=scaling)  # type: ignore[arg-type]


def test_a18_a_damaged_cache_of_scalings_is_no_more_than_an_empty_one(tmp_path: Path) -> None:
    path = tmp_path / "t.mrc"
    write_mrc(path, density(), 10.0)
    files, data = TomogramFiles("t", "test", path), DataConfig()
    cache = tmp_path / "scalings.json"
    for text in (b"\xff\xfe", b"[]", b'{"a": 1}', b'{"%s": 3}' % os.fsencode(path), b"[" * 100_000):
        cache.write_bytes(text)
        assert Scalings(cache).known(files, data) is None


def test_lists_of_single_classes_count_and_files_of_one_name_stay_apart(tmp_path: Path) -> None:
    runs = []
    for run in ("TS_1", "TS_2"):  # as in a copick project: every run's files are named alike
        folder = tmp_path / run
        folder.mkdir()
        (folder / "wbp.mrc").write_bytes(run.encode())
        (folder / "ribosome.json").write_text(run)
        lists = (("ribosome", folder / "ribosome.json"),)
        runs.append(TomogramFiles(run, "train", folder / "wbp.mrc", class_lists=lists))
    before = stamps({"train": runs})
    (tmp_path / "TS_1" / "ribosome.json").write_text("another")
    assert changed_files(before, stamps({"train": runs})) == ["train/TS_1/ribosome.json changed"]
