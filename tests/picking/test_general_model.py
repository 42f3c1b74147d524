"""The shipped model `general`: its simulated mix, and its picks of tomograms that another simulator made."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

import robpicker_jax as rp
from benchmarks._general_data import CLASSES, MIDDLE, SNR, SPECIES, VOXEL_SIZES, conditions, make
from benchmarks.general_model import MOST_BYTES
from robpicker_jax.annotations import Particles, read_annotations
from robpicker_jax.annotations.geometry import random_rotations
from robpicker_jax.commands import pick
from robpicker_jax.commands.cli import call
from robpicker_jax.config import EvaluationConfig, SimulationConfig
from robpicker_jax.evaluation import EvaluationOptions, evaluate
from robpicker_jax.models.shipped import GENERAL, shipped_models
from robpicker_jax.molecules import phantom_density
from robpicker_jax.simulation import (
    Optics,
    TiltSeries,
    outline,
    place_particles,
    reconstruct,
    simulate_at,
    simulate_tomogram,
)
from robpicker_jax.volumes import open_volume, read_volume, write_mrc


def test_conditions_are_spread_over_their_ranges_and_depend_on_seed_split_and_number_alone() -> None:
    drawn = [conditions(5, "train", index) for index in range(200)]
    assert drawn[7] == conditions(5, "train", 7)
    assert drawn[7] != conditions(5, "test", 7)
    assert drawn[7] != conditions(6, "train", 7)
    for values, (low, high) in (
        ([each.simulation.voxel_size_angstrom for each in drawn], VOXEL_SIZES),
        ([each.simulation.snr for each in drawn], SNR),
    ):
        assert low <= min(values) < low + 0.1 * (high - low)
        assert high - 0.2 * (high - low) < max(values) <= high
    assert len({each.simulation.seed for each in drawn}) == 200


def test_the_mix_counts_ribosomes_of_all_sizes_as_one_and_leaves_distractors_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from benchmarks import _general_data

    def one_of_some(seed: int, split: str, index: int, shape_zyx: tuple[int, int, int]) -> _general_data.Conditions:
        drawn = conditions(seed, split, index, shape_zyx)
        # A small ribosome, a proteasome and a p97.
        return _general_data.Conditions(drawn.simulation, (0, 1, 0, 0, 1, 0, 0, 0, 1))

    monkeypatch.setattr(_general_data, "conditions", one_of_some)
    assert list(make(tmp_path, {"train": 1}, 3, (40, 64, 64))) == ["train_000"]
    listed = read_annotations(tmp_path / "train" / "train_000_objl.xml")
    assert sorted(listed.labels.tolist()) == [CLASSES.index("ribosome") + 1, CLASSES.index("proteasome") + 1]
    target = read_volume(tmp_path / "train" / "train_000_target.mrc", dtype=None).data
    assert sorted(np.unique(target)) == [0, *sorted(listed.labels)]
    for position, label in zip(listed.positions_vox, listed.labels, strict=True):
        z, y, x = np.rint(np.median(np.argwhere(target == label), axis=0)).astype(int)
        assert np.linalg.norm(position - (x, y, z)) < 3
    with open_volume(tmp_path / "train" / "train_000.mrc") as volume:
        assert volume.voxel_size_angstrom == pytest.approx(MIDDLE)
    before = (tmp_path / "train" / "train_000.mrc").stat().st_mtime_ns
    list(make(tmp_path, {"train": 1}, 3, (40, 64, 64)))  # what is there is not made again
    assert (tmp_path / "train" / "train_000.mrc").stat().st_mtime_ns == before


def test_weights_of_scaled_ribosomes_are_those_that_are_stated(tmp_path: Path) -> None:
    from benchmarks._general_data import species
    from robpicker_jax.molecules import species_density

    for entry in species(tmp_path)[:3]:
        mass = species_density(entry, 12.0).sum(dtype=np.float64) * 12.0**3 / 1000
        assert mass == pytest.approx(SPECIES[entry.name][1], rel=0.01)


def by_acryo(seed: int, snr: float, size: float, copies: dict[str, int]) -> tuple[np.ndarray, Particles]:
    """A tomogram whose particles acryo turned, moved, projected and convolved with its CTF; back-projected here."""
    import acryo
    from acryo.ctf import CTFModel
    from scipy.spatial.transform import Rotation

    rng = np.random.default_rng(seed)
    shape, margin = (64, 128, 128), 32
    densities = [phantom_density(name, size) for name in copies]
    placed = place_particles(shape, [outline(density) for density in densities], list(copies.values()), rng)
    rotations = random_rotations(len(placed), rng)
    turns = Rotation.from_matrix(rotations[:, ::-1, ::-1])  # acryo's axes are z y x
    simulator = acryo.TomogramSimulator(order=1, scale=1.0)
    for label, density in enumerate(densities, start=1):
        of_class = np.flatnonzero(placed.labels == label)
        places = placed.positions_vox[of_class][:, ::-1] + (0, 0, margin)
        simulator.add_molecules(acryo.Molecules(places, turns[of_class]), density)
    angles = np.arange(-60.0, 60.1, 3.0)
    images = -simulator.simulate_tilt_series(angles, (shape[0], shape[1], shape[2] + 2 * margin))
    optics = Optics(defocus_um=3.2)
    model = CTFModel.from_kv(300.0, 2.7, defocus=-3.2, amplitude=0.07)
    images = np.stack([np.asarray(model.apply_ctf(image, size / 10)) for image in images]).astype(np.float32)
    noise = np.sqrt(images.var(axis=(1, 2), keepdims=True) / snr)
    images += (noise * rng.standard_normal(images.shape)).astype(np.float32)
    series = TiltSeries(images, angles, size, 0, optics)
    return reconstruct(series, shape, phase_flip=True), placed.with_(
        rotations=rotations, class_names=np.array(list(copies))[placed.labels - 1]
    )


def test_acryo_and_the_packages_own_simulator_draw_the_same_tomogram() -> None:
    """Up to the noise: what is left after a blur of two voxels, at a signal-to-noise ratio of 5."""
    pytest.importorskip("acryo", reason="acryo is not installed (extra peers)")
    copies = {"ribosome": 3, "apoferritin": 4}
    theirs, placed = by_acryo(101, 5.0, 10.8, copies)
    config = SimulationConfig(voxel_size_angstrom=10.8, snr=5.0, defocus_um=3.2)
    ours = simulate_at(placed, [phantom_density(name, 10.8) for name in copies], config).density
    one, other = (gaussian_filter(density, 2).ravel() for density in (theirs, ours))
    assert np.corrcoef(one, other)[0, 1] > 0.98


def test_the_documentation_has_the_scores_of_the_card() -> None:
    provenance = rp.load_model(GENERAL).card.provenance
    assert provenance is not None
    text = (Path(__file__).parents[2] / "docs" / "picking.md").read_text(encoding="utf-8")
    for score in provenance.test:
        row = f"| {score.name} | {score.true} | {score.precision:.3f} | {score.recall:.3f} | {score.f1:.3f} |"
        assert row in text, row
    assert f"| mean | | | | {provenance.macro_f1:.3f} |" in text
    assert f"On {provenance.tomograms['test']} held-out" in text
    assert shipped_models()[GENERAL].stat().st_size < MOST_BYTES


def picked(tomograms: dict[str, np.ndarray], size: float, folder: Path) -> dict[str, Particles]:
    """What `pick --model general` finds in tomograms of these voxels, in Å, by name."""
    for name, density in tomograms.items():
        write_mrc(folder / f"{name}.mrc", density, size)
    paths = [str(folder / f"{name}.mrc") for name in tomograms]
    assert call(pick.main, ["--model", GENERAL, "--out", str(folder / "picks"), "--format", "xml", *paths]) == 0
    return {name: read_annotations(folder / "picks" / f"{name}.xml", allow_empty=True) for name in tomograms}


def macro_f1(truth: dict[str, Particles], picks: dict[str, Particles], size: float) -> float:
    """Mean F1 of the model's species; the truth is labelled by its names."""
    model = rp.load_model(GENERAL)
    labelled = {
        name: given.with_(labels=np.array([model.species.index(each) + 1 for each in given.class_names]))
        for name, given in truth.items()
    }
    options = EvaluationOptions.from_config(EvaluationConfig(), model.card.data.species, voxel_size_angstrom=size)
    return evaluate(labelled, picks, options).macro_f1


def test_general_picks_a_small_simulated_tomogram(tmp_path: Path) -> None:
    """With the weights that ship, by the command: those that would be damaged, or read wrongly, find next to nothing."""
    size, copies = 10.8, {"ribosome": 3, "fatty_acid_synthase": 2, "proteasome": 3, "chaperonin": 3, "apoferritin": 4}
    config = SimulationConfig(shape_zyx=(56, 96, 96), voxel_size_angstrom=size, snr=0.3, defocus_um=3.2, seed=11)
    made = simulate_tomogram([phantom_density(name, size) for name in copies], list(copies.values()), config)
    truth = {"small": made.particles.with_(class_names=np.array(list(copies))[made.particles.labels - 1])}
    assert macro_f1(truth, picked({"small": made.density}, size, tmp_path), size) >= 0.8


@pytest.mark.slow
def test_general_scores_on_another_simulators_tomograms_as_its_card_says(tmp_path: Path) -> None:
    pytest.importorskip("acryo", reason="acryo is not installed (extra peers)")
    size = 10.8
    copies = {"ribosome": 6, "fatty_acid_synthase": 4, "proteasome": 8, "chaperonin": 8, "apoferritin": 12}
    made = {str(seed): by_acryo(seed, 0.17, size, copies) for seed in (101, 102)}
    picks = picked({name: density for name, (density, _) in made.items()}, size, tmp_path)
    found = macro_f1({name: placed for name, (_, placed) in made.items()}, picks, size)
    model = rp.load_model(GENERAL)
    provenance = model.card.provenance
    assert provenance is not None
    print(f"macro F1 {found:.3f} on acryo's tomograms, {provenance.macro_f1:.3f} on the card")
    assert abs(found - provenance.macro_f1) <= 0.1
    # In a notebook it finds the same as by the command.
    other = model.pick(made["101"][0], voxel_size=size)
    np.testing.assert_array_equal(other.labels, picks["101"].labels)
    np.testing.assert_allclose(other.positions_vox, picks["101"].positions_vox, atol=1e-3)
