"""Matchers from descriptions: templates of maps and species, the tilt series' weights, and a whole `MatchingConfig`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import numpy as np

from robpicker_jax.config.matching_section import MatchingConfig
from robpicker_jax.matching.extraction import Extraction, rim
from robpicker_jax.matching.matcher import Matcher
from robpicker_jax.matching.settings import MatchSettings
from robpicker_jax.matching.templates import Template, TemplateRecipe
from robpicker_jax.molecules import phantom_density
from robpicker_jax.rotations import rotation_count, scheme_of
from robpicker_jax.simulation import Optics
from robpicker_jax.system.errors import InputError, located
from robpicker_jax.system.memory import device_bytes
from robpicker_jax.volumes import read_volume

Transfer = Callable[[np.ndarray], np.ndarray]

PHANTOM = "phantom:"
"""What a species of the simulator is named by where a map's file could stand."""


def template_of(
    source: str,
    name: str,
    recipe: TemplateRecipe,
    voxel_size_angstrom: float,
    *,
    map_voxel_angstrom: float | None = None,
    flag: str = "--template-voxel",
) -> Template:
    """The template of a map's file, or of a species of the simulator (`phantom:NAME`).

    Args:
        source: the file or the species.
        name: of its class.
        recipe: how the density becomes a template.
        voxel_size_angstrom: of the tomograms.
        map_voxel_angstrom: of the map, where its header is wrong or does not say.
        flag: what gives that, for messages.

    Raises:
        InputError: a map that cannot be used.
    """
    if source.startswith(PHANTOM) and source != PHANTOM:
        fine = voxel_size_angstrom / 2
        return recipe.make(name, phantom_density(source.removeprefix(PHANTOM), fine), fine, voxel_size_angstrom)
    volume = read_volume(source)
    size = map_voxel_angstrom or volume.voxel_size_angstrom
    if size is None:
        raise InputError("the header does not give the voxel size (it says 0 or 1)", where=source, fix=f"give {flag}")
    return recipe.make(name, volume.data, size, voxel_size_angstrom)


def free_memory_share() -> int | None:
    """Half of the memory that is free: what searches may take by default; None where it is not known."""
    free = device_bytes(jax.devices()[0], free=True)
    return None if free is None else free // 2


def build_matcher(config: MatchingConfig, min_scores: Sequence[float | None] | None = None) -> Matcher:
    """The matcher that a configuration describes.

    Args:
        config: the configuration.
        min_scores: smallest score of each class, in place of `min_score` and of the cut-off.

    Raises:
        InputError: a map that cannot be used, or settings that do not fit each other.
    """
    with located("angle_step_deg"):
        rotation_count(config.angle_step_deg)
    templates = [
        template_of(
            entry.density,
            entry.name,
            TemplateRecipe(
                diameter_angstrom=entry.diameter_angstrom,
                low_pass_angstrom=config.low_pass_angstrom,
                dark=config.contrast == "dark",
                symmetry=entry.symmetry,
            ),
            config.voxel_size_angstrom,
            flag="a map whose header says it",
        )
        for entry in config.templates
    ]
    settings = MatchSettings(
        step_deg=config.angle_step_deg,
        search=config.search,
        tilt_range_deg=config.tilts_deg,
        scheme=scheme_of(config.tilts_deg, config.tilt_step_deg, config.dose_per_tilt, _transfer(config)),
        refine=config.refine,
        whiten=config.whiten,
        largest_first=config.largest_first,
        memory_bytes=free_memory_share(),
    )
    stated = [entry.min_score for entry in config.templates] if min_scores is None else min_scores
    return Matcher(templates, settings, extractions_of(config, templates, stated))


def extractions_of(
    config: MatchingConfig, templates: Sequence[Template], min_scores: Sequence[float | None]
) -> list[Extraction]:
    """Which peaks of each template become picks; a smallest score takes the place of the cut-off by statistics."""
    return [
        Extraction(
            radius_vox=template.diameter_vox / 2,
            cutoff=config.cutoff if least is None else "none",
            false_positives=config.false_positives,
            min_score=least,
            max_picks=config.max_picks,
            edge_vox=rim(template.diameter_vox),
        )
        for template, least in zip(templates, min_scores, strict=True)
    ]


def _transfer(config: MatchingConfig) -> Transfer | None:
    if config.defocus_um is None:
        return None
    optics = Optics(config.voltage_kv, config.spherical_aberration_mm, config.amplitude_contrast, config.defocus_um)
    if not config.phase_flipped:
        return optics.ctf

    def magnitude(frequency: np.ndarray) -> np.ndarray:
        return np.asarray(np.abs(optics.ctf(frequency)))

    return magnitude
