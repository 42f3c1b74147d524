"""The commands by which averages go to other programs keep orientations and half sets."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from robpicker_jax.annotations import Particles, read_annotations, write_annotations
from robpicker_jax.annotations.geometry import random_rotations, rotation_angle_deg
from robpicker_jax.annotations.star import read_tables
from robpicker_jax.commands import convert
from robpicker_jax.commands.cli import call
from robpicker_jax.volumes import write_mrc

PAGE = Path(__file__).parents[2] / "docs" / "averaging.md"
SHAPE = (32, 40, 48)
TOMOGRAMS = """data_global

loop_
_rlnTomoName #1
_rlnTomoTiltSeriesPixelSize #2
_rlnTomoTomogramBinning #3
_rlnTomoSizeX #4
_rlnTomoSizeY #5
_rlnTomoSizeZ #6
train_000 4.0 4.0 192 160 128
"""


def commands() -> list[list[str]]:
    """The `robpicker convert` commands of the section, in order."""
    section = PAGE.read_text(encoding="utf-8").split("## From picks to RELION, Warp and M")[1].split("\n## ")[0]
    joined = "\n".join(re.findall(r"```sh\n(.*?)```", section, re.DOTALL)).replace("\\\n", " ")
    return [shlex.split(line)[2:] for line in joined.splitlines() if line.startswith("robpicker convert ")]


def test_orientations_and_halves_arrive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    particles = Particles(
        rng.uniform(4, 28, (6, 3)),
        np.ones(6, int),
        rotations=random_rotations(6, rng),
        scores=rng.random(6),
        tomograms=np.full(6, "train_000"),
        class_names=np.full(6, "ribosome"),
        extra={"rlnRandomSubset": np.array([1, 1, 2, 2, 2, 1])},
    )
    for folder in ("averages/ribosome", "data/train", "Tomograms/job001"):
        Path(folder).mkdir(parents=True)
    write_annotations(Path("averages/ribosome/particles.star"), particles, voxel_size_angstrom=16.0)
    write_mrc(Path("data/train/train_000.mrc"), np.zeros(SHAPE, np.float32), 16.0)
    Path("Tomograms/job001/tomograms.star").write_text(TOMOGRAMS)
    written = {}
    for arguments in commands():
        assert call(convert.main, arguments) == 0
        written[arguments[arguments.index("--to") + 1]] = Path(arguments[1])
    assert set(written) == {"relion5", "warp", "stopgap", "dynamo"}
    for name, path in written.items():
        back = read_annotations(path, fmt=name, voxel_size_angstrom=16.0, shape_zyx=SHAPE)
        np.testing.assert_allclose(back.positions_vox, particles.positions_vox, atol=1e-4)
        assert rotation_angle_deg(back.rotations, particles.rotations).max() < 1e-3
        if name in ("relion5", "warp"):
            assert [int(half) for half in back.extra["rlnRandomSubset"]] == [1, 1, 2, 2, 2, 1]
    rows = read_tables(written["stopgap"])["stopgap_motivelist"]
    assert list(rows["halfset"]) == ["A", "A", "B", "B", "B", "A"]
