"""Particle lists from one format to another: what the target loses, and what had to be assumed of the source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from robpicker_jax.annotations import FORMATS, Format, Particles, read_annotations
from robpicker_jax.annotations.numbering import needs_key
from robpicker_jax.annotations.registry import format_of
from robpicker_jax.system.errors import InputError

_COLUMNS = {
    "labels": "class labels",
    "class_names": "class names",
    "rotations": "orientations",
    "scores": "scores",
    "cluster_sizes": "cluster sizes",
    "tomograms": "tomogram names",
}
_SINGLE_PRECISION = {"em", "imod"}


@dataclass(frozen=True)
class Column:
    """What becomes of one column.

    Attributes:
        name: as a user calls it.
        count: particles that have a value in it.
        kept: whether the target format keeps it.
        note: how.
    """

    name: str
    count: int
    kept: bool
    note: str = ""


@dataclass(frozen=True)
class Source:
    """A list as read, and what was assumed because the file does not say.

    Attributes:
        path: the file.
        fmt: its format.
        particles: the particles.
        assumptions: sentences.
    """

    path: Path
    fmt: Format
    particles: Particles
    assumptions: tuple[str, ...] = field(default=())


def read_source(path: Path, fmt: str | None, options: Mapping[str, Any]) -> Source:
    """Read a list, and find out which units its file left open.

    Args:
        path: the file, or a copick project's folder.
        fmt: format, by default told by the file.
        options: options of `read_annotations` and of the format.

    Raises:
        InputError: as `read_annotations`.
    """
    if not path.exists():
        raise InputError("no such file", where=path)
    format_ = format_of(path, fmt)
    particles = read_annotations(path, fmt=format_.name, **options)
    return Source(path, format_, particles, tuple(_assumptions(path, format_, particles, options)))


def _assumptions(path: Path, fmt: Format, particles: Particles, options: Mapping[str, Any]) -> list[str]:
    """Whatever an option could still change although it was not given: told by reading the file with it."""
    known = fmt.arguments("read")
    given = {name for name, value in options.items() if value is not None}

    def depends_on(name: str, value: Any, **more: Any) -> bool:
        if name not in known or name in given:
            return False
        try:
            other = read_annotations(path, fmt=fmt.name, **{**options, name: value, **more})
        except InputError:
            return False
        return len(other) == len(particles) and not np.allclose(other.positions_vox, particles.positions_vox)

    found = []
    scaled = {"pixel_size_angstrom"} & given
    if not scaled and depends_on("binning", 2.0) and _is_unscaled(path, fmt, particles, options):
        found.append("coordinates are taken as voxels of the tomogram (--binning B for pixels B times smaller)")
    if depends_on("unit", "angstrom", voxel_size_angstrom=options.get("voxel_size_angstrom") or 2.0):
        found.append("coordinates are taken as voxels (--from-option unit=angstrom for Å)")
    elif depends_on("unit", "voxel"):
        found.append("coordinates are taken as Å (--from-option unit=voxel for voxels)")
    if depends_on("axes", "zyx"):
        found.append("columns are taken in the order x y z (--from-option axes=zyx for another)")
    if "first_voxel" in known and "first_voxel" not in given:
        first = 1 if fmt.name == "shrec" else 0
        found.append(
            f"the first voxel is taken to count {first} (--from-option first_voxel={1 - first} for {1 - first})"
        )
    if "half_pixel" in known and "half_pixel" not in given:
        found.append(
            "the first voxel's centre is taken to be at 0.5 0.5 0, as in IMOD (--from-option half_pixel=false)"
        )
    if depends_on("centre", "N/2-1"):
        found.append("the centre is taken to be at N/2, as in RELION 5 (--from-option centre=N/2-1)")
    return found


def _is_unscaled(path: Path, fmt: Format, particles: Particles, options: Mapping[str, Any]) -> bool:
    """Whether the positions are the file's numbers, not scaled by a pixel size that the file states."""
    voxel = options.get("voxel_size_angstrom")
    try:
        if voxel is not None:  # a stated pixel size shows even where it equals the voxel's
            coarser = read_annotations(path, fmt=fmt.name, **{**options, "voxel_size_angstrom": 2 * voxel})
            if np.allclose(2 * coarser.positions_vox, particles.positions_vox):
                return False
        plain = read_annotations(path, fmt=fmt.name, **{**options, "binning": 1.0})
    except InputError:
        return False
    return bool(np.allclose(plain.positions_vox, particles.positions_vox))


def named_classes(particles: Particles, class_labels: Mapping[str, int] | None) -> Particles:
    """Names for labels and labels for names, where the list has only one of them."""
    if not class_labels:
        return particles
    names = {label: name for name, label in class_labels.items()}
    labels = particles.labels
    if particles.class_names is not None:
        by_name = np.array([class_labels.get(str(name), 0) for name in particles.class_names], np.int32)
        return particles.with_(labels=np.where(by_name > 0, by_name, labels))
    return particles.with_(class_names=[names.get(int(label), "") for label in labels])


def fate(particles: Particles, target: Format) -> list[Column]:
    """What becomes of each column that holds anything, in the target format."""
    columns = []
    counts = {
        "labels": int(np.count_nonzero(particles.labels)),
        "class_names": _filled(particles.class_names),
        "rotations": _known(particles.rotations),
        "scores": _known(particles.scores),
        "cluster_sizes": 0 if particles.cluster_sizes is None else int(np.count_nonzero(particles.cluster_sizes)),
        "tomograms": _filled(particles.tomograms),
    }
    for key, name in _COLUMNS.items():
        if not counts[key]:
            continue
        kept, note = key in target.keeps, ""
        if not kept and key == "labels" and "class_names" in target.keeps:
            kept, note = True, "by name" if counts["class_names"] else "as the name"
        elif not kept and key == "class_names" and counts["labels"] and "labels" in target.keeps:
            note = "labels remain"
        elif not kept and key == "tomograms" and target.numbered and len(tomogram_names(particles)) > 1:
            kept, note = True, "as numbers; a .doc file says which" if needs_key(particles.tomograms) else ""
        columns.append(Column(name, counts[key], kept, note))
    written = target.function("keeps_column") or (lambda name: True)
    columns += [
        Column(f"column {name}", len(particles), "extra" in target.keeps and written(name)) for name in particles.extra
    ]
    note = "single precision" if target.name in _SINGLE_PRECISION else ""
    return [Column("positions", len(particles), True, note), *columns]


def tomogram_names(particles: Particles) -> list[str]:
    """The tomograms that the particles name."""
    return [] if particles.tomograms is None else sorted(set(particles.tomograms.tolist()))


def check_mixture(particles: Particles, target: Format, where: Path) -> None:
    """Refuse to mix the particles of several tomograms in a format that cannot tell them apart.

    Raises:
        InputError: naming the tomograms and what to do.
    """
    names = tomogram_names(particles)
    if len(names) > 1 and not (target.numbered or "tomograms" in target.keeps):
        listed = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
        raise InputError(
            f"particles of {len(names)} tomograms ({listed}), which {target.title} cannot tell apart",
            where=where,
            fix="--split writes one list for each, --select NAME one of them",
        )


def by_tomogram(particles: Particles, where: Path) -> dict[str, Particles]:
    """The particles of each tomogram, under names that can be file names.

    Raises:
        InputError: particles without a tomogram's name, or a name that is none for a file.
    """
    if particles.tomograms is None or not _filled(particles.tomograms) == len(particles):
        raise InputError(
            "the list does not name tomograms", where=where, fix="give --tomogram-name, or leave --split out"
        )
    found = {}
    for name in sorted(set(particles.tomograms.tolist())):
        plain = Path(name.replace("\\", "/")).name
        if plain in ("", ".", "..") or plain in found:
            raise InputError(f"tomogram {name!r} gives no file name of its own", where=where, fix="rename it")
        found[plain] = particles.select(particles.tomograms == name)
    return found


def parse_class_labels(text: str) -> dict[str, int]:
    """`ribosome=1,proteasome=2`, or names alone for 1, 2, ….

    Raises:
        InputError: malformed, or a name or label given twice.
    """
    result: dict[str, int] = {}
    for place, entry in enumerate(text.split(","), start=1):
        name, equals, number = entry.partition("=")
        if not name.strip() or (equals and not number.strip().isdecimal()):
            raise InputError(
                f"{entry!r} is not NAME=LABEL", where="--class-labels", fix="write ribosome=1,proteasome=2"
            )
        result[name.strip()] = int(number) if equals else place
    if len(result) != text.count(",") + 1 or len(set(result.values())) != len(result) or min(result.values()) < 1:
        raise InputError("names and labels must be unique, labels from 1", where="--class-labels")
    return result


def parse_options(pairs: Sequence[str], flag: str) -> dict[str, Any]:
    """`NAME=VALUE` options of a format; values as YAML has them.

    Raises:
        InputError: malformed.
    """
    import yaml

    result: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals:
            raise InputError(f"{pair!r} is not NAME=VALUE", where=flag)
        try:
            result[name.strip().replace("-", "_")] = yaml.safe_load(text)
        except yaml.YAMLError:
            raise InputError(f"{text!r} is no value", where=f"{flag} {name}") from None
    return result


def formats_table() -> list[tuple[str, str, str, str]]:
    """(name, suffixes, title, options when reading) of every format, for `--help` and the documentation."""
    context = {"voxel_size_angstrom", "shape_zyx", "class_labels"}
    return [
        (f.name, " ".join(f.suffixes), f.title, " ".join(a for a in f.arguments("read") if a not in context))
        for f in FORMATS.values()
    ]


def _filled(values: np.ndarray | None) -> int:
    return 0 if values is None else int(np.count_nonzero(values != ""))


def _known(values: np.ndarray | None) -> int:
    return 0 if values is None else int(np.isfinite(values.reshape(len(values), -1)).all(axis=1).sum())
