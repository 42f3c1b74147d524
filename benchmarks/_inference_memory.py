"""Segments, picks and writes one tomogram in a process of its own, and prints what memory it took, as JSON.

    python -m benchmarks._inference_memory VOLUME.mrc

Every batch goes through a network with fresh parameters. Its output is then replaced by probabilities in which every
class occurs, as a trained network would give them, so that there is something to cluster and to pick.
"""

from __future__ import annotations

import functools
import json
import re
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.inference import N_CLASSES, OVERLAP, TILE, configuration, predictor
from robpicker_jax.datasets import TomogramFiles, stream_tomograms
from robpicker_jax.picking.inference import memory_bound, segment
from robpicker_jax.picking.picks import particles_from_class_map
from robpicker_jax.volumes import write_mrc

Figure = tuple[str, float | None, str]


@functools.partial(jax.jit, donate_argnums=0)
def by_density(predicted: jax.Array, tiles: jax.Array) -> jax.Array:
    """Probabilities that turn dense voxels into classes: clusters of some hundred voxels, and ragged ones."""
    levels = jnp.array([-jnp.inf, 1.8, 2.1, 2.4, 2.7])
    logits = jnp.where(tiles > levels, 4.0 * jnp.arange(N_CLASSES), 0.0)
    return jax.nn.softmax(logits, axis=-1) + 0.0 * predicted


def peak_gib() -> float | None:
    """Largest resident memory of this process so far, GiB."""
    try:
        match = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    except OSError:
        return None
    return int(match[1]) / 2**20 if match else None


def measure(path: Path) -> list[Figure]:
    """Figures (metric, value, unit) of the stages."""
    config = configuration()
    network, batch_size = predictor(config)

    def predict(tiles: Any) -> Any:
        return by_density(network(tiles), tiles)

    figures: list[Figure] = []

    def stage(name: str, start: float) -> None:
        figures.append((f"{name}, time", time.monotonic() - start, "s"))
        figures.append((f"peak memory after {name}", peak_gib(), "GiB"))

    batch = network.to_devices(np.zeros((batch_size, TILE, TILE, TILE, 1), np.float32))
    jax.block_until_ready(predict(batch))
    figures.append(("peak memory after compilation", peak_gib(), "GiB"))
    start = time.monotonic()
    for tomogram in stream_tomograms([TomogramFiles("memory", "test", path)], config.data):
        stage("normalisation", start)
        bound = memory_bound(
            tomogram.shape_zyx,
            N_CLASSES,
            tile=TILE,
            overlap_vox=OVERLAP,
            batch_size=batch_size,
            shared=network.first.platform == "cpu",
        )
        start = time.monotonic()
        found = segment(
            tomogram,
            predict,
            N_CLASSES,
            tile=TILE,
            overlap_vox=OVERLAP,
            batch_size=batch_size,
            to_devices=network.to_devices,
            device=network.first,
        )
        stage("segmentation", start)
        start = time.monotonic()
        picks = particles_from_class_map(found.classes, found.probability, N_CLASSES, config.picking)
        stage("picking", start)
        start = time.monotonic()
        for name, data in (("classes", found.classes), ("probability", found.probability)):
            write_mrc(path.with_name(f"{name}.mrc"), data, 10.0)
            path.with_name(f"{name}.mrc").unlink()
        stage("writing", start)
        figures.append(("bound beside the network", (bound.host + bound.device * bound.shared) / 2**30, "GiB"))
        figures.append(("labelled voxels", int(np.count_nonzero(found.classes)), ""))
        figures.append(("picks", len(picks), ""))
    figures.append(("peak memory", peak_gib(), "GiB"))
    return figures


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1]))))
