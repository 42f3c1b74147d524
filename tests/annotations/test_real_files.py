"""Every real file of `annotations/`, `formats/` and `mrc/`: read as an independent reading has it, or refused with the reason.

The independent readings use csv, json, ElementTree, struct, regular expressions and NumPy, and no code of the package.
A file that no table here names fails the test: new data must be looked at by someone.
"""

from __future__ import annotations

import csv
import gzip
import json
import re
import struct
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import mrcfile
import numpy as np
import pytest

from robpicker_jax.annotations import read_annotations
from robpicker_jax.system.errors import InputError
from robpicker_jax.volumes import open_volume, read_volume
from tests.annotations.star_text import relion_rotation, star_rows, xyz

# --- independent readings of lists: positions x y z (n, 3), voxels ---------------------------------------------------

Positions = Callable[[Path], np.ndarray]


def deepfinder(path: Path) -> np.ndarray:
    objects = list(ElementTree.parse(path).getroot().iter("object"))
    return np.array([[float(entry.attrib[axis]) for axis in "xyz"] for entry in objects])


def pixels(block: str = "", *, origin: str = "", scale: float = 1.0) -> Positions:
    """rlnCoordinate minus origin; `origin` "" none, "pixels", Å per pixel, or the column that says it."""

    def read(path: Path) -> np.ndarray:
        rows = star_rows(path, block)
        found = np.array([xyz(row, "rlnCoordinate?") for row in rows])
        if origin == "pixels":
            found -= [xyz(row, "rlnOrigin?") for row in rows]
        elif origin:
            found -= [xyz(row, "rlnOrigin?Angst") / float(row.get(origin, origin)) for row in rows]
        return found * scale

    return read


def relion5(path: Path) -> np.ndarray:
    """Centred Å, minus the origin in the subtomogram's frame, over the binned pixel, from the centre N/2."""
    table = {row["rlnTomoName"]: row for row in star_rows(path.with_name("R5_tutorial_run_tomograms.star"), "global")}
    found = []
    for row in star_rows(path, "particles"):
        tomogram = table[row["rlnTomoName"]]
        turn = relion_rotation(*(float(row[f"rlnTomoSubtomogram{angle}"]) for angle in ("Rot", "Tilt", "Psi")))
        angstrom = xyz(row, "rlnCenteredCoordinate?Angst") - turn @ xyz(row, "rlnOrigin?Angst")
        unbinned = angstrom / float(tomogram["rlnTomoTiltSeriesPixelSize"]) + xyz(tomogram, "rlnTomoSize?") / 2
        found.append(unbinned / float(tomogram["rlnTomoTomogramBinning"]))
    return np.array(found)


def stopgap(path: Path) -> np.ndarray:
    rows = star_rows(path, "stopgap_motivelist")
    return np.array([[float(row[f"orig_{a}"]) + float(row[f"{a}_shift"]) for a in "xyz"] for row in rows])


def dynamo(path: Path) -> np.ndarray:
    table = np.loadtxt(path)
    return table[:, 23:26] + table[:, 3:6]


def copick(voxel_size: float) -> Positions:
    def read(path: Path) -> np.ndarray:
        points = json.loads(path.read_text())["points"]
        return np.array([[point["location"][axis] / voxel_size for axis in "xyz"] for point in points])

    return read


def imod(path: Path) -> np.ndarray:
    """All contours' points; IMOD counts from a voxel's corner in x and y, not in z."""
    content, points = path.read_bytes(), []
    for match in re.finditer(b"CONT", content):
        (n,) = struct.unpack_from(">i", content, match.end())
        points += struct.iter_unpack(">3f", content[match.end() + 16 : match.end() + 16 + 12 * n])
    return np.array(points) - [0.5, 0.5, 0.0]


def table(delimiter: str, header: bool) -> Positions:
    def read(path: Path) -> np.ndarray:
        with path.open(newline="") as stream:
            rows = list(csv.reader(stream, delimiter=delimiter))
        return np.array(rows[header:], float)

    return read


# --- what is expected of each list -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Read:
    """A list that is read: how many particles the independent reading must find, by which options it is read."""

    count: int
    positions: Positions
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Refused:
    """A list that is refused with a message that holds `reason`."""

    reason: str
    options: dict[str, Any] = field(default_factory=dict)


TABLE = "a table of tomograms, not of particles"
FORMATS: dict[str, list[Read | Refused]] = {
    "R5_tutorial_run_data.star": [
        Refused("give RELION's tomograms table"),
        Read(9053, relion5, {"tomograms": "R5_tutorial_run_tomograms.star"}),
    ],
    "R5_tutorial_run_tomograms.star": [Refused(TABLE)],
    "basic_double_quote.star": [Refused("no particles in it")],
    "copick.json": [Refused("give the voxel size"), Read(4, copick(10.0), {"voxel_size_angstrom": 10.0})],
    "copick_CCDC147C_001_microtubule.json": [Read(597, copick(8.2))],
    "dynamo2m_example.tbl": [Read(4934, dynamo)],
    "empty_loop.star": [Refused("holds no particles")],
    "multiple_objects_example.mod": [Read(6, imod)],
    "oriented_points.mod": [Read(4, imod)],
    "points.csv": [Read(3, table(",", header=False))],
    "points_with_header_pipe_delim.csv": [Read(3, table("|", header=True))],
    "ptm_relion5_tomograms.star": [Refused(TABLE)],
    "relion_3.1_optics2.star": [
        Read(3, pixels("particles", origin="rlnPixelSize")),
        Refused("rlnPixelSize says 3.446", {"pixel_size_angstrom": 2.446}),
    ],
    "relion_3_star.star": [Read(6, pixels(origin="pixels"))],
    "relion_4_star.star": [Read(6, pixels("particles", origin="0.5"))],
    "rln3.1_data_style.star": [
        Refused("several blocks hold particles: block_2, block_3"),
        Read(2, pixels("block_3"), {"block": "block_3"}),
    ],
    "stopgap_star.star": [Read(6, stopgap)],
    "warptools_particles.star": [Read(40, pixels("particles"))],
    "warptools_tomograms.star": [Refused(TABLE)],
}
ANNOTATIONS: dict[str, list[Read | Refused]] = {
    **{
        f"chlamy_{name}.star": [Read(count, pixels(scale=0.25), {"binning": 4})]
        for name, count in (("atpase", 933), ("hsp60", 27), ("mitoribosome", 228))
    },
    **{
        f"empiar11830_{name}_objl.xml": [Read(count, deepfinder)]
        for name, count in (
            ("meta_tomo1333", 820),
            ("test_tomo2814", 836),
            ("train_tomo0137", 693),
            ("train_tomo0145", 935),
            ("train_tomo1959", 1638),
            ("train_tomo2252", 1020),
        )
    },
}
LISTS = {"formats": FORMATS, "annotations": ANNOTATIONS}


@pytest.mark.parametrize(("folder", "name"), [(folder, name) for folder, names in LISTS.items() for name in names])
def test_every_list_is_read_or_refused(shared_data: Path, folder: str, name: str) -> None:
    path = shared_data / folder / name
    for case in LISTS[folder][name]:
        options = dict(case.options)
        if "tomograms" in options:
            options["tomograms"] = path.with_name(options["tomograms"])
        if isinstance(case, Refused):
            with pytest.raises(InputError) as caught:
                read_annotations(path, **options)
            assert case.reason in str(caught.value)
            assert str(path) in str(caught.value)
            assert "\n" not in str(caught.value)
            continue
        expected = case.positions(path)
        found = read_annotations(path, **options).positions_vox
        assert len(found) == len(expected) == case.count
        np.testing.assert_allclose(found[[0, -1]], expected[[0, -1]], rtol=1e-9, atol=1e-6)
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-6)


# --- volumes ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Map:
    """A volume that is read: byte order and type of its voxels, edge of a voxel in Å (z y x), None where not known."""

    order: str
    kind: str
    edges_zyx: tuple[float, float, float] | None
    by_mrcfile: bool = True


MRC: dict[str, Map | Refused] = {
    # columns run along z, rows along x, sections along y; symmetry records between header and voxels
    "EMD-3001_mapc312_symext.map": Map("<", "f4", (33.03 / 72, 4.71 / 12, 17.93 / 40), by_mrcfile=False),
    "emd_3197.map.gz": Map("<", "f4", (11.4, 11.4, 11.4)),
    "header_only.mrc": Refused("truncated: 1024 bytes, but the header announces 132096"),
    "pyto_swapped_byte_order_bigendian_mode2.mrc": Map(">", "f4", None),
    # unsigned, as its smallest value in the header says, though mode 0 is signed today
    "tardis_mode0_noMAP_SerialEM.mrc": Map("<", "u1", (23.2, 23.2, 23.2), by_mrcfile=False),
    "warptools_mode12_float16.mrcs": Map("<", "f2", (12.0, 12.0, 12.0)),
}


def mrc_voxels(path: Path, order: str, kind: str) -> np.ndarray:
    """The voxels (z, y, x), by the header's words of MRC2014: 1–3 sizes, 17–19 axes, 24 length of the extension."""
    content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    words = struct.unpack_from(f"{order}56i", content)
    nx, ny, nz = words[:3]
    axes = [axis - 1 for axis in words[16:19]]  # which of x, y, z columns, rows and sections run along
    if sorted(axes) != [0, 1, 2]:
        axes = [0, 1, 2]
    stored = np.frombuffer(content, np.dtype(order + kind), nx * ny * nz, 1024 + words[23]).reshape(nz, ny, nx)
    return np.transpose(stored, [2 - axes.index(axis) for axis in (2, 1, 0)]).astype(np.float32)


@pytest.mark.parametrize("name", MRC)
def test_every_volume_is_read_or_refused(shared_data: Path, name: str) -> None:
    path, case = shared_data / "mrc" / name, MRC[name]
    if isinstance(case, Refused):
        for read in (read_volume, open_volume):
            with pytest.raises(InputError) as caught:
                read(path)
            assert case.reason in str(caught.value)
            assert str(path) in str(caught.value)
        return
    expected = mrc_voxels(path, case.order, case.kind)
    volume = read_volume(path)
    assert volume.data.dtype == np.float32
    np.testing.assert_array_equal(volume.data, expected)
    edges = volume.voxel_size_zyx_angstrom
    assert edges == (None if case.edges_zyx is None else pytest.approx(case.edges_zyx, rel=1e-3))
    with open_volume(path) as reader:
        assert reader.shape_zyx == expected.shape
        depth, height, width = expected.shape
        box = (slice(depth // 3, depth), slice(0, height // 2 + 1), slice(width // 4, width // 2 + 1))
        np.testing.assert_array_equal(reader.read(box), expected[box])
    if case.by_mrcfile:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # one of them has a machine stamp of the other byte order
            with mrcfile.open(path, permissive=True) as other:
                np.testing.assert_array_equal(expected, other.data.astype(np.float32).reshape(expected.shape))


# --- nothing left out ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("folder", "names"), [*LISTS.items(), ("mrc", MRC)])
def test_no_file_is_left_out(shared_data: Path, folder: str, names: dict) -> None:
    there = {path.name for path in (shared_data / folder).rglob("*") if path.is_file()}
    assert there == set(names)
