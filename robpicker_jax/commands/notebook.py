"""What `import robpicker_jax as rp` offers for notebooks and scripts, beside its `Model` and readers and writers of files."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from robpicker_jax import evaluation
from robpicker_jax.annotations import Particles
from robpicker_jax.commands.notebook_model import Model, PathLike, load_model
from robpicker_jax.commands.radii import in_voxels
from robpicker_jax.commands.train import run_job
from robpicker_jax.config import Config, load_config
from robpicker_jax.datasets.lists import agree_on_classes, pair_tomograms, read_lists
from robpicker_jax.evaluation.rules import Rule
from robpicker_jax.system.errors import InputError
from robpicker_jax.system.progress import say
from robpicker_jax.training import run_folder

__all__ = ["Model", "evaluate", "init", "load_model", "simulate", "train", "write_tomograms"]

ParticleLists = Particles | PathLike | Mapping[str, Particles]


def train(
    config: Config | PathLike | None = None,
    *,
    workdir: PathLike | None = None,
    init_from: PathLike | None = None,
    overrides: Sequence[str] = (),
) -> Model:
    """Do the main job, as `python -m robpicker_jax.train` does: data, training, picks of the test set, report.

    The same call again goes on where an earlier one was interrupted, and loads the model of a finished run.

    Args:
        config: a YAML file, a configuration, or None: the embedded quickstart, which simulates its own data.
        workdir: the run's folder; default: runs/NAME[-VARIANT].
        init_from: fine-tune a trained model: a run's folder, a file `model.rpk`, or the name of a model that ships with the
            package. A third of the configuration's steps and 0.3 of its learning rate (all of it for new species) are taken,
            unless `overrides` say otherwise.
        overrides: "dotted.key=value" strings that override a file, such as "train.steps=200".

    Returns:
        The best model.

    Raises:
        InputError: bad data or configuration, another run in the folder, or a training that diverged.
    """
    loaded = _configuration(config, overrides)
    if init_from is not None:
        from robpicker_jax.training.starting import fine_tuning  # what trains is no part of picking

        loaded = fine_tuning(config, init_from, overrides)
    name = None if config is None or isinstance(config, Config) else os.fspath(config)
    folder = run_folder.default_workdir(loaded.train.variant, name) if workdir is None else Path(workdir)
    run_job(loaded, folder)
    return load_model(folder)


def simulate(config: Config | PathLike | None = None, *, out: PathLike, overrides: Sequence[str] = ()) -> Path:
    """Make a simulated data set, or what is missing of it; `data.dir` of a configuration then names its folder.

    Args:
        config: a YAML file, a configuration, or None: that of the quickstart.
        out: folder of the data set.
        overrides: "dotted.key=value" strings that override a file, such as "simulation.snr=0.1".

    Returns:
        The folder.

    Raises:
        InputError: bad configuration, or a folder that holds something else.
    """
    from robpicker_jax.simulation import DatasetRecipe, simulate_dataset

    folder, loaded = Path(out), _configuration(config, overrides)
    simulate_dataset(DatasetRecipe(loaded.data.species, loaded.simulation, loaded.label_noise), folder)
    return folder


def init(
    folder: PathLike,
    *,
    out: PathLike | None = None,
    species: Mapping[str, float | None] | None = None,
    lists: PathLike | Sequence[PathLike] | Mapping[str, PathLike] = (),
    meta: Sequence[str] = (),
    val: Sequence[str] = (),
    test: Sequence[str] = (),
    voxel_size: float | None = None,
    name_pattern: str | None = None,
    overrides: Sequence[str] = (),
    overwrite: bool = False,
) -> Path:
    """Write a commented configuration for the tomograms and lists in a folder, as `robpicker init` does; says what it found.

    Args:
        folder: the tomograms and lists, a data set, a copick project, or a project of RELION, Warp or others.
        out: the configuration's file; default: `robpicker.yaml` in the folder.
        species: radius in Å by name, in the order of class labels; None where it is to be estimated.
        lists: particle lists, files or folders, where they are not found or too many are; by class, where each has its own.
        meta, val, test: tomograms that are annotated with care, those that choose the best model, and those to be picked;
            by default proposed.
        voxel_size: edge of a voxel in Å, where headers do not say it.
        name_pattern: what of a tomogram's name counts, a regular expression such as "TS_[0-9]+".
        overrides: "dotted.key=value" strings, which go before what is proposed.
        overwrite: replace an earlier file.

    Returns:
        The file, which `train` takes.

    Raises:
        InputError: what cannot be found out and has to be said, or a file that exists.
    """
    from robpicker_jax.proposal import propose
    from robpicker_jax.system.files import write_text
    from robpicker_jax.system.outputs import check_outputs

    path = Path(folder) / "robpicker.yaml" if out is None else Path(out)
    check_outputs([path], overwrite=overwrite)
    named = ",".join(name if radius is None else f"{name}:{radius}" for name, radius in (species or {}).items())
    found = propose(
        Path(folder),
        path,
        species=named,
        lists=_named_lists(lists),
        meta=meta,
        val=val,
        test=test,
        voxel_size=voxel_size,
        name_pattern=name_pattern,
        overrides=overrides,
    )
    write_text(path, found.text)
    for line in found.lines:
        say(line)
    return path


def _named_lists(lists: PathLike | Sequence[PathLike] | Mapping[str, PathLike]) -> list[str]:
    """Lists as the command line names them: PATH, or CLASS=PATH."""
    if isinstance(lists, Mapping):
        return [f"{name}={os.fspath(path)}" for name, path in lists.items()]
    return [os.fspath(path) for path in ([lists] if isinstance(lists, str | os.PathLike) else lists)]


def write_tomograms(
    folder: PathLike,
    volumes: Mapping[str, ArrayLike],
    particles: Mapping[str, Particles] | None = None,
    *,
    voxel_size: float,
    overwrite: bool = False,
) -> Path:
    """Write arrays and their particles as a flat folder of tomograms, which `init` takes.

    Args:
        folder: the folder, which is made.
        volumes: densities (z, y, x) by name.
        particles: particles of those that are annotated, by name; `Particles(positions_xyz_vox, labels)`.
        voxel_size: edge of a voxel in Å.
        overwrite: replace earlier files.

    Returns:
        The folder.

    Raises:
        InputError: an array that is no tomogram, particles of an unknown tomogram or outside of it, or files that exist.
    """
    from robpicker_jax.annotations import write_annotations
    from robpicker_jax.annotations.bounds import check_inside
    from robpicker_jax.system.outputs import check_outputs
    from robpicker_jax.volumes import write_mrc

    folder, given = Path(folder), particles or {}
    for name in given:
        if name not in volumes:
            raise InputError(f"no tomogram {name!r}", where="particles", fix=f"there are {', '.join(volumes)}")
    arrays = {name: np.asarray(volume) for name, volume in volumes.items()}
    for name, array in arrays.items():
        if array.ndim != 3 or not np.isfinite(array).all():
            raise InputError(f"{name}: an array of shape {array.shape}", fix="give finite densities (z, y, x)")
        if name in given:
            check_inside(given[name].positions_vox, array.shape, Path(name), voxel_size)
    lists = {name: folder / f"{name}.csv" for name in given}
    check_outputs([*(folder / f"{name}.mrc" for name in arrays), *lists.values()], overwrite=overwrite)
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in arrays.items():
        write_mrc(folder / f"{name}.mrc", array, voxel_size)
    for name, path in lists.items():
        write_annotations(path, given[name], fmt="csv")
    return folder


def evaluate(
    truth: ParticleLists,
    picks: ParticleLists,
    *,
    rule: Rule = "tolerance",
    tolerance_vox: float = 10.0,
    radii_vox: Sequence[float] | None = None,
    radii_angstrom: Sequence[float] | None = None,
    class_names: Sequence[str] | None = None,
    one_to_one: bool = True,
    beta: float | None = None,
    voxel_size: float | None = None,
) -> evaluation.Evaluation:
    """Compare picks with true particles.

    Args:
        truth: particles of one tomogram, particles by tomogram, or a particle list or folder of lists.
        picks: likewise; tomograms without truth are left out.
        rule: "tolerance": a hit lies within `tolerance_vox`; "mask": within the class's radius; "czii": within half of
            it; or a published scorer's, see `EvaluationOptions`.
        tolerance_vox: largest distance of a hit under the rule "tolerance", voxels.
        radii_vox: radius of class 1, 2, …, voxels, for the rules "mask" and "czii".
        radii_angstrom: the same in Å, which needs `voxel_size`.
        class_names: name of class 1, 2, …; by default as the lists name them.
        one_to_one: whether each particle and each pick counts once.
        beta: of F-beta; default: 4 under the rule "czii", else 1.
        voxel_size: edge of a voxel in Å, for lists in Å and errors in Å.

    Returns:
        Counts, precision, recall and F-scores for each class and their means; `.as_dict()` makes plain numbers of it.

    Raises:
        InputError: lists that cannot be read, a tomogram without picks, radii that the rule needs and that are absent.
    """
    true = _by_tomogram(truth, voxel_size, class_names, allow_empty=False)
    found, _ = pair_tomograms(true, _by_tomogram(picks, voxel_size, class_names, allow_empty=True))
    true, found, names = agree_on_classes(true, found, class_names)
    options = evaluation.EvaluationOptions(
        class_names=names,
        rule=rule,
        tolerance_vox=tolerance_vox,
        one_to_one=one_to_one,
        beta=beta,
        radii_vox=in_voxels(
            radii_vox, radii_angstrom, voxel_size, names=("radii_vox", "radii_angstrom"), size="voxel_size"
        ),
        voxel_size_angstrom=voxel_size,
    )
    return evaluation.evaluate(true, found, options)


def _configuration(config: Config | PathLike | None, overrides: Sequence[str]) -> Config:
    if not isinstance(config, Config):
        return load_config(config, overrides)
    if overrides:
        raise InputError("overrides are for a file; change the configuration itself", where=overrides[0])
    return config


def _by_tomogram(
    lists: ParticleLists, voxel_size: float | None, class_names: Sequence[str] | None, *, allow_empty: bool
) -> dict[str, Particles]:
    if isinstance(lists, Particles):
        return {"tomogram": lists}
    if isinstance(lists, Mapping):
        return dict(lists)
    return read_lists(Path(lists), voxel_size_angstrom=voxel_size, class_names=class_names, allow_empty=allow_empty)
