"""Averages of simulated particles in two halves: resumed, independent, aligned."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from robpicker_jax.annotations import Particles
from robpicker_jax.annotations.geometry import rotation_angle_deg
from robpicker_jax.averaging import AveragingSettings, ParticleSet, Source, Transfer, finish, gather, iterate, start
from robpicker_jax.averaging.job import ClassJob, contrast_sign
from robpicker_jax.averaging.refinement import shell_power
from robpicker_jax.averaging.results import iteration_file, load
from robpicker_jax.rotations import local_covering
from robpicker_jax.system.errors import InputError
from robpicker_jax.volumes.volume import ArrayReader
from tests.averaging.averaging_cases import VOXEL, gaussian_copies, lumps, poses, tomogram_of, wedged

EDGE, COUNT = 24, 12
TRANSFER = Transfer(-60.0, 60.0)
SETTINGS = AveragingSettings(
    edge=EDGE, radius_vox=7.0, iterations=1, local_angle_deg=6.0, shift_limit_vox=2.0, start_resolution_angstrom=64.0,
    batch=6,
)  # fmt: skip


def nothing(_: int) -> None:
    """No progress is shown."""


@pytest.fixture(scope="module")
def truth() -> tuple[Source, Particles]:
    """A tomogram of dark, wedged particles in noise, and their poses."""
    rotations, offsets = poses(COUNT)
    seen = -wedged(gaussian_copies(EDGE, rotations, offsets), TRANSFER)
    grid = np.stack(np.meshgrid([14], [14, 38, 62], [14, 38, 62, 86], indexing="ij"), -1).reshape(-1, 3)
    reader = tomogram_of(seen, grid, (28, 76, 100), noise=1.5 * seen.std())
    particles = Particles(grid[:, ::-1] + offsets, np.ones(COUNT, int), rotations=rotations)
    return Source("one", reader, TRANSFER), particles


@pytest.fixture(scope="module")
def listed(truth: tuple[Source, Particles]) -> ParticleSet:
    source, particles = truth
    found, left_out = gather([particles], [source], EDGE)
    assert left_out == 0
    return found


def dark(settings: AveragingSettings = SETTINGS) -> AveragingSettings:
    return dataclasses.replace(settings, sign=-1.0)


def test_halves_are_drawn_once_and_are_equally_large(truth: tuple[Source, Particles]) -> None:
    source, particles = truth
    first, _ = gather([particles, particles], [source, source], EDGE, seed=4)
    again, _ = gather([particles, particles], [source, source], EDGE, seed=4)
    other, _ = gather([particles, particles], [source, source], EDGE, seed=5)
    assert_array_equal(first.half, again.half)
    assert (first.half != other.half).any()
    for index in (0, 1):
        assert [(first.half[first.source == index] == half).sum() for half in (1, 2)] == [COUNT // 2] * 2


def test_particles_at_the_edge_are_left_out(truth: tuple[Source, Particles]) -> None:
    source, particles = truth
    moved = particles.with_(positions_vox=np.where(np.arange(COUNT)[:, None] == 0, 1.0, particles.positions_vox))
    found, left_out = gather([moved], [source], EDGE)
    assert (len(found), left_out) == (COUNT - 1, 1)


def test_true_poses_give_the_map_and_its_mask(truth: tuple[Source, Particles], listed: ParticleSet) -> None:
    source, _ = truth
    last = start([source], listed, dark(), VOXEL, nothing)
    result = finish(last, dark(), VOXEL)
    right = lumps(EDGE)
    assert np.corrcoef(result.average.ravel(), right.ravel())[0, 1] > 0.8
    assert np.corrcoef(result.filtered.ravel(), right.ravel())[0, 1] > 0.9
    assert result.fsc.resolution_angstrom(0.143) < 70
    shape = right > 0.25 * right.max()
    assert (result.mask.sharp & shape).sum() > 0.9 * shape.sum()
    # The hand is kept: the mirrored map fits worse.
    mirrored = right[:, :, ::-1]
    assert np.corrcoef(result.filtered.ravel(), mirrored.ravel())[0, 1] < 0.8


def test_alignment_improves_wrong_poses(truth: tuple[Source, Particles], listed: ParticleSet) -> None:
    source, particles = truth
    rng = np.random.default_rng(0)
    assert particles.rotations is not None
    turns = local_covering(8.0, 7.5)
    turned = particles.rotations @ turns[rng.integers(1, len(turns), COUNT)]
    wrong = listed.with_(positions_vox=listed.listed_vox + rng.uniform(-1, 1, (COUNT, 3)), rotations=turned)
    before = start([source], wrong, dark(), VOXEL, nothing)
    after = iterate(before, [source], dark(), VOXEL, nothing, reference=lumps(EDGE))
    errors = [rotation_angle_deg(part.particles.rotations, particles.rotations) for part in (before, after)]
    assert np.median(errors[1]) < 0.6 * np.median(errors[0])
    shifts = [np.abs(part.particles.positions_vox - particles.positions_vox).mean() for part in (before, after)]
    assert shifts[1] < 0.5 * shifts[0]
    assert np.isfinite(after.particles.scores).all()


def test_halves_share_no_reference(truth: tuple[Source, Particles], listed: ParticleSet) -> None:
    """Other particles in half 2 change nothing of half 1 but by the FSC curve, which is held here."""
    source, _ = truth
    first = start([source], listed, dark(), VOXEL, nothing)
    spoiled = dataclasses.replace(first, sums=(first.sums[0], first.sums[0]), power=first.power[[0, 0]])
    settings = dataclasses.replace(dark(), batch=COUNT // 2)
    one = iterate(first, [source], settings, VOXEL, nothing).particles
    other = iterate(spoiled, [source], settings, VOXEL, nothing).particles
    mine, theirs = listed.half == 1, listed.half == 2
    assert_array_equal(one.rotations[mine], other.rotations[mine])
    assert_array_equal(one.scores[mine], other.scores[mine])
    assert (one.scores[theirs] != other.scores[theirs]).any()


def test_the_worst_are_discarded(truth: tuple[Source, Particles], listed: ParticleSet) -> None:
    source, _ = truth
    settings = dataclasses.replace(dark(), keep=0.5)
    first = start([source], listed, settings, VOXEL, nothing)
    after = iterate(first, [source], settings, VOXEL, nothing, reference=lumps(EDGE)).particles
    for half in (1, 2):
        members = after.half == half
        kept, rest = after.scores[members & after.kept], after.scores[members & ~after.kept]
        assert len(kept) == len(rest)
        assert kept.min() >= rest.max()


def test_contrast_is_told_by_the_densities(truth: tuple[Source, Particles], listed: ParticleSet) -> None:
    source, _ = truth
    assert contrast_sign([source], listed, EDGE, 7.0) == -1.0
    inverted = ArrayReader(Path("memory.mrc"), -source.reader.read(), (VOXEL,) * 3)
    assert contrast_sign([dataclasses.replace(source, reader=inverted)], listed, EDGE, 7.0) == 1.0


def test_contrast_of_particles_that_fill_their_box(truth: tuple[Source, Particles], listed: ParticleSet) -> None:
    source, _ = truth
    assert contrast_sign([source], listed, EDGE, EDGE / 2) == -1.0


def test_the_mask_that_is_written_is_the_one_that_was_used(
    truth: tuple[Source, Particles], listed: ParticleSet
) -> None:
    """A mask wider than the box shows anything of falls softly to 0 within it."""
    source, _ = truth
    settings = dataclasses.replace(dark(), dilation_vox=20.0)
    result = finish(start([source], listed, settings, VOXEL, nothing), settings, VOXEL)
    axis = np.arange(EDGE) - EDGE // 2
    away = np.sqrt(axis[:, None, None] ** 2 + axis[None, :, None] ** 2 + axis[None, None, :] ** 2)
    fall = np.clip((away - 8.0) / 3, 0, 1)  # from 1.25 radii, or 4 voxels before the faces: 8, over 3
    assert_allclose(result.mask.soft, 0.5 + 0.5 * np.cos(np.pi * fall), atol=1e-6)
    one, two = (np.fft.fftn(half * result.mask.soft) for half in result.halves)
    index = np.fft.fftfreq(EDGE, 1 / EDGE)
    length = np.sqrt(index[:, None, None] ** 2 + index[None, :, None] ** 2 + index[None, None, :] ** 2)
    for shell in (1, 3, 6):
        in_it = (length >= shell - 0.5) & (length < shell + 0.5)
        a, b = one[in_it], two[in_it]
        expected = (a * b.conj()).real.sum() / np.sqrt((abs(a) ** 2).sum() * (abs(b) ** 2).sum())
        assert result.fsc.masked[shell] == pytest.approx(expected, abs=1e-5)


def test_the_average_is_shown_where_halves_do_not_agree(truth: tuple[Source, Particles], listed: ParticleSet) -> None:
    source, _ = truth
    result = finish(start([source], listed, dark(), VOXEL, nothing), dark(), VOXEL)
    assert result.shown is result.filtered
    nowhere = np.where(np.arange(EDGE // 2) == 0, 1.0, 0.0)
    flat = dataclasses.replace(result, fsc=dataclasses.replace(result.fsc, corrected=nowhere))
    assert flat.shown is result.average


def test_shell_power_is_the_mean_over_the_shell() -> None:
    volumes = np.random.default_rng(2).standard_normal((2, 9, 9, 9))
    axis, half = np.fft.fftfreq(9, 1 / 9), np.arange(5)
    length = np.sqrt(axis[:, None, None] ** 2 + axis[None, :, None] ** 2 + half[None, None, :] ** 2)
    power = (np.abs(np.fft.rfftn(volumes, axes=(1, 2, 3))) ** 2).sum(0)
    expected = [power[(length >= s - 0.5) & (length < s + 0.5)].mean() for s in range(4)]
    assert_allclose(shell_power(volumes), expected, rtol=1e-10)


def test_job_resumes_by_iteration(truth: tuple[Source, Particles], listed: ParticleSet, tmp_path: Path) -> None:
    source, _ = truth
    settings = dataclasses.replace(dark(), iterations=2)
    whole = ClassJob("lumps", tmp_path / "whole", [source], listed, settings, VOXEL, lumps(EDGE))
    counted: list[int] = []
    expected = whole.run(counted.append)
    assert sum(counted) == whole.steps()
    short = dataclasses.replace(whole, folder=tmp_path / "short", settings=dataclasses.replace(settings, iterations=1))
    short.run(nothing)
    assert short.finished_iterations() == 2
    longer = dataclasses.replace(whole, folder=tmp_path / "short")
    result = longer.run(nothing)
    assert_allclose(result.average, expected.average, atol=1e-5)
    assert_array_equal(result.particles.rotations, expected.particles.rotations)
    # A finished one reads only what is there.
    stamp = iteration_file(tmp_path / "short" / "iterations", 2).stat().st_mtime_ns
    longer.run(nothing)
    assert iteration_file(tmp_path / "short" / "iterations", 2).stat().st_mtime_ns == stamp


def test_other_inputs_are_refused_and_damage_is_said(
    truth: tuple[Source, Particles], listed: ParticleSet, tmp_path: Path
) -> None:
    source, _ = truth
    job = ClassJob("lumps", tmp_path, [source], listed, dataclasses.replace(dark(), iterations=0), VOXEL)
    job.run(nothing)
    other = dataclasses.replace(job, settings=dataclasses.replace(job.settings, edge=20))
    with pytest.raises(InputError, match=r"settings.*--overwrite"):
        other.run(nothing)
    mask_only = dataclasses.replace(job, settings=dataclasses.replace(job.settings, dilation_vox=0.0))
    assert mask_only.run(nothing).mask.sharp.sum() < job.run(nothing).mask.sharp.sum()
    path = iteration_file(tmp_path / "iterations", 0)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(InputError, match="damaged"):
        load(path)
    assert other.run(nothing, overwrite=True).average.shape == (20, 20, 20)
