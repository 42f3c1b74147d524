"""Planted annotation errors: rates, independence of the streams, and the record."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robpicker_jax.annotations.geometry import random_rotations
from robpicker_jax.annotations.particles import Particles
from robpicker_jax.config import LabelNoiseConfig, Species
from robpicker_jax.simulation import label_noise
from robpicker_jax.simulation.noise_presets import PRESETS, noise_rates
from robpicker_jax.system.errors import InputError

pytestmark = pytest.mark.fast

SHAPE = (40, 60, 80)
N_CLASSES = 3
VOXEL_SIZE = 10.0


def some_species(*radii_vox: float) -> list[Species]:
    return [Species(name, radius) for name, radius in zip("abcdef", radii_vox, strict=False)]


def add_label_noise(
    true: Particles,
    n_classes: int,
    shape_zyx: tuple[int, int, int],
    config: LabelNoiseConfig,
    *,
    radii_vox: Sequence[float] | None = None,
    **more: Any,
) -> tuple[Particles, dict[str, Any]]:
    species = some_species(*(radii_vox or (2.5,) * n_classes))
    return label_noise.add_label_noise(true, species, shape_zyx, config, voxel_size_angstrom=VOXEL_SIZE, **more)


def some_particles(n: int = 60, seed: int = 0) -> Particles:
    rng = np.random.default_rng(seed)
    labels = rng.integers(1, N_CLASSES + 1, n)
    return Particles(
        rng.uniform(0, np.array(SHAPE[::-1]) - 1, (n, 3)),
        labels,
        rotations=random_rotations(n, rng),
        class_names=np.array(["a", "b", "c"])[labels - 1],
    )


def replay(true: Particles, record: dict) -> tuple[np.ndarray, np.ndarray]:
    """Positions and labels that the record alone says the noisy list has."""
    positions, labels = true.positions_vox.copy(), true.labels.copy()
    for entry in record["moved"]:
        positions[entry["index"]] = entry["to_xyz"]
    for entry in record["swapped"]:
        assert labels[entry["index"]] == entry["from_label"]
        labels[entry["index"]] = entry["to_label"]
    kept = np.array(record["kept"], int)
    added = record["added"]
    return (
        np.concatenate([positions[kept], np.array([a["position_xyz"] for a in added]).reshape(-1, 3)]),
        np.concatenate([labels[kept], np.array([a["label"] for a in added], int)]),
    )


def test_rates_of_zero_change_nothing() -> None:
    true = some_particles()
    noisy, record = add_label_noise(true, N_CLASSES, SHAPE, LabelNoiseConfig())
    for name in ("positions_vox", "labels", "rotations", "class_names"):
        np.testing.assert_array_equal(getattr(noisy, name), getattr(true, name))
    assert record["kept"] == list(range(len(true)))
    assert all(record[kind] == [] for kind in ("dropped", "moved", "swapped", "added"))


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(0, 80),
    missing=st.floats(0, 1),
    false_picks=st.floats(0, 1),
    jitter=st.floats(0, 3),
    swap=st.floats(0, 1),
    seed=st.integers(0, 2**31),
)
def test_shares_are_met_and_the_record_tells_all(
    n: int, missing: float, false_picks: float, jitter: float, swap: float, seed: int
) -> None:
    true = some_particles(n)
    config = LabelNoiseConfig(missing=missing, false_picks=false_picks, jitter_vox=jitter, swap=swap, seed=seed)
    noisy, record = add_label_noise(true, N_CLASSES, SHAPE, config, key=(1, 2))
    record = json.loads(json.dumps(record))
    counts = np.bincount(true.labels, minlength=N_CLASSES + 1)[1:]
    left = counts - np.floor(missing * counts + 0.5).astype(int)
    kept = int(left.sum())
    added = int(np.floor(false_picks * n + 0.5))
    assert len(noisy) == kept + added
    assert (len(record["kept"]), len(record["dropped"]), len(record["added"])) == (kept, n - kept, added)
    assert sorted(record["kept"] + [entry["index"] for entry in record["dropped"]]) == list(range(n))
    assert len(record["swapped"]) == int(np.floor(swap * left + 0.5).sum())
    assert all(entry["from_label"] != entry["to_label"] for entry in record["swapped"])
    positions, labels = replay(true, record)
    np.testing.assert_array_equal(noisy.positions_vox, positions)
    np.testing.assert_array_equal(noisy.labels, labels)
    if len(noisy):
        assert noisy.labels.min() >= 1
        assert noisy.labels.max() <= N_CLASSES
        assert (noisy.positions_vox >= 0).all()
        assert (noisy.positions_vox <= np.array(SHAPE[::-1]) - 1).all()


def test_same_seed_and_key_same_result_other_key_another() -> None:
    true = some_particles()
    config = LabelNoiseConfig(missing=0.3, false_picks=0.3, jitter_vox=1.0, swap=0.2, seed=5)
    first, second = (add_label_noise(true, N_CLASSES, SHAPE, config, key=(0, 1)) for _ in range(2))
    assert first[1] == second[1]
    np.testing.assert_array_equal(first[0].positions_vox, second[0].positions_vox)
    assert add_label_noise(true, N_CLASSES, SHAPE, config, key=(0, 2))[1]["dropped"] != first[1]["dropped"]


def test_kinds_of_error_do_not_disturb_each_other() -> None:
    true = some_particles()

    def record(**rates: float) -> dict:
        return add_label_noise(true, N_CLASSES, SHAPE, LabelNoiseConfig(**rates))[1]  # type: ignore[arg-type]

    few, many = record(missing=0.2), record(missing=0.5, false_picks=0.5, jitter_vox=2.0)
    assert {d["index"] for d in few["dropped"]} < {d["index"] for d in many["dropped"]}
    assert record(swap=0.3)["swapped"] == record(swap=0.3, jitter_vox=1.0, false_picks=1.0)["swapped"]


def test_jitter_has_the_given_spread() -> None:
    rng = np.random.default_rng(0)
    true = Particles(rng.uniform(100, 900, (3000, 3)), np.ones(3000, int))
    noisy, _ = add_label_noise(true, 1, (1000, 1000, 1000), LabelNoiseConfig(jitter_vox=2.0))
    steps = noisy.positions_vox - true.positions_vox
    assert np.abs(steps.mean(axis=0)).max() < 0.15
    np.testing.assert_allclose(steps.std(axis=0), 2.0, rtol=0.05)


def test_false_picks_keep_away_from_true_particles() -> None:
    true = some_particles(20)
    radii = (2.0, 3.0, 4.0)
    noisy, record = add_label_noise(true, N_CLASSES, SHAPE, LabelNoiseConfig(false_picks=2.0), radii_vox=radii)
    false = noisy.select(np.arange(20, 60))
    distances = np.linalg.norm(false.positions_vox[:, None] - true.positions_vox[None], axis=-1)
    needed = np.array(radii)[false.labels - 1][:, None] + np.array(radii)[true.labels - 1][None]
    assert (distances >= needed).all()
    assert false.rotations is not None
    np.testing.assert_allclose(np.linalg.det(false.rotations), 1, atol=1e-12)
    assert set(false.labels.tolist()) == {1, 2, 3}
    assert len(record["added"]) == 40


def test_swapped_particles_take_the_other_class_name() -> None:
    noisy, _ = add_label_noise(some_particles(), N_CLASSES, SHAPE, LabelNoiseConfig(swap=0.5))
    assert noisy.class_names is not None
    np.testing.assert_array_equal(noisy.class_names, np.array(["a", "b", "c"])[noisy.labels - 1])


def test_swaps_go_to_every_other_class_alike() -> None:
    true = Particles(np.zeros((3000, 3)), np.ones(3000, int))
    noisy, _ = add_label_noise(true, 4, SHAPE, LabelNoiseConfig(swap=1.0))
    counts = np.bincount(noisy.labels, minlength=5)
    assert counts[1] == 0
    assert (np.abs(counts[2:] - 1000) < 120).all()


def test_bad_input_is_named() -> None:
    true = some_particles(5)
    with pytest.raises(InputError, match=r"label_noise\.swap"):
        add_label_noise(true.with_(labels=np.ones(5)), 1, SHAPE, LabelNoiseConfig(swap=0.1))
    with pytest.raises(InputError, match="between 1 and 2"):
        add_label_noise(some_particles(60), 2, SHAPE, LabelNoiseConfig())
    with pytest.raises(InputError, match=r"label_noise\.false_picks.*no room"):
        add_label_noise(true, N_CLASSES, SHAPE, LabelNoiseConfig(false_picks=1.0), radii_vox=(100.0, 100.0, 100.0))


def test_presets_are_complete_and_a_stated_rate_wins() -> None:
    species = some_species(9, 7, 5, 3)
    for name in PRESETS:
        rates = noise_rates(LabelNoiseConfig(preset=name), species, VOXEL_SIZE)
        assert rates.missing.shape == rates.crowded_missing.shape == rates.swap.shape == (4,)
        stated = noise_rates(LabelNoiseConfig(preset=name, missing={"b": 0.9}, jitter_z_vox=7.0), species, VOXEL_SIZE)
        assert stated.missing[1] == stated.crowded_missing[1] == 0.9
        assert stated.missing[0] == rates.missing[0]
        assert stated.jitter_vox == (*rates.jitter_vox[:2], 7.0)


def test_template_matching_has_the_measured_structure() -> None:
    rng = np.random.default_rng(0)
    lone = rng.permutation(np.stack(np.meshgrid(*[np.arange(50, 950, 60)] * 3), -1).reshape(-1, 3))[:600]
    pairs = np.concatenate([lone[:200], lone[:200] + np.array([12, 0, 0]), lone[200:]]).astype(float)
    true = Particles(pairs, np.ones(len(pairs), int))
    spots = rng.uniform(0, 999, (5000, 3))
    noisy, record = label_noise.add_label_noise(
        true,
        some_species(6.0),
        (1000, 1000, 1000),
        LabelNoiseConfig(preset="template_matching"),
        voxel_size_angstrom=VOXEL_SIZE,
        spots_vox=spots,
    )
    dropped = np.array([entry["index"] for entry in record["dropped"]])
    assert (dropped < 400).sum() == 200  # half of those with a neighbour at one diameter
    assert (dropped >= 400).sum() == round(0.36 * 400)
    steps = np.array([np.subtract(e["to_xyz"], e["from_xyz"]) for e in record["moved"]])
    np.testing.assert_allclose(steps.std(axis=0), (2.4, 2.4, 4.8), rtol=0.1)
    false = np.array([entry["position_xyz"] for entry in record["added"]])
    assert len(false) == round(0.38 * len(true))
    to_spot = np.linalg.norm(false[:, None] - spots[None], axis=-1).min(axis=1)
    assert (to_spot == 0).sum() == round(0.6 * len(false))
    to_particle = np.linalg.norm(false[:, None] - pairs[None], axis=-1).min(axis=1)
    rest = to_spot > 0
    assert ((to_particle < 12.01) & rest).sum() >= round(0.2 * len(false))
    assert (to_particle[rest] >= 12.0).sum() >= rest.sum() - round(0.2 * len(false))
    assert len(noisy) == len(true) - len(dropped) + len(false)


def test_non_exhaustive_picking_loses_small_species_and_look_alikes_swap_them() -> None:
    rng = np.random.default_rng(1)
    labels = np.repeat([1, 2, 3, 4], 100)
    true = Particles(rng.uniform(0, 999, (400, 3)), labels)
    species, shape = some_species(9, 8, 5, 4), (1000, 1000, 1000)

    def noisy_labels(preset: str) -> tuple[Particles, dict[str, Any]]:
        config = LabelNoiseConfig(preset=preset)
        return label_noise.add_label_noise(true, species, shape, config, voxel_size_angstrom=VOXEL_SIZE)

    kept, _ = noisy_labels("non_exhaustive")
    assert np.bincount(kept.labels, minlength=5)[1:].tolist() == [90, 90, 34, 34]
    _, record = noisy_labels("look_alikes")
    assert {(e["from_label"], e["to_label"]) for e in record["swapped"]} == {(2, 1), (4, 3)}
    assert len(record["swapped"]) == 2 * round(0.6 * 90)


def test_names_of_presets_and_species_are_checked() -> None:
    true = some_particles(5)
    with pytest.raises(InputError, match=r"label_noise\.preset.*unknown preset 'tm'"):
        add_label_noise(true, N_CLASSES, SHAPE, LabelNoiseConfig(preset="tm"))
    with pytest.raises(InputError, match=r"label_noise\.missing.*no species is named 'z'"):
        add_label_noise(true, N_CLASSES, SHAPE, LabelNoiseConfig(missing={"z": 0.5}))
    with pytest.raises(InputError, match=r"label_noise\.swap_to"):
        add_label_noise(true, N_CLASSES, SHAPE, LabelNoiseConfig(swap=0.5, swap_to={"a": "a"}))
    with pytest.raises(InputError, match=r"label_noise\.false_classes"):
        add_label_noise(true, N_CLASSES, SHAPE, LabelNoiseConfig(false_picks=0.5, false_classes={"a": 0.0}))


def test_false_picks_get_classes_as_often_as_stated() -> None:
    true = some_particles(400)
    noise = LabelNoiseConfig(false_picks=1.0, false_classes={"a": 3.0, "c": 1.0})
    _, record = label_noise.add_label_noise(
        true, some_species(4, 3, 2), (1000, 1000, 1000), noise, voxel_size_angstrom=VOXEL_SIZE
    )
    counts = np.bincount([entry["label"] for entry in record["added"]], minlength=4)
    assert counts[0] == counts[2] == 0
    np.testing.assert_allclose(counts[[1, 3]] / counts.sum(), (0.75, 0.25), atol=0.08)
