"""Matching a tomogram with several templates: search, correction, peaks, refinement, classes."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import jax
import numpy as np

from robpicker_jax.annotations import Particles
from robpicker_jax.matching.cascade import CascadeSettings, build_cascade, cascade_cost
from robpicker_jax.matching.cost import Cost
from robpicker_jax.matching.exact import ExactSearch, exact_cost
from robpicker_jax.matching.extraction import Extraction, Peaks, decide_classes, find_peaks, searched, single_deviation
from robpicker_jax.matching.noise import (
    filtered,
    noise_corrected,
    phase_randomised,
    radially_filtered,
    whitening_profile,
)
from robpicker_jax.matching.refinement import refined
from robpicker_jax.matching.search import Search, core_for, search_volume
from robpicker_jax.matching.templates import Template
from robpicker_jax.matching.tiles import MapStore, Tiling, Voxels, kept_core, mask_digest
from robpicker_jax.rotations import TiltScheme, binary_wedge, covering, tilt_weights
from robpicker_jax.system.errors import InputError

SEARCHES = ("exact", "cascade")
_BEST_SCORES = 50  # compared between a template and its mirror image
_BEFORE_REFINEMENT = 0.7  # share of the smallest score at which peaks are refined
_ROUNDING = 1e-6


@dataclass(frozen=True)
class MatchSettings:
    """How tomograms are searched.

    Attributes:
        step_deg: angle between neighbouring rotations.
        search: "exact" or "cascade".
        tilt_range_deg: smallest and largest tilt, for a binary wedge; none: no wedge.
        scheme: the tilts, for a weight of each Fourier voxel; it takes the place of the binary wedge.
        refine: whether orientations are refined around each pick.
        noise_correction: whether the scores of a phase-randomised template are subtracted; it takes the exact search.
        whiten: whether the tomogram's spectrum is made flat; it is held in memory then.
        mirror: whether the mirrored template is searched for too.
        largest_first: see `decide_classes`.
        tile_vox: largest edge of a tile's core.
        memory_bytes: memory that the searches and a tile may take together; none: no limit.
        cascade: settings of the cascade.
        workers: threads of the exact search; none: one for each device.
        batch: rotations at once; none: 1 on CPUs, 8 on accelerators.
    """

    step_deg: float = 10.0
    search: str = "cascade"
    tilt_range_deg: tuple[float, float] | None = (-60.0, 60.0)
    scheme: TiltScheme | None = None
    refine: bool = True
    noise_correction: bool = False
    whiten: bool = False
    mirror: bool = False
    largest_first: bool = False
    tile_vox: int = 192
    memory_bytes: int | None = None
    cascade: CascadeSettings = field(default_factory=CascadeSettings)
    workers: int | None = None
    batch: int | None = None

    def __post_init__(self) -> None:
        if self.search not in SEARCHES:
            raise InputError(f"unknown search {self.search!r}", where="--search", fix=f"one of {', '.join(SEARCHES)}")
        if self.noise_correction and self.search != "exact":
            # The cascade is exact at its own peaks alone: those of the random template lie elsewhere.
            raise InputError(
                "subtracts scores voxel by voxel, and the cascade's are not all exact",
                where="--noise-correction",
                fix="give --search exact too",
            )


@dataclass(frozen=True, eq=False)
class TemplateMatch:
    """What one template gave in one tomogram.

    Attributes:
        template: the template.
        scores: float32 (z, y, x).
        angles: int32 (z, y, x), numbers of rotations; −1 where none was settled.
        particles: the picks of this template alone.
        cutoff: smallest score that statistics let pass; −inf for none.
        mirrored: mean of the best scores of the mirrored template over that of the template; None where it was not searched
            for. A ratio above 1 says that the hand is wrong.
    """

    template: Template
    scores: np.ndarray
    angles: np.ndarray
    particles: Particles
    cutoff: float
    mirrored: float | None


@dataclass(frozen=True, eq=False)
class TomogramMatch:
    """What all templates gave in one tomogram: the picks with classes, and each template's part."""

    particles: Particles
    templates: tuple[TemplateMatch, ...]


class Matcher:
    """Finds the particles of several templates; labels count the templates from 1.

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
        self._searches: dict[str, Search] = {}

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

    def _variants(self, template: Template) -> list[Template]:
        """A template and what is searched for beside it."""
        found = [template]
        found += [phase_randomised(template)] if self.settings.noise_correction else []
        found += [template.mirrored()] if self.settings.mirror else []
        return found

    def prepare(self, on_angles: Callable[[int], None] | None = None) -> None:
        """Make the searches of all templates; the cascade turns every template to every rotation here.

        Raises:
            InputError: the turned templates take more memory than may be used.
        """
        self._check_memory()
        for template, extraction in zip(self.templates, self.extraction, strict=True):
            for variant in self._variants(template):
                if variant.name not in self._searches and not self.settings.whiten:
                    self._searches[variant.name] = self._search(variant, extraction, on_angles)

    def share_searches(self, other: Matcher) -> None:
        """Take the searches over from a matcher of the same templates and settings that has them."""
        self._searches = other._searches

    def turned(self) -> int:
        """Templates that `prepare` turns, for the progress bar."""
        if self.settings.search == "exact":
            return 0
        return sum(len(self.rotations(v)) for template in self.templates for v in self._variants(template))

    def _search(self, template: Template, extraction: Extraction, on_angles: Callable[[int], None] | None) -> Search:
        rotations, wedge = self.rotations(template), self.wedge(template)
        if self.settings.search == "cascade":
            return build_cascade(template, rotations, wedge, self.settings.cascade, on_angles=on_angles)
        return ExactSearch(
            template,
            rotations,
            wedge,
            statistics=extraction.cutoff == "gaussian",
            batch=self._batch,
            workers=self.settings.workers,
        )

    @property
    def _batch(self) -> int:
        return self.settings.batch or (1 if jax.default_backend() == "cpu" else 8)

    @cached_property
    def costs(self) -> list[Cost]:
        """The most that each search takes; all of them are held at once. Known before they are made."""
        found = []
        for template, extraction in zip(self.templates, self.extraction, strict=True):
            angles = len(self.rotations(template))
            if self.settings.search == "cascade":
                cost = cascade_cost(template, angles, self.settings.cascade)
            else:
                cost = exact_cost(
                    template,
                    angles,
                    statistics=extraction.cutoff == "gaussian",
                    batch=self._batch,
                    workers=self.settings.workers,
                )
            found += [cost] * len(self._variants(template))
        return found

    def _check_memory(self) -> None:
        held, limit = sum(cost.held for cost in self.costs), self.settings.memory_bytes
        if self.settings.search == "cascade" and limit is not None and held > limit:
            raise InputError(
                f"the turned templates take {held / 2**30:.2g} GiB, and {limit / 2**30:.2g} GiB may be used",
                where="--search cascade",
                fix="give --search exact, a larger --angle-step, fewer templates or a larger --memory-limit-gib",
            )

    def tiling(self, shape_zyx: tuple[int, int, int], folder: Path | None = None) -> Tiling:
        """How a tomogram is divided: as the most demanding search allows.

        Args:
            shape_zyx: the tomogram.
            folder: where an earlier search of it may have left finished tiles: its division is taken where it fits into
                memory still, since tiles of another division cannot be gone on with.
        """
        limit = self.settings.memory_bytes
        if limit is not None:
            limit = max(0, limit - sum(cost.held for cost in self.costs))
        for variant in (v for template in self.templates for v in self._variants(template) if folder is not None):
            assert folder is not None
            core = kept_core(folder / variant.name, shape_zyx)
            if core is None or max(core) > self.settings.tile_vox:
                continue
            if limit is None or max(cost.bytes(core) for cost in self.costs) <= limit:
                return Tiling(shape_zyx, core)
        tilings = [core_for(cost, shape_zyx, limit, self.settings.tile_vox) for cost in self.costs]
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
        return len(self.tiling(shape_zyx, folder).starts) * sum(cost.units for cost in self.costs)

    def match(
        self,
        volume: Voxels,
        *,
        mask: np.ndarray | None = None,
        folder: Path | None = None,
        stamp: object = None,
        on_units: Callable[[int], None] | None = None,
    ) -> TomogramMatch:
        """The particles of a tomogram.

        Args:
            volume: with mean 0 and standard deviation 1.
            mask: bool (z, y, x); no particle outside it.
            folder: where finished tiles are kept, so that a search that was stopped goes on; none: in memory.
            stamp: what tells this tomogram from others of its name, as JSON can hold it.
            on_units: called with the number of units of work just done.
        """
        shape = (int(volume.shape[0]), int(volume.shape[1]), int(volume.shape[2]))
        templates = list(self.templates)
        if self.settings.whiten:
            profile = whitening_profile(volume)
            volume = filtered(np.asarray(volume[:, :, :]), profile)
            templates = [replace(t, density=radially_filtered(t.density, profile)) for t in templates]
            # Each tomogram has a spectrum of its own, so the searches are made anew, and those before are let go first.
            self._check_memory()
            self._searches = {}
            self._searches = {
                variant.name: self._search(variant, extraction, None)
                for template, extraction in zip(templates, self.extraction, strict=True)
                for variant in self._variants(template)
            }
        elif not self._searches:
            self.prepare()
        # Tiles that the mask leaves out are stored as finished: they are those of this mask alone.
        inputs = [stamp, None if mask is None else mask_digest(mask)]
        found = []
        for label, (template, extraction) in enumerate(zip(templates, self.extraction, strict=True), start=1):
            found.append(self._match_one(volume, shape, template, extraction, label, mask, folder, inputs, on_units))
        lists = [part.particles for part in found]
        radii = [extraction.radius_vox for extraction in self.extraction]
        together = decide_classes(lists, radii, largest_first=self.settings.largest_first)
        return TomogramMatch(together, tuple(found))

    def _match_one(
        self,
        volume: Voxels,
        shape: tuple[int, int, int],
        template: Template,
        extraction: Extraction,
        label: int,
        mask: np.ndarray | None,
        folder: Path | None,
        inputs: object,
        on_units: Callable[[int], None] | None,
    ) -> TemplateMatch:
        tiling = self.tiling(shape, folder)

        def maps(variant: Template) -> dict[str, np.ndarray]:
            search = self._searches[variant.name]
            store = None
            if folder is not None:
                settings = {
                    "matcher": self.fingerprint(),
                    "variant": variant.name,
                    "tomogram": inputs,
                    "core": tiling.core_zyx,
                }
                store = MapStore(shape, search.maps, folder / variant.name, settings)
                if on_units is not None and store.finished:
                    on_units(search.cost.units * len(store.finished))
            return search_volume(volume, search, tiling, store=store, mask=mask, on_units=on_units)

        own = maps(template)
        variants = {variant.name: variant for variant in self._variants(template)[1:]}
        scores = np.asarray(own["scores"])
        inside = searched(shape, extraction.edge_vox, mask)
        random = variants.get(f"{template.name}_random")
        if random is not None:
            scores = noise_corrected(scores, np.asarray(maps(random)["scores"]), inside)
        rotations = self.rotations(template)
        deviation = None
        if "deviation" in own:
            deviation = single_deviation(own["mean"], own["deviation"], inside)
        # Refinement raises scores, and a smallest score is meant of the picks as they are written.
        least = None if extraction.min_score is None else _BEFORE_REFINEMENT * extraction.min_score
        loose = replace(extraction, min_score=least)
        peaks = find_peaks(scores, loose, mask=mask, deviation=deviation, angles=len(rotations))
        angles = np.asarray(own["angles"])
        settled = angles[tuple(peaks.voxels_zyx.T)] >= 0
        peaks = Peaks(peaks.voxels_zyx[settled], peaks.scores[settled], peaks.cutoff)
        at = tuple(peaks.voxels_zyx.T)
        particles = refined(
            volume,
            template,
            peaks,
            rotations[angles[at]],
            wedge=self.wedge(template),
            step_deg=self.settings.step_deg if self.settings.refine else None,
            offsets=scores[at] - own["scores"][at],
        )
        if extraction.min_score is not None and particles.scores is not None:
            particles = particles.select(particles.scores >= extraction.min_score - _ROUNDING)
        ratio = None
        mirror = variants.get(f"{template.name}_mirrored")
        if mirror is not None:
            loose = replace(extraction, cutoff="none", tophat=False, min_score=None, max_picks=_BEST_SCORES)
            best = [
                float(find_peaks(np.asarray(m), loose, mask=mask).scores.mean())
                for m in (own["scores"], maps(mirror)["scores"])
            ]
            ratio = best[1] / best[0] if best[0] > 0 else None
        return TemplateMatch(
            template, scores, angles, particles.with_(labels=np.full(len(particles), label)), peaks.cutoff, ratio
        )

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
            self.settings.step_deg,
            self.settings.search,
            self.settings.cascade,
            self.settings.whiten,
        )
        digest.update(repr(known).encode())
        return digest.hexdigest()
