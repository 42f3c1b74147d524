"""What `average` reads before it averages: headers, classes, references; and the lists that it writes."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from robpicker_jax.annotations import Particles, write_annotations
from robpicker_jax.annotations.conversion import by_tomogram
from robpicker_jax.annotations.names import NameRule, plain_name
from robpicker_jax.annotations.numbering import own_key, write_key
from robpicker_jax.annotations.registry import format_of
from robpicker_jax.averaging import AveragingSettings, Source, Transfer, gather
from robpicker_jax.averaging.extraction import in_box
from robpicker_jax.averaging.job import ClassJob, contrast_sign, peak_bytes
from robpicker_jax.averaging.particle_set import without_repeats
from robpicker_jax.averaging.settings import default_edge
from robpicker_jax.commands.averaging_lists import read_picks
from robpicker_jax.commands.optics_arguments import tilt_scheme, transfer_of
from robpicker_jax.commands.radii import in_voxels
from robpicker_jax.config import Config, load_config
from robpicker_jax.datasets import agreed_voxel_size, tomograms_from
from robpicker_jax.datasets.stamps import content_stamp
from robpicker_jax.molecules.densities import density_from_map
from robpicker_jax.molecules.phantoms import PHANTOMS
from robpicker_jax.reporting.page import file_name
from robpicker_jax.rotations import point_group, rotation_count
from robpicker_jax.system.errors import InputError, located
from robpicker_jax.system.files import allow_many_open_files
from robpicker_jax.system.notes import gathered_notes
from robpicker_jax.volumes import VolumeReader, open_volume, read_volume

_BALL_OVER_SPHERE = 1.5  # radius of the ball that holds a particle over the species' radius for sphere labels
_FEWEST = 4  # particles of a class: two in each half


@dataclass(frozen=True, eq=False)
class ClassInputs:
    """One class.

    Attributes:
        job: what is to be averaged.
        label: its class label.
        left_out: particles whose boxes reach too far over the edge.
        repeated: picks nearer than half a radius to one of a better score, left out too.
    """

    job: ClassJob
    label: int
    left_out: int
    repeated: int


@dataclass(frozen=True, eq=False)
class AveragingInputs:
    """All classes and tomograms.

    Attributes:
        classes: those that have particles.
        sources: the tomograms.
        voxel_size_angstrom: of them.
        peak_bytes: memory that averaging takes at most.
    """

    classes: Sequence[ClassInputs]
    sources: Sequence[Source]
    voxel_size_angstrom: float
    peak_bytes: int

    @property
    def shapes_zyx(self) -> dict[str, tuple[int, int, int]]:
        """Size of each tomogram by its name."""
        return {source.name: source.reader.shape_zyx for source in self.sources}


def read_inputs(options: Namespace, overrides: Sequence[str]) -> AveragingInputs:
    """Read headers and lists, and plan the averages.

    Raises:
        InputError: whatever is wrong with them, or with the options that concern them.
    """
    config = load_config(options.config, list(overrides))
    has_species = options.config is not None or any(text.startswith("data.species") for text in overrides)
    sources, voxel_size = _sources(options, config)
    lists, names = read_picks(options, config, sources, voxel_size, has_species)
    for entry in options.only or ():
        if entry not in names:
            raise InputError(f"no class {entry!r}", where="--class", fix=f"the lists name {', '.join(names)}")
    radii = _radii(options, config, names, has_species, voxel_size)
    references = _by_class(options.reference, names, "--reference")
    symmetries = _by_class(options.symmetry, names, "--symmetry")
    classes = []
    for label, name in enumerate(names, start=1):
        listed = [part.select(part.labels == label) for part in lists]
        if (options.only and name not in options.only) or not sum(map(len, listed)):
            continue
        settings = _settings(options, radii[label - 1], symmetries.get(name, "C1"), _weight(config, label, has_species))
        chosen = [without_repeats(part, settings.radius_vox / 2) for part in listed]
        repeated = sum(map(len, listed)) - sum(map(len, chosen))
        particles, left_out = gather(chosen, list(sources), settings.edge, seed=options.seed)
        if len(particles) < _FEWEST:
            raise InputError(
                f"{len(particles)} particles of {name} to average, {left_out} left out at the edge, "
                f"{repeated} as repeats of others",
                where="--picks",
                fix=f"give at least {_FEWEST}, or another --class",
            )
        sign = {"bright": 1.0, "dark": -1.0}.get(options.contrast) or contrast_sign(
            sources, particles, settings.edge, settings.radius_vox
        )
        all_oriented = bool(particles.oriented.all())
        reference = None
        if name in references:
            reference = _reference(Path(references[name]), settings.edge, voxel_size)
        first = options.search
        if first == "auto":
            first = "local" if all_oriented else "global"
        if settings.iterations and reference is None and not all_oriented:
            raise InputError(
                f"{int((~particles.oriented).sum())} of {len(particles)} picks of {name} have no orientation, and there "
                "is nothing to align them to",
                where="--picks",
                fix="give --reference MAP, or lists with orientations",
            )
        settings = AveragingSettings(**{**settings.as_dict(), "sign": sign, "first": first})
        job = ClassJob(name, options.out / file_name(name), sources, particles, settings, voxel_size, reference)
        classes.append(ClassInputs(job, label, left_out, repeated))
    if not classes:
        raise InputError("no particle of any class to average", where="--picks")
    return AveragingInputs(classes, sources, voxel_size, _peak(classes, sources))


def _peak(classes: Sequence[ClassInputs], sources: Sequence[Source]) -> int:
    most = 0
    for entry in classes:
        settings = entry.job.settings
        searches = settings.first == "global" and settings.iterations
        most = max(most, peak_bytes(settings, rotation_count(settings.angle_step_deg) if searches else 0))
    return most + sum(source.reader.resident_bytes for source in sources)


def _sources(options: Namespace, config: Config) -> tuple[list[Source], float]:
    """The tomograms, opened, and their voxel size."""
    rule = NameRule.of(config.data.name_pattern, "data.name_pattern")
    readers: dict[str, VolumeReader] = {}
    allow_many_open_files()
    for files in tomograms_from(options.tomo, annotations=False):
        name = rule.written(files.name)
        if name in readers:
            raise InputError(f"a second tomogram {name!r}", where=files.volume_path, fix="leave one of them out")
        readers[name] = open_volume(files.volume_path)
    voxel_size = agreed_voxel_size(readers.values(), options.voxel_size or config.data.voxel_size_angstrom)
    if voxel_size is None:
        raise InputError("no header gives the voxel size", where="--tomo", fix="give --voxel-size")
    ctf, limits = transfer_of(options), (options.tilts[0], options.tilts[1])
    with located("--tilts"):
        transfer = Transfer(*limits, ctf=ctf)
    scheme = tilt_scheme(options, limits, None)  # a CTF does without a step
    transfer = replace(transfer, tilts=scheme)
    stamped = [(name, reader, content_stamp(reader.path)) for name, reader in readers.items()]
    return [Source(name, reader, transfer, stamp) for name, reader, stamp in stamped], voxel_size


def _radii(
    options: Namespace, config: Config, names: Sequence[str], has_species: bool, voxel_size: float
) -> list[float]:
    where = "--radii" if options.radii_angstrom is None else "--radii-angstrom"
    given = in_voxels(options.radii, options.radii_angstrom, voxel_size)
    if given is not None:
        radii = given * len(names) if len(given) == 1 else given
    elif has_species:
        radii = [_BALL_OVER_SPHERE * entry.radius_vox for entry in config.data.species]
    else:
        raise InputError("the particles' radius is not known", fix="give --radii-angstrom, or a --config")
    if len(radii) != len(names):
        raise InputError(f"{len(radii)} radii for {len(names)} classes", where=where, fix="give one for each")
    return radii


def _weight(config: Config, label: int, has_species: bool) -> float | None:
    """Molecular weight of a class in kDa; None where it is not known."""
    if not has_species:
        return None
    species = config.data.species[label - 1]
    if species.phantom in PHANTOMS:
        return float(PHANTOMS[species.phantom].molecular_weight_kda)
    return species.molecular_weight_kda


def _settings(options: Namespace, radius: float, symmetry: str, weight: float | None) -> AveragingSettings:
    with located("--symmetry"):
        point_group(symmetry)
    if options.search == "global" or options.reference:
        with located("--angle-step"):
            rotation_count(options.angle_step)
    edge = options.box or default_edge(radius)
    if edge < 2 * radius:
        raise InputError(f"a box of {edge} does not hold a particle of radius {radius:g}", where="--box")
    return AveragingSettings(
        edge=edge,
        radius_vox=radius,
        iterations=options.iterations,
        angle_step_deg=options.angle_step,
        local_angle_deg=options.local_angle,
        shift_limit_vox=options.shift,
        start_resolution_angstrom=options.start_resolution,
        keep=options.keep,
        symmetry=symmetry.upper(),
        wiener=options.wiener,
        mask_threshold=options.mask_threshold,
        dilation_vox=options.dilation,
        soft_edge_vox=options.soft_edge,
        molecular_weight_kda=weight,
        seed=options.seed,
        batch=options.batch,
    )


def _by_class(texts: Sequence[str], names: Sequence[str], flag: str) -> dict[str, str]:
    """`VALUE` for all classes, `CLASS=VALUE` for one; later ones win."""
    found: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if equals and name in names:
            found[name] = value
        elif equals and not Path(text).exists():
            raise InputError(f"no class {name!r}", where=f"{flag} {text}", fix=f"classes: {', '.join(names)}")
        else:
            found.update(dict.fromkeys(names, text))
    return found


def _reference(path: Path, edge: int, voxel_size: float) -> np.ndarray:
    """A map on the tomograms' grid in a box, particle bright, its voxel size // 2 in the middle."""
    volume = read_volume(path)
    density = density_from_map(volume.data, volume.voxel_size_angstrom or voxel_size, voxel_size, where=path)
    return in_box(density, edge)


def list_files(folder: Path, formats: Sequence[str] | None, inputs: AveragingInputs) -> list[Path]:
    """The files that `write_lists` may write."""
    found = []
    for name in formats or ("star",):
        target = format_of(Path("particles"), name, "write")
        stems = ["particles", *(f"particles_{plain_name(source.name)}" for source in inputs.sources)]
        paths = [folder / f"{stem}{target.suffixes[0]}" for stem in stems]
        found += paths + ([own_key(path) for path in paths] if target.numbered else [])
    return found


def write_lists(
    folder: Path, particles: Particles, formats: Sequence[str] | None, inputs: AveragingInputs
) -> list[Path]:
    """The particles of one class in each format: one list, or one for each tomogram where the format needs that."""
    written = []
    for name in formats or ("star",):
        target = format_of(Path("particles"), name, "write")
        if target.tells_tomograms_apart or len(inputs.sources) == 1:
            parts = {folder / f"particles{target.suffixes[0]}": particles}
        else:
            split = by_tomogram(particles, folder)
            parts = {folder / f"particles_{key}{target.suffixes[0]}": part for key, part in split.items()}
        for path, part in parts.items():
            _write(path, part, target.name, inputs)
            write_key(target, path, part.tomograms)
            written.append(path)
    return written


def write_tomogram_lists(folder: Path, particles: Particles, inputs: AveragingInputs) -> list[Path]:
    """{tomogram}_objl.xml of all classes; the particles that were averaged."""
    kept = particles.select(particles.extra["rpkAveraged"] == 1)
    written = []
    for name, part in by_tomogram(kept, folder).items():
        bare = part.with_(tomograms=None, extra={})
        written.append(folder / f"{name}_objl.xml")
        _write(written[-1], bare, "xml", inputs)
    return written


def _write(path: Path, particles: Particles, fmt: str, inputs: AveragingInputs) -> None:
    shapes = inputs.shapes_zyx
    context: dict[str, Any] = {"voxel_size_angstrom": inputs.voxel_size_angstrom}
    if len(set(shapes.values())) == 1:
        context["shape_zyx"] = next(iter(shapes.values()))
    with gathered_notes():
        write_annotations(path, particles, fmt=fmt, shapes_zyx=shapes, **context)
