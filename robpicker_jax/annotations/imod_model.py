"""IMOD models (`.mod`): every point of every contour is a particle, the object it lies in is its class.

Format: https://bio3d.colorado.edu/imod/doc/binspec.html, big-endian chunks. IMOD's coordinates put the centre of voxel
0 at (0.5, 0.5, 0): x and y are half a voxel larger than here (`half_pixel=False` is for programs that ignore that).
Models drawn on part of a volume, or on one with an origin, are shifted as IMOD documents (MINX chunk); those drawn on a
volume with y and z exchanged are turned back. Scores are IMOD's general values (COST and OBST chunks), by which 3dmod
colours points and its bead fixer thresholds them.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from robpicker_jax.annotations.format import CENTRE_AT_HALF, HALF_PIXEL, Format
from robpicker_jax.annotations.particles import Particles
from robpicker_jax.system.errors import InputError
from robpicker_jax.system.files import atomic_path

_HALF = np.array([0.5, 0.5, 0.0])
_MODEL_BYTES, _OBJECT_BYTES = 232, 176
_Z_FROM_MINUS_HALF, _NEW, _BYTES_IN_MATERIAL = 1 << 10, 1 << 11, 1 << 13
_OTRANS_IS_VALID, _FLIPPED_YZ = 1 << 14, 1 << 16
_OPEN_CONTOURS, _SCATTERED, _USE_VALUES = 1 << 3, 1 << 9, 1 << 12
_STORE = np.dtype([("type", ">i2"), ("flags", ">u2"), ("index", ">i4"), ("value", ">f4")])
_VALUE, _RANGE = 10, 11  # types of stored items: a general value; least and largest value of an object
_FLOAT_VALUE, _FLOAT_INDEX, _NO_INDEX, _OF_SURFACE, _ONE_POINT = 1 << 2, 1, 1 << 4, 1 << 6, 1 << 7
_NANOMETRES = -9
_COLOURS = ((0, 1, 0), (0, 1, 1), (1, 0, 1), (1, 1, 0), (1, 0, 0), (0.2, 0.2, 0.8), (1, 0.5, 0), (0.5, 1, 0.5))


@dataclass
class _Model:
    flags: int
    names: list[str] = field(default_factory=list)
    points: list[np.ndarray] = field(default_factory=list)  # (n, 3) of each contour
    values: list[np.ndarray] = field(default_factory=list)  # (n,) of each contour, NaN where there is none
    objects: list[int] = field(default_factory=list)  # object of each contour
    first: int = 0  # first contour of the last object
    shift: np.ndarray = field(default_factory=lambda: np.zeros(3))
    rotated: bool = False


def read(path: Path, *, half_pixel: bool = True) -> Particles:
    """Read an IMOD binary model.

    Args:
        path: the file.
        half_pixel: whether the file follows IMOD in putting the centre of voxel 0 at (0.5, 0.5, 0).

    Returns:
        The points; label k for object k, general values as scores, contours (from 1) as extra column.

    Raises:
        InputError: not an IMOD model, truncated, coordinates that are not finite, or drawn on a rotated volume.
    """
    content = path.read_bytes()
    if content[:4] != b"IMOD":
        raise InputError("not an IMOD binary model", where=path, fix="convert it with IMOD's model2point or imodascii")
    try:
        model = _parse(content)
    except (struct.error, ValueError):
        raise InputError("truncated or damaged IMOD model", where=path) from None
    counts = [len(points) for points in model.points]
    if not sum(counts):
        return Particles.empty()
    positions = np.concatenate(model.points).astype(np.float64)
    if not np.isfinite(positions).all():
        raise InputError("a point's coordinates are not finite", where=path)
    positions -= _HALF if half_pixel else 0
    if model.flags & _FLIPPED_YZ:
        positions = positions[:, [0, 2, 1]]
    if model.shift.any():
        if model.rotated or not np.isfinite(model.shift).all():
            raise InputError("drawn on a rotated volume", where=path, fix="write the points with IMOD's model2point")
        positions = positions + model.shift
    objects = np.repeat(model.objects, counts)
    values = np.concatenate(model.values)
    values[~np.isfinite(values)] = np.nan
    return Particles(
        positions,
        objects + 1,
        scores=None if np.isnan(values).all() else values,
        class_names=np.array(model.names)[objects] if any(model.names) else None,
        extra={"contour": np.repeat(np.arange(1, len(counts) + 1), counts)},
    )


def _parse(content: bytes) -> _Model:
    at = 8 + _MODEL_BYTES
    (flags,) = struct.unpack_from(">I", content, 8 + 128 + 16)
    model = _Model(flags)
    while at + 4 <= len(content):
        kind = content[at : at + 4]
        at += 4
        if kind == b"IEOF":
            return model
        if kind == b"OBJT":
            model.names.append(content[at : at + 64].split(b"\0")[0].decode("utf-8", "replace").strip())
            model.first = len(model.points)
            at += _OBJECT_BYTES
        elif kind == b"CONT":
            (n,) = struct.unpack_from(">i", content, at)
            at += 16
            if n < 0 or not model.names or at + 12 * n > len(content):
                raise ValueError
            model.points.append(np.frombuffer(content, ">f4", 3 * n, at).reshape(n, 3))
            model.values.append(np.full(n, np.nan))
            model.objects.append(len(model.names) - 1)
            at += 12 * n
        elif kind == b"MESH":
            vertices, indices = struct.unpack_from(">2i", content, at)
            if vertices < 0 or indices < 0:
                raise ValueError
            at += 16 + 12 * vertices + 4 * indices
        else:
            (size,) = struct.unpack_from(">i", content, at)
            if size < 0:
                raise ValueError
            if kind == b"MINX" and size >= 72 and flags & _OTRANS_IS_VALID:
                _image_reference(content, at + 4, model)
            elif kind in (b"COST", b"OBST"):
                _stored_values(np.frombuffer(content, _STORE, size // _STORE.itemsize, at + 4), kind == b"COST", model)
            at += 4 + size
    raise ValueError  # no end marker


def _image_reference(content: bytes, at: int, model: _Model) -> None:
    """Shift from the loaded to the full image: (otrans − ctrans) / cscale, in voxels, where nothing is rotated."""
    values = np.frombuffer(content, ">f4", 18, at).astype(np.float64).reshape(6, 3)
    _, old_translation, _, scale, translation, rotation = values
    if (scale != 0).all():
        model.shift = (old_translation - translation) / scale
        model.rotated = bool(rotation.any())


def _stored_values(items: np.ndarray, of_points: bool, model: _Model) -> None:
    """General values of the last contour's points, or of the last object's contours, into `model.values`."""
    kept = (items["type"] == _VALUE) & (items["flags"] & 0b1100 == _FLOAT_VALUE) & (items["flags"] & _OF_SURFACE == 0)
    for index, value in zip(items["index"][kept].tolist(), items["value"][kept].tolist(), strict=True):
        if of_points and model.values and 0 <= index < len(model.values[-1]):
            model.values[-1][index] = value
        elif not of_points and 0 <= index < len(model.values) - model.first:
            model.values[model.first + index][:] = value


def write(
    path: Path,
    particles: Particles,
    *,
    voxel_size_angstrom: float | None = None,
    shape_zyx: tuple[int, int, int] | None = None,
    half_pixel: bool = True,
    radius_vox: int = 5,
) -> None:
    """Write an IMOD model of scattered points, an object for each label up to the largest.

    Args:
        path: the file.
        particles: what to write.
        voxel_size_angstrom: stated as the model's pixel size.
        shape_zyx: size of the tomogram; by default just large enough.
        half_pixel: whether to follow IMOD in putting the centre of voxel 0 at (0.5, 0.5, 0).
        radius_vox: radius of the spheres that 3dmod draws.
    """
    if not 0 <= radius_vox < 1 << 15:
        raise InputError(f"radius_vox is {radius_vox}, not a radius", where=path)
    n_objects = int(particles.labels.max(initial=1)) if len(particles) else 0
    if n_objects > 10_000:
        raise InputError(f"{n_objects} classes are too many for an IMOD model", where=path)
    positions = particles.positions_vox + (_HALF if half_pixel else 0)
    size = np.ceil(positions.max(axis=0, initial=1.0) + 1).astype(int) if shape_zyx is None else shape_zyx[::-1]
    pixel_nm = (voxel_size_angstrom or 0.0) / 10
    model = struct.pack(
        ">128s3i i I 4i 6f 5i f 2i 3f",
        b"RobPicker picks",
        *(int(edge) for edge in size),
        n_objects,
        _Z_FROM_MINUS_HALF | _NEW | _BYTES_IN_MATERIAL,
        *(1, 0, 0, 255),  # draw mode, mouse mode, black and white level
        *(0, 0, 0, 1, 1, 1),  # offsets, scales
        *(0, 0, 0, 3, 128),  # current object, contour, point; resolution, threshold
        pixel_nm or 1.0,
        *(_NANOMETRES if pixel_nm else 0, 0),  # unit, checksum
        *(0, 0, 0),  # angles
    )
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        stream.write(b"IMODV1.2" + model)
        for label in range(1, n_objects + 1):
            chosen = particles.labels == label if label > 1 else particles.labels <= 1
            name = ""
            if particles.class_names is not None and chosen.any():
                name = str(particles.class_names[chosen][0])
            scores = np.empty(0) if particles.scores is None else particles.scores[chosen]
            valued = bool(np.isfinite(scores).any())
            stream.write(_object(name, label, radius_vox, valued))
            stream.write(b"CONT" + struct.pack(">iIii", int(chosen.sum()), 0, 0, 0))
            stream.write(positions[chosen].astype(">f4").tobytes())
            if valued:
                stream.write(_values(scores))
        stream.write(b"IEOF")


def _values(scores: np.ndarray) -> bytes:
    """Chunks of the points' values, and of the object: its material, which maps values to grey, and their range."""
    known = np.flatnonzero(np.isfinite(scores))
    items = np.zeros(len(known), _STORE)
    items["type"], items["flags"], items["index"] = _VALUE, _FLOAT_VALUE | _ONE_POINT, known
    items["value"] = scores[known]
    least, most = float(items["value"].min()), float(items["value"].max())
    limits = struct.pack(">hH2f", _RANGE, _FLOAT_VALUE | _FLOAT_INDEX | _NO_INDEX, least, most)
    material = struct.pack(">16B", 102, 255, 127, 4, *[0] * 8, 0, 255, 0, 0)  # IMOD's defaults; grey from 0 to 255
    chunks = ((b"COST", items.tobytes()), (b"IMAT", material), (b"OBST", limits))
    return b"".join(kind + struct.pack(">i", len(data)) + data for kind, data in chunks)


def _object(name: str, label: int, radius_vox: int, valued: bool) -> bytes:
    colour = _COLOURS[(label - 1) % len(_COLOURS)]
    text = name.encode("ascii", "replace")[:63]
    flags = _OPEN_CONTOURS | _SCATTERED | (_USE_VALUES if valued else 0)
    symbol = (1, 3, 1, 1, 0, 0, 0, 0)  # none, its size, line widths, line style, flags, padding, transparency
    values = (text, *[0] * 16, 1, flags, 0, 1, *colour, radius_vox, *symbol, 0, 0)
    return b"OBJT" + struct.pack(">64s16I i I 2i 3f i 8B 2i", *values)


FORMAT = Format(
    name="imod",
    title="IMOD model",
    suffixes=(".mod",),
    read=read,
    write=write,
    keeps=frozenset({"labels", "scores", "class_names"}),
    single_precision=True,
    options={"half_pixel": HALF_PIXEL, "radius_vox": "radius of the spheres that 3dmod draws, voxels"},
    assumptions=(CENTRE_AT_HALF,),
)
