"""Tomograms read and normalised piece by piece against those loaded whole, and their statistics against float64."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robpicker_jax.config.schema import DataConfig
from robpicker_jax.datasets.discovery import Tomogram
from robpicker_jax.datasets.loading import load_tomogram
from robpicker_jax.datasets.streaming import stream_tomogram, stream_tomograms
from robpicker_jax.system.errors import InputError
from robpicker_jax.volumes import normalisation, open_volume, write_mrc
from robpicker_jax.volumes.normalisation import normalise, scaling

SHAPE = (21, 18, 25)


@settings(max_examples=30, deadline=None)
@given(
    shape=st.tuples(*[st.integers(2, 20)] * 3),
    offset=st.sampled_from([0.0, -30.0, 1e4]),
    masked=st.booleans(),
    block=st.integers(1, 400),
    seed=st.integers(0, 100),
)
def test_statistics_by_blocks_are_those_of_the_whole(
    shape: tuple[int, int, int], offset: float, masked: bool, block: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    density = (rng.standard_t(2, size=shape) + offset).astype(np.float32)
    mask = rng.random(shape) < 0.5 if masked else None
    if mask is not None and mask.sum() < 3:
        return
    values = density.astype(np.float64) if mask is None else density[mask].astype(np.float64)
    low, high = np.quantile(density if mask is None else density[mask], [0.001, 0.999])
    expected = np.clip(values, low, high)
    reads: list[tuple[int, int]] = []

    def read(first: int, last: int) -> np.ndarray:
        reads.append((first, last))
        return density[first:last]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(normalisation, "_BLOCK_VOXELS", block)
        found = scaling(read, shape, mask=mask)
    assert found.low == pytest.approx(low, rel=1e-6)
    assert found.high == pytest.approx(high, rel=1e-6)
    assert found.mean == pytest.approx(expected.mean(), rel=1e-6, abs=1e-6)
    assert found.std == pytest.approx(expected.std(), rel=1e-5)


def test_a_large_volume_is_read_by_slabs_and_sampled_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(5)
    density = rng.normal(7, 3, (40, 50, 60)).astype(np.float32)
    mask = rng.random(density.shape) < 0.4
    monkeypatch.setattr(normalisation, "_QUANTILE_SAMPLE", 1000)
    for chosen in (None, mask):
        values = density.reshape(-1) if chosen is None else density[chosen]
        sample = values[np.random.default_rng(0).integers(values.size, size=1000)]
        low, high = np.quantile(sample, [0.001, 0.999])
        whole = scaling(lambda first, last: density[first:last], density.shape, mask=chosen)
        assert (whole.low, whole.high) == pytest.approx((low, high), rel=1e-6)
        with monkeypatch.context() as patch:
            patch.setattr(normalisation, "slabs", lambda shape: ((z, min(z + 3, 40)) for z in range(0, 40, 3)))
            assert scaling(lambda first, last: density[first:last], density.shape, mask=chosen) == whole


@pytest.mark.parametrize("suffix", [".mrc", ".mrc.gz"])
@pytest.mark.parametrize("kind", [np.float32, np.int16])
def test_a_streamed_tomogram_is_the_loaded_one(tmp_path: Path, suffix: str, kind: type) -> None:
    rng = np.random.default_rng(6)
    density = (rng.normal(10, 50, SHAPE)).astype(kind)
    mask = rng.random(SHAPE) < 0.7
    path = tmp_path / f"tomo{suffix}"
    write_mrc(path, density, 9.5)
    write_mrc(tmp_path / "mask.mrc", mask)
    for mask_path in (None, tmp_path / "mask.mrc"):
        tomogram = Tomogram("tomo", "test", path, mask_path=mask_path)
        for data in (DataConfig(), DataConfig(invert_contrast=True), DataConfig(normalise="none")):
            loaded = load_tomogram(tomogram, data)
            streamed = stream_tomogram(tomogram, data)
            assert streamed.shape_zyx == SHAPE
            assert streamed.voxel_size_angstrom == loaded.voxel_size_angstrom
            for region in ((slice(0, 21), slice(0, 18), slice(0, 25)), (slice(3, 11), slice(10, 18), slice(2, 9))):
                np.testing.assert_array_equal(streamed.read(region), loaded.density[region])
                streamed.release()
            if mask_path is None:
                assert streamed.mask is None
            else:
                np.testing.assert_array_equal(streamed.mask, mask)
            streamed.close()


def test_what_stays_in_memory_is_known_beforehand(tmp_path: Path) -> None:
    for name, expected in (("a.mrc", 0), ("a.mrc.gz", 21 * 18 * 25 * 4)):
        write_mrc(tmp_path / name, np.ones(SHAPE, np.float32), 9.5)
        with open_volume(tmp_path / name) as reader:
            assert reader.resident_bytes == expected


def test_tomograms_come_in_order_and_faults_at_their_turn(tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    tomograms = []
    for name in ("a", "b", "c"):
        write_mrc(tmp_path / f"{name}.mrc", rng.normal(size=SHAPE).astype(np.float32), 9.5)
        tomograms.append(Tomogram(name, "test", tmp_path / f"{name}.mrc"))
    streamed = list(stream_tomograms(tomograms, DataConfig()))
    assert [tomogram.name for tomogram in streamed] == ["a", "b", "c"]
    for tomogram in streamed:
        with pytest.raises(ValueError, match="closed"):
            tomogram.read((slice(0, 2),) * 3)
    faulty = np.array(rng.normal(size=SHAPE), np.float32)
    with (tmp_path / "c.mrc").open("r+b") as file:
        faulty[20, 3, 4] = np.nan
        file.seek(1024)
        file.write(faulty.tobytes())
    stream = stream_tomograms(tomograms, DataConfig())
    assert [next(stream).name, next(stream).name] == ["a", "b"]
    with pytest.raises(InputError, match=r"c\.mrc: 1 of 9450 voxels are NaN .* x y z = 4 3 20"):
        next(stream)
    abandoned = stream_tomograms(tomograms, DataConfig())
    assert next(abandoned).name == "a"
    abandoned.close()


def test_normalising_leaves_the_given_array_alone() -> None:
    density = np.random.default_rng(8).normal(3, 2, SHAPE)
    before = density.copy()
    scaled = normalise(density)
    np.testing.assert_array_equal(density, before)
    assert scaled.dtype == np.float32
    assert scaled.std() == pytest.approx(1, abs=1e-4)
