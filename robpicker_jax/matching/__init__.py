"""Template matching: from a map of a particle to its picks in tomograms, with orientations and scores.

`TemplateRecipe` makes a `Template` of a density. `ExactSearch` scores every rotation at every voxel, `CascadeSearch` gets
nearly the same picks in a fraction of the time. `search_volume` goes through a tomogram tile by tile; `find_peaks` and
`refined` make picks of the score map. `Matcher` does all of it for several templates.
"""

from robpicker_jax.matching.cascade import CascadeSearch, CascadeSettings, build_cascade
from robpicker_jax.matching.exact import ExactSearch
from robpicker_jax.matching.extraction import Extraction, Peaks, decide_classes, find_peaks
from robpicker_jax.matching.matcher import Matcher
from robpicker_jax.matching.matches import TemplateMatch, TomogramMatch
from robpicker_jax.matching.plan import MatchPlan
from robpicker_jax.matching.refinement import refined
from robpicker_jax.matching.search import search_volume
from robpicker_jax.matching.settings import MatchSettings
from robpicker_jax.matching.templates import Template, TemplateRecipe, ball_mask, shape_mask
from robpicker_jax.matching.tiles import MapStore, Tiling

__all__ = [
    "CascadeSearch",
    "CascadeSettings",
    "ExactSearch",
    "Extraction",
    "MapStore",
    "MatchPlan",
    "MatchSettings",
    "Matcher",
    "Peaks",
    "Template",
    "TemplateMatch",
    "TemplateRecipe",
    "Tiling",
    "TomogramMatch",
    "ball_mask",
    "build_cascade",
    "decide_classes",
    "find_peaks",
    "refined",
    "search_volume",
    "shape_mask",
]
