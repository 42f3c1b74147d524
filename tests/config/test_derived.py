"""Sizes that follow the species' radii (field faults A23): patches, shifts, tiles, overlaps, clusters, distances."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from robpicker_jax.annotations import Particles
from robpicker_jax.config import PickingConfig, Species, load_config
from robpicker_jax.config.derived import overlap_of_tiles, patch_edge
from robpicker_jax.picking.picks import particles_from_class_map, remove_close_picks

RADII = st.lists(st.floats(1.0, 40.0), min_size=1, max_size=4)


def written(path: Path, radii: list[float], **sections: object) -> Path:
    species = [{"name": f"s{k}", "radius_vox": radius} for k, radius in enumerate(radii)]
    data = {"dir": "somewhere", "meta_labels": "sphere", "species": species}
    path.write_text(yaml.safe_dump({"data": data, **sections}))
    return path


@pytest.mark.parametrize(
    ("radius", "size", "shift", "overlap"), [(3, 32, 6, 8), (9, 64, 12, 20), (16, 96, 19, 34), (11, 80, 16, 24)]
)
def test_a23_patches_and_tiles_follow_the_largest_radius(
    tmp_path: Path, radius: float, size: int, shift: int, overlap: int
) -> None:
    config = load_config(written(tmp_path / "c.yaml", [2.0, radius]))
    assert (config.patches.size, config.patches.shift_vox, config.inference.overlap_vox) == (size, shift, overlap)


def test_what_the_user_gives_stays(tmp_path: Path) -> None:
    path = written(tmp_path / "c.yaml", [9], patches={"size": 48, "shift_vox": 3}, inference={"overlap_vox": 5})
    config = load_config(path, ["inference.tile=64"])
    assert (config.patches.size, config.patches.shift_vox, config.inference.overlap_vox) == (48, 3, 5)
    assert load_config(written(path, [9], patches={"size": 24})).inference.overlap_vox == 12  # half a tile


def test_a_simulated_tomogram_bounds_the_patch(tmp_path: Path) -> None:
    data = {"meta_labels": "sphere", "species": [{"name": "a", "phantom": "ribosome", "radius_vox": 12}]}
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump({"data": data, "simulation": {"shape_zyx": [40, 64, 64]}}))
    assert load_config(path).patches.size == 32


@given(RADII)
def test_derived_sizes_always_pass_the_checks(radii: list[float]) -> None:
    largest = max(radii)
    size = patch_edge(largest)
    assert size % 16 == 0
    assert size >= 6 * largest
    overlap = overlap_of_tiles(largest, size)
    assert 2 * largest < overlap < size
    species = [Species(f"s{k}", radius) for k, radius in enumerate(radii)]
    for entry, smallest in zip(species, PickingConfig().smallest_clusters(species), strict=True):
        assert 1 <= smallest <= max(1.0, 4 / 3 * np.pi * entry.radius_vox**3)


def test_limits_go_from_the_species_to_the_section_to_the_radius() -> None:
    species = [Species("a", 5.0), Species("b", 5.0, min_cluster_vox=7)]
    assert PickingConfig().smallest_clusters(species) == [105, 7]
    assert PickingConfig(min_cluster_vox=40).smallest_clusters(species) == [40, 7]
    assert PickingConfig().closest_picks(species) == [5.0, 5.0]
    assert PickingConfig(min_distance_vox=0.0).closest_picks(species) == [0.0, 0.0]


def test_a23_fragments_are_no_picks_and_particles_are() -> None:
    """Fifty particles of radius 5 and sixty-nine fragments of 8 to 27 voxels: fifty picks, where the old default gave 119."""
    grid = np.argwhere(np.ones((5, 5, 5))) * 14 + 7
    fragments = np.random.default_rng(0).permutation(len(grid))[:119]
    class_map = np.zeros((70, 70, 70), np.uint8)
    zyx = np.indices(class_map.shape)
    for number, index in enumerate(fragments):
        z, y, x = grid[index]
        if number < 50:
            class_map[((zyx - grid[index][:, None, None, None]) ** 2).sum(axis=0) <= 25] = 1
        else:
            edge = 2 + number % 2
            class_map[z : z + edge, y : y + edge, x : x + edge] = 1
    species = [Species("ribosome", 5.0)]
    options = {"clustering": "components"}
    found = particles_from_class_map(
        class_map,
        np.ones(class_map.shape),
        2,
        PickingConfig(**options),
        min_cluster_vox=PickingConfig().smallest_clusters(species),
    )
    assert len(found) == 50
    assert len(particles_from_class_map(class_map, None, 2, PickingConfig(**options, min_cluster_vox=5))) == 119


def test_two_picks_of_one_particle_are_one_and_neighbours_stay() -> None:
    positions = np.array([[10.0, 10, 10], [14, 10, 10], [26, 10, 10], [30.5, 10, 10]])
    picks = Particles(positions, np.array([1, 1, 1, 2]), scores=np.array([0.9, 0.8, 0.7, 0.6]))
    kept = remove_close_picks(picks, PickingConfig().closest_picks([Species("a", 6.0), Species("b", 2.0)]))
    assert kept.tolist() == [True, False, True, True]  # the last two are 4.5 apart, the mean of their radii is 4
