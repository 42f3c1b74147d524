"""The pages on users' own data, run as they are written on generated data."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest

from robpicker_jax.annotations import Particles, read_annotations, write_annotations
from robpicker_jax.commands.cli import call
from robpicker_jax.commands.verbs import verbs
from robpicker_jax.config import load_config
from robpicker_jax.picking.pick_files import PICK_FORMATS, PickFiles, PickTarget
from robpicker_jax.simulation import DatasetRecipe, simulate_dataset
from tests.tiny import write_tiny

DOCS = Path(__file__).parents[2] / "docs"
VOXEL = 20.0
SHAPE = (32, 48, 48)
POSITIONS = np.array([[10.5, 12.25, 14.0], [30.0, 8.0, 20.0], [20.0, 40.0, 9.5]])


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL)


def run(block: str) -> list[int]:
    """Exit codes of a block's commands, each run by its door."""
    codes = []
    for line in block.replace("\\\n", " ").strip().splitlines():
        python, flag, module, *arguments = shlex.split(line)
        assert (python, flag) == ("python", "-m")
        package, verb = module.split(".")
        assert package == "robpicker_jax"
        assert verb in verbs()
        door = __import__(module, fromlist=["main"])
        codes.append(call(door.main, arguments))
    return codes


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_your_own_data_in_five_steps(folder: Path) -> None:
    overrides = [
        "data.species.0.copies=6",
        "data.species.1.copies=10",
        "simulation.shape_zyx=[32,64,64]",
        "label_noise={}",
    ]
    config = load_config(write_tiny(folder / "tiny.yaml"), overrides)
    simulate_dataset(DatasetRecipe(config.data.species, config.simulation, config.label_noise), folder / "DATA")
    for target in folder.glob("DATA/*/*_target.mrc"):
        target.unlink()
    # Their list, as a program that counts in Å left it.
    given = folder / "DATA/train/train_000_objl.xml"
    truth = read_annotations(given)
    rows = [
        f"{name},{x * 22},{y * 22},{z * 22}"
        for name, (x, y, z) in zip(np.asarray(truth.class_names), truth.positions_vox, strict=True)
    ]
    (folder / "lists").mkdir()
    (folder / "lists/train_000.csv").write_text("\n".join(["class_name,x,y,z", *rows]) + "\n")
    given.unlink()

    convert, doctor, train = blocks("your_own_data.md", "bash")
    assert run(convert) == [0, 0]
    converted = read_annotations(given)
    np.testing.assert_allclose(converted.positions_vox, truth.positions_vox, atol=1e-6)
    np.testing.assert_array_equal(converted.labels, truth.labels)

    _, settings = blocks("your_own_data.md", "yaml")  # the first one is of data that are left where they lie
    (folder / "my.yaml").write_text(settings)
    assert run(doctor) == [0]
    assert json.loads((folder / "findings.json").read_text())["errors"] == 0
    assert run(train) == [0, 0]
    assert (folder / "RUN/report").is_dir()
    assert list((folder / "PICKS").glob("test_000.*"))

    picking = blocks("relion_warp.md", "bash")[3]
    assert run(picking) == [0, 0]
    assert [path.name for path in (folder / "PICKS5").glob("[!.]*")] == ["picks.star"]
    assert {"picks.star", "picks_warp.star", "picks.tbl"} <= {path.name for path in (folder / "PICKS4").iterdir()}


def test_from_relion_and_warp_and_back(folder: Path) -> None:
    from robpicker_jax.volumes import write_mrc

    for name in ("train_000", "test_000"):
        write_mrc(folder / f"{name}.mrc", np.zeros(SHAPE, np.float32), VOXEL)
    centre = np.array(SHAPE[::-1]) / 2
    tomograms = ["train_000", "train_000", "train_001"]
    lines = [
        f"{t} {' '.join(f'{c:.4f}' for c in (p - centre) * VOXEL)} 1" for t, p in zip(tomograms, POSITIONS, strict=True)
    ]
    columns = ["rlnTomoName", *(f"rlnCenteredCoordinate{a}Angst" for a in "XYZ"), "rlnClassNumber"]
    (folder / "particles.star").write_text(star("particles", columns, lines))
    columns = [
        "rlnTomoName",
        *(f"rlnTomoSize{a}" for a in "XYZ"),
        "rlnTomoTiltSeriesPixelSize",
        "rlnTomoTomogramBinning",
    ]
    lines = [f"{t} 192 192 128 5.0 4.0" for t in ("train_000", "train_001")]
    (folder / "tomograms.star").write_text(star("global", columns, lines))
    listed = Particles(POSITIONS, [1, 1, 2], tomograms=tomograms)
    write_annotations(folder / "warp_particles.star", listed, fmt="warp", voxel_size_angstrom=VOXEL, binning=4)
    write_annotations(folder / "unstated.star", listed.select([0, 1]), fmt="star", binning=4)
    (folder / "PICKS").mkdir()
    picks = Particles(POSITIONS, [1, 2, 1], scores=[0.9, 0.8, 0.7])
    # As `pick` itself writes them (B7: these commands were run on a list made by hand, and failed on picks).
    PickFiles(folder / "PICKS", PICK_FORMATS).write(PickTarget("test_000", SHAPE, VOXEL), picks)

    split, volume, pixels, _, relion5, others = blocks("relion_warp.md", "bash")[:6]
    assert run(split) == [0]
    found = {path.name: read_annotations(path) for path in (folder / "lists").iterdir()}
    assert {name: len(particles) for name, particles in found.items()} == {"train_000.xml": 2, "train_001.xml": 1}
    np.testing.assert_allclose(found["train_001.xml"].positions_vox, POSITIONS[2:], atol=1e-4)
    assert run(volume) == [0]
    np.testing.assert_allclose(read_annotations(folder / "train_000_objl.xml").positions_vox, POSITIONS[:2], atol=1e-4)
    assert run(pixels) == [0, 0]
    for name in ("warp_000_objl.xml", "unstated_objl.xml"):
        np.testing.assert_allclose(read_annotations(folder / name).positions_vox, POSITIONS[:2], atol=1e-4)

    assert run(relion5) == [0]
    import starfile

    table = starfile.read(folder / "relion5.star")["particles"]
    np.testing.assert_allclose(table["rlnCenteredCoordinateZAngst"], (POSITIONS[:, 2] - 16) * VOXEL, atol=1e-3)
    assert table["rlnAutopickFigureOfMerit"].tolist() == [0.9, 0.8, 0.7]
    assert run(others) == [0, 0]
    table = starfile.read(folder / "relion4.star")
    np.testing.assert_allclose(table["particles"]["rlnCoordinateX"], POSITIONS[:, 0] * 4, atol=1e-3)
    assert float(np.ravel(table["optics"]["rlnTomoTiltSeriesPixelSize"])[0]) == 5.0
    table = starfile.read(folder / "warp.star")
    assert table["rlnMicrographName"].tolist() == ["test_000.tomostar"] * 3
    assert set(table["rlnPixelSize"]) == {5.0}
    shutil.rmtree(folder / "lists")


def star(block: str, columns: list[str], rows: list[str]) -> str:
    header = "\n".join(f"_{name} #{k}" for k, name in enumerate(columns, start=1))
    return f"\ndata_{block}\n\nloop_\n{header}\n" + "\n".join(rows) + "\n"


def test_readme_names_every_format() -> None:
    from robpicker_jax.annotations import FORMATS

    readme = (DOCS.parent / "README.md").read_text(encoding="utf-8")
    table = readme[readme.index("| program |") : readme.index("Volumes:")]
    named = set(re.findall(r"`([a-z0-9_]+)`", table.replace("--format", "")))
    assert named == set(FORMATS)
