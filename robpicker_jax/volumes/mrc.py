"""MRC files (MRC2014, CCP4 and their forebears): `.mrc`, `.rec`, `.map`, `.st`, plain or compressed by gzip or bzip2.

Format: https://www.ccpem.ac.uk/mrc_format/mrc2014.php, with IMOD's extensions
(https://bio3d.colorado.edu/imod/doc/mrc_format.txt). Header layout, modes and machine stamps are mrcfile's. What
mrcfile leaves to its callers is done here: axes in any order become (z, y, x), unsigned bytes are read as such, and the
size of the file is checked before anything is allocated.

The origin is what ChimeraX places a volume by: the header's `origin` in Å where it is not 0, else its `nstart` times the
voxel size. IMOD's own programs count it with the other sign unless bit 2 of their flags is set; viewers do not ask.
"""

from __future__ import annotations

import bz2
import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import mrcfile
import numpy as np
from mrcfile.dtypes import HEADER_DTYPE
from mrcfile.utils import byte_order_from_machine_stamp

from robpicker_jax.system.errors import InputError
from robpicker_jax.system.files import atomic_path
from robpicker_jax.system.memory import machine_bytes
from robpicker_jax.system.notes import note
from robpicker_jax.system.version import __version__
from robpicker_jax.volumes.mrc_bytes import byte_type, middle, planes_to_look_at
from robpicker_jax.volumes.volume import NO_ORIGIN, ArrayReader, LazyReader, Origin, VolumeReader, slabs

_HEADER_BYTES = HEADER_DTYPE.itemsize
_DTYPES = {0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2"}
_REFUSED = {3: "complex 16-bit integers", 4: "complex numbers (a Fourier transform)", 16: "RGB colours"}
_NIBBLES = 101  # IMOD's mode of two 4-bit voxels a byte
_LARGEST_AXIS = 1 << 20


@dataclass(frozen=True)
class _Layout:
    """How the voxels lie in the file."""

    dtype: np.dtype[Any]
    file_shape: tuple[int, int, int]  # sections, rows, columns
    transpose: tuple[int, int, int]  # file axes of z, y, x
    offset: int
    nibbles: bool
    voxel_size_zyx_angstrom: tuple[float, float, float] | None
    origin_angstrom: Origin

    @property
    def row_bytes(self) -> int:
        columns = self.file_shape[2]
        return (columns + 1) // 2 if self.nibbles else columns * self.dtype.itemsize

    @property
    def data_bytes(self) -> int:
        return self.file_shape[0] * self.file_shape[1] * self.row_bytes


def open_mrc(path: Path) -> VolumeReader:
    """Open an MRC file, memory-mapped where it is neither compressed nor 4-bit; else decoded when first read.

    Raises:
        InputError: not an MRC file, truncated, complex or colour voxels, a stack of volumes,
            axes that are no permutation.
    """
    compressed = _compression(path)
    with _opened(path, compressed) as stream:
        try:
            raw = stream.read(_HEADER_BYTES)
        except (OSError, EOFError, zlib.error) as error:
            raise InputError(f"damaged compressed file ({error})", where=path) from None
        layout = _layout(path, raw)
        if not compressed:
            layout, size = _without_absent_header(path, layout), path.stat().st_size
            if size < layout.offset + layout.data_bytes:
                raise _truncated(path, layout, size)
        if layout.dtype == np.int8:
            layout = replace(layout, dtype=byte_type(_header(path, raw), _planes(path, compressed, layout), path))
        if not compressed and not layout.nibbles:
            stored = np.memmap(path, layout.dtype, "r", layout.offset, layout.file_shape)
            return ArrayReader(
                path, stored.transpose(layout.transpose), layout.voxel_size_zyx_angstrom, layout.origin_angstrom
            )
    z, y, x = (layout.file_shape[axis] for axis in layout.transpose)
    return LazyReader(
        path,
        (z, y, x),
        layout.dtype,
        layout.voxel_size_zyx_angstrom,
        lambda: _decode(path, compressed, layout),
        layout.origin_angstrom,
    )


def write_mrc(
    path: str | Path,
    data: np.ndarray,
    voxel_size_angstrom: float | None = None,
    origin_angstrom: Origin = NO_ORIGIN,
) -> None:
    """Write a (z, y, x) array as an MRC2014 volume; the file appears whole or not at all.

    Booleans and whole numbers take the smallest of int8, int16, uint16 and float32 that holds them all; float16 stays;
    other floats become float32. An unknown voxel size (None) is written as 0, the origin as x y z in Å. Suffixes
    `.gz` and `.bz2` compress.

    Raises:
        ValueError: `data` is not 3D or holds NaN or infinity.
    """
    path, data = Path(path), np.asarray(data)
    dtype = _stored_type(data)
    # The volume is gone through twice in slabs, since mrcfile would hold several copies of it for the header's statistics.
    total = squares = 0.0
    least, most = np.inf, -np.inf
    for first, last in slabs(data.shape):
        part = data[first:last]
        least, most = min(least, float(part.min())), max(most, float(part.max()))
        total += float(part.sum(dtype=np.float64))
        squares += sum(float(np.square(plane, dtype=np.float64).sum()) for plane in part)
    mean = total / data.size
    with atomic_path(path) as temporary:
        header = _new_header(temporary, data.shape, dtype, voxel_size_angstrom)
        header.origin.x, header.origin.y, header.origin.z = origin_angstrom
        header.dmin, header.dmax, header.dmean = least, most, mean
        header.rms = np.sqrt(max(0.0, squares / data.size - mean * mean))
        with _created(temporary, path.suffix.lower()) as stream:
            stream.write(header.tobytes())
            for plane in data:
                stream.write(np.ascontiguousarray(plane, dtype).tobytes())


def _stored_type(data: np.ndarray) -> np.dtype[Any]:
    """The type of voxels in which `data` is stored, once it is known to be a volume."""
    if data.ndim != 3 or data.size == 0:
        raise ValueError(f"a volume has three axes and at least one voxel, not shape {data.shape}")
    if data.dtype.kind == "f":
        if not all(np.isfinite(data[first:last]).all() for first, last in slabs(data.shape)):
            raise ValueError("a volume must not hold NaN or infinity")
        return np.dtype(np.float16 if data.dtype == np.float16 else np.float32)
    if data.dtype.kind not in "biu":
        raise ValueError(f"voxels of type {data.dtype} cannot be stored")
    low, high = int(data.min()), int(data.max())
    for dtype in (np.int8, np.int16, np.uint16):
        if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max:
            return np.dtype(dtype)
    return np.dtype(np.float32)


def _new_header(
    scratch: Path, shape_zyx: tuple[int, ...], dtype: np.dtype[Any], voxel_size_angstrom: float | None
) -> Any:
    """mrcfile's header of a volume of this shape; `scratch` is a file that may be overwritten."""
    with mrcfile.new(scratch, overwrite=True) as mrc:
        mrc.set_data(np.zeros((1, 1, 1), dtype))
        mrc.set_volume()
        header = mrc.header.copy()
    header.label[0] = (
        f"robpicker_jax {__version__}"  # mrcfile's own has the time in it: no two files were the same bytes
    )
    header.nz, header.ny, header.nx = header.mz, header.my, header.mx = shape_zyx
    edge = voxel_size_angstrom or 0.0
    header.cella.z, header.cella.y, header.cella.x = (edge * size for size in shape_zyx)
    return header


@contextmanager
def _created(path: Path, suffix: str) -> Iterator[io.BufferedIOBase]:
    """A new file, compressed where the suffix says so."""
    with path.open("wb") as plain:
        if suffix == ".gz":
            # gzip would store the time and the temporary file's name, and no two files would be the same bytes.
            with gzip.GzipFile(filename="", mode="wb", fileobj=plain, mtime=0) as stream:
                yield stream
        elif suffix == ".bz2":
            with bz2.open(plain, "wb") as packed:
                yield packed
        else:
            yield plain


def _compression(path: Path) -> str | None:
    with path.open("rb") as stream:
        start = stream.read(212)
    if start[208:211] == b"MAP":  # an uncompressed file whose column count happens to look like a magic number
        return None
    return "gzip" if start[:2] == b"\x1f\x8b" else "bzip2" if start[:3] == b"BZh" else None


def _opened(path: Path, compression: str | None) -> io.BufferedIOBase:
    if compression == "gzip":
        return gzip.open(path, "rb")
    return bz2.open(path, "rb") if compression == "bzip2" else path.open("rb")


def _decode(path: Path, compressed: str | None, layout: _Layout) -> np.ndarray:
    """The voxels (z, y, x) of a compressed or 4-bit file, read in pieces so that a false header allocates nothing."""
    buffer, needed = bytearray(), layout.offset + layout.data_bytes
    memory = machine_bytes()
    if memory is not None and needed > memory:
        raise InputError(
            f"the header announces {needed / 2**30:.3g} GiB, more than this machine's memory, which packed files need",
            where=path,
            fix="unpack the file, or correct its header",
        )
    try:
        with _opened(path, compressed) as stream:
            while len(buffer) < needed and (piece := stream.read(min(1 << 24, needed - len(buffer)))):
                buffer += piece
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"damaged compressed file ({error})", where=path) from None
    if len(buffer) < needed:
        raise _truncated(path, layout, len(buffer))
    data = np.frombuffer(buffer, np.uint8)[layout.offset :]
    if not layout.nibbles:
        return data.view(layout.dtype).reshape(layout.file_shape).transpose(layout.transpose)
    rows = data.reshape(*layout.file_shape[:2], layout.row_bytes)
    both = np.stack([rows & 15, rows >> 4], axis=-1)  # the first voxel lies in the low bits
    stored = both.reshape(*layout.file_shape[:2], -1)[:, :, : layout.file_shape[2]]
    return stored.transpose(layout.transpose)


def _without_absent_header(path: Path, layout: _Layout) -> _Layout:
    """The layout, with the voxels right behind the header where the file is just too short for what else it announces."""
    absent = layout.offset - _HEADER_BYTES
    if absent <= 0 or path.stat().st_size != _HEADER_BYTES + layout.data_bytes:
        return layout
    note(f"the header announces {absent} bytes of extended header that are not there; the voxels are read", where=path)
    return replace(layout, offset=_HEADER_BYTES)


def _planes(path: Path, compressed: str | None, layout: _Layout) -> list[np.ndarray]:
    """The middle of some sections, uint8 (rows, columns); fewer where a compressed file ends too early."""
    sections, rows, columns = layout.file_shape
    wanted = planes_to_look_at(sections)
    found: list[np.ndarray] = []
    try:
        with _opened(path, compressed) as stream:
            for number in wanted:
                stream.seek(layout.offset + number * rows * columns)
                piece = stream.read(rows * columns)
                if len(piece) < rows * columns:
                    break
                found.append(np.ascontiguousarray(middle(np.frombuffer(piece, np.uint8).reshape(rows, columns))))
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"damaged compressed file ({error})", where=path) from None
    return found


def _truncated(path: Path, layout: _Layout, size: int) -> InputError:
    return InputError(
        f"truncated: {size} bytes, but the header announces {layout.offset + layout.data_bytes}",
        where=path,
        fix="copy or reconstruct the file again",
    )


def _layout(path: Path, raw: bytes) -> _Layout:
    if len(raw) < _HEADER_BYTES:
        raise InputError(f"not an MRC file: {len(raw)} bytes, less than a header", where=path)
    header = _header(path, raw)
    mode = int(header["mode"])
    if mode in _REFUSED:
        raise InputError(f"holds {_REFUSED[mode]}, not densities (MRC mode {mode})", where=path)
    shape = (int(header["nz"]), int(header["ny"]), int(header["nx"]))
    if _is_volume_stack(header):
        raise InputError(
            f"a stack of {shape[0] // int(header['mz'])} volumes, not one volume", where=path, fix="split the stack"
        )
    order = header.dtype["mode"].byteorder
    dtype = np.dtype("u1" if mode == _NIBBLES else _DTYPES[mode]).newbyteorder(order)
    return _Layout(
        dtype=dtype,
        file_shape=shape,
        transpose=_transpose(path, header),
        offset=_HEADER_BYTES + int(header["nsymbt"]),
        nibbles=mode == _NIBBLES,
        voxel_size_zyx_angstrom=_voxel_size(header),
        origin_angstrom=_origin(header),
    )


def _header(path: Path, raw: bytes) -> np.void:
    """The header in the byte order in which it makes sense; the machine stamp decides where both or neither do."""
    candidates = {order: np.frombuffer(raw, HEADER_DTYPE.newbyteorder(order), 1)[0] for order in "<>"}
    sensible = [order for order, header in candidates.items() if _makes_sense(header)]
    if not sensible:
        raise InputError("not an MRC file, or its header is damaged", where=path)
    try:
        stamped = byte_order_from_machine_stamp(candidates["<"]["machst"])
    except ValueError:
        stamped = "<"
    return cast(np.void, candidates[stamped if stamped in sensible else sensible[0]])


def _makes_sense(header: np.void) -> bool:
    mode = int(header["mode"])
    axes = [int(header[name]) for name in ("nx", "ny", "nz")]
    return (
        (mode in _DTYPES or mode in _REFUSED or mode == _NIBBLES)
        and all(0 < n <= _LARGEST_AXIS for n in axes)
        and int(header["nsymbt"]) >= 0
    )


def _is_volume_stack(header: np.void) -> bool:
    """Space groups from 401 mark stacks of volumes; `mz` is then the number of sections of each."""
    return 401 <= int(header["ispg"]) <= 630 and 0 < int(header["mz"]) < int(header["nz"])


def _transpose(path: Path, header: np.void) -> tuple[int, int, int]:
    axes = [int(header[name]) for name in ("maps", "mapr", "mapc")]  # axis (1 x, 2 y, 3 z) of sections, rows, columns
    if axes == [0, 0, 0]:
        return (0, 1, 2)
    if sorted(axes) != [1, 2, 3]:
        order = " ".join(str(axis) for axis in reversed(axes))
        raise InputError(f"axis order mapc mapr maps = {order} is no permutation of 1 2 3", where=path)
    return (axes.index(3), axes.index(2), axes.index(1))


def _origin(header: np.void) -> Origin:
    """Where ChimeraX places the first voxel, x y z in Å; values that can only be remnants of memory count as 0."""
    sizes = _voxel_size(header)
    edges = (1.0, 1.0, 1.0) if sizes is None else sizes[::-1]
    origin = [float(header["origin"][axis]) for axis in "xyz"]
    with_origin = bytes(header["map"])[:3] == b"MAP"  # older headers have other fields there
    largest = [10 * _LARGEST_AXIS * edge for edge in edges]
    if with_origin and any(origin) and all(abs(value) < most for value, most in zip(origin, largest, strict=True)):
        return (origin[0], origin[1], origin[2])
    by_axis = {int(header[f"map{of}"]): int(header[f"n{name}start"]) for of, name in zip("crs", "xyz", strict=True)}
    starts = [by_axis.get(axis, 0) for axis in (1, 2, 3)]
    limit = 10 * max(int(header[f"{kind}{axis}"]) for kind in "nm" for axis in "xyz")
    if any(abs(start) > limit for start in starts):
        return NO_ORIGIN
    x, y, z = (start * edge for start, edge in zip(starts, edges, strict=True))
    return (x, y, z)


def _voxel_size(header: np.void) -> tuple[float, float, float] | None:
    """Cell edge over grid intervals; 0 and 1 are what programs write that do not know (a mask, an image stack)."""
    sizes = []
    for axis in "zyx":
        intervals, edge = int(header[f"m{axis}"]), float(header["cella"][axis])
        sizes.append(edge / intervals if intervals > 0 else 0.0)
    z, y, x = sizes
    if not np.isfinite(sizes).all() or min(x, y) <= 0 or (x == 1 and y == 1):
        return None
    if z <= 0 or (int(header["mz"]) == 1 and int(header["nz"]) > 1):
        z = x  # header of an image stack: the third edge says nothing
    return (z, y, x)
