"""DeepFinder's XML object list, the format of RobPicker's own data: one `<object>` a particle.

Attributes: `x y z` in voxels (centre of voxel 0 at 0.0), `class_label`, and where known `tomo_idx` (or `tomo_name`),
`obj_id`, `phi psi the` (degrees, TOM ZXZ convention), `cluster_size` (voxels), `score`, `class_name`. Any other
attribute is kept as an extra column and written back.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from xml.etree.ElementTree import Element, ElementTree, ParseError, SubElement, indent

import numpy as np
from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from robpicker_jax.annotations import columns
from robpicker_jax.annotations.format import ALL_COLUMNS, Format
from robpicker_jax.annotations.geometry import euler_from_matrix, matrix_from_euler
from robpicker_jax.annotations.particles import Particles
from robpicker_jax.system.errors import InputError
from robpicker_jax.system.files import atomic_path

_ANGLES = ("phi", "psi", "the")
_KNOWN = {"x", "y", "z", "class_label", "tomo_idx", "tomo_name", "cluster_size", "score", "class_name", *_ANGLES}


def read(path: Path, *, class_labels: Mapping[str, int] | None = None) -> Particles:
    """Read a DeepFinder object list.

    Args:
        path: the XML file.
        class_labels: label of each class name, for each object that has a `class_name` and no `class_label`.

    Raises:
        InputError: not XML, entities or external references, a missing attribute, a value that is no number; the
            message names the file and the object's number, counted from 1.
    """
    try:
        root = fromstring(path.read_bytes())
    except (ParseError, DefusedXmlException, ValueError, LookupError) as error:
        if path.stat().st_size == 0:
            raise InputError("the file is empty", where=path) from None
        raise InputError(f"not readable as XML ({error})", where=path) from None
    objects = root.findall("object") if root.tag == "objlist" else list(root.iter("object"))
    if not objects and root.tag != "objlist":
        raise InputError(f"no object list: the root element is <{root.tag[:40]}>, not <objlist>", where=path)
    attributes = [element.attrib for element in objects]
    if not attributes:
        return Particles.empty()

    def row(i: int) -> str:
        return f"object {i + 1}"

    def required(name: str) -> list[str]:
        for i, attribute in enumerate(attributes):
            if name not in attribute:
                raise InputError(f"{row(i)} has no attribute {name!r}", where=path)
        return [attribute[name] for attribute in attributes]

    def optional(name: str) -> list[str | None] | None:
        return [a.get(name) for a in attributes] if any(name in a for a in attributes) else None

    positions = np.stack([columns.floats(required(axis), axis, path, row) for axis in "xyz"], axis=1)
    names = optional("class_name")
    for i, attribute in enumerate(attributes):
        if "class_label" not in attribute and "class_name" not in attribute:
            raise InputError(f"{row(i)} has no attribute 'class_label'", where=path)
    labels = columns.optional_labels([a.get("class_label") for a in attributes], "class_label", path, row)
    if names is not None:
        labels = columns.labels_by_name(labels, names, class_labels)
    angles = [optional(name) for name in _ANGLES]
    rotations = None
    if any(values is not None for values in angles):
        filled = [values if values is not None else [None] * len(attributes) for values in angles]
        rotations = matrix_from_euler(
            np.stack([columns.optional_floats(v, n, path, row) for n, v in zip(_ANGLES, filled, strict=True)], axis=1),
            "deepfinder",
        )
    sizes, scores = optional("cluster_size"), optional("score")
    tomograms = optional("tomo_idx") or optional("tomo_name")
    extra_names = dict.fromkeys(name for attribute in attributes for name in attribute if name not in _KNOWN)
    return Particles(
        positions,
        labels,
        rotations=rotations,
        scores=None if scores is None else columns.optional_floats(scores, "score", path, row),
        cluster_sizes=None if sizes is None else columns.optional_labels(sizes, "cluster_size", path, row),
        class_names=None if names is None else np.array([name or "" for name in names]),
        tomograms=None if tomograms is None else np.array([name or "" for name in tomograms]),
        extra={name: columns.typed([a.get(name) for a in attributes]) for name in extra_names},
    )


def write(path: Path, particles: Particles) -> None:
    """Write a DeepFinder object list; columns the particles lack are left out."""
    root = Element("objlist")
    angles = None if particles.rotations is None else euler_from_matrix(particles.rotations, "deepfinder")
    extra = {name: values for name, values in particles.extra.items() if re.fullmatch(r"[A-Za-z_][\w.-]*", name)}
    for i in range(len(particles)):
        attributes: dict[str, str] = {}
        if particles.tomograms is not None:
            attributes["tomo_idx"] = str(particles.tomograms[i])
        if "obj_id" in extra:
            attributes["obj_id"] = columns.cell(extra["obj_id"][i])
        attributes["class_label"] = str(particles.labels[i])
        if particles.class_names is not None:
            attributes["class_name"] = str(particles.class_names[i])
        for axis, value in zip("xyz", particles.positions_vox[i], strict=True):
            attributes[axis] = columns.number(value)
        if angles is not None and np.isfinite(angles[i]).all():
            attributes.update({n: columns.number(round(float(a), 6)) for n, a in zip(_ANGLES, angles[i], strict=True)})
        if particles.cluster_sizes is not None:
            attributes["cluster_size"] = str(particles.cluster_sizes[i])
        if particles.scores is not None and np.isfinite(particles.scores[i]):
            attributes["score"] = columns.number(particles.scores[i])
        for name, values in extra.items():
            if (text := columns.cell(values[i])) and name not in attributes:
                attributes[name] = text
        SubElement(root, "object", {name: columns.xml_text(text) for name, text in attributes.items()})
    indent(root)
    with atomic_path(path) as temporary:
        ElementTree(root).write(temporary, encoding="utf-8", xml_declaration=True)


FORMAT = Format(
    name="xml",
    title="DeepFinder object list",
    suffixes=(".xml",),
    read=read,
    write=write,
    keeps=ALL_COLUMNS,
)
