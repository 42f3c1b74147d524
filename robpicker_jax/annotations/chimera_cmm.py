"""ChimeraX and Chimera marker sets (`.cmm`): XML, one `<marker>` a particle: x = origin + position × voxel size, in Å.

Format: https://www.cgl.ucsf.edu/chimerax/docs/user/markers.html. ChimeraX displaces a volume by the origin of its header;
that of the tomogram is taken where the volume is known, and `origin_angstrom` says another one.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from xml.etree.ElementTree import Element, ElementTree, ParseError, SubElement, indent

import numpy as np
from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from robpicker_jax.annotations import columns
from robpicker_jax.annotations.colours import COLOURS, label_of
from robpicker_jax.annotations.format import ORIGIN, Format
from robpicker_jax.annotations.particles import Particles
from robpicker_jax.system.errors import InputError
from robpicker_jax.system.files import atomic_path


def read(
    path: Path,
    *,
    voxel_size_angstrom: float | None = None,
    class_labels: Mapping[str, int] | None = None,
    origin_angstrom: tuple[float, float, float] | None = None,
    volume_origin_angstrom: tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> Particles:
    """Read a marker set; the class is the `class_label` or the colour that `write` gave, the note the class name.

    Raises:
        InputError: not a marker set, a marker without coordinates, or no voxel size.
    """
    try:
        root = fromstring(path.read_bytes())
    except (ParseError, DefusedXmlException, ValueError, LookupError) as error:
        raise InputError(f"not readable as XML ({error})", where=path) from None
    if root.tag not in ("marker_set", "marker_sets"):
        raise InputError(f"no marker set: the root element is <{str(root.tag)[:40]}>", where=path)
    markers = [marker.attrib for marker in root.iter("marker")]
    if not markers:
        return Particles.empty()
    voxel_size = columns.required_voxel_size(voxel_size_angstrom, "ChimeraX", path)

    def row(i: int) -> str:
        return f"marker {i + 1}"

    def column(name: str) -> np.ndarray:
        return columns.floats([marker.get(name, "") for marker in markers], name, path, row)

    positions = (
        np.stack([column(axis) for axis in "xyz"], axis=1) - (origin_angstrom or volume_origin_angstrom)
    ) / voxel_size
    notes = np.array([marker.get("note", "") for marker in markers])
    labels = [_label(marker, class_labels) for marker in markers]
    known = any("score" in marker for marker in markers)
    return Particles(
        positions,
        columns.optional_labels(labels, "class_label", path, row),
        scores=columns.optional_floats([m.get("score") for m in markers], "score", path, row) if known else None,
        class_names=notes if (notes != "").any() else None,
    )


def _label(marker: Mapping[str, str], class_labels: Mapping[str, int] | None) -> str | int:
    if not columns.is_missing(marker.get("class_label")):
        return marker["class_label"]
    if class_labels and marker.get("note") in class_labels:
        return class_labels[marker["note"]]
    try:
        return label_of([float(marker.get(channel, "nan")) for channel in "rgb"])
    except ValueError:
        return 0


def write(
    path: Path,
    particles: Particles,
    *,
    voxel_size_angstrom: float | None = None,
    radius_angstrom: float = 50.0,
    origin_angstrom: tuple[float, float, float] | None = None,
    volume_origin_angstrom: tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> None:
    """Write a marker set that ChimeraX opens, a colour for each class.

    Raises:
        InputError: the voxel size is not given.
    """
    voxel_size = columns.required_voxel_size(voxel_size_angstrom, "ChimeraX", path)
    root = Element("marker_set", {"name": "picks"})
    for i, position in enumerate(particles.positions_vox * voxel_size + (origin_angstrom or volume_origin_angstrom)):
        label = int(particles.labels[i])
        attributes = {"id": str(i + 1)} | dict(zip("xyz", map(columns.number, position), strict=True))
        attributes |= dict(zip("rgb", map(columns.number, COLOURS[(label - 1) % len(COLOURS)]), strict=True))
        attributes |= {"radius": columns.number(radius_angstrom), "class_label": str(label)}
        if particles.class_names is not None:
            attributes["note"] = columns.xml_text(str(particles.class_names[i]))
        if particles.scores is not None and np.isfinite(particles.scores[i]):
            attributes["score"] = columns.number(particles.scores[i])
        SubElement(root, "marker", attributes)
    indent(root)
    with atomic_path(path) as temporary:
        ElementTree(root).write(temporary, encoding="utf-8")


FORMAT = Format(
    name="cmm",
    title="ChimeraX marker set, Å",
    suffixes=(".cmm",),
    read=read,
    write=write,
    keeps=frozenset({"labels", "scores", "class_names"}),
    unit="angstrom",
    options={"origin_angstrom": ORIGIN, "radius_angstrom": "radius of the spheres that ChimeraX draws, Å"},
)
