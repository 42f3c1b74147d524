"""Segmentation of tomograms: throughput beside the network's bare forward pass, and peak memory of a large tomogram.

Both run the quickstart's network (five classes) on tiles of 64 voxels that overlap by 20. The bare pass is as many calls
on a batch that is on the device already; `segment` reads the volume from its file, normalises, cuts, predicts, sums,
and takes the class of every voxel. The two are timed in turn, in the reverse order in every other round. The share of the
bare pass's throughput is the median over the rounds of the ratio within a round; that of the smallest times is beside it.

Peak memory is that of a whole process: normalisation, segmentation, picking and writing of (512, 1024, 1024), which takes
a quarter of an hour on two cores.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import jax
import numpy as np

from benchmarks._common import Row, main, row, seconds
from robpicker_jax.config import Config, Species, load_config
from robpicker_jax.datasets import OpenedTomogram, TomogramFiles, open_tomogram
from robpicker_jax.picking.inference import DevicePredictor, number_of_tiles, over_rotations, prediction_mesh, segment
from robpicker_jax.picking.inference.segmentation import PREDICTIONS_UNDER_WAY
from robpicker_jax.system.large_pages import environment_with_large_pages
from robpicker_jax.training.experiment import build_experiment
from robpicker_jax.training.export import trained_model
from robpicker_jax.volumes import write_mrc

NAME = "inference"
TILE, OVERLAP, N_CLASSES = 64, 20, 5
_CALLS_THAT_WARM_UP = 20
"""With this many batches or more, the compilation in the first call is too short to count."""
SMALL, MIDDLE, LARGE = (108, 152, 196), (128, 512, 512), (512, 1024, 1024)


def configuration() -> Config:
    """The quickstart's network, with one more species."""
    config = load_config(Path(__file__).parents[1] / "configs" / "quickstart.yaml", [])
    species = (*config.data.species, Species("fourth", 5.0))
    batch_size = 4 if jax.default_backend() == "cpu" else 16
    return replace(
        config,
        data=replace(config.data, species=species),
        train=replace(config.train, variant="supervised", batch_size=len(jax.devices())),
        inference=replace(config.inference, tile=TILE, overlap_vox=OVERLAP, batch_size=batch_size),
    )


def predictor(config: Config) -> tuple[DevicePredictor, int]:
    """The network with fresh parameters on all local devices, and the tiles of a batch."""
    experiment = build_experiment(config)
    mesh = prediction_mesh()
    model = trained_model(experiment, experiment.state)
    return DevicePredictor(
        model.predict, (model.params, model.batch_stats), mesh
    ), config.inference.batch_size * mesh.size


def write_volume(path: Path, shape: tuple[int, int, int], seed: int = 0) -> None:
    """Noise about blobs of density, written plane by plane: a tomogram that is never in memory."""
    rng = np.random.default_rng(seed)
    coarse = rng.standard_normal([-(-size // 8) for size in shape], dtype=np.float32)
    write_mrc(path, np.zeros((1, 1, 1), np.float32), 10.0)
    header = np.fromfile(path, np.int32, 256)
    header[:3] = header[7:10] = shape[::-1]  # columns, rows, sections; the same of the unit cell
    header[10:13] = (np.array(shape[::-1], np.float32) * 10).view(np.int32)
    with path.open("wb") as file:
        file.write(header.tobytes())
        for z in range(shape[0]):
            smooth = coarse[z // 8].repeat(8, axis=0)[: shape[1]].repeat(8, axis=1)[:, : shape[2]]
            plane = smooth + 0.3 * rng.standard_normal(shape[1:], dtype=np.float32)
            file.write(plane.astype(np.float32).tobytes())


def bare(predict: Callable[[Any], Any], batch: Any, calls: int) -> None:
    """Forward passes on a batch that is on the device already; as many are queued at a time as `segment` queues."""
    under_way: deque[Any] = deque()
    for _ in range(calls):
        under_way.append(predict(batch))
        if len(under_way) > PREDICTIONS_UNDER_WAY:
            jax.block_until_ready(under_way.popleft())
    jax.block_until_ready(list(under_way))


@dataclass(frozen=True)
class Variant:
    """One way of segmenting."""

    name: str
    blend: str = "average"
    rotations: int = 1


PLAIN = Variant("average")
VARIANTS = (PLAIN, Variant("gaussian", blend="gaussian"), Variant("4 rotations", rotations=4))


def throughput(shape: tuple[int, int, int], folder: Path, variants: tuple[Variant, ...], rounds: int) -> Iterator[Row]:
    """Bare passes and segmentation of one volume in turn."""
    config = configuration()
    network, batch_size = predictor(config)
    path = folder / "throughput.mrc"
    write_volume(path, shape)
    files = TomogramFiles("t", "test", path)
    opened: list[OpenedTomogram] = []
    statistics_s = seconds(lambda: opened.append(open_tomogram(files, config.data, mode="streamed")), repeats=2)
    tiles = number_of_tiles(shape, TILE, OVERLAP)
    calls = -(-tiles // batch_size)
    voxels = int(np.prod(shape))
    batch = network.to_devices(np.zeros((batch_size, TILE, TILE, TILE, 1), np.float32))
    case = f"{shape}, {calls} batches of {batch_size}"
    yield row(NAME, case, "tiles", tiles, "")
    yield row(NAME, case, "normalisation", voxels / statistics_s / 1e6, "Mvoxel/s")
    for variant in variants:
        predict = over_rotations(network, variant.rotations)

        def whole(predict: Callable[[Any], Any] = predict, variant: Variant = variant) -> None:
            segment(
                opened[0],
                predict,
                N_CLASSES,
                tile=TILE,
                overlap_vox=OVERLAP,
                batch_size=batch_size,
                blend=variant.blend,
                to_devices=network.to_devices,
                device=network.first,
            )

        bare(predict, batch, 2)
        if calls < _CALLS_THAT_WARM_UP:
            whole()  # else its own few programs' compilation would count
        calls_of = {"bare": lambda predict=predict: bare(predict, batch, calls), "segment": whole}
        times: dict[str, list[float]] = {name: [] for name in calls_of}
        for number in range(rounds):
            for name in calls_of if number % 2 == 0 else reversed(calls_of):
                times[name].append(seconds(calls_of[name], repeats=1, warmup=0))
        ratios = [a / b for a, b in zip(times["bare"], times["segment"], strict=True)]
        smallest = {name: min(found) for name, found in times.items()}
        what = f"{case}, {variant.name}"
        yield row(NAME, what, "bare forward pass, smallest time", smallest["bare"], "s")
        yield row(NAME, what, "segment, smallest time", smallest["segment"], "s")
        yield row(NAME, what, "share of the bare pass's throughput", median(ratios), "", better="higher")
        yield row(NAME, what, "share, smallest times", smallest["bare"] / smallest["segment"], "")
        yield row(NAME, what, "tiles", tiles / smallest["segment"], "1/s")
        yield row(NAME, what, "voxels", voxels / smallest["segment"] / 1e6, "Mvoxel/s")
    for tomogram in opened:
        tomogram.close()
    path.unlink()


def memory(shape: tuple[int, int, int], folder: Path) -> Iterator[Row]:
    """Peak memory of a process that segments and picks a tomogram."""
    case = f"{shape}, a whole process"
    path = folder / "memory.mrc"
    write_volume(path, shape)
    command = [sys.executable, "-m", "benchmarks._inference_memory", str(path)]
    environment = environment_with_large_pages() or dict(os.environ)  # as the commands run
    root = str(Path(__file__).parents[1])
    environment["PYTHONPATH"] = os.pathsep.join([root, environment.get("PYTHONPATH", "")])
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    path.unlink()
    for metric, value, unit in json.loads(done.stdout.splitlines()[-1]):
        yield row(NAME, case, metric, value, unit, why="peak memory is read from /proc")


def run(quick: bool) -> Iterator[Row]:
    """Rows of all cases."""
    accelerated = jax.default_backend() != "cpu"
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        yield from throughput(SMALL, folder, VARIANTS[:1] if quick else VARIANTS, rounds=4 if quick else 6)
        if quick:
            return
        yield from throughput(MIDDLE, folder, VARIANTS[:1], rounds=3)
        yield from memory(LARGE, folder)
        if accelerated:
            yield from throughput(LARGE, folder, VARIANTS, rounds=2)
            return
    for metric, unit in (("segment", "s"), ("share of the bare pass's throughput", ""), ("voxels", "Mvoxel/s")):
        yield row(NAME, f"{LARGE}, accelerator", metric, None, unit, why="needs a GPU or TPU")


if __name__ == "__main__":
    main(NAME, run)
