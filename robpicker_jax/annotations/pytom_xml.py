"""PyTom's particle list (`<ParticleList>`): XML with one `<Particle>` each.

The position is `PickPosition` plus `Shift`, in voxels from 0; `Origin` is the tomogram. `Rotation` holds TOM's angles: Z1 is
phi, Z2 is psi, X is theta. `Score` has a `Value`, `Class` a `Name`, which is a number or a text.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from xml.etree.ElementTree import Element, ElementTree, ParseError, SubElement, indent

import numpy as np
from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from robpicker_jax.annotations import columns
from robpicker_jax.annotations.format import Format, StandIn
from robpicker_jax.annotations.geometry import euler_from_matrix, matrix_from_euler
from robpicker_jax.annotations.particles import Particles
from robpicker_jax.system.errors import InputError
from robpicker_jax.system.files import atomic_path

_ANGLES = ("Z1", "Z2", "X")  # phi, psi, theta


def read(path: Path, *, class_labels: Mapping[str, int] | None = None) -> Particles:
    """Read a PyTom particle list.

    Args:
        path: the XML file.
        class_labels: label of each class name.

    Raises:
        InputError: not XML, another root element, angles in another order, or a number that is missing or malformed.
    """
    try:
        root = fromstring(path.read_bytes())
    except (ParseError, DefusedXmlException, ValueError, LookupError) as error:
        raise InputError(f"not readable as XML ({error})", where=path) from None
    if root.tag != "ParticleList":
        raise InputError(f"no PyTom list: the root element is <{root.tag[:40]}>, not <ParticleList>", where=path)
    found = root.findall("Particle")
    if not found:
        return Particles.empty()

    def row(i: int) -> str:
        return f"particle {i + 1}"

    def attributes(tag: str, name: str) -> list[str | None]:
        return [None if (child := element.find(tag)) is None else child.get(name) for element in found]

    def numbers(tag: str, name: str, default: str) -> np.ndarray:
        cells = [default if cell is None else cell for cell in attributes(tag, name)]
        return columns.floats(cells, f"{name} of {tag}", path, row)

    for i, order in enumerate(attributes("Rotation", "Paradigm")):
        if order not in (None, "ZXZ"):
            raise InputError(f"{row(i)}: angles in the order {order}, not ZXZ", where=path)
    positions = [numbers("PickPosition", axis, "") + numbers("Shift", axis, "0") for axis in "XYZ"]
    angles = [columns.optional_floats(attributes("Rotation", name), name, path, row) for name in _ANGLES]
    scores = columns.optional_floats(attributes("Score", "Value"), "Value of Score", path, row)
    origins = attributes("PickPosition", "Origin")
    classes = [name or "" for name in attributes("Class", "Name")]
    numbered = all(name.isdecimal() or not name for name in classes)
    labels = [int(name or 0) if numbered else (class_labels or {}).get(name, 0) for name in classes]
    files = [element.get("Filename") for element in found]
    return Particles(
        np.stack(positions, axis=1),
        columns.integers(labels, "Name of Class", path, row),
        rotations=None if np.isnan(angles).all() else matrix_from_euler(np.stack(angles, axis=1), "deepfinder"),
        scores=None if np.isnan(scores).all() else scores,
        class_names=None if numbered else classes,
        tomograms=[name or "" for name in origins] if any(origins) else None,
        extra={"Filename": [name or "" for name in files]} if any(files) else {},
    )


def write(path: Path, particles: Particles) -> None:
    """Write a PyTom list; classes go by their labels, scores as FLCF scores, orientations not known as zero angles."""
    root = Element("ParticleList")
    angles = None if particles.rotations is None else euler_from_matrix(particles.rotations, "deepfinder")
    files = particles.extra.get("Filename")
    for i, position in enumerate(particles.positions_vox):
        name = f"particle_{i}.em" if files is None else str(files[i])
        particle = SubElement(root, "Particle", {"Filename": columns.xml_text(name)})
        known = angles is not None and np.isfinite(angles[i]).all()
        turns = angles[i] if angles is not None and known else np.zeros(3)
        turned = {axis: columns.number(round(float(a), 6)) for axis, a in zip(_ANGLES, turns, strict=True)}
        SubElement(particle, "Rotation", {**turned, "Paradigm": "ZXZ"})
        SubElement(particle, "Shift", dict.fromkeys("XYZ", "0.0"))
        place = {axis: columns.number(value) for axis, value in zip("XYZ", position, strict=True)}
        if particles.tomograms is not None:
            place["Origin"] = columns.xml_text(str(particles.tomograms[i]))
        SubElement(particle, "PickPosition", place)
        if particles.scores is not None and np.isfinite(particles.scores[i]):
            value = columns.number(particles.scores[i])
            SubElement(particle, "Score", {"Type": "FLCFScore", "RemoveAutocorrelation": "False", "Value": value})
        SubElement(particle, "Class", {"Name": str(particles.labels[i])})
    indent(root)
    with atomic_path(path) as temporary:
        ElementTree(root).write(temporary, encoding="utf-8", xml_declaration=True)


FORMAT = Format(
    name="pytom",
    title="PyTom particle list",
    suffixes=(".xml",),
    read=read,
    write=write,
    keeps=frozenset({"labels", "rotations", "scores", "tomograms"}),
    recognises=lambda start: b"<ParticleList" in start,
    stands_in=(StandIn("rotations", "0 0 0"),),
)
