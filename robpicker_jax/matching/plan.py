"""What matching takes, known before it is begun: rotations, wedges, tiles, memory and units of work."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import jax
import numpy as np

from robpicker_jax.matching.cascade import cascade_cost
from robpicker_jax.matching.cost import Cost
from robpicker_jax.matching.exact import exact_cost
from robpicker_jax.matching.extraction import Extraction
from robpicker_jax.matching.noise import phase_randomised
from robpicker_jax.matching.refinement import ROUNDS
from robpicker_jax.matching.search import core_for
from robpicker_jax.matching.settings import MatchSettings
from robpicker_jax.matching.templates import Template
from robpicker_jax.matching.tiles import Tiling, kept_core
from robpicker_jax.rotations import binary_wedge, covering, tilt_weights
from robpicker_jax.system.errors import InputError

_REFINEMENT = 0.1  # units of work of the refinement, as a share of those of the search


class MatchPlan:
    """Several templates, how they are searched for, and how picks are made of their scores.

    Args:
        templates: on the grid of the tomograms.
        settings: of the search.
        extraction: of the picks, one for each template.

    Raises:
        InputError: no templates, two of one name, or settings that do not fit them.
    """

    def __init__(
        self, templates: Sequence[Template], settings: MatchSettings, extraction: Sequence[Extraction]
    ) -> None:
        names = [template.name for template in templates]
        if not names or len(set(names)) != len(names):
            raise InputError(f"templates named {', '.join(names) or 'nothing'}", fix="give each a name of its own")
        if len(extraction) != len(templates):
            raise InputError(f"{len(extraction)} settings of extraction for {len(templates)} templates")
        if settings.noise_correction and any(entry.cutoff == "gaussian" for entry in extraction):
            raise InputError(
                "takes the deviation of single scores, which a corrected map does not have",
                where="--cutoff gaussian",
                fix="give --cutoff extreme, or leave --noise-correction out",
            )
        self.templates, self.settings, self.extraction = tuple(templates), settings, tuple(extraction)

    @property
    def class_names(self) -> list[str]:
        """Name of class 1, 2, ….."""
        return [template.name for template in self.templates]

    def rotations(self, template: Template) -> np.ndarray:
        """The rotations that a template is turned to, (m, 3, 3)."""
        return covering(self.settings.step_deg, template.symmetry)

    def wedge(self, template: Template) -> np.ndarray | None:
        """Centred Fourier weights of a template's box."""
        if self.settings.scheme is not None:
            return tilt_weights(template.edge, template.voxel_size_angstrom, self.settings.scheme)
        if self.settings.tilt_range_deg is not None:
            return binary_wedge(template.edge, self.settings.tilt_range_deg)
        return None

    def variants(self, template: Template) -> list[Template]:
        """A template and what is searched for beside it."""
        found = [template]
        found += [phase_randomised(template)] if self.settings.noise_correction else []
        found += [template.mirrored()] if self.settings.mirror else []
        return found

    def turned(self) -> int:
        """Templates that are turned before the search, for the progress bar."""
        if self.settings.search == "exact":
            return 0
        return sum(len(self.rotations(v)) for template in self.templates for v in self.variants(template))

    @property
    def batch(self) -> int:
        """Rotations at once in the exact search."""
        return self.settings.batch or (1 if jax.default_backend() == "cpu" else 8)

    @cached_property
    def costs(self) -> list[Cost]:
        """The most that each search takes; all of them are held at once."""
        found = []
        for template, extraction in zip(self.templates, self.extraction, strict=True):
            rotations = self.rotations(template)
            if self.settings.search == "cascade":
                cost = cascade_cost(template, rotations, self.settings.cascade, self.settings.workers)
            else:
                cost = exact_cost(
                    template,
                    len(rotations),
                    statistics=extraction.cutoff == "gaussian",
                    batch=self.batch,
                    workers=self.settings.workers,
                )
            found += [cost] * len(self.variants(template))
        return found

    def check_memory(self) -> None:
        """Refuse turned templates that take more memory than may be used.

        Raises:
            InputError: they do.
        """
        held, limit = sum(cost.held for cost in self.costs), self.settings.memory_bytes
        if self.settings.search == "cascade" and limit is not None and held > limit:
            raise InputError(
                f"the turned templates take {held / 2**30:.2g} GiB, and {limit / 2**30:.2g} GiB may be used",
                where="--search cascade",
                fix="give --search exact, a larger --angle-step, fewer templates or a larger --memory-limit-gib",
            )

    @property
    def rim_vox(self) -> int:
        """Width of the rim along a tomogram's faces that is not searched, since nothing is picked there."""
        # Beyond the voxels that may be picked: one by which peaks are told, and another by which their sharpness is.
        neighbours = 2 if any(entry.tophat for entry in self.extraction) else 1
        return max(0, min(entry.edge_vox for entry in self.extraction) - neighbours)

    def tiling(self, shape_zyx: tuple[int, int, int], folder: Path | None = None) -> Tiling:
        """How a tomogram is divided: as the most demanding search allows.

        Args:
            shape_zyx: the tomogram.
            folder: where an earlier search of it may have left finished tiles: its division is taken where it fits into
                memory still, since tiles of another division cannot be gone on with.
        """
        limit, rim = self.settings.memory_bytes, self.rim_vox
        if limit is not None:
            limit = max(0, limit - sum(cost.held for cost in self.costs))
        for variant in (v for template in self.templates for v in self.variants(template) if folder is not None):
            assert folder is not None
            core = kept_core(folder / variant.name, shape_zyx)
            if core is None or max(core) > self.settings.tile_vox:
                continue
            if limit is None or max(cost.bytes(core) for cost in self.costs) <= limit:
                return Tiling(shape_zyx, core, rim)
        tilings = [core_for(cost, shape_zyx, limit, self.settings.tile_vox, rim) for cost in self.costs]
        return min(tilings, key=lambda tiling: math.prod(tiling.core_zyx))

    def bytes(self, shape_zyx: tuple[int, int, int]) -> int:
        """The most memory that matching a tomogram takes: all searches, a tile, and maps, which may be in files."""
        core = self.tiling(shape_zyx).core_zyx
        searches = sum(cost.held for cost in self.costs) + max(cost.bytes(core) for cost in self.costs)
        settings, count = self.settings, len(self.templates)
        statistics = any(entry.cutoff == "gaussian" for entry in self.extraction)
        maps = 8 * count * (1 + settings.noise_correction + settings.mirror) + 8 * statistics
        return searches + math.prod(shape_zyx) * (maps + 24 * settings.whiten + 16)

    def units(self, shape_zyx: tuple[int, int, int], folder: Path | None = None) -> int:
        """Units of work of a tomogram, for the progress bar; the folder as for `tiling`."""
        tiling = self.tiling(shape_zyx, folder)
        rounds = sum(self.rounds() * self.round_units(number, tiling) for number in range(len(self.templates)))
        return len(tiling.starts) * sum(cost.units for cost in self.costs) + rounds

    def rounds(self) -> int:
        """Rounds of the refinement of a template's picks."""
        return ROUNDS if self.settings.refine else 1

    def round_units(self, number: int, tiling: Tiling) -> int:
        """Units of work that a round of the refinement counts for, of template `number`, the first being 0."""
        searches = len(self.costs) // len(self.templates)
        return max(1, round(_REFINEMENT * len(tiling.starts) * self.costs[searches * number].units / self.rounds()))

    def fingerprint(self) -> str:
        """A text that differs wherever score maps may differ."""
        digest = hashlib.sha256()
        for template in self.templates:
            digest.update(template.density.tobytes() + template.mask.tobytes())
            wedge = self.wedge(template)
            digest.update(b"" if wedge is None else wedge.tobytes())
        known = (
            self.class_names,
            [template.symmetry for template in self.templates],
            [entry.radius_vox for entry in self.extraction] if self.settings.search == "cascade" else None,
            self.rim_vox,
            self.settings.step_deg,
            self.settings.search,
            self.settings.cascade,
            self.settings.whiten,
        )
        digest.update(repr(known).encode())
        return digest.hexdigest()
