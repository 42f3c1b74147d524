"""`import robpicker_jax as rp`: what a notebook uses, on a tiny trained run."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import mrcfile
import numpy as np
import pytest

import robpicker_jax as rp
from robpicker_jax.annotations.geometry import matrix_from_euler, rotation_angle_deg
from robpicker_jax.volumes import write_mrc


def python(program: str) -> str:
    """The output of a program in an interpreter of its own."""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_the_package_alone_imports_nothing_heavy() -> None:
    heavy = ("jax", "numpy", "flax", "orbax", "pandas", "scipy", "pydantic", "matplotlib")
    loaded = python(f"import sys, robpicker_jax; print([name for name in {heavy} if name in sys.modules])")
    assert loaded.strip() == "[]"


def test_reading_particles_needs_no_jax() -> None:
    program = "import sys, robpicker_jax as rp; rp.read_particles, rp.open_volume, rp.Particles"
    assert python(f"{program}; print('jax' in sys.modules)").strip() == "False"


def test_applying_a_model_file_needs_neither_an_experiment_nor_checkpoints(tiny_run: Path) -> None:
    program = f"import sys, robpicker_jax as rp; rp.load_model({str(tiny_run)!r})"
    unneeded = ("orbax.checkpoint", "robpicker_jax.training.experiment", "robpicker_jax.training.trainer")
    assert python(f"{program}; print([name for name in {unneeded} if name in sys.modules])").strip() == "[]"


def test_picking_loads_neither_optimisers_nor_the_bilevel_library() -> None:
    program = "import sys, robpicker_jax.commands.notebook, robpicker_jax.picking.picker, robpicker_jax.models"
    unneeded = ("optax", "orbax", "robpicker_jax.bilevel", "robpicker_jax.parallel.steps")
    assert python(f"{program}; print([name for name in {unneeded} if name in sys.modules])").strip() == "[]"


def test_a_hypergradient_method_is_imported_when_it_is_used() -> None:
    program = """
import sys, robpicker_jax.bilevel as bilevel
folder = "robpicker_jax.bilevel.hypergradients."
assert not [name for name in sys.modules if name.startswith(folder)]
bilevel.accepts("darts", "mean")
assert folder + "darts" in sys.modules and folder + "neumann" not in sys.modules
"""
    python(program)


def test_the_names_are_functions_also_when_the_modules_of_that_name_are_imported() -> None:
    program = """
import importlib, types
import robpicker_jax as rp
import robpicker_jax.train, robpicker_jax.simulate
from robpicker_jax import evaluate, train
import robpicker_jax.evaluate
for name in ("train", "simulate", "evaluate"):
    assert isinstance(getattr(rp, name), types.FunctionType), name
    module = importlib.import_module(f"robpicker_jax.{name}")
    assert isinstance(module, types.ModuleType) and module.main is not getattr(rp, name)
assert train is rp.train and evaluate is rp.evaluate
import robpicker_jax.pick
assert isinstance(rp.pick, types.ModuleType)
"""
    python(program)


def test_every_name_is_there_and_listed() -> None:
    assert dir(rp) == sorted(rp.__all__)
    for name in rp.__all__:
        assert getattr(rp, name) is not None
        if name not in ("__version__",):
            assert getattr(rp, name).__doc__
    with pytest.raises(AttributeError, match="no attribute 'pikc'"):
        rp.pikc  # noqa: B018


def test_the_example_of_the_readme(tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three lines, end to end; what they give is what the main job wrote."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny_run, "runs/quickstart")
    shutil.copy(tiny_run / "data" / "test" / "test_000.mrc", "tomogram.mrc")
    names: dict[str, object] = {}
    exec(
        """\
import robpicker_jax as rp
model = rp.load_model("runs/quickstart")
table = model.pick("tomogram.mrc").to_dataframe()
""",
        names,
    )
    table = names["table"]
    stored = rp.read_particles(tiny_run / "picks" / "test_000.xml", allow_empty=True)
    assert list(table.columns) == ["x", "y", "z", "class_label", "class_name", "score", "cluster_size"]
    assert len(table) == len(stored) > 0
    np.testing.assert_allclose(table[["x", "y", "z"]], stored.positions_vox, atol=1e-4)
    assert table["class_label"].tolist() == stored.labels.tolist()
    assert set(table["class_name"]) <= {"ribosome", "apoferritin"}
    assert (np.diff(table["score"]) <= 0).all()


def test_an_array_a_path_and_a_string_give_the_same_picks(tiny_run: Path) -> None:
    model = rp.load_model(str(tiny_run))
    path = tiny_run / "data" / "test" / "test_000.mrc"
    density = rp.read_volume(path).data
    expected = model.pick(path)
    assert len(expected) > 0
    for tomogram in (str(path), density, density.astype(np.float64), 3 * density + 7):
        picks = model.pick(tomogram, voxel_size=22.0)
        np.testing.assert_allclose(picks.positions_vox, expected.positions_vox, atol=1e-3)
        np.testing.assert_array_equal(picks.labels, expected.labels)
    assert model.pick(density.tolist(), progress=True).labels.tolist() == expected.labels.tolist()


def test_the_class_map_is_that_of_the_command(tiny_run: Path) -> None:
    model = rp.load_model(tiny_run)
    found = model.segment(tiny_run / "data" / "test" / "test_000.mrc", scores=True)
    assert found.classes.shape == (32, 40, 48)
    np.testing.assert_array_equal(found.classes, found.scores.argmax(axis=-1))
    picks = model.picker.picks_of(found)
    assert len(picks) == len(model.pick(tiny_run / "data" / "test" / "test_000.mrc"))


def test_voxel_sizes_that_do_not_fit_are_refused_with_both_numbers(tiny_run: Path, tmp_path: Path) -> None:
    model = rp.load_model(tiny_run)
    density = np.random.default_rng(0).normal(size=(32, 32, 32)).astype(np.float32)
    assert len(model.pick(density, voxel_size=22.4)) == len(model.pick(density))  # 1.8 % away
    with pytest.raises(rp.InputError, match=r"voxel_size: voxels of 22\.5 Å, but the model was trained on 22 Å"):
        model.pick(density, voxel_size=22.5)
    write_mrc(tmp_path / "fine.mrc", density, 11.0)
    with pytest.raises(rp.InputError, match=r"fine\.mrc: voxels of 11 Å, but the model was trained on 22 Å"):
        model.pick(tmp_path / "fine.mrc")
    with pytest.raises(rp.InputError, match=r"11 Å, but data\.voxel_size_angstrom says 22 Å"):
        model.segment(tmp_path / "fine.mrc", voxel_size=22.0)
    with mrcfile.open(tmp_path / "fine.mrc", mode="r+") as file:
        file.voxel_size = 0.0
    assert len(model.pick(tmp_path / "fine.mrc", voxel_size=22.0)) == len(model.pick(tmp_path / "fine.mrc"))
    with pytest.raises(rp.InputError, match="11 Å, but the model"):
        model.pick(tmp_path / "fine.mrc", voxel_size=11.0)
    with pytest.raises(rp.InputError, match="must be positive"):
        model.pick(density, voxel_size=0.0)


def test_masks_keep_picks_and_statistics_inside(tiny_run: Path, tmp_path: Path) -> None:
    model = rp.load_model(tiny_run)
    path = tmp_path / "tomogram.mrc"
    shutil.copy(tiny_run / "data" / "test" / "test_000.mrc", path)
    mask = np.zeros((32, 40, 48), bool)
    mask[:20] = True
    density = rp.read_volume(path).data
    given = model.pick(path, mask=mask)
    assert 0 < len(given) < len(model.pick(path))
    assert (given.positions_vox[:, 2] < 20).all()
    of_array = model.pick(density, mask=mask)
    write_mrc(tmp_path / "tomogram_mask.mrc", mask.astype(np.uint8), 22.0)
    for other in (of_array, model.pick(path)):
        np.testing.assert_allclose(other.positions_vox, given.positions_vox, atol=1e-3)
    with pytest.raises(rp.InputError, match="mask of"):
        model.pick(density, mask=mask[1:])


@pytest.mark.parametrize(
    ("tomogram", "message"),
    [
        (np.zeros((4, 4)), r"needs an array \(z, y, x\)"),
        (np.zeros((4, 4, 4), complex), "complex"),
        (np.array([[["a"]]]), "needs an array"),
        (np.zeros((0, 4, 4)), "needs an array"),
        (np.zeros((16, 16, 16)), "all voxels have the same value"),
        (np.full((16, 16, 16), np.nan), "NaN"),
        ("none.mrc", "no such file"),
    ],
)
def test_what_is_no_tomogram(tomogram: object, message: str, tiny_run: Path) -> None:
    with pytest.raises(rp.InputError, match=message):
        rp.load_model(tiny_run).pick(tomogram)


def test_a_model_is_saved_loaded_and_applied_in_another_way(tiny_run: Path, tmp_path: Path) -> None:
    model = rp.load_model(tiny_run)
    assert model.species == ["ribosome", "apoferritin"]
    assert "22 Å" in repr(model)
    strict = model.with_options("picking.max_picks=1", "inference.overlap_vox=4")
    strict.save(tmp_path / "strict.rpk")
    source = tiny_run / "data" / "test" / "test_000.mrc"
    assert len(rp.load_model(tmp_path / "strict.rpk").pick(source)) == 1
    assert len(rp.load_model(tiny_run, ["picking.max_picks=2"]).pick(source)) == 2
    with pytest.raises(rp.InputError, match=r"did you mean picking\.max_picks"):
        model.with_options("picking.max_pick=2")
    with pytest.raises(rp.InputError, match="no run"):
        rp.load_model(tmp_path)


def test_training_again_gives_the_finished_runs_model(tiny_run: Path, tiny_config: Path, tmp_path: Path) -> None:
    model = rp.train(tiny_config, workdir=tiny_run)
    assert model.card.step == rp.load_model(tiny_run).card.step
    with pytest.raises(rp.InputError, match="holds a run with other settings"):
        rp.train(str(tiny_config), workdir=str(tiny_run), overrides=["train.seed=9"])
    with pytest.raises(rp.InputError, match="change the configuration itself"):
        rp.train(rp.load_config(tiny_config), workdir=tmp_path, overrides=["train.seed=9"])


def test_simulating_and_evaluating(tiny_config: Path, tiny_data: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in tiny_data.rglob("*.mrc")}
    assert rp.simulate(tiny_config, out=str(tiny_data)) == tiny_data
    assert before == {path: path.stat().st_mtime_ns for path in tiny_data.rglob("*.mrc")}  # it was complete

    truth = rp.read_particles(tiny_data / "test" / "test_000_objl.xml")
    count = len(truth)
    found = rp.evaluate(
        truth, truth.with_(positions_vox=truth.positions_vox + np.array([2.9, 0, 0])), tolerance_vox=3.0
    )
    assert found.macro_f1 == 1
    assert rp.evaluate(truth, truth.select(slice(0)), tolerance_vox=3.0).macro_f1 == 0
    far = truth.with_(positions_vox=truth.positions_vox + np.array([3.1, 0, 0]))
    half = rp.Particles.concatenate([truth.select(slice(count)), far])
    by_name = rp.evaluate({"a": truth}, {"a": half, "b": truth}, tolerance_vox=0.5, class_names=["r", "a"])
    assert [score.rates.precision for score in by_name.classes] == [0.5, 0.5]
    assert rp.evaluate(tiny_data / "test", truth, tolerance_vox=0.5).macro_f1 == 1
    with pytest.raises(rp.InputError, match="radii"):
        rp.evaluate(truth, truth, rule="mask")
    in_angstrom = rp.evaluate(truth, truth, rule="mask", radii_angstrom=[40, 25], voxel_size=10.0)
    assert in_angstrom.as_dict()["limits_vox"] == [4, 2.5]
    with pytest.raises(
        rp.InputError, match=r"radii_angstrom: the voxel size .* give voxel_size, or radii_vox in voxels"
    ):
        rp.evaluate(truth, truth, rule="mask", radii_angstrom=[40, 25])


def test_a_table_has_the_columns_that_are_known() -> None:
    rotations = matrix_from_euler([[10.0, 20.0, 30.0], [0.0, 0.0, 0.0]], "relion")
    rotations[1] = np.nan
    particles = rp.Particles(
        [[1, 2, 3], [4, 5, 6]],
        [2, 1],
        rotations=rotations,
        tomograms=["a", "b"],
        extra={"fom": [0.5, 1.0], "x": [9, 9]},
    )
    table = particles.to_dataframe()
    assert list(table.columns) == ["x", "y", "z", "class_label", "rot_deg", "tilt_deg", "psi_deg", "tomogram", "fom"]
    assert table["x"].tolist() == [1, 4]
    angles = table[["rot_deg", "tilt_deg", "psi_deg"]].to_numpy()
    assert np.isnan(angles[1]).all()
    assert rotation_angle_deg(matrix_from_euler(angles[:1], "relion"), rotations[:1])[0] < 1e-6
    assert list(rp.Particles.empty().to_dataframe().columns) == ["x", "y", "z", "class_label"]
