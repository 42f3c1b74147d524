"""The doctor on a clean simulated data set and on copies of it, each broken in one way."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from robpicker_jax.annotations import Particles, read_annotations, write_annotations
from robpicker_jax.commands.cli import call
from robpicker_jax.commands.doctor import main
from robpicker_jax.config import Config, load_config
from robpicker_jax.diagnosis import CODES, Diagnosis, diagnose
from robpicker_jax.simulation import DatasetRecipe, simulate_dataset
from robpicker_jax.volumes import read_volume, write_mrc

VOXEL = 20.0
SIZE = np.array([80, 80, 40])  # x y z
SETTINGS: dict[str, Any] = {
    "data": {
        "species": [
            {"name": "ribosome", "phantom": "ribosome", "radius_vox": 5, "copies": 12},
            {"name": "apoferritin", "phantom": "apoferritin", "radius_vox": 3, "copies": 16},
        ]
    },
    "simulation": {
        "shape_zyx": [40, 80, 80],
        "voxel_size_angstrom": VOXEL,
        "train": 2,
        "meta": 1,
        "val": 0,
        "test": 1,
        "snr": 1.0,
        "tilt_step_deg": 6.0,
    },
    "patches": {"size": 16, "shift_vox": 4},
    "model": {
        "preset": "custom",
        "widths": [4, 6],
        "convs_per_block": 1,
        "bottleneck_convs": 1,
        "decoder_convs": 1,
        "reweighting_hidden": 10,
    },
    "train": {"steps": 4, "batch_size": 2},
    "inference": {"tile": 32, "overlap_vox": 8, "batch_size": 2},
}


@pytest.fixture(scope="session")
def config_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("doctor") / "config.yaml"
    path.write_text(yaml.safe_dump(SETTINGS), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def config(config_file: Path) -> Config:
    return load_config(config_file)


@pytest.fixture(scope="session")
def clean(config: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "clean"
    simulate_dataset(DatasetRecipe(config.data.species, config.simulation, config.label_noise), folder)
    return folder


@pytest.fixture
def data(clean: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(clean, tmp_path / "data", ignore=shutil.ignore_patterns("*_target.mrc")))


def volume(data: Path, name: str = "train/train_000") -> Path:
    return data / f"{name}.mrc"


def listed(data: Path, name: str = "train/train_000") -> Path:
    return data / f"{name}_objl.xml"


ALL = ("train/train_000", "train/train_001", "meta/meta_000", "test/test_000")


def move(change: Callable[[np.ndarray], np.ndarray], *names: str) -> Callable[[Path], None]:
    """A fault that changes the positions of some lists, of all by default."""

    def fault(data: Path) -> None:
        for name in names or ALL:
            particles = read_annotations(listed(data, name))
            write_annotations(listed(data, name), particles.with_(positions_vox=change(particles.positions_vox)))

    return fault


def relist(change: Callable[[Particles], Particles], *names: str) -> Callable[[Path], None]:
    """A fault that changes some lists, of all by default."""

    def fault(data: Path) -> None:
        for name in names or ALL:
            write_annotations(listed(data, name), change(read_annotations(listed(data, name))))

    return fault


def revoxel(
    change: Callable[[np.ndarray], np.ndarray], voxel: float | None = VOXEL, name: str = "train/train_000"
) -> Callable[[Path], None]:
    """A fault that changes the voxels or the voxel size of one volume."""

    def fault(data: Path) -> None:
        write_mrc(volume(data, name), change(read_volume(volume(data, name)).data), voxel)

    return fault


def flip(axis: int) -> Callable[[np.ndarray], np.ndarray]:
    def mirrored(p: np.ndarray) -> np.ndarray:
        result = p.copy()
        result[:, axis] = SIZE[axis] - 1 - p[:, axis]
        return result

    return mirrored


def truncate(path: Callable[[Path], Path]) -> Callable[[Path], None]:
    def fault(data: Path) -> None:
        content = path(data).read_bytes()
        path(data).write_bytes(content[: len(content) // 2])

    return fault


def with_nan(data: Path) -> None:
    import mrcfile

    with mrcfile.open(volume(data), mode="r+") as file:
        file.data[3, 4, 5] = np.nan


def smoothed(density: np.ndarray) -> np.ndarray:
    from scipy.ndimage import gaussian_filter

    return np.asarray(gaussian_filter(density, 1.0))


def not_cubes(data: Path) -> None:
    import mrcfile

    with mrcfile.open(volume(data), mode="r+") as file:
        file.voxel_size = (VOXEL, VOXEL, 2 * VOXEL)


def unknown_voxel_size(data: Path) -> None:
    import mrcfile

    for name in ALL:
        with mrcfile.open(volume(data, name), mode="r+") as file:
            file.voxel_size = 0.0


def copy_to_meta(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    def fault(data: Path) -> None:
        write_mrc(data / "meta/again.mrc", change(read_volume(volume(data)).data), VOXEL)
        shutil.copy(listed(data), data / "meta/again_objl.xml")

    return fault


def noisy(density: np.ndarray) -> np.ndarray:
    return density + np.random.default_rng(0).normal(0, 6 * density.std(), density.shape).astype(np.float32)


def mask_of_one_half(data: Path) -> None:
    mask = np.zeros(SIZE[::-1], np.uint8)
    mask[:, :40] = 1
    write_mrc(data / "train/train_000_mask.mrc", mask, VOXEL)


def wrong_names(particles: Particles) -> Particles:
    other = {"ribosome": "apoferritin", "apoferritin": "ribosome"}
    return particles.with_(class_names=[other[str(name)] for name in particles.class_names])


def twice(particles: Particles) -> Particles:
    return Particles.concatenate([particles, particles.select(slice(0, 5))])


def repicked(particles: Particles) -> Particles:
    again = particles.select(slice(0, 6))
    return Particles.concatenate([particles, again.with_(positions_vox=again.positions_vox + np.array([2.0, 0, 0]))])


def few(particles: Particles) -> Particles:
    return particles.select(np.cumsum(particles.labels == 1) * (particles.labels == 1) <= 2)


def two_lists(data: Path) -> None:
    for suffix in (".csv", ".cmm"):
        shutil.copy(listed(data), data / f"train/train_000{suffix}")
    listed(data).unlink()


def one_outside(particles: Particles) -> Particles:
    positions = particles.positions_vox.copy()
    positions[3, 2] += SIZE[2]
    return particles.with_(positions_vox=positions)


def swapped(*order: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda p: p[:, list(order)]


def elsewhere(particles: Particles) -> Particles:
    """Picks between the particles: the places of an unrelated tomogram would sometimes hit one."""
    from scipy.spatial import cKDTree

    rng = np.random.default_rng(3)
    places = rng.random((4000, 3)) * (SIZE - 12) + 5.5
    distance, _ = cKDTree(particles.positions_vox).query(places)
    return particles.with_(positions_vox=places[np.argsort(abs(distance - 8))[: len(particles)]])


FAULTS: dict[str, tuple[str, Callable[[Path], None]]] = {
    "truncated volume": ("unreadable_volume", truncate(volume)),
    "text as volume": ("unreadable_volume", lambda d: volume(d).write_text("no volume") and None),
    "broken list": ("unreadable_annotations", truncate(listed)),
    "coordinate that is no number": (
        "unreadable_annotations",
        lambda d: listed(d).write_text(listed(d).read_text().replace('x="', 'x="~', 1)) and None,
    ),
    "list missing": ("no_annotations", lambda d: listed(d).unlink()),
    "empty list": ("no_annotations", relist(lambda p: Particles.empty(), "train/train_000")),
    "two lists": ("layout", two_lists),
    "no meta": ("split_missing", lambda d: shutil.rmtree(d / "meta")),
    "NaN": ("bad_voxels", with_nan),
    "constant": ("bad_voxels", revoxel(np.zeros_like)),
    "another voxel size": ("voxel_sizes_differ", revoxel(lambda v: v, 10.0)),
    "voxels not cubes": ("voxels_not_cubes", not_cubes),
    "voxel size unknown": ("voxel_size_unknown", unknown_voxel_size),
    "one position outside": ("outside", relist(one_outside, "train/train_000")),
    "in angstrom": ("in_angstrom", move(lambda p: p * VOXEL)),
    "one list in angstrom": ("in_angstrom", move(lambda p: p * VOXEL, "train/train_001")),
    "from the centre": ("centred", move(lambda p: p - SIZE / 2)),
    "relion 5 written as pixels": ("centred", move(lambda p: (p - SIZE / 2) * VOXEL)),
    "z y x": ("axes_swapped", move(swapped(2, 1, 0))),
    "y x z": ("axes_swapped", move(swapped(1, 0, 2))),
    "x z y": ("axes_swapped", move(swapped(0, 2, 1))),
    "y z x": ("axes_swapped", move(swapped(1, 2, 0))),
    "z x y": ("axes_swapped", move(swapped(2, 0, 1))),
    "mirrored in z": ("flipped", move(flip(2))),
    "mirrored in y": ("flipped", move(flip(1))),
    "mirrored in x": ("flipped", move(flip(0))),
    "one list mirrored in z": ("flipped", move(flip(2), "meta/meta_000")),
    "binned twice": ("binning", move(lambda p: p / 2)),
    "binned four times": ("binning", move(lambda p: p / 4)),
    "unbinned by 2": ("binning", move(lambda p: p * 2)),
    "unbinned by 4": ("binning", move(lambda p: p * 4)),
    "picks elsewhere": ("no_density", relist(elsewhere, "train/train_001")),
    "origin off": ("centre_offset", move(lambda p: np.minimum(p + np.array([2.0, 0, 0]), SIZE - 1))),
    "one volume inverted": ("contrast_differs", revoxel(np.negative)),
    "unknown class": ("class_unknown", relist(lambda p: p.with_(labels=p.labels + 1, class_names=None))),
    "labels in another order": ("class_order", relist(wrong_names)),
    "species missing": ("class_missing", relist(lambda p: p.select(p.labels == 1), "meta/meta_000")),
    "species rare": ("class_rare", relist(few, "meta/meta_000")),
    "duplicates": ("duplicates", relist(twice, "train/train_000")),
    "picked again": ("overlaps", relist(repicked, "train/train_000")),
    "train volume in meta": ("same_volume", copy_to_meta(lambda v: v)),
    "scaled copy in meta": ("same_volume", copy_to_meta(lambda v: 3 * v + 7)),
    "inverted copy in meta": ("same_volume", copy_to_meta(np.negative)),
    "same particles in meta": ("same_particles", copy_to_meta(noisy)),
    "one volume denoised": ("spectrum", revoxel(smoothed)),
    "mask of one half": ("outside_mask", mask_of_one_half),
    "mask of another size": (
        "bad_label_map",
        lambda d: write_mrc(d / "train/train_000_mask.mrc", np.ones((4, 4, 4), np.uint8), VOXEL),
    ),
}


def test_clean_data_set_has_no_fault(clean: Path, config: Config) -> None:
    diagnosis = diagnose(clean, config)
    assert diagnosis.codes == set(), diagnosis.findings
    infos = {finding.code for finding in diagnosis.findings}
    assert infos == {"contrast", "class_counts", "resources"}
    assert diagnosis.class_counts["train"] == {"ribosome": 24, "apoferritin": 32}
    assert diagnosis.hypotheses[0]["hypothesis"] == "as they are"
    assert diagnosis.hypotheses[0]["score"] < -20  # dark particles, as simulated


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_found_by_its_code(fault: str, data: Path, config: Config) -> None:
    code, plant = FAULTS[fault]
    plant(data)
    diagnosis = diagnose(data, config, resources_too=False)
    assert code in diagnosis.codes, [f.as_dict() for f in diagnosis.findings]
    found = next(finding for finding in diagnosis.findings if finding.code == code)
    assert found.what
    assert found.fix
    json.dumps(diagnosis.as_dict(), allow_nan=False)


@pytest.mark.parametrize(
    ("fault", "reading"),
    [
        ("z y x", "columns are z y x"),
        ("y z x", "columns are y z x"),
        ("z x y", "columns are z x y"),
        ("mirrored in y", "mirrored in y"),
        ("in angstrom", "in Å"),
        ("unbinned by 4", "of a volume binned 4 times less"),
        ("binned twice", "of a volume binned 2 times more"),
        ("relion 5 written as pixels", "from the centre, in Å"),
    ],
)
def test_the_best_reading_undoes_the_fault(fault: str, reading: str, data: Path, config: Config) -> None:
    FAULTS[fault][1](data)
    diagnosis = diagnose(data, config, resources_too=False)
    assert diagnosis.hypotheses[0]["hypothesis"] == reading
    misread = [f for f in diagnosis.findings if f.severity == "error"]
    assert [f.evidence["reading"] for f in misread] == [reading]
    assert diagnosis.codes <= {misread[0].code}


CONFIG_FAULTS: dict[str, tuple[str, dict[str, Any]]] = {
    "wrong voxel size": ("voxel_size_config", {"data.voxel_size_angstrom": 10.0}),
    "radius too large": ("radius", {"data.species.0.radius_vox": 12, "patches.size": 40}),
    "radius too small": ("radius", {"data.species.0.radius_vox": 2}),
    "patch larger than volume": ("patch_too_large", {"patches.size": 64}),
    "patch the U-Net cannot halve": ("patch_stride", {"patches.size": 17}),
    "patch small": ("patch_small", {"patches.size": 12}),
    "shift": ("shift", {"patches.shift_vox": 7}),
    "cluster": ("min_cluster", {"data.species.1.min_cluster_vox": 5000}),
    "no label maps": ("bad_label_map", {"data.train_labels": "map"}),
    "overlapping spheres": ("overlaps", {"data.species.0.radius_vox": 14, "patches.size": 40}),
}


@pytest.mark.parametrize("fault", CONFIG_FAULTS)
def test_configuration_that_does_not_fit_the_data(fault: str, data: Path, config_file: Path) -> None:
    code, changes = CONFIG_FAULTS[fault]
    config = load_config(config_file, [f"data.dir={data}", *(f"{key}={value}" for key, value in changes.items())])
    assert code in diagnose(data, config, resources_too=False).codes


def test_misspelt_and_missing_folders(tmp_path: Path, config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(main, ["--data", str(tmp_path / "nowhere")]) == 2
    assert "no such folder" in capsys.readouterr().err
    assert diagnose(tmp_path, config).codes == {"layout"}


def test_without_configuration_species_come_from_the_lists(clean: Path) -> None:
    diagnosis = diagnose(clean)
    assert diagnosis.codes == set(), diagnosis.findings
    assert diagnosis.class_counts["meta"] == {"ribosome": 12, "apoferritin": 16}
    assert "no_config" in {finding.code for finding in diagnosis.findings}


def test_estimate_counts_parameters_and_finds_memory_short(
    clean: Path, config_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from robpicker_jax.diagnosis import resources

    def evidence(diagnosis: Diagnosis) -> dict[str, Any]:
        return dict(next(f for f in diagnosis.findings if f.code == "resources").evidence)

    small = evidence(diagnose(clean, load_config(config_file)))
    doubled = evidence(diagnose(clean, load_config(config_file, ["train.batch_size=4"])))
    assert doubled["step_tflop"] == pytest.approx(2 * small["step_tflop"])
    # 41 M parameters, as the paper states.
    config = load_config(config_file, ["model={preset: paper}", "train.variant=supervised"])
    assert resources.count_parameters(config) == pytest.approx(41e6, rel=0.05)
    monkeypatch.setattr(resources, "available_gib", lambda: 1e-6)
    assert "memory" in diagnose(clean, load_config(config_file)).codes


def test_command_exit_codes_summary_and_json(
    data: Path, config_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [
        "--data",
        str(data),
        "--config",
        str(config_file),
        "--no-resources",
        "--json",
        str(tmp_path / "f.json"),
    ]
    assert call(main, arguments) == 0
    assert "0 errors, 0 warnings" in capsys.readouterr().out
    assert json.loads((tmp_path / "f.json").read_text())["errors"] == 0

    move(flip(2))(data)
    assert call(main, arguments) == 2
    captured = capsys.readouterr()
    assert len(captured.err.strip().splitlines()) == 1
    assert "1 error (flipped)" in captured.err
    assert "mirrored in z" in captured.out
    stored = json.loads((tmp_path / "f.json").read_text())
    (finding,) = [f for f in stored["findings"] if f["severity"] == "error"]
    assert finding["code"] == "flipped"
    assert abs(finding["evidence"]["score"]) > 2 * abs(finding["evidence"]["score_as_they_are"])
    assert stored["hypotheses"][0]["hypothesis"] == "mirrored in z"


def test_every_code_is_explained() -> None:
    page = (Path(__file__).parents[2] / "docs" / "doctor.md").read_text(encoding="utf-8")
    assert [code for code in CODES if f"`{code}`" not in page] == []


def test_noise_has_no_size_and_no_better_reading() -> None:
    from robpicker_jax.diagnosis.classes import seen_radius
    from robpicker_jax.diagnosis.hypotheses import best_reading, readings, score_readings
    from robpicker_jax.diagnosis.local_density import LocalDensity

    hypotheses = readings(10.0)
    for seed in range(12):
        rng = np.random.default_rng(seed)
        local = LocalDensity(rng.standard_normal((40, 80, 80), dtype=np.float32), seed=seed)
        places = rng.random((60, 3)) * (SIZE - 1)
        scores = score_readings(local, Particles(places, np.ones(60, int)), {1: 4.0}, hypotheses)
        assert max(abs(score.z) for score in scores.values()) < 5
        assert best_reading(scores, hypotheses) is None
        assert seen_radius(local.profile(places, 4.0), 4.0, len(places)) is None


@pytest.mark.parametrize("radius", [5.0, 8.0])
def test_size_of_balls_is_seen_whatever_radius_was_given(radius: float) -> None:
    from robpicker_jax.diagnosis.classes import seen_radius
    from robpicker_jax.diagnosis.local_density import LocalDensity

    rng = np.random.default_rng(0)
    density = rng.standard_normal((64, 96, 96)).astype(np.float32)
    centres = np.stack(np.meshgrid([16, 48, 80], [16, 48, 80], [16, 48], indexing="ij"), axis=-1).reshape(-1, 3)
    z, y, x = np.indices(density.shape)
    for cx, cy, cz in centres:
        density[(x - cx) ** 2 + (y - cy) ** 2 + (z - cz) ** 2 <= 6**2] += 1.0
    seen = seen_radius(LocalDensity(density).profile(centres.astype(float), radius), radius, len(centres))
    assert seen is not None
    assert seen[0] == pytest.approx(6, abs=0.8)
