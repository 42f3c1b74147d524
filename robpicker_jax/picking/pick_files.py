"""Files of picks: one list for each tomogram, or one for all of them, in any format, checked beforehand."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from robpicker_jax.annotations import FORMATS, Particles, write_annotations
from robpicker_jax.annotations.numbering import own_key, write_key
from robpicker_jax.annotations.registry import checked_options, written_files
from robpicker_jax.system.errors import InputError
from robpicker_jax.volumes import NO_ORIGIN, Origin

PICK_FORMATS = ("xml", "star", "csv")
"""Formats that picks are written in unless others are asked for."""

TOGETHER = "picks"
_LENGTH_TOLERANCE = 0.01


@dataclass(frozen=True)
class PickTarget:
    """The tomogram that picks are written for.

    Attributes:
        name: the tomogram's name, as lists carry it.
        shape_zyx: its size, voxels.
        voxel_size_angstrom: edge of a voxel in Å, None where it is not known.
        origin_angstrom: where viewers place the first voxel, x y z in Å.
    """

    name: str
    shape_zyx: tuple[int, int, int]
    voxel_size_angstrom: float | None = None
    origin_angstrom: Origin = NO_ORIGIN


@dataclass(frozen=True)
class PickFiles:
    """How picks are written.

    Attributes:
        folder: where they go.
        formats: names of the formats.
        together: whether all tomograms' picks go into one file of each format, `folder/picks.SUFFIX`.
        options: further options of the formats (`binning`, `first_voxel` …); each goes to the formats that know it.
    """

    folder: Path
    formats: Sequence[str]
    together: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)

    def written_name(self, class_name: str) -> str:
        """What a class is called in the lists."""
        return class_name

    def check(self, targets: Sequence[PickTarget]) -> None:
        """Refuse, before anything is picked, what could not be written.

        Raises:
            InputError: an unknown format or option; two tomograms of one name; a format that needs a voxel size, and it
                is not known; together, a format that cannot tell tomograms apart, or lengths in one file that mean different
                things; whatever the format itself refuses, such as a tomogram that is not in its tomograms table.
        """
        for fmt in self.formats:
            if fmt not in FORMATS:
                raise InputError(f"unknown format {fmt!r}", where="--format", fix=f"one of {', '.join(FORMATS)}")
        for name in self.options:
            takers = [fmt for fmt in self.formats if name in FORMATS[fmt].writing_options]
            if not takers:
                known = {known for fmt in self.formats for known in FORMATS[fmt].writing_options}
                listed = ", ".join(sorted(known)) or "none"
                raise InputError(
                    f"{', '.join(self.formats)} has no option {name!r}",
                    where="--format-option",
                    fix=f"known: {listed}",
                )
            checked_options(FORMATS[takers[0]], "write", {name: self.options[name]}, where="--format-option")
        seen: set[str] = set()
        for target in targets:
            if target.name in seen:
                raise InputError(
                    f"two tomograms are called {target.name}; their picks would have one name",
                    where=self.folder,
                    fix="rename one, or pick them into different folders",
                )
            seen.add(target.name)
        for fmt in self.formats:
            self._check_format(fmt, targets)
        if targets:
            self._rehearse(targets)

    def _check_format(self, fmt: str, targets: Sequence[PickTarget]) -> None:
        format_ = FORMATS[fmt]
        unknown = [target.name for target in targets if target.voxel_size_angstrom is None]
        if format_.needs_voxel_size and unknown:
            raise InputError(
                f"{format_.title} is in Å, and the voxel size is not known of {unknown[0]}",
                where="--format",
                fix="give --data.voxel_size_angstrom",
            )
        if not self.together:
            return
        if not format_.tells_tomograms_apart:
            able = [name for name, other in FORMATS.items() if other.tells_tomograms_apart]
            raise InputError(
                f"{format_.title} cannot tell tomograms apart in one file",
                where="--together",
                fix=f"leave it out, or choose a format that names them: {', '.join(able)}",
            )
        sizes = [target.voxel_size_angstrom for target in targets if target.voxel_size_angstrom is not None]
        mixed = bool(sizes) and (bool(unknown) or max(sizes) > min(sizes) * (1 + _LENGTH_TOLERANCE))
        if mixed and "voxel_size_angstrom" in format_.arguments("write"):
            listed = "known and unknown" if unknown else f"different ({min(sizes):.4g} to {max(sizes):.4g} Å)"
            raise InputError(
                f"tomograms of {listed} voxel sizes in one file of {format_.title}",
                where="--together",
                fix="pick those of one voxel size at a time",
            )

    def _rehearse(self, targets: Sequence[PickTarget]) -> None:
        """Write one invented pick of each tomogram into a folder that is thrown away.

        Names and options are only resolved by the writers themselves, and inference is too long to find out after it.
        """
        n = len(targets)
        picks = Particles(
            np.zeros((n, 3)),
            np.ones(n, np.int32),
            scores=np.ones(n),
            cluster_sizes=np.ones(n, np.int64),
            class_names=np.full(n, "particle"),
            tomograms=np.array([target.name for target in targets]),
        )
        shapes = {target.name: target.shape_zyx for target in targets}
        known = [target.voxel_size_angstrom for target in targets if target.voxel_size_angstrom is not None]
        with tempfile.TemporaryDirectory() as folder:
            trial = replace(self, folder=Path(folder))
            for fmt, path in trial._paths(TOGETHER).items():
                voxel_size = known[0] if known else None
                try:
                    if FORMATS[fmt].tells_tomograms_apart:
                        trial._write(fmt, path, picks, voxel_size, shapes_zyx=shapes)
                    else:
                        trial._write(fmt, path, picks.select([0]), voxel_size, targets[0].shape_zyx)
                except InputError as error:
                    inside = str(error.where).startswith(folder)
                    raise InputError(error.what, where="--format" if inside else error.where, fix=error.fix) from None

    def outputs(self, target: PickTarget, class_names: Sequence[str]) -> list[Path]:
        """The files that `write` may write for a tomogram.

        Args:
            target: the tomogram.
            class_names: name of class 1, 2, ….
        """
        return self._files(target.name, class_names, [target])

    def outputs_together(self, targets: Sequence[PickTarget], class_names: Sequence[str]) -> list[Path]:
        """The files that `write_together` may write."""
        files = self._files(TOGETHER, class_names, targets)
        keys = [own_key(path) for fmt, path in self._paths(TOGETHER).items() if FORMATS[fmt].numbered]
        return files + keys

    def _files(self, stem: str, class_names: Sequence[str], targets: Sequence[PickTarget]) -> list[Path]:
        """The files of a pick of each class in each tomogram, and of no picks at all."""
        count = len(class_names)
        picks = Particles(
            np.zeros((count * len(targets), 3)),
            np.tile(np.arange(1, count + 1, dtype=np.int32), len(targets)),
            class_names=np.tile(np.array(class_names, dtype=np.str_), len(targets)),
            tomograms=np.repeat(np.array([target.name for target in targets], dtype=np.str_), count),
        )
        found = self._written(stem, picks) + self._written(stem, picks.select([]))
        return list(dict.fromkeys(found))

    def _written(self, stem: str, picks: Particles) -> list[Path]:
        """The files that these picks fill."""
        return [
            file
            for fmt, path in self._paths(stem).items()
            for file in written_files(FORMATS[fmt], path, picks, self.options)
        ]

    def _remove_outdated(self, earlier: Sequence[Path], stem: str, picks: Particles) -> None:
        """Remove earlier files that these picks do not fill, such as that of a class which has no picks any more."""
        filled = set(self._written(stem, picks))
        for file in earlier:
            if file not in filled:
                file.unlink(missing_ok=True)

    def write(self, target: PickTarget, picks: Particles, earlier: Sequence[Path] = ()) -> list[Path]:
        """Write the picks of one tomogram as `folder/name.SUFFIX`, in each of the formats.

        Where two of the formats share a suffix, the second file is `folder/name_FORMAT.SUFFIX`. Formats whose
        lists are folders get `folder/name_FORMAT`. Of the files `earlier` those that these picks do not fill are removed.
        """
        named = picks.with_(tomograms=np.full(len(picks), target.name))
        self._remove_outdated(earlier, target.name, named)
        return [
            self._write(
                fmt, path, named, target.voxel_size_angstrom, target.shape_zyx, origin_angstrom=target.origin_angstrom
            )
            for fmt, path in self._paths(target.name).items()
        ]

    def write_together(
        self, picked: Sequence[tuple[PickTarget, Particles]], earlier: Sequence[Path] = ()
    ) -> list[Path]:
        """Write the picks of all tomograms as `folder/picks.SUFFIX`, in each of the formats.

        Formats that number tomograms get `picks_tomograms.doc` beside them, which says which number is which.
        Of the files `earlier` those that these picks do not fill are removed.
        """
        named = [picks.with_(tomograms=np.full(len(picks), target.name)) for target, picks in picked]
        everything = Particles.concatenate(named)
        self._remove_outdated(earlier, TOGETHER, everything)
        shapes = {target.name: target.shape_zyx for target, _ in picked}
        sizes = [target.voxel_size_angstrom for target, _ in picked if target.voxel_size_angstrom is not None]
        paths = []
        for fmt, path in self._paths(TOGETHER).items():
            paths.append(self._write(fmt, path, everything, sizes[0] if sizes else None, shapes_zyx=shapes))
            key = write_key(FORMATS[fmt], path, everything.tomograms)
            paths += [] if key is None else [key]
        return paths

    def _paths(self, stem: str) -> dict[str, Path]:
        found: dict[str, Path] = {}
        for fmt in dict.fromkeys(self.formats):
            path = self.folder / FORMATS[fmt].file_name(stem)
            if path in found.values():
                path = path.with_name(f"{stem}_{fmt}{path.suffix}")
            found[fmt] = path
        return found

    def _write(
        self,
        fmt: str,
        path: Path,
        picks: Particles,
        voxel_size_angstrom: float | None,
        shape_zyx: tuple[int, int, int] | None = None,
        shapes_zyx: Mapping[str, tuple[int, int, int]] | None = None,
        origin_angstrom: Origin | None = None,
    ) -> Path:
        self.folder.mkdir(parents=True, exist_ok=True)
        known = FORMATS[fmt].writing_options
        write_annotations(
            path,
            picks,
            fmt=fmt,
            voxel_size_angstrom=voxel_size_angstrom,
            shape_zyx=shape_zyx,
            shapes_zyx=shapes_zyx,
            volume_origin_angstrom=origin_angstrom,
            **{name: value for name, value in self.options.items() if name in known},
        )
        return path
