"""Voxel sizes of headers and configuration against each other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from robpicker_jax.diagnosis.findings import Finding, names
from robpicker_jax.diagnosis.observation import Observation

TOLERANCE = 0.01


def usual_voxel_size(observations: Sequence[Observation], configured: float | None) -> float | None:
    """The configured voxel size, else the headers' median; None where it is not known."""
    sizes = [o.header.voxel_size_angstrom for o in observations if o.header and o.header.voxel_size_angstrom]
    return configured or (float(np.median(sizes)) if sizes else None)


def check_headers(observations: Sequence[Observation], configured: float | None) -> list[Finding]:
    """Voxels are cubes, of one size, and of the configured one."""
    findings = []
    sizes: dict[str, float] = {}
    unknown = []
    for observation in observations:
        if observation.header is None:
            continue
        edges = observation.header.voxel_size_zyx_angstrom
        if edges is None:
            unknown.append(observation.name)
            continue
        sizes[observation.name] = float(np.mean(edges))
        if max(edges) > (1 + TOLERANCE) * min(edges):
            z, y, x = edges
            findings.append(
                Finding(
                    "error",
                    "voxels_not_cubes",
                    f"{observation.name}: voxels of {x:.4g} x {y:.4g} x {z:.4g} Å (x, y, z)",
                    "correct the header (cell lengths over sizes) or resample the volume",
                    (observation.name,),
                    {"voxel_size_zyx_angstrom": edges},
                )
            )
    if unknown and configured is None:
        everywhere = not sizes
        findings.append(
            Finding(
                "warning" if everywhere else "info",
                "voxel_size_unknown",
                f"{'no header' if everywhere else f'the header of {names(unknown)} does not'} "
                f"know{'s' if everywhere else ''} the voxel size",
                "set data.voxel_size_angstrom: shapes, resolutions and formats in Å need it",
                tuple(unknown),
            )
        )
    usual = usual_voxel_size(observations, None)
    if usual is not None:
        other = [name for name, size in sizes.items() if abs(size - usual) > TOLERANCE * usual]
        if other:
            findings.append(
                Finding(
                    "error",
                    "voxel_sizes_differ",
                    f"{names(other)}: voxels of {sizes[other[0]]:.4g} Å, the others' are {usual:.4g} Å",
                    "correct the header, or resample the tomogram to the others' voxel size",
                    tuple(other),
                    {"voxel_size_angstrom": sizes, "usual": usual},
                )
            )
        if configured is not None and abs(usual - configured) > TOLERANCE * configured:
            findings.append(
                Finding(
                    "error",
                    "voxel_size_config",
                    f"headers say {usual:.4g} Å, data.voxel_size_angstrom {configured:.4g} Å",
                    "correct data.voxel_size_angstrom, or the headers",
                    tuple(sizes),
                    {"headers": usual, "configured": configured},
                )
            )
    return findings
