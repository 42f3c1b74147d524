"""What an audit writes: the ranked table, lists for review, and the cleaned lists in the format of their sources."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from robpicker_jax.annotations import Particles, read_annotations, write_annotations
from robpicker_jax.annotations.options import options_for
from robpicker_jax.annotations.registry import FORMATS, format_of
from robpicker_jax.auditing.cleaning import cleaned, suspected
from robpicker_jax.auditing.scoring import KINDS
from robpicker_jax.config import DataConfig
from robpicker_jax.datasets import TomogramFiles
from robpicker_jax.datasets.pairing import SHARED_LIST
from robpicker_jax.system.errors import InputError
from robpicker_jax.system.files import write_text
from robpicker_jax.system.notes import gathered_notes
from robpicker_jax.volumes import NO_ORIGIN, Origin

TABLE, GALLERY, REVIEW, CLEANED, CHANGES = "audit.csv", "index.html", "review", "cleaned", "changes.json"
PAGE = "review"
"""Stem of the pages on which the suspicions are reviewed."""
REVIEW_FORMATS = ("xml", "star")
_ROUNDING_VOX = 0.01
_OTHER_FORMAT = "convert it first (robpicker convert), or leave --apply out"


@dataclass(frozen=True)
class AuditedList:
    """The annotations of one tomogram, and the file they are from.

    Attributes:
        files: the tomogram's files.
        particles: its annotations.
        shape_zyx: size of the tomogram, voxels.
        voxel_size_angstrom: edge of a voxel, Å; None where it is not known.
        data: how its list is read.
        origin_angstrom: where viewers place the volume's first voxel, x y z in Å.
    """

    files: TomogramFiles
    particles: Particles
    shape_zyx: tuple[int, int, int]
    voxel_size_angstrom: float | None
    data: DataConfig
    origin_angstrom: Origin = NO_ORIGIN

    @property
    def source(self) -> Path:
        """The list.

        Raises:
            InputError: there is one for each class.
        """
        lists = self.files.lists([species.name for species in self.data.species])
        if len(lists) != 1 or lists[0][0]:
            raise InputError(
                "one list for each class, which cannot be cleaned in place",
                where=self.files.volume_path,
                fix="join them: robpicker convert IN … OUT --class NAME",
            )
        return lists[0][1]

    @property
    def cleaned_name(self) -> str:
        """File name of the cleaned list: the source's own, or, of a list for a whole folder, that of the tomogram."""
        if SHARED_LIST.match(self.source.name) or self.source in self.files.shared:
            return f"{self.files.name}_objl{self.source.suffix}"
        return self.source.name

    def write(self, path: Path, particles: Particles) -> None:
        """Write particles in the format of the source, and as the source is read.

        Raises:
            InputError: a format that is only read.
        """
        options = options_for(self.source, self.data.annotation_options)
        format_ = format_of(self.source, options.pop("fmt", None))
        kept = {name: value for name, value in options.items() if name in format_.writing_options}
        write_annotations(
            path,
            particles,
            fmt=format_.name,
            voxel_size_angstrom=self.voxel_size_angstrom,
            shape_zyx=self.shape_zyx,
            volume_origin_angstrom=self.origin_angstrom,
            **kept,
        )

    def check_writable(self) -> None:
        """Refuse, before anything is computed, a format in which the cleaned list would not be read as the source is.

        Raises:
            InputError: a format that is only read, or one that does not give positions and classes back.
        """
        with tempfile.TemporaryDirectory() as folder, gathered_notes():
            path = Path(folder) / self.cleaned_name
            try:
                self.write(path, self.particles)
                back = read_annotations(
                    path,
                    voxel_size_angstrom=self.voxel_size_angstrom,
                    shape_zyx=self.shape_zyx,
                    volume_origin_angstrom=self.origin_angstrom,
                    class_labels={species.name: k for k, species in enumerate(self.data.species, start=1)},
                    **options_for(path, self.data.annotation_options),
                )
            except InputError as error:  # of the copy; the user knows the source alone
                raise InputError(error.what, where=self.source, fix=_OTHER_FORMAT) from None
        same = len(back) == len(self.particles) and np.allclose(
            back.positions_vox, self.particles.positions_vox, atol=_ROUNDING_VOX
        )
        # Where there is one species, a list need not name it.
        same = same and (len(self.data.species) == 1 or np.array_equal(back.labels, self.particles.labels))
        if not same:
            raise InputError(
                "a list written in this format is not read as this one is",
                where=self.source,
                fix=_OTHER_FORMAT,
            )


def outputs(out: Path, lists: Sequence[AuditedList] = ()) -> list[Path]:
    """What an audit writes into its folder, and the cleaned lists of these."""
    folders = [out / name for name in (TABLE, GALLERY, REVIEW, f"{PAGE}.html", CLEANED)]
    return folders + [out / CLEANED / name for name in (CHANGES, *(entry.cleaned_name for entry in lists))]


def write_table(out: Path, found: Particles) -> Path:
    """Write all rows, by falling score, as a table in voxels."""
    path = out / TABLE
    write_annotations(path, found, fmt="csv")
    return path


def write_review(out: Path, found: Particles, min_scores: Mapping[str, float], lists: Sequence[AuditedList]) -> int:
    """Write one list for each tomogram and kind, with scores, of what reaches the smallest score; how many lists.

    Lists of an earlier audit are removed, so that none is left for which there is no suspicion any more.
    """
    folder = out / REVIEW
    for kind in KINDS:
        for fmt in REVIEW_FORMATS:
            for old in folder.glob(f"*_{kind}{FORMATS[fmt].suffixes[0]}"):
                old.unlink()
    chosen, written = suspected(found, min_scores), 0
    folder.mkdir(parents=True, exist_ok=True)
    for entry in lists:
        assert chosen.tomograms is not None
        for kind in KINDS:
            rows = chosen.select((chosen.tomograms == entry.files.name) & (chosen.extra["kind"] == kind))
            for fmt in REVIEW_FORMATS if len(rows) else ():
                write_annotations(
                    folder / FORMATS[fmt].file_name(f"{entry.files.name}_{kind}"),
                    rows,
                    fmt=fmt,
                    voxel_size_angstrom=entry.voxel_size_angstrom,
                    shape_zyx=entry.shape_zyx,
                )
                written += 1
    return written


def write_cleaned(
    out: Path,
    found: Particles,
    min_scores: Mapping[str, float],
    lists: Sequence[AuditedList],
    model: Mapping[str, Any],
) -> int:
    """Write the cleaned list of each tomogram, and `changes.json`, which records every change; how many changes.

    Args:
        out: the audit's folder.
        found: all rows of all tomograms.
        min_scores: smallest score of each kind that is carried out.
        lists: the annotations.
        model: what the model is, for the record.
    """
    folder, record, count = out / CLEANED, {}, 0
    folder.mkdir(parents=True, exist_ok=True)
    for entry in lists:
        assert found.tomograms is not None
        rows = found.select(found.tomograms == entry.files.name)
        names = [species.name for species in entry.data.species]
        particles, changes = cleaned(entry.particles, rows, min_scores, names)
        entry.write(folder / entry.cleaned_name, particles)
        count += len(changes)
        record[entry.files.name] = {"source": entry.source.name, "cleaned": entry.cleaned_name, "changes": changes}
    content = {"model": dict(model), "min_score": dict(min_scores), "tomograms": record}
    write_text(folder / CHANGES, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    return count
