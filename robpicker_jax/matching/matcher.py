"""Matching a tomogram with several templates: search, correction, peaks, refinement, classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from robpicker_jax.annotations import Particles
from robpicker_jax.matching.cascade import CascadeSearch, build_cascade
from robpicker_jax.matching.exact import ExactSearch
from robpicker_jax.matching.extraction import Extraction, Peaks, decide_classes, find_peaks, searched, single_deviation
from robpicker_jax.matching.matches import TemplateMatch, TomogramMatch
from robpicker_jax.matching.noise import filtered, noise_corrected, radially_filtered, whitening_profile
from robpicker_jax.matching.plan import MatchPlan
from robpicker_jax.matching.refinement import refined
from robpicker_jax.matching.search import Search, search_volume
from robpicker_jax.matching.settings import MatchSettings
from robpicker_jax.matching.templates import Template
from robpicker_jax.matching.tiles import MapStore, Tiling, Voxels, mask_digest

_BEST_SCORES = 50  # compared between a template and its mirror image
_BEFORE_REFINEMENT = 0.7  # share of the smallest score at which peaks are refined
_ROUNDING = 1e-6


@dataclass(frozen=True, eq=False)
class _Task:
    """What the templates of one tomogram are matched with; see `Matcher.match`."""

    volume: Voxels
    tiling: Tiling
    mask: np.ndarray | None
    folder: Path | None
    inputs: object
    on_units: Callable[[int], None]


class Matcher(MatchPlan):
    """Finds the particles of several templates; labels count the templates from 1. See `MatchPlan`."""

    def __init__(
        self, templates: Sequence[Template], settings: MatchSettings, extraction: Sequence[Extraction]
    ) -> None:
        super().__init__(templates, settings, extraction)
        self._searches: dict[str, Search] = {}

    def prepare(self, on_angles: Callable[[int], None] | None = None) -> None:
        """Make the searches of all templates; the cascade turns every template to every rotation here.

        Raises:
            InputError: the turned templates take more memory than may be used.
        """
        self.check_memory()
        for template, extraction in zip(self.templates, self.extraction, strict=True):
            for variant in self.variants(template):
                if variant.name not in self._searches and not self.settings.whiten:
                    self._searches[variant.name] = self._search(variant, extraction, on_angles)

    def share_searches(self, other: Matcher) -> None:
        """Take the searches over from a matcher of the same templates and settings that has them."""
        self._searches = other._searches

    def _search(self, template: Template, extraction: Extraction, on_angles: Callable[[int], None] | None) -> Search:
        rotations, wedge, settings = self.rotations(template), self.wedge(template), self.settings
        if settings.search == "cascade":
            return build_cascade(
                template,
                rotations,
                wedge,
                settings.cascade,
                distance_vox=extraction.radius_vox,
                workers=settings.workers,
                on_angles=on_angles,
            )
        statistics = extraction.cutoff == "gaussian"
        return ExactSearch(
            template, rotations, wedge, statistics=statistics, batch=self.batch, workers=settings.workers
        )

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
            self.check_memory()
            self._searches = {}
            self._searches = {
                variant.name: self._search(variant, extraction, None)
                for template, extraction in zip(templates, self.extraction, strict=True)
                for variant in self.variants(template)
            }
        elif not self._searches:
            self.prepare()
        # Tiles that the mask leaves out are stored as finished: they are those of this mask alone.
        inputs = [stamp, None if mask is None else mask_digest(mask)]
        task = _Task(volume, self.tiling(shape, folder), mask, folder, inputs, on_units or (lambda _: None))
        found = tuple(self._match_one(number, template, task) for number, template in enumerate(templates))
        radii = [extraction.radius_vox for extraction in self.extraction]
        lists = [part.particles for part in found]
        return TomogramMatch(decide_classes(lists, radii, largest_first=self.settings.largest_first), found)

    def _maps(self, variant: Template, task: _Task) -> dict[str, np.ndarray]:
        """The score maps of a template, or of what is searched for beside it."""
        search, store, tiling = self._searches[variant.name], None, task.tiling
        if task.folder is not None:
            settings = {
                "matcher": self.fingerprint(),
                "variant": variant.name,
                "tomogram": task.inputs,
                "core": tiling.core_zyx,
            }
            store = MapStore(tiling.shape_zyx, search.maps, task.folder / variant.name, settings)
            if store.finished:
                task.on_units(search.cost.units * len(store.finished))
        return search_volume(task.volume, search, tiling, store=store, mask=task.mask, on_units=task.on_units)

    def _match_one(self, number: int, template: Template, task: _Task) -> TemplateMatch:
        extraction, own = self.extraction[number], self._maps(template, task)
        variants = {variant.name: variant for variant in self.variants(template)[1:]}
        scores, angles = np.asarray(own["scores"]), np.asarray(own["angles"])
        inside = searched(scores.shape, extraction.edge_vox, task.mask)
        random = variants.get(f"{template.name}_random")
        if random is not None:
            scores = noise_corrected(scores, np.asarray(self._maps(random, task)["scores"]), inside)
        deviation = single_deviation(own["mean"], own["deviation"], inside) if "deviation" in own else None
        peaks = self._peaks(template, extraction, scores, angles, deviation, task)
        particles = self._refined(
            number, template, peaks, None if random is None else scores - own["scores"], angles, task
        )
        ratio = None
        mirror = variants.get(f"{template.name}_mirrored")
        if mirror is not None:
            ratio = _mirrored_ratio(own["scores"], self._maps(mirror, task)["scores"], extraction, task.mask)
        return TemplateMatch(template, scores, angles, particles, peaks.cutoff, ratio)

    def _peaks(
        self,
        template: Template,
        extraction: Extraction,
        scores: np.ndarray,
        angles: np.ndarray,
        deviation: float | None,
        task: _Task,
    ) -> Peaks:
        """The peaks that become picks, all with exact scores; those that the cascade left out are settled here."""
        search = self._searches[template.name]
        # Refinement raises scores, and a smallest score is meant of the picks as they are written.
        least = None if extraction.min_score is None else _BEFORE_REFINEMENT * extraction.min_score
        loose = replace(extraction, min_score=least)
        while True:  # each round settles a voxel at least
            peaks = find_peaks(scores, loose, mask=task.mask, deviation=deviation, angles=len(search.rotations))
            unsettled = peaks.voxels_zyx[angles[tuple(peaks.voxels_zyx.T)] < 0]
            if not len(unsettled) or not isinstance(search, CascadeSearch):
                return peaks
            at = tuple(unsettled.T)
            scores[at], angles[at] = search.settled(task.volume, unsettled)

    def _refined(
        self,
        number: int,
        template: Template,
        peaks: Peaks,
        correction: np.ndarray | None,
        angles: np.ndarray,
        task: _Task,
    ) -> Particles:
        """The picks of a template, with orientations and positions between voxels."""
        least, at = self.extraction[number].min_score, tuple(peaks.voxels_zyx.T)
        units = self.round_units(number, task.tiling)
        particles = refined(
            task.volume,
            template,
            peaks,
            self.rotations(template)[angles[at]],
            wedge=self.wedge(template),
            step_deg=self.settings.step_deg if self.settings.refine else None,
            offsets=None if correction is None else correction[at],
            on_rounds=lambda rounds: task.on_units(rounds * units),
        )
        if least is not None and particles.scores is not None:
            particles = particles.select(particles.scores >= least - _ROUNDING)
        return particles.with_(labels=np.full(len(particles), number + 1))


def _mirrored_ratio(
    scores: np.ndarray, mirrored: np.ndarray, extraction: Extraction, mask: np.ndarray | None
) -> float | None:
    """Mean of the best scores of the mirrored template over that of the template; None where nothing scores."""
    loose = replace(extraction, cutoff="none", tophat=False, min_score=None, max_picks=_BEST_SCORES)
    own, other = (find_peaks(np.asarray(found), loose, mask=mask).scores for found in (scores, mirrored))
    return float(other.mean() / own.mean()) if len(own) and len(other) else None
