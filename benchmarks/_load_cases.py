"""One case of `benchmarks.load` at one size, in a process of its own: prints seconds and peak memory, as JSON.

python -m benchmarks._load_cases CASE SIZE [--limit-gib G]
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

Work = Callable[[], object]


def _particles(count: int, extent: float = 500.0, classes: int = 4):  # type: ignore[no-untyped-def]
    from robpicker_jax.annotations import Particles

    rng = np.random.default_rng(0)
    places, labels = rng.uniform(0, extent, (count, 3)), rng.integers(1, classes + 1, count)
    return Particles(places, labels, scores=rng.random(count))


def data_set(size: int, folder: Path) -> Work:
    """Finding `size` tomograms and their lists, and their stamps, as the start of a training does."""
    from robpicker_jax.annotations import write_annotations
    from robpicker_jax.config import DataConfig, Species
    from robpicker_jax.datasets import dataset, survey
    from robpicker_jax.datasets.stamps import stamps
    from robpicker_jax.volumes import write_mrc

    density = np.random.default_rng(0).normal(size=(16, 16, 16)).astype(np.float32)
    particles = _particles(50, 15.0, classes=2)
    for number in range(size):
        split = ("train", "train", "meta", "test")[number % 4]
        write_mrc(folder / split / f"TS_{number:04d}.mrc", density, 10.0)
        write_annotations(folder / split / f"TS_{number:04d}_objl.xml", particles)
    data = DataConfig(dir=str(folder), species=(Species("a", 3.0), Species("b", 2.0)), meta_labels="sphere")

    def work() -> None:
        splits = dataset(folder, data)
        survey(splits, data, 16).close()
        assert sum(map(len, stamps(splits).values())) == 2 * size

    return work


def _list(size: int, folder: Path, suffix: str) -> Work:
    from robpicker_jax.annotations import read_annotations, write_annotations

    particles, path = _particles(size), folder / f"a.{suffix}"

    def work() -> None:
        write_annotations(path, particles)
        assert len(read_annotations(path)) == size

    return work


def csv_list(size: int, folder: Path) -> Work:
    """Writing and reading a CSV table of `size` particles."""
    return _list(size, folder, "csv")


def star_list(size: int, folder: Path) -> Work:
    """Writing and reading a STAR list of `size` particles."""
    return _list(size, folder, "star")


def imod_objects(size: int, folder: Path) -> Work:
    """Writing and reading an IMOD model whose `size` contours have values of their own."""
    import struct

    from robpicker_jax.annotations import read_annotations

    value = b"OBST" + struct.pack(">i", 12) + struct.pack(">hHif", 10, 4, 0, 0.5)
    contour = b"CONT" + struct.pack(">4i", 1, 0, 0, 0) + struct.pack(">3f", 1, 2, 3) + value
    path = folder / "a.mod"
    path.write_bytes(b"IMODV1.2" + bytes(232) + (b"OBJT" + bytes(176) + contour) * size + b"IEOF")
    return lambda: read_annotations(path)


def _evaluation(size: int, extent: float, classes: int) -> Work:
    from robpicker_jax.annotations import Particles
    from robpicker_jax.evaluation import EvaluationOptions, evaluate

    rng = np.random.default_rng(0)
    true, picked = (rng.uniform(0, extent, (size, 3)) for _ in range(2))
    labels = np.arange(size) % classes + 1
    options = EvaluationOptions(
        rule="tolerance", class_names=tuple(f"class {label}" for label in range(classes)), tolerance_vox=5.0
    )
    truth, picks = Particles(true, labels), Particles(picked, labels, scores=rng.random(size))
    return lambda: evaluate({"a": truth}, {"a": picks}, options)


def crowd(size: int, folder: Path) -> Work:
    """Evaluating `size` picks against as many particles, all within one hit's distance of each other."""
    return _evaluation(size, 2.0, 1)


def spread(size: int, folder: Path) -> Work:
    """Evaluating `size` picks against as many particles, as densely as in a crowded tomogram."""
    return _evaluation(size, 12.0 * size ** (1 / 3), 1)


def classes(size: int, folder: Path) -> Work:
    """Label map, and evaluation, of 100 particles for each of `size` classes."""
    from robpicker_jax.labels import SphereLabels

    evaluation = _evaluation(100 * size, 300.0, size)
    particles = _particles(100 * size, 299.0, classes=size)
    maker = SphereLabels([4.0] * size)

    def work() -> None:
        evaluation()
        maker.labels((300, 300, 300), particles)

    return work


def _clustering(class_map: np.ndarray) -> Work:
    from robpicker_jax.picking.clustering import build_clustering

    cluster = build_clustering("dbscan", {})
    return lambda: cluster(class_map, None, [1])


def empty_volume(size: int, folder: Path) -> Work:
    """Clustering a class map of `size` thousand voxels without a particle."""
    return _clustering(np.zeros((size, 25, 40), np.uint8))


def full_volume(size: int, folder: Path) -> Work:
    """Clustering a class map of `size` thousand voxels that are all particle."""
    return _clustering(np.ones((size, 25, 40), np.uint8))


def thin_volume(size: int, folder: Path) -> Work:
    """Clustering a class map one voxel thick, of `size` thousand voxels, a third of them particles."""
    grid = np.add.outer(np.arange(1000) % 12 // 6, np.arange(size) % 12 // 6)
    return _clustering((grid == 2).astype(np.uint8)[None])


def large_volume(size: int, folder: Path) -> Work:
    """Opening a volume of `size` planes of 1024 × 1024 (float32), its scaling, a report's picture, and a class map's bytes."""
    from robpicker_jax.config import DataConfig
    from robpicker_jax.datasets import TomogramFiles, open_tomogram
    from robpicker_jax.reporting.stored import binned_density
    from robpicker_jax.volumes import write_mrc

    path = folder / "a.mrc"
    plane = np.random.default_rng(0).normal(size=(1, 1024, 1024)).astype(np.float32)
    write_mrc(path, np.broadcast_to(plane, (1, 1024, 1024)), 10.0)
    with path.open("r+b") as file:  # the voxels, plane by plane: the whole is never in memory
        header = bytearray(file.read(1024))
        for at in (8, 36):  # nz, mz
            header[at : at + 4] = np.array(size, "<i4").tobytes()
        header[48:52] = np.array(10.0 * size, "<f4").tobytes()
        file.seek(0)
        file.write(bytes(header))
        file.seek(0, 2)
        for number in range(size - 1):
            file.write((plane * (1 + number / size)).astype("<f4").tobytes())

    def work() -> None:
        tomogram = open_tomogram(TomogramFiles("a", "", path), DataConfig(), mode="mapped")
        assert tomogram.shape_zyx == (size, 1024, 1024)
        binned_density(tomogram)
        tomogram.close()

    return work


CASES: dict[str, Callable[[int, Path], Work]] = {
    "tomograms in a data set": data_set,
    "particles in a CSV list": csv_list,
    "particles in a STAR list": star_list,
    "objects of an IMOD model": imod_objects,
    "particles at one place, evaluated": crowd,
    "particles, evaluated": spread,
    "classes": classes,
    "thousand voxels without a particle, clustered": empty_volume,
    "thousand voxels of particle, clustered": full_volume,
    "thousand voxels one voxel thick, clustered": thin_volume,
    "planes of 1024 x 1024": large_volume,
}


def main() -> None:
    """Prepare, then measure; with `--limit-gib`, in no more address space than that."""
    parser = argparse.ArgumentParser()
    parser.add_argument("case", choices=CASES)
    parser.add_argument("size", type=int)
    parser.add_argument("--limit-gib", type=float)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    if options.limit_gib:
        limit = int(options.limit_gib * 2**30)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for name in ("small", "whole"):
            (Path(folder) / name).mkdir()
        CASES[options.case](min(options.size, 10), Path(folder) / "small")()  # imports belong to no size
        work = CASES[options.case](options.size, Path(folder) / "whole")
        began = time.process_time()
        work()
        seconds = time.process_time() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "peak_mib": peak}))


if __name__ == "__main__":
    main()
