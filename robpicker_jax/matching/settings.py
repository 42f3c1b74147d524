"""How tomograms are matched."""

from __future__ import annotations

from dataclasses import dataclass, field

from robpicker_jax.matching.cascade import CascadeSettings
from robpicker_jax.rotations import TiltScheme
from robpicker_jax.system.errors import InputError

SEARCHES = ("exact", "cascade")


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
