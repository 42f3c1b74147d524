"""A4: bytes whose sign the header leaves open, or has wrong, are read as their voxels say."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from robpicker_jax.system.errors import InputError
from robpicker_jax.system.notes import gathered_notes
from robpicker_jax.volumes import read_volume
from tests.volumes.test_volumes import raw_mrc

UNSET = [(0.0, 0.0), (0.0, -1.0), (1.0, -2.0), (np.nan, np.nan)]


def smooth(seed: int = 0, shape: tuple[int, int, int] = (6, 20, 24)) -> np.ndarray:
    """A density over the whole range of a byte, 0 to 255, smooth as a tomogram is."""
    density = gaussian_filter(np.random.default_rng(seed).normal(size=shape), 1.5)
    density = (density - density.min()) / np.ptp(density)
    return np.rint(255 * density).astype(np.uint8)


def stored(tmp_path: Path, values: np.ndarray, low: float, high: float, *, packed: bool = False, **kwargs: Any) -> Path:
    """Bytes in mode 0 under a header with these statistics."""
    content = bytearray(raw_mrc(values.view(np.int8), 0, **kwargs))
    content[76:84] = np.array([low, high], "<f4").tobytes()
    path = tmp_path / ("v.mrc.gz" if packed else "v.mrc")
    path.write_bytes(gzip.compress(bytes(content)) if packed else bytes(content))
    return path


def read(path: Path) -> tuple[np.ndarray, list[str]]:
    with gathered_notes() as notes:
        return read_volume(path, dtype=None).data, notes


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(("low", "high"), UNSET)
def test_a4_unset_statistics(tmp_path: Path, low: float, high: float, packed: bool) -> None:
    unsigned = smooth()
    data, notes = read(stored(tmp_path, unsigned, low, high, packed=packed))
    np.testing.assert_array_equal(data, unsigned)
    assert len(notes) == 1
    assert "statistics are unset; its bytes are read as 0 to 255" in notes[0]
    signed = (smooth().astype(np.int16) - 128).astype(np.int8)
    data, notes = read(stored(tmp_path, signed, low, high, packed=packed))
    np.testing.assert_array_equal(data, signed)
    assert "its bytes are read as -128 to 127" in notes[0]


def test_a4_statistics_that_contradict_the_voxels(tmp_path: Path) -> None:
    unsigned = smooth()
    data, notes = read(stored(tmp_path, unsigned, 0, 100))
    np.testing.assert_array_equal(data, unsigned)
    assert "contradict the voxels" in notes[0]
    signed = (smooth().astype(np.int16) - 128).astype(np.int8)
    data, _ = read(stored(tmp_path, signed, 0, 200))
    np.testing.assert_array_equal(data, signed)


def test_a4_statistics_that_are_right_are_believed(tmp_path: Path) -> None:
    unsigned = smooth()
    signed = (unsigned.astype(np.int16) - 128).astype(np.int8)
    for values in (unsigned, signed, np.random.default_rng(0).integers(-128, 128, (3, 4, 5), np.int8)):
        data, notes = read(stored(tmp_path, values, float(values.min()), float(values.max())))
        np.testing.assert_array_equal(data, values)
        assert not notes


def test_a4_imods_flag_goes_before_unset_statistics(tmp_path: Path) -> None:
    values = smooth()
    for flags, dtype in ((0, np.uint8), (1, np.int8)):
        data, notes = read(stored(tmp_path, values, 0, 0, imod_flags=flags))
        np.testing.assert_array_equal(data, values.view(dtype))
        assert not notes


def test_a4_nothing_is_said_where_both_readings_are_one(tmp_path: Path) -> None:
    values = smooth() // 2
    data, notes = read(stored(tmp_path, values, 0, 0))
    np.testing.assert_array_equal(data, values)
    assert not notes


@pytest.mark.parametrize("packed", [False, True])
def test_a4_truncated_bytes_are_refused_as_before(tmp_path: Path, packed: bool) -> None:
    content = raw_mrc(smooth().view(np.int8), 0)[:-100]
    path = tmp_path / ("v.mrc.gz" if packed else "v.mrc")
    path.write_bytes(gzip.compress(content) if packed else content)
    with pytest.raises(InputError, match="truncated"):
        read_volume(path)


@given(st.integers(0, 1000), st.integers(2, 40), st.booleans(), st.sampled_from("xyz"))
def test_a4_any_smooth_volume_with_unset_statistics(
    tmp_path_factory: Any, seed: int, depth: int, sign: bool, axis: str
) -> None:
    """Whatever its depth and the axis along which its sections lie."""
    values = smooth(seed, (depth, 16, 18))
    expected = (values.astype(np.int16) - 128).astype(np.int8) if sign else values
    axes = {"x": (3, 2, 1), "y": (1, 3, 2), "z": (1, 2, 3)}[axis]
    path = stored(tmp_path_factory.mktemp("bytes"), expected, 0, 0, axes=axes)
    data, _ = read(path)
    assert data.dtype == expected.dtype
    assert np.sort(data.ravel()).tolist() == np.sort(expected.ravel()).tolist()
