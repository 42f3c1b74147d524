"""What the picker `template_matching` is told: the templates, the tilt series, the search, the cut-off."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field

from robpicker_jax.config.field_types import STRICT, Fraction, NonNegative, Positive, PositiveInt, about


@dataclass(frozen=True)
class TemplateConfig:
    """One template; its class label is its position in `templates`, counted from 1."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    name: Annotated[str, about("name of its class")]
    density: Annotated[str, about("MRC map (relative to the file), or phantom:NAME, a species of the simulator")]
    diameter_angstrom: Annotated[
        Positive | None, about("of the particle; none: of what stands out of the map's background")
    ] = None
    symmetry: Annotated[str, about("point group: C1, C2, …, D2, …, T, O, I")] = "C1"
    min_score: Annotated[float | None, about("smallest score of a pick; none: what the cut-off says")] = None


@dataclass(frozen=True)
class MatchingConfig:
    """Template matching, by the names that the options of `robpicker match` have; docs/matching.md explains them."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    templates: Annotated[tuple[TemplateConfig, ...], Field(min_length=1), about("the templates, one class each")]
    voxel_size_angstrom: Annotated[Positive, about("voxel size of the tomograms that it is made for")]
    contrast: Annotated[Literal["dark", "bright"], about("particles against their surroundings")] = "dark"
    low_pass_angstrom: Annotated[Positive | None, about("resolution of the templates; none: two voxels")] = None
    tilts_deg: Annotated[tuple[float, float] | None, about("tilt range about the y axis; none: no wedge")] = (
        -60.0,
        60.0,
    )
    tilt_step_deg: Annotated[
        Positive | None, about("angle between tilts, to weigh Fourier space tilt by tilt; none: a binary wedge")
    ] = None
    dose_per_tilt: Annotated[NonNegative | None, about("electrons per Å² and tilt, in order from 0 outwards")] = None
    defocus_um: Annotated[Positive | None, about("underfocus in micrometres, for the CTF; none: no CTF")] = None
    phase_flipped: Annotated[bool, about("the tomograms' CTF was corrected by phase flipping")] = False
    voltage_kv: Annotated[Positive, about("acceleration voltage")] = 300.0
    spherical_aberration_mm: Annotated[NonNegative, about("spherical aberration")] = 2.7
    amplitude_contrast: Annotated[Fraction, about("amplitude contrast fraction of the CTF")] = 0.07
    angle_step_deg: Annotated[Positive, about("between neighbouring orientations")] = 10.0
    search: Annotated[Literal["cascade", "exact"], about("how orientations are searched")] = "cascade"
    whiten: Annotated[bool, about("make the tomogram's spectrum flat")] = False
    refine: Annotated[bool, about("refine the orientation of each pick")] = True
    cutoff: Annotated[Literal["extreme", "none"], about("cut-off by the statistics of peaks")] = "extreme"
    false_positives: Annotated[Positive, about("picks of pure noise that the cut-off lets pass")] = 1.0
    max_picks: Annotated[PositiveInt | None, about("most picks of a template in a tomogram")] = None
    largest_first: Annotated[
        bool, about("where classes compete, the larger template decides, not the better score")
    ] = False
