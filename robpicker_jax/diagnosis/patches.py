"""Patches and tiles against volumes, network and particles; the smallest cluster against the particles."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from robpicker_jax.config import InferenceConfig, PatchConfig, PickingConfig, Species
from robpicker_jax.config.picking_sections import fifth_of_sphere
from robpicker_jax.diagnosis.findings import Finding
from robpicker_jax.diagnosis.observation import Observation
from robpicker_jax.models import Backbone, check_edge
from robpicker_jax.system.errors import InputError

_RADII_IN_PATCH = 3.0


def check_volumes(observations: Sequence[Observation], patches: PatchConfig) -> list[Finding]:
    """A patch fits into each volume that patches are cut from."""
    cut = [o for o in observations if o.tomogram.split in ("train", "meta")]
    small = [o for o in cut if o.header and min(o.header.shape_zyx) < patches.size]
    if not small:
        return []
    depth, height, width = small[0].header.shape_zyx if small[0].header else (0, 0, 0)
    what = f"a patch of {patches.size} does not fit {small[0].name} of {width} x {height} x {depth} voxels"
    fix = f"set patches.size to {min(depth, height, width)} or less"
    return [Finding("error", "patch_too_large", what, fix, tuple(o.name for o in small), {"patch": patches.size})]


def check_strides(backbone: Backbone, patches: PatchConfig, inference: InferenceConfig) -> list[Finding]:
    """The network's stride divides patches and tiles."""
    findings = []
    for key, edge in (("patches.size", patches.size), ("inference.tile", inference.tile_edge(patches.size))):
        try:
            check_edge(edge, backbone.stride, where=key)
        except InputError as error:
            what, evidence = f"{error.where}: {error.what}", {"stride": backbone.stride, "edge": edge}
            findings.append(Finding("error", "patch_stride", what, error.fix, (), evidence))
    return findings


def check_radii(species: Sequence[Species], patches: PatchConfig, stride: int) -> list[Finding]:
    """A patch holds the largest particle, also when it is shifted.

    Args:
        species: the configured species.
        patches: the section `patches`.
        stride: the network's, so that the remedy is a size that it takes.
    """
    largest = max(species, key=lambda entry: entry.radius_vox)
    radius, size, shift = largest.radius_vox, patches.size, patches.shift_vox
    if size < _RADII_IN_PATCH * radius:
        what = f"a patch of {size} voxels holds {size / radius:.1f} radii of {largest.name} ({radius:g} voxels)"
        fix = f"set patches.size to {-(-int(np.ceil(4 * radius)) // stride) * stride} or more"
        return [Finding("warning", "patch_small", what, fix, (), {"patch": size, "radius_vox": radius})]
    if shift > size / 2 - 0.5 * radius:
        what = f"shifts of {shift} voxels cut particles of radius {radius:g} at the border of a patch of {size}"
        fix = f"set patches.shift_vox to {max(0, int(size / 2 - radius))} or less"
        evidence = {"patch": size, "shift_vox": shift, "radius_vox": radius}
        return [Finding("warning", "shift", what, fix, (), evidence)]
    return []


def check_clusters(species: Sequence[Species], picking: PickingConfig) -> list[Finding]:
    """A particle of each species is larger than the smallest cluster that is kept as a pick."""
    findings = []
    for entry, smallest in zip(species, picking.smallest_clusters(species), strict=True):
        volume = 4 / 3 * np.pi * entry.radius_vox**3
        if smallest > volume:
            what = f"{entry.name}: clusters under {smallest} voxels are dropped, its sphere has {volume:.0f}"
            fix = f"leave min_cluster_vox out, or set it to about {fifth_of_sphere(entry.radius_vox)}"
            evidence = {"min_cluster_vox": smallest, "sphere_vox": volume}
            findings.append(Finding("warning", "min_cluster", what, fix, (), evidence))
    return findings
