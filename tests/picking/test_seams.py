"""Clusterings and pickers from outside the package, by one entry in a dictionary."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from robpicker_jax.annotations import Particles, read_annotations
from robpicker_jax.commands import pick
from robpicker_jax.commands.cli import call
from robpicker_jax.config import DataConfig, Species, load_config
from robpicker_jax.datasets import open_tomogram, tomograms_from
from robpicker_jax.models.model_file import save_model
from robpicker_jax.picking.clustering import CLUSTERINGS, Clusters, build_clustering, components
from robpicker_jax.picking.inference import MemoryBound
from robpicker_jax.picking.picker import PICKERS, Picker, model_picker
from robpicker_jax.system.errors import InputError
from robpicker_jax.volumes import write_mrc
from tests.tiny import untrained

RNG = np.random.default_rng(0)


def slabs_of(class_map: np.ndarray, probability: object, class_labels: Sequence[int], *, planes: int = 4) -> list:
    """A clustering for the test: all voxels of a class in a slab of so many planes are one cluster."""
    numbers = np.arange(class_map.shape[0])[:, None, None] // planes + 1
    return [Clusters.from_labels(np.where(class_map == label, numbers, 0)) for label in class_labels]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model's file, its parameters random."""
    save_model(tmp_path / "model.rpk", untrained(("a", "b")))
    return tmp_path / "model.rpk"


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    """A tomogram of noise."""
    write_mrc(tmp_path / "noise.mrc", RNG.normal(size=(16, 20, 18)).astype(np.float32), 10.0)
    return tmp_path / "noise.mrc"


def test_a_clustering_from_outside_is_chosen_by_the_configuration(
    model: Path, volume: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CLUSTERINGS, "slabs", slabs_of)
    (tmp_path / "c.yaml").write_text("picking: {clustering: slabs, clustering_options: {planes: 8}}\n")
    species = 'data.species=[{"name": "a", "radius_vox": 3}]'
    config = load_config(tmp_path / "c.yaml", ["data.dir=.", species, "data.meta_labels=sphere"])
    (labels,) = build_clustering(config.picking.clustering, config.picking.clustering_options)(
        np.ones((16, 2, 2), np.uint8), None, (1,)
    )
    assert labels.count == 2  # 16 planes in slabs of 8

    out = tmp_path / "picks"
    arguments = ["--workdir", str(model), "--out", str(out), str(volume), "--format", "csv"]
    options = ["--picking.clustering", "slabs", "--picking.clustering_options.planes", "4"]
    assert call(pick.main, [*arguments, *options]) == 0
    picks = read_annotations(out / "noise.csv", voxel_size_angstrom=10.0)
    picker = model_picker(model)
    (files,) = tomograms_from([volume])
    classes = picker.segment(open_tomogram(files, picker.data, mode="streamed")).classes
    expected = sorted(
        (label, np.argwhere(classes[z : z + 4] == label)[:, 0].mean() + z)
        for label in (1, 2)
        for z in range(0, 16, 4)
        if (classes[z : z + 4] == label).any()
    )
    assert len(expected) >= 4
    found = sorted(zip(picks.labels.tolist(), picks.positions_vox[:, 2].tolist(), strict=True))
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_names_and_options_are_checked_with_the_known_ones_listed() -> None:
    with pytest.raises(InputError, match=r"picking\.clustering: unknown name 'dbscn'.*known: dbscan, components"):
        build_clustering("dbscn", {})
    with pytest.raises(InputError, match=r"clustering_options: unknown option 'radius'.*radius_vox, min_neighbours"):
        build_clustering("dbscan", {"radius": 2})
    with pytest.raises(InputError, match=r"clustering_options\.radius_vox: input should be a valid number.*got 'x'"):
        build_clustering("dbscan", {"radius_vox": "x"})
    with pytest.raises(InputError, match="connectivity: must be 1, 2 or 3"):
        build_clustering("components", {"connectivity": 4})(np.ones((2, 2, 2), np.uint8), None, (1,))


class Corner:
    """A picker for the test: one particle in the corner of every tomogram."""

    class_names = ("corner",)
    data = DataConfig(species=(Species("corner", 1.0),))
    voxel_size_angstrom = None

    def __init__(self, source: Path, overrides: Sequence[str]) -> None:
        self.source, self.overrides = source, list(overrides)

    def tiles(self, shape_zyx: Sequence[int]) -> int:
        """One."""
        return 1

    def memory(self, shape_zyx: Sequence[int], *, resident_bytes: int = 0):
        """That of the reader."""
        return MemoryBound(resident_bytes, 0, True)

    def pick(self, tomogram, on_tiles=None, *, mask=None):
        """The corner opposite to the origin."""
        z, y, x = tomogram.shape_zyx
        on_tiles(1)
        return Particles([[x - 1, y - 1, z - 1]], [1], scores=[0.5], class_names=["corner"])

    def with_min_scores(self, min_scores: Sequence[float]) -> Picker:
        """Itself."""
        return self


def test_a_picker_from_outside_is_chosen_on_the_command_line(
    volume: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(PICKERS, "corner", Corner)
    arguments = ["--workdir", str(tmp_path), "--out", str(tmp_path / "out"), str(volume), "--format", "csv"]
    assert call(pick.main, [*arguments, "--picker", "corner"]) == 0
    assert "1 corner" in capsys.readouterr().out
    picks = read_annotations(tmp_path / "out" / "noise.csv", voxel_size_angstrom=10.0)
    np.testing.assert_allclose(picks.positions_vox, [[17, 19, 15]])


maps = st.tuples(st.integers(0, 2**32 - 1), st.tuples(*[st.integers(1, 9)] * 3), st.sampled_from([0.15, 0.4, 0.8]))


@settings(max_examples=80, deadline=None)
@given(drawn=maps, connectivity=st.sampled_from([1, 2, 3]), least=st.sampled_from([0.0, 0.3]))
def test_components_are_those_of_scipy(drawn: tuple, connectivity: int, least: float) -> None:
    seed, shape, share = drawn
    rng = np.random.default_rng(seed)
    class_map = (rng.integers(1, 4, shape) * (rng.random(shape) < share)).astype(np.uint8)
    probability = rng.random(shape).astype(np.float16)
    found = components(class_map, probability, (1, 3), connectivity=connectivity, min_probability=least)
    for label, clusters in zip((1, 3), found, strict=True):
        mask = (class_map == label) & (probability >= least)
        expected, count = ndimage.label(mask, ndimage.generate_binary_structure(3, connectivity))
        assert clusters.count == count
        assert clusters.voxel_count == mask.sum()
        assert clusters.noise_count == 0
        ours = np.zeros(class_map.size, int)
        for indices, numbers in clusters.voxels(chunk=5):
            ours[indices] = numbers + 1
        # The same partition: numbers correspond one to one.
        pairs = {*zip(ours.tolist(), expected.reshape(-1).tolist(), strict=True)}
        assert len(pairs) == count + (not mask.all())


@settings(max_examples=50, deadline=None)
@given(drawn=maps)
def test_clusters_of_a_volume_of_labels(drawn: tuple) -> None:
    seed, shape, share = drawn
    rng = np.random.default_rng(seed)
    labels = rng.integers(-1, 4, shape) * (rng.random(shape) < share)
    clusters = Clusters.from_labels(labels)
    back = np.zeros(labels.size, int)
    for indices, numbers in clusters.voxels():
        back[indices] = numbers + 1
    np.testing.assert_array_equal(back.reshape(shape), np.maximum(labels, 0))
    assert clusters.count == max(labels.max(), 0)
    assert clusters.voxel_count == (labels > 0).sum()
