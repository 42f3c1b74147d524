"""Particle lists from one format to another: what the target loses, and what had to be assumed of the source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from robpicker_jax.annotations import Particles, read_annotations
from robpicker_jax.annotations.format import Assumption, Format
from robpicker_jax.annotations.names import plain_names
from robpicker_jax.annotations.numbering import KEY_SUFFIX, needs_key
from robpicker_jax.annotations.registry import format_of
from robpicker_jax.system.errors import InputError, located
from robpicker_jax.system.notes import gathered_notes

_COLUMNS = {
    "labels": "class labels",
    "class_names": "class names",
    "rotations": "orientations",
    "scores": "scores",
    "cluster_sizes": "cluster sizes",
    "tomograms": "tomogram names",
}


@dataclass(frozen=True)
class Column:
    """What becomes of one column.

    Attributes:
        name: as a user calls it.
        count: particles that have a value in it.
        kept: whether the target format keeps it, or states the same anew.
        note: how.
        anew: whether the new list states it itself, whatever the column held.
    """

    name: str
    count: int
    kept: bool
    note: str = ""
    anew: bool = False


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
        fmt: format, by default recognised by suffix and first lines.
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
    """Which of the format's assumptions hold for this list: those that an option not given could still change."""
    given = {name for name, value in options.items() if value is not None}
    voxel_size = options.get("voxel_size_angstrom")

    def positions(**changes: Any) -> np.ndarray | None:
        try:
            with gathered_notes():  # of a reading that is only tried
                return read_annotations(path, fmt=fmt.name, **{**options, **changes}).positions_vox
        except InputError:
            return None

    def differs(assumed: Assumption) -> bool:
        other = positions(**{assumed.option: assumed.alternative})
        if other is None and voxel_size is None:  # an alternative in Å, which cannot be read without a voxel size
            other = positions(**{assumed.option: assumed.alternative, "voxel_size_angstrom": 2.0})
        return other is not None and not _close(other, particles.positions_vox)

    def is_default(assumed: Assumption) -> bool:
        if not _close(positions(**{assumed.option: assumed.value}), particles.positions_vox):
            return False
        if voxel_size is None:
            return True
        # Where the file states a length that happens to equal the voxel size, the assumption seems to hold by chance.
        # It is therefore tried at another voxel size too.
        doubled: dict[str, Any] = {"voxel_size_angstrom": 2 * voxel_size}
        return _close(positions(**{assumed.option: assumed.value}, **doubled), positions(**doubled))

    return [
        f"{assumed.statement} (--from-option {assumed.otherwise})"
        for assumed in fmt.assumptions
        if not {assumed.option, assumed.settled_by} & given and differs(assumed) and is_default(assumed)
    ]


def _close(one: np.ndarray | None, other: np.ndarray | None) -> bool:
    return one is not None and other is not None and one.shape == other.shape and bool(np.allclose(one, other))


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


def joined(sources: Sequence[Source], classes: Sequence[str], class_labels: Mapping[str, int] | None) -> Source:
    """Several lists as one, with the classes of those that name none.

    Args:
        sources: the lists as read.
        classes: class of the particles of each list, or one for all of them; none where the lists say it.
        class_labels: label of each class; by default the classes are numbered from 1 in their order.

    Raises:
        InputError: another number of classes than of lists, a class without a label, or a class for a list that names its
            own.
    """
    if classes and len(classes) not in (1, len(sources)):
        raise InputError(
            f"{len(classes)} classes for {len(sources)} lists", where="--class", fix="give one for each IN"
        )
    labels = class_labels or {name: k for k, name in enumerate(dict.fromkeys(classes), start=1)}
    if classes and (unknown := [name for name in classes if name not in labels]):
        raise InputError(f"{unknown[0]!r} is not among --class-labels", where="--class")
    parts, unsaid = [], []
    for index, source in enumerate(sources):
        part, n = source.particles, len(source.particles)
        bare = not part.labels.any() and not _filled(part.class_names)
        name = classes[index % len(classes)] if classes else next(iter(labels)) if len(labels) == 1 else None
        if n and classes and not bare:
            raise InputError("the list names classes itself", where=source.path, fix="leave --class out")
        if n and bare and name is None and labels:
            which = "|".join(labels)
            unsaid.append(f"{source.path.name} names no class, and --class-labels none for it (--class {which})")
        if bare and name is not None:
            part = part.with_(labels=np.full(n, labels[name]), class_names=np.full(n, name))
        parts.append(part)
    if len(sources) == 1:
        return replace(sources[0], particles=parts[0], assumptions=(*sources[0].assumptions, *unsaid))
    assumed = [f"{source.path.name}: {sentence}" for source in sources for sentence in source.assumptions]
    return replace(sources[0], particles=Particles.concatenate(parts), assumptions=(*assumed, *unsaid))


def fate(particles: Particles, target: Format, voxel_size_angstrom: float | None = None) -> list[Column]:
    """What becomes of each column that holds anything, in the target format.

    Args:
        particles: what is written.
        target: the format.
        voxel_size_angstrom: with which it is written, since some formats then state it themselves; None: without.
    """
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
            kept, note = (
                True,
                f"as numbers; a {KEY_SUFFIX} file says which" if needs_key(target, particles.tomograms) else "",
            )
        columns.append(Column(name, counts[key], kept, note))
    for name in particles.extra:
        kept, own = "extra" in target.keeps and target.keeps_column(name), target.renames.get(name)
        restated = None if kept or own is not None else target.restates(name, particles, voxel_size_angstrom)
        shown = own or (restated if restated != name else None)
        note = "" if shown is None else f"as {shown}"
        known = kept or own is not None or restated is not None
        columns.append(Column(f"column {name}", len(particles), known, note, anew=restated is not None))
    note = "single precision" if target.single_precision else ""
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
    if len(names) > 1 and not target.tells_tomograms_apart:
        listed = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
        raise InputError(
            f"particles of {len(names)} tomograms ({listed}), which {target.title} cannot tell apart",
            where=where,
            fix="--split writes one list for each, --select NAME one of them",
        )


def of_class(particles: Particles, name: str) -> Particles:
    """The particles of the class of this name, or else of this label.

    Raises:
        InputError: there are none.
    """
    names, labels = particles.class_names, particles.labels
    chosen = np.zeros(len(particles), bool) if names is None else names == name
    if not chosen.any() and name.isdecimal():
        chosen = labels == int(name)
    if not chosen.any():
        listed = ", ".join(sorted({*map(str, labels.tolist()), *([] if names is None else names.tolist())} - {""})[:8])
        raise InputError(f"no particle of class {name}", fix=f"its classes: {listed or 'none'}")
    return particles.select(chosen)


def by_tomogram(particles: Particles, where: Path) -> dict[str, Particles]:
    """The particles of each tomogram, under names that can be file names.

    Raises:
        InputError: particles without a tomogram's name, or a name that is none for a file.
    """
    if particles.tomograms is None or not _filled(particles.tomograms) == len(particles):
        raise InputError(
            "the list does not name tomograms", where=where, fix="give --tomogram-name, or leave --split out"
        )
    with located(where):
        names = plain_names(particles.tomograms)
    found = {}
    for name in sorted(set(names.tolist())):
        if Path(name).name != name or name in (".", ".."):
            raise InputError(f"tomogram {name!r} gives no file name of its own", where=where, fix="rename it")
        found[name] = particles.select(names == name)
    return found


def parse_class_labels(text: str) -> dict[str, int]:
    """`ribosome=1,proteasome=2`, or names alone for 1, 2, ….

    Raises:
        InputError: malformed, or a name or label given twice.
    """
    result: dict[str, int] = {}
    for position, entry in enumerate(text.split(","), start=1):
        name, equals, number = entry.partition("=")
        if not name.strip() or (equals and not number.strip().isdecimal()):
            raise InputError(
                f"{entry!r} is not NAME=LABEL", where="--class-labels", fix="write ribosome=1,proteasome=2"
            )
        result[name.strip()] = int(number) if equals else position
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
            value = yaml.safe_load(text)
        except (yaml.YAMLError, ValueError):
            raise InputError(f"{text!r} is no value", where=f"{flag} {name}") from None
        # What YAML would rewrite is a name: a day (2024-01-05), or a number with zeros before it (007).
        plain = value is None or isinstance(value, bool | float | str | list | dict)
        kept = plain or (isinstance(value, int) and str(value) == text.strip().lstrip("+"))
        result[name.strip().replace("-", "_")] = value if kept else text.strip()
    return result


def _filled(values: np.ndarray | None) -> int:
    return 0 if values is None else int(np.count_nonzero(values != ""))


def _known(values: np.ndarray | None) -> int:
    return 0 if values is None else int(np.isfinite(values.reshape(len(values), -1)).all(axis=1).sum())
