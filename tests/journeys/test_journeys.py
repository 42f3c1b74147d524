"""A new user's way from files to picks in three worlds: at most six commands, nothing moved, and no file edited by hand."""

from __future__ import annotations

import hashlib
import importlib
import shlex
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import yaml

import robpicker_jax as rp
from robpicker_jax.annotations import Particles
from robpicker_jax.commands.cli import call
from tests.journeys import worlds

SMALL = " ".join(worlds.SMALL)
PLAIN = "--train.variant=supervised"
"""Without the meta networks, whose step takes most of the time to compile; the notebook's way trains them."""


def follow(*commands: str) -> None:
    """Run commands as a shell would; each has to succeed."""
    assert len(commands) <= 6
    for command in commands:
        robpicker, verb, *arguments = shlex.split(command)
        assert robpicker == "robpicker"
        door = importlib.import_module(f"robpicker_jax.{verb}")
        assert call(door.main, arguments) == 0, command


def digests(folder: Path) -> Mapping[Path, str]:
    """Every file of a folder with its hash."""
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}


def nearest(picked_vox: np.ndarray, truth: Particles) -> float:
    """Median distance of picks from the nearest true particle, voxels; a pick at random is about 10 away."""
    assert len(picked_vox) >= 4
    return float(np.median(np.linalg.norm(picked_vox[:, None] - truth.positions_vox[None], axis=2).min(axis=1)))


def test_a_warp_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import starfile

    folder, truth = worlds.warp_project(tmp_path)
    before = digests(folder)
    monkeypatch.chdir(folder)
    follow(
        f"robpicker init . --species apoferritin:60,p97:70 --meta TS_02 --out warp.yaml {SMALL} {PLAIN}",
        "robpicker doctor --config warp.yaml",
        "robpicker train --config warp.yaml --workdir RUN",
        "robpicker pick --workdir RUN --out PICKS --format warp --together --name-pattern 'TS_[0-9]+' "
        "warp_tiltseries/reconstruction/TS_03_10.00Apx.mrc",
    )
    assert {path: digest for path, digest in digests(folder).items() if path in before} == before
    resolved = yaml.safe_load(Path("RUN/config.yaml").read_text())
    assert [entry["radius_vox"] for entry in resolved["data"]["species"]] == [6.0, 7.0]
    table = starfile.read("PICKS/picks.star")
    assert set(table["rlnMicrographName"]) == {"TS_03.tomostar"}
    assert nearest(table[[f"rlnCoordinate{axis}" for axis in "XYZ"]].to_numpy(), truth["TS_03"]) < 2.5


def test_a_copick_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, truth = worlds.copick_project(tmp_path)
    import copick

    before = digests(folder)
    monkeypatch.chdir(folder)
    follow(
        f"robpicker init . --out copick.yaml --meta TS_02 {SMALL} {PLAIN}",
        "robpicker doctor --config copick.yaml",
        "robpicker train --config copick.yaml --workdir RUN",
        "robpicker pick --workdir RUN --out copick_config.json copick_config.json",
    )
    assert {path: digest for path, digest in digests(folder).items() if path in before} == before
    assert yaml.safe_load(Path("copick.yaml").read_text())["data"]["species"] == [
        {"name": "apoferritin", "radius_angstrom": 60.0},  # as the project's objects have it
        {"name": "p97", "radius_angstrom": 70.0},
    ]
    found = copick.from_file("copick_config.json").get_run("TS_03").get_picks(user_id="robpicker")
    positions = np.concatenate([picks.numpy()[0] for picks in found]) / worlds.VOXEL
    assert nearest(positions, truth["TS_03"]) < 2.5


def test_arrays_in_a_notebook(tmp_path: Path) -> None:
    volumes, truth = worlds.arrays(tmp_path)
    annotated = {name: truth[name] for name in ("TS_01", "TS_02")}

    folder = rp.write_tomograms(tmp_path / "mine", volumes, annotated, voxel_size=worlds.VOXEL)
    small = [flag.removeprefix("--") for flag in worlds.SMALL]
    config = rp.init(folder, species=worlds.SPECIES, meta=["TS_02"], overrides=small)
    model = rp.train(config, workdir=tmp_path / "RUN")
    picks = model.pick(volumes["TS_03"], voxel_size=worlds.VOXEL)

    assert model.species == list(worlds.SPECIES)
    assert nearest(picks.positions_vox, truth["TS_03"]) < 2.5
    with pytest.raises(rp.InputError, match="exists"):
        rp.init(folder)
    with pytest.raises(rp.InputError, match="exists"):
        rp.write_tomograms(folder, volumes, voxel_size=worlds.VOXEL)
    with pytest.raises(rp.InputError, match="no tomogram 'TS_09'"):
        rp.write_tomograms(tmp_path / "new", volumes, {"TS_09": truth["TS_01"]}, voxel_size=worlds.VOXEL)
