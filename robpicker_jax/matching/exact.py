"""Exact search: every rotation at every voxel."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np

from robpicker_jax.matching import correlation
from robpicker_jax.matching.correlation import Filter, Scores
from robpicker_jax.matching.cost import Cost
from robpicker_jax.matching.templates import Template
from robpicker_jax.system.cores import usable_cores

_CHUNK = 32  # rotations in one call: one compilation, and progress every few seconds

OnAngles = Callable[[int], None]


def exact_cost(
    template: Template, angles: int, *, statistics: bool = False, batch: int = 1, workers: int | None = None
) -> Cost:
    """What an exact search takes.

    For each worker and voxel of the tile: 8 bytes for two spectra, 8 for products and their inverse, 12 of working space;
    for each worker and voxel of the core: 12, 8 more with statistics, and 8 for each rotation at once.
    """
    fine = 4 * (correlation.OVERSAMPLING * template.edge) ** 3 * (2 if template.turns else 1)
    count = _count(workers)
    first, last = template.window
    return Cost(
        last - first,
        angles,
        count * fine,
        count * (12 + 8 * statistics + 8 * batch),
        count * (16 + 12 * batch) + 4,
    )


def _count(workers: int | None) -> int:
    """Threads: one for each device, or for each core where the only device is a CPU."""
    devices = jax.local_devices()
    single = len(devices) == 1 and devices[0].platform == "cpu"
    return max(1, workers or (usable_cores() if single else len(devices)))


@dataclass(frozen=True, eq=False)
class ExactSearch:
    """Scores tiles at every rotation of a list.

    The rotations are divided among workers: the devices of this process, or threads where the only device is a CPU, whose
    transforms use one core each.

    Attributes:
        template: what is searched for.
        rotations: (m, 3, 3).
        wedge: centred weights of the template's box; none: all ones.
        statistics: whether mean and standard deviation over angles are kept for each voxel.
        batch: rotations at once on a device; 1 is best on CPUs.
        workers: threads; none: one for each device, or for each core where the only device is a CPU.
    """

    template: Template
    rotations: np.ndarray
    wedge: np.ndarray | None = None
    statistics: bool = False
    batch: int = 1
    workers: int | None = None
    source: Filter = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "source", correlation.build_filter(self.template, self.wedge))

    @property
    def maps(self) -> tuple[str, ...]:
        """Names of the maps that a tile gives."""
        return ("scores", "angles", *(("mean", "deviation") if self.statistics else ()))

    @property
    def cost(self) -> Cost:
        """See `exact_cost`."""
        return exact_cost(
            self.template, len(self.rotations), statistics=self.statistics, batch=self.batch, workers=self.workers
        )

    def tile(
        self, tile: np.ndarray, core_zyx: tuple[int, int, int], on_angles: OnAngles | None = None
    ) -> Mapping[str, np.ndarray]:
        """The maps of a core.

        Args:
            tile: float32 of shape `tile_shape(core_zyx, window)`, see `correlation`.
            core_zyx: shape of the core.
            on_angles: called with the number of rotations just done.

        Returns:
            "scores" float32 and "angles" int32, the number of the best rotation; with statistics "mean" and "deviation".
        """
        devices = jax.local_devices()
        parts = np.array_split(np.arange(len(self.rotations)), _count(self.workers))
        jobs = [(devices[i % len(devices)], part) for i, part in enumerate(parts) if len(part)]
        if len(jobs) == 1:
            found = [self._part(tile, core_zyx, *jobs[0], on_angles)]
        else:
            with ThreadPoolExecutor(len(jobs), thread_name_prefix="angles") as pool:
                futures = [pool.submit(self._part, tile, core_zyx, *job, on_angles) for job in jobs]
                found = [jax.device_put(future.result(), devices[0]) for future in futures]
        whole = found[0]
        for other in found[1:]:
            whole = correlation.merged(whole, other)
        result = {"scores": np.asarray(whole.best), "angles": np.asarray(whole.angle)}
        if self.statistics:
            mean = np.asarray(whole.total) / len(self.rotations)
            spread = np.asarray(whole.squares) / len(self.rotations) - mean**2
            result |= {"mean": mean, "deviation": np.sqrt(np.maximum(spread, 0))}
        return result

    def _part(
        self,
        tile: np.ndarray,
        core: tuple[int, int, int],
        device: jax.Device,
        numbers: np.ndarray,
        on_angles: OnAngles | None,
    ) -> Scores:
        window = self.template.window
        shape = correlation.tile_shape(core, window[1] - window[0])
        assert tile.shape == shape
        chunk = self.batch * max(1, min(_CHUNK, len(numbers)) // self.batch)
        with jax.default_device(device):
            source = jax.device_put(self.source, device)
            weights = (source.mask / source.mask.sum())[(slice(*window),) * 3]
            spectrum, squared, inverse = correlation.prepared_tile(jax.device_put(tile, device), weights, core=core)
            scores = correlation.empty_scores(core, self.statistics)
            for first in range(0, len(numbers), chunk):
                now = numbers[first : first + chunk]
                # Filled up to one length, so that there is one compilation.
                filled = np.concatenate([now, np.full(chunk - len(now), now[-1])])
                indices = np.where(np.arange(chunk) < len(now), filled, -1).astype(np.int32)
                scores = correlation.add_angles(
                    scores,
                    source,
                    spectrum,
                    squared,
                    jnp.asarray(self.rotations[filled], jnp.float32),
                    jnp.asarray(indices),
                    shape=shape,
                    core=core,
                    window=window,
                    turns=self.template.turns,
                    statistics=self.statistics,
                    batch=self.batch,
                )
                if on_angles is not None:
                    scores.best.block_until_ready()
                    on_angles(len(now))
        return scores if self.template.turns else correlation.normalised(scores, inverse)
