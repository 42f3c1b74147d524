"""The whole job at the size of SHREC 2019: real object lists and protein maps, (200, 512, 512) voxels of 10 Å.

Tomograms are simulated at the positions and angles of SHREC 2019's object lists from density maps of the species
(4cr2 and 4v94 in place of 4b4t and 4d8q); sphere and shape label maps are made; a small U-Net trains at 64³; a whole
tomogram is picked. Each part is a command of the package in a process of its own, timed, with its peak memory.

The data are not part of this repository: ROBPICKER_TEST_DATA names their folder (with densities/ and shrec2019/).
`--quick` does the same on a small random volume, with a tiny network and two training steps.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import yaml

from benchmarks._common import Row, main, row
from benchmarks.paper.shrec import STAND_INS

BENCHMARK = "shrec_lookalike"
SPECIES = ["1bxn", "1qvr", "1s3x", "1u6g", "2cg9", "3cf3", "3d2f", "3gl1", "3h84", "3qm1", "4b4t", "4d8q"]
RADII_VOX = [6, 6, 3, 6, 6, 7, 6, 4, 4, 3, 10, 8]
STEPS = 50


def run(quick: bool) -> Iterator[Row]:
    """Simulate, label, train and pick."""
    data = Path(os.environ.get("ROBPICKER_TEST_DATA", ""))
    if not (data / "shrec2019").is_dir():
        yield row(BENCHMARK, "all", "time", None, "s", why="no data: set ROBPICKER_TEST_DATA to their folder")
        return
    with tempfile.TemporaryDirectory(dir=os.environ.get("ROBPICKER_BENCHMARK_DIR")) as folder:
        yield from _job(Path(folder), data, quick)


def _job(folder: Path, data: Path, quick: bool) -> Iterator[Row]:
    lists, dataset, workdir = data / "shrec2019", folder / "data", folder / "run"
    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump(_configuration(data, dataset, quick)), encoding="utf-8")
    common = ["--config", str(config)]
    places = [] if quick else ["--at", f"train={lists / 'object_list_valid.xml'}"]
    places += [] if quick else ["--at", f"meta={lists / 'object_list_tomo0.xml'}"]
    places += [] if quick else ["--at", f"test={lists / 'object_list_train.xml'}#1"]
    yield from _measured("simulate", ["simulate", *common, "--out", str(dataset), *places])
    for kind in ("sphere", "shape"):
        label = ["targets", *common, "--data", str(dataset), "--labels", kind, "--overwrite"]
        yield from _measured(f"label maps, {kind}", label)
    yield from _measured("train and pick the test tomogram", ["train", *common, "--workdir", str(workdir)])
    tomogram = dataset / "test" / "test_000.mrc"
    out = folder / "picks"
    pick = ["pick", "--workdir", str(workdir), "--out", str(out), str(tomogram)]
    yield from _measured("pick a whole tomogram", pick)
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    rates = [entry["patches_per_second"] for entry in rows if entry["kind"] == "train"]
    yield row(BENCHMARK, "train", "patches per second, exact bi-level step", rates[-1], "1/s")
    losses = [entry["outer_loss"] for entry in rows if entry["kind"] == "train"]
    yield row(BENCHMARK, "train", "outer loss, first logged step", losses[0], "")
    yield row(BENCHMARK, "train", "outer loss, last step", losses[-1], "")
    score = json.loads((workdir / "evaluation.json").read_text(encoding="utf-8"))["macro"]["f1"]
    yield row(BENCHMARK, "train", "macro F1 (far too few steps to mean anything)", score, "")


def _configuration(data: Path, dataset: Path, quick: bool) -> dict[str, object]:
    species = [
        {
            "name": name,
            "radius_vox": radius,
            "density": str(data / "densities" / f"{STAND_INS.get(name, name)}.mrc"),
            "mask": str(data / "shrec2019" / "masks" / f"{name}.mrc"),
            "copies": 2,
        }
        for name, radius in zip(SPECIES, RADII_VOX, strict=True)
    ]
    return {
        "data": {"dir": str(dataset), "species": species, "voxel_size_angstrom": 10.0},
        "simulation": {
            "shape_zyx": [48, 96, 96] if quick else [200, 512, 512],
            "voxel_size_angstrom": 10.0,
            "train": int(quick),
            "meta": int(quick),
            "val": 0,
            "test": int(quick),
            "snr": 0.1,
        },
        "patches": {"size": 32 if quick else 64, "shift_vox": 13},
        "model": {
            "preset": "custom",
            "widths": [4, 8] if quick else [8, 16, 24],
            "convs_per_block": 2,
            "bottleneck_convs": 1,
            "decoder_convs": 1,
        },
        "train": {
            "steps": 2 if quick else STEPS,
            "batch_size": 4,
            "inner": {"name": "adam", "learning_rate": 5e-3},
            "validate_every": 10**6,
            "checkpoint_every": 25,
            "log_every": 1 if quick else 5,
        },
        "inference": {"overlap_vox": 20, "batch_size": 4},
        "picking": {"min_cluster_vox": 30},
    }


def _measured(case: str, arguments: list[str]) -> Iterator[Row]:
    """Run a command of the package; its wall time and peak resident memory."""
    code = (
        "import resource, runpy, sys\n"
        "sys.argv = ['robpicker', *sys.argv[1:]]\n"
        "try: runpy.run_module('robpicker_jax', run_name='__main__')\n"
        "finally: print('peak_kib', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
    )
    began = time.perf_counter()
    result = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    elapsed = time.perf_counter() - began
    if result.returncode:
        raise RuntimeError(f"{' '.join(arguments)} failed:\n{result.stdout}\n{result.stderr}")
    peak = int(result.stdout.rsplit("peak_kib", 1)[1].split()[0]) / 2**20
    yield row(BENCHMARK, case, "time", elapsed, "s")
    yield row(BENCHMARK, case, "peak resident memory", peak, "GiB")


if __name__ == "__main__":
    main(BENCHMARK, run)
