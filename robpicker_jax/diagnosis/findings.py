"""What the doctor says: findings with their evidence and their remedy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

Severity = Literal["error", "warning", "info"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "info")

CODES: dict[str, str] = {
    "layout": "the folder is not laid out as a data set",
    "split_missing": "train or meta is empty",
    "unreadable_volume": "a volume cannot be read",
    "bad_voxels": "a volume has NaN or infinite voxels, or only one value",
    "unreadable_annotations": "a particle list cannot be read",
    "no_annotations": "a tomogram that needs particles has none",
    "bad_label_map": "a stored label map or mask does not fit its tomogram",
    "assumed": "something that a file leaves open was assumed",
    "mask": "a mask of the sample that is none",
    "voxel_size_unknown": "neither header nor configuration knows the voxel size",
    "voxel_sizes_differ": "voxel sizes of tomograms differ",
    "voxel_size_config": "headers and configuration disagree on the voxel size",
    "voxels_not_cubes": "a header says that voxels are not cubes",
    "outside": "positions outside the volume",
    "outside_mask": "particles outside the mask of the sample",
    "in_angstrom": "coordinates in Å (or nm), not voxels",
    "fractions": "coordinates that are fractions of the box",
    "centred": "coordinates measured from the volume's centre",
    "origin": "coordinates that count the origin of the header otherwise",
    "axes_swapped": "coordinate axes swapped",
    "flipped": "coordinates mirrored",
    "binning": "coordinates off by a binning factor",
    "no_density": "the density at the picks is as anywhere else",
    "centre_offset": "picks beside the particles' centres",
    "contrast": "sign of the contrast",
    "contrast_differs": "contrast of some tomograms is inverted",
    "class_counts": "particles of each species",
    "class_unknown": "a class that is no species of the configuration",
    "class_order": "names and labels of classes disagree",
    "class_missing": "a species without particles",
    "class_rare": "a species with few particles",
    "duplicates": "particles listed twice",
    "overlaps": "particles closer than their radii allow",
    "radius": "radius does not fit the size seen",
    "same_volume": "one volume twice",
    "same_particles": "one list of particles twice",
    "spectrum": "a tomogram whose power spectrum is unlike the others'",
    "patch_too_large": "patch larger than a volume",
    "patch_stride": "patch or tile the U-Net cannot halve",
    "patch_small": "patch too small for a particle",
    "shift": "random shifts push particles out of the patch",
    "min_cluster": "smallest cluster larger than the particle",
    "memory": "training needs more memory than there is",
    "resources": "estimated memory and time",
    "no_config": "checks left out because there is no configuration",
}
"""Every code a finding can have, with its meaning; `docs/doctor.md` has a section on each."""


@dataclass(frozen=True)
class Finding:
    """One thing the doctor noticed.

    Attributes:
        severity: "error" (training would fail or learn nonsense), "warning" (worth a look) or "info".
        code: a key of `CODES`.
        what: one sentence.
        fix: what the user can do about it; "" if nothing need be done.
        where: the tomograms (`split/name`) or files concerned.
        evidence: the numbers behind it.
    """

    severity: Severity
    code: str
    what: str
    fix: str = ""
    where: tuple[str, ...] = ()
    evidence: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.code not in CODES:
            raise ValueError(f"unknown code {self.code!r}")

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "severity": self.severity,
            "code": self.code,
            "what": self.what,
            "fix": self.fix,
            "where": list(self.where),
            "evidence": plain(self.evidence),
        }


@dataclass(frozen=True)
class Diagnosis:
    """All findings on a data set, worst first, and the tables they rest on.

    Attributes:
        data: the data set's folder.
        findings: errors, warnings, infos.
        hypotheses: score of each reading of the coordinates, over all tomograms: rows of {hypothesis, score, inside}.
        class_counts: split → species → number of particles.
    """

    data: str
    findings: tuple[Finding, ...]
    hypotheses: tuple[Mapping[str, Any], ...] = ()
    class_counts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    def count(self, severity: Severity) -> int:
        """Number of findings of one severity."""
        return sum(finding.severity == severity for finding in self.findings)

    @property
    def codes(self) -> set[str]:
        """Codes of the errors and warnings."""
        return {finding.code for finding in self.findings if finding.severity != "info"}

    @property
    def summary(self) -> str:
        """The verdict in one clause."""
        errors, warnings = self.count("error"), self.count("warning")
        first = "" if not errors else f" ({', '.join(dict.fromkeys(f.code for f in self.findings[:errors]))})"
        return f"{_plural(errors, 'error')}{first}, {_plural(warnings, 'warning')}"

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "data": self.data,
            "errors": self.count("error"),
            "warnings": self.count("warning"),
            "findings": [finding.as_dict() for finding in self.findings],
            "hypotheses": plain(self.hypotheses),
            "class_counts": plain(self.class_counts),
        }


def worst_first(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Sorted by severity, else in the order in which they were found."""
    return tuple(sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity)))


def names(where: Sequence[str], most: int = 3) -> str:
    """A list of tomograms for a sentence."""
    return ", ".join(where[:most]) + (f" and {len(where) - most} more" if len(where) > most else "")


def plain(value: Any) -> Any:
    """NumPy numbers and arrays as JSON has them; not-a-number as null."""
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(entry) for entry in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return round(value, 6) if np.isfinite(value) else None
    return value


def _plural(n: int, noun: str) -> str:
    return f"{n} {noun}{'' if n == 1 else 's'}"
