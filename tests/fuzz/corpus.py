"""Small whole files of every reader, made by the product's own writers or, where it only reads, by hand.

A subject is what one reader reads: a file, or a folder of files for formats that keep a list or a volume in one.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from robpicker_jax.annotations import FORMATS, read_annotations, write_annotations
from robpicker_jax.system.errors import InputError
from robpicker_jax.volumes import read_volume, write_mrc
from tests.fuzz.kept_files import KEPT
from tests.fuzz.subject import SHAPE_ZYX, Subject, contents, some_particles

M_SPECIES = """
data_

loop_
_wrpCoordinateX1 #1
_wrpCoordinateY1 #2
_wrpCoordinateZ1 #3
_wrpAngleRot1 #4
_wrpAngleTilt1 #5
_wrpAnglePsi1 #6
_wrpSourceName #7
41.4	32.7	7.7	-74.0	102.2	-102.1	TS_11.tomostar
21.4	12.7	37.7	-7.0	12.2	-12.1	TS_12.tomostar
"""


def list_subject(name: str, folder: Path) -> Subject:
    """A particle list of one format: every column that it keeps, three particles."""
    format_ = FORMATS[name]
    entry = format_.file_name("TS_1")
    if name == "m_species":
        (folder / entry).write_text(M_SPECIES)
    else:
        write_annotations(
            folder / entry,
            some_particles(name),
            fmt=name,
            voxel_size_angstrom=10.0,
            shape_zyx=SHAPE_ZYX,
            shapes_zyx={"TS_1": SHAPE_ZYX},
        )
    context = {"voxel_size_angstrom": 10.0, "shape_zyx": SHAPE_ZYX, "class_labels": {"ribosome": 1, "apo": 2}}

    def read(path: Path) -> None:
        found = read_annotations(path, fmt=name, **context, allow_empty=True)
        assert np.isfinite(found.positions_vox).all()
        assert found.rotations is None or not np.isinf(found.rotations).any()
        with suppress(InputError):  # names and first lines of some formats do not tell them
            read_annotations(path, **context)

    return Subject(contents(folder), entry, read)


def volume_subject(kind: str, folder: Path) -> Subject:
    """A tomogram in one of the volume formats and number types."""
    values = np.random.default_rng(1).normal(size=SHAPE_ZYX).astype(np.float32)
    entry = _VOLUMES[kind](folder, values)

    def read(path: Path) -> None:
        volume = read_volume(path)
        assert volume.data.ndim == 3
        assert np.isfinite(volume.data).all()
        _ = volume.voxel_size_angstrom

    return Subject(contents(folder), entry, read)


def _mrc(folder: Path, values: np.ndarray) -> str:
    write_mrc(folder / "a.mrc", values, 10.0)
    return "a.mrc"


def _mrc_bytes(folder: Path, values: np.ndarray) -> str:
    """Mode 0, which may be signed or not: the reader looks at the voxels."""
    write_mrc(folder / "a.mrc", np.clip(values * 40, -120, 120).astype(np.int8), 10.0)
    return "a.mrc"


def _mrc_gz(folder: Path, values: np.ndarray) -> str:
    _mrc(folder, values)
    (folder / "b.mrc.gz").write_bytes(gzip.compress((folder / "a.mrc").read_bytes(), mtime=0))
    (folder / "a.mrc").unlink()
    return "b.mrc.gz"


def _em(folder: Path, values: np.ndarray) -> str:
    header = bytearray(512)
    header[0], header[3] = 6, 5
    header[4:16] = np.array(values.shape[::-1], "<i4").tobytes()
    (folder / "a.em").write_bytes(bytes(header) + values.astype("<f4").tobytes())
    return "a.em"


def _hdf(folder: Path, values: np.ndarray) -> str:
    import h5py

    with h5py.File(folder / "a.h5", "w") as file:
        file.create_dataset("MDF/images/0/image", data=values)
        file["MDF/images/0"].attrs["EMAN.apix_x"] = 10.0
    return "a.h5"


def _tiff(folder: Path, values: np.ndarray) -> str:
    import tifffile

    metadata = {"axes": "ZYX", "spacing": 1.0, "unit": "nm"}
    tifffile.imwrite(folder / "a.tif", values, imagej=True, resolution=(1.0, 1.0), metadata=metadata)
    return "a.tif"


def _zarr2(folder: Path, values: np.ndarray) -> str:
    level = folder / "a.zarr" / "0"
    level.mkdir(parents=True)
    array: dict[str, Any] = {"zarr_format": 2, "shape": list(values.shape), "chunks": list(values.shape)}
    array |= {"dtype": "<f4", "compressor": None, "fill_value": 0, "order": "C", "filters": None}
    (level / ".zarray").write_text(json.dumps(array))
    (level / "0.0.0").write_bytes(values.tobytes())
    (folder / "a.zarr" / ".zattrs").write_text(json.dumps({"multiscales": [_multiscales("0.4")]}))
    return "a.zarr"


def _zarr3(folder: Path, values: np.ndarray) -> str:
    level = folder / "a.zarr" / "0"
    (level / "c" / "0" / "0").mkdir(parents=True)
    array: dict[str, Any] = {"zarr_format": 3, "node_type": "array", "shape": list(values.shape)}
    array |= {"data_type": "float32", "fill_value": 0, "attributes": {}, "dimension_names": ["z", "y", "x"]}
    array |= {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(values.shape)}}}
    array |= {"chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}}}
    array |= {"codecs": [{"name": "bytes", "configuration": {"endian": "little"}}]}
    (level / "zarr.json").write_text(json.dumps(array))
    (level / "c" / "0" / "0" / "0").write_bytes(values.tobytes())
    attributes = {"ome": {"version": "0.5", "multiscales": [_multiscales("0.5")]}}
    group = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
    (folder / "a.zarr" / "zarr.json").write_text(json.dumps(group))
    return "a.zarr"


def _multiscales(version: str) -> dict[str, Any]:
    axes = [{"name": name, "type": "space", "unit": "angstrom"} for name in "zyx"]
    scale = [{"type": "scale", "scale": [10.0, 10.0, 10.0]}]
    return {"version": version, "axes": axes, "datasets": [{"path": "0", "coordinateTransformations": scale}]}


_VOLUMES: dict[str, Callable[[Path, np.ndarray], str]] = {
    "mrc": _mrc,
    "mrc-bytes": _mrc_bytes,
    "mrc-gz": _mrc_gz,
    "em-volume": _em,
    "hdf": _hdf,
    "tiff": _tiff,
    "zarr2": _zarr2,
    "zarr3": _zarr3,
}
SUBJECTS: dict[str, Callable[[Path], Subject]] = {
    **{name: lambda folder, name=name: list_subject(name, folder) for name in FORMATS},
    **{kind: lambda folder, kind=kind: volume_subject(kind, folder) for kind in _VOLUMES},
    **KEPT,
}
"""A whole file of each reader, by the reader's name; each is called with an empty folder."""
