"""Faults met in the field: paths with `..` (B11), headers that are announced and absent, and units (B21)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robpicker_jax.system.errors import InputError
from robpicker_jax.system.notes import gathered_notes
from robpicker_jax.volumes import open_volume, read_volume, write_mrc
from robpicker_jax.volumes.units import angstroms_per

pytestmark = pytest.mark.fast

DATA = np.arange(24, dtype=np.float32).reshape(2, 3, 4)


def test_b11_zarr_through_a_path_with_dots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tensorstore = pytest.importorskip("tensorstore", reason="the extra zarr is not installed")
    folder = tmp_path / "a.zarr"
    metadata = {"driver": "zarr", "kvstore": {"driver": "file", "path": str(folder / "0")}}
    array = tensorstore.open(metadata, create=True, dtype=tensorstore.float32, shape=DATA.shape).result()
    array[...] = DATA
    scale = [{"type": "scale", "scale": [1, 1, 1]}]
    image = {"datasets": [{"path": "0", "coordinateTransformations": scale}], "axes": [{"name": n} for n in "zyx"]}
    (folder / ".zattrs").write_text(json.dumps({"multiscales": [image]}))
    (tmp_path / "here").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "here", target_is_directory=True)
    monkeypatch.chdir(tmp_path / "here")
    for path in (Path("../a.zarr"), Path("../here/../a.zarr"), tmp_path / "link" / ".." / "a.zarr"):
        np.testing.assert_array_equal(read_volume(path).data, DATA)


@given(st.integers(1, 3000), st.integers(-30, 30))
def test_b21_an_extended_header_that_is_announced_but_absent(
    tmp_path_factory: pytest.TempPathFactory, announced: int, more: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "announced.mrc"
    write_mrc(path, DATA, 10.0)
    content = bytearray(path.read_bytes())
    content[92:96] = np.array(announced, "<i4").tobytes()
    path.write_bytes(bytes(content) if more >= 0 else bytes(content[:more]))
    with gathered_notes() as notes:
        if more < 0:
            with pytest.raises(InputError, match="truncated"):
                open_volume(path)
            return
        np.testing.assert_array_equal(read_volume(path).data, DATA)
    assert any(f"announces {announced} bytes of extended header that are not there" in note for note in notes)
    path.write_bytes(bytes(content[:1024]) + bytes(announced) + bytes(content[1024:]))
    with gathered_notes() as notes:
        np.testing.assert_array_equal(read_volume(path).data, DATA)
    assert not notes


@pytest.mark.parametrize(
    ("unit", "factor"),
    [("\\u00C5", 1.0), ("Å", 1.0), ("cm", 1e8), ("\\u00B5m", 1e4), ("micron", 1e4), ("nm", 10.0), ("pixel", None)],
)
def test_b21_units_of_length(unit: str, factor: float | None) -> None:
    assert angstroms_per(unit) == factor
