"""The doctor finds nothing in clean data, however they are laid out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from robpicker_jax.annotations import Particles, read_annotations, write_annotations
from robpicker_jax.config import Config, load_config
from robpicker_jax.diagnosis import diagnose
from robpicker_jax.volumes import read_volume
from tests.diagnosis.doctor_cases import ALL, SIZE, VOXEL, listed, volume, with_origins

SHAPE = tuple(SIZE[::-1].tolist())


def shared(fmt: str, file: str) -> Callable[[Path], None]:
    """One list of each folder, which names its tomograms."""

    def lay_out(data: Path) -> None:
        for split in ("train", "meta", "test"):
            parts = []
            for name in ALL:
                if name.startswith(split):
                    particles = read_annotations(listed(data, name))
                    parts.append(particles.with_(tomograms=[name.partition("/")[2]] * len(particles)))
                    listed(data, name).unlink()
            everything = Particles.concatenate(parts)
            write_annotations(data / split / file, everything, fmt=fmt, voxel_size_angstrom=VOXEL, shape_zyx=SHAPE)

    return lay_out


def by_class(fmt: str, suffix: str, stem: str = "{name}") -> Callable[[Path], None]:
    """One list for each species, `{name}_{species}`."""

    def lay_out(data: Path) -> None:
        for name in ALL:
            particles = read_annotations(listed(data, name))
            split, _, tomogram = name.partition("/")
            for label, species in ((1, "ribosome"), (2, "apoferritin")):
                mine = particles.select(particles.labels == label)
                mine = mine.with_(tomograms=[tomogram] * len(mine), class_names=None)
                path = data / split / f"{stem.format(name=tomogram)}_{species}{suffix}"
                write_annotations(path, mine, fmt=fmt, voxel_size_angstrom=VOXEL)
            listed(data, name).unlink()

    return lay_out


def warptools(data: Path) -> None:
    """Names as WarpTools gives them: the voxel size in the volume's, one list of each species without it."""
    by_class("warp", ".star")(data)
    for name in ALL:
        volume(data, name).rename(data / f"{name}_{VOXEL:.2f}Apx.mrc")


def relion5(data: Path) -> None:
    """RELION's names of volumes, and coordinates in Å from the centre in one list."""
    shared("relion5", "particles.star")(data)
    for name in ALL:
        split, _, tomogram = name.partition("/")
        volume(data, name).rename(data / split / f"rec_{tomogram}.mrc")


def optimisation_set(data: Path) -> None:
    """A RELION project elsewhere, of which each folder has a link to the optimisation set."""
    relion5(data)
    for split in sorted({name.partition("/")[0] for name in ALL}):
        job = data.parent / "project" / "Extract" / split
        job.mkdir(parents=True)
        (data / split / "particles.star").rename(job / "particles.star")
        text = f"data_\n\n_rlnTomoParticlesFile Extract/{split}/particles.star\n"
        (job / "optimisation_set.star").write_text(text, encoding="utf-8")
        (data / split / "optimisation_set.star").symlink_to(job / "optimisation_set.star")


LAYOUTS: dict[str, Callable[[Path], None]] = {
    "origins in headers": with_origins,
    "one list of each folder": shared("star", "particles.star"),
    "one list of each folder, CSV": shared("csv", "particles.csv"),
    "RELION 5": relion5,
    "RELION 5, optimisation set": optimisation_set,
    "one list of each species": by_class("star", ".star"),
    "one list of each species, CSV": by_class("csv", ".csv"),
    "WarpTools": warptools,
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_clean_data_of_every_layout_have_no_fault(layout: str, data: Path, config: Config) -> None:
    LAYOUTS[layout](data)
    diagnosis = diagnose(data, config, resources_too=False)
    assert diagnosis.codes == set(), diagnosis.findings
    assert diagnosis.class_counts["train"] == {"ribosome": 24, "apoferritin": 32}
    assert diagnosis.hypotheses[0]["hypothesis"] == "as they are"


def test_a_clean_copick_project_has_no_fault_and_several_sources_are_found(
    data: Path, config_file: Path, tmp_path: Path
) -> None:
    copick = pytest.importorskip("copick", reason="the extra copick is not installed")
    pytest.importorskip("tensorstore", reason="the extra zarr is not installed")
    from copick.models import CopickPoint

    (tmp_path / "overlay").mkdir()
    species = [("ribosome", 1), ("apoferritin", 2)]
    settings = {
        "name": "p",
        "description": "",
        "version": "1.0",
        "pickable_objects": [
            {"name": name, "is_particle": True, "label": label, "radius": VOXEL * radius}
            for (name, label), radius in zip(species, (5, 3), strict=True)
        ],
        "config_type": "filesystem",
        "overlay_root": f"local://{tmp_path / 'overlay'}",
        "overlay_fs_args": {"auto_mkdir": True},
    }
    project = tmp_path / "copick_config.json"
    project.write_text(json.dumps(settings))
    root = copick.from_file(str(project))

    def add(run: object, name: str, user: str, positions: list[list[float]]) -> None:
        picks = run.new_picks(name, "1", user)  # type: ignore[attr-defined]
        picks.points = [CopickPoint(location=dict(zip("xyz", position, strict=True))) for position in positions]
        picks.store()

    for tomogram in ALL:
        run = root.new_run(tomogram.partition("/")[2])
        run.new_voxel_spacing(VOXEL).new_tomogram("wbp").from_numpy(read_volume(volume(data, tomogram)).data)
        particles = read_annotations(listed(data, tomogram))
        for name, label in species:
            add(run, name, "ann", (particles.positions_vox[particles.labels == label] * VOXEL).tolist())
    overrides = [f"data.dir={project}", "data.copick.train=[train_000,train_001]", "data.copick.meta=[meta_000]"]
    overrides += [f"data.copick.voxel_spacing_angstrom={VOXEL}"]
    diagnosis = diagnose(project, load_config(config_file, overrides), resources_too=False)
    assert diagnosis.codes == set(), diagnosis.findings
    assert diagnosis.class_counts["train"] == {"ribosome": 24, "apoferritin": 32}
    add(root.get_run("train_000"), "ribosome", "ben", [[100.0, 200.0, 300.0]])
    found = diagnose(project, load_config(config_file, overrides), resources_too=False)
    assert found.codes == {"layout"}
    assert "user ann session 1, user ben session 1" in found.findings[0].what
