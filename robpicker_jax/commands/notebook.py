"""What `import robpicker_jax as rp` offers for notebooks and scripts, beside readers and writers of files."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from robpicker_jax import evaluation
from robpicker_jax.annotations import Particles
from robpicker_jax.commands.train import run_job
from robpicker_jax.config import Config, load_config
from robpicker_jax.datasets import OpenedTomogram, TomogramFiles, agreed_voxel_size, open_tomogram, tomograms_from
from robpicker_jax.datasets.lists import agree_on_classes, pair_tomograms, read_lists
from robpicker_jax.evaluation.rules import Rule
from robpicker_jax.models.model_file import save_model
from robpicker_jax.models.trained_model import ModelCard
from robpicker_jax.picking.agreement import check_voxel_size, unlike_training
from robpicker_jax.picking.inference import Reader, Segmentation
from robpicker_jax.picking.model_picker import ModelPicker
from robpicker_jax.picking.picker import model_picker
from robpicker_jax.system.compilation import enable_persistent_cache
from robpicker_jax.system.errors import InputError, located
from robpicker_jax.system.progress import progress as progress_bar
from robpicker_jax.training import run_folder
from robpicker_jax.volumes import open_volume
from robpicker_jax.volumes.normalisation import normalise

PathLike = str | os.PathLike[str]
ParticleLists = Particles | PathLike | Mapping[str, Particles]


@dataclass(frozen=True, eq=False)
class Model:
    """A trained model, ready to pick; `load_model` and `train` give one.

    Attributes:
        picker: the picker behind it.
    """

    picker: ModelPicker

    @property
    def card(self) -> ModelCard:
        """What the model is: network, species, voxel size, contrast, training step and score, settings of picking."""
        return self.picker.model.card

    @property
    def species(self) -> list[str]:
        """Names of the species, that of class label 1 first."""
        return self.card.class_names

    def pick(
        self,
        tomogram: ArrayLike | PathLike,
        *,
        voxel_size: float | None = None,
        mask: ArrayLike | None = None,
        progress: bool = False,
    ) -> Particles:
        """Pick the particles of a tomogram.

        The tomogram is normalised here, with the contrast that the model was trained on; give densities as they are.
        A contrast that seems to be inverted, or another scale of the densities, draws a warning.

        Args:
            tomogram: a volume file, or an array (z, y, x).
            voxel_size: edge of a voxel in Å. None: as the file's header says; for an array, or a header
                that does not say, the model's own voxel size is assumed.
            mask: bool (z, y, x), where the sample is: normalisation and picks keep to it. A file's own mask,
                `{name}_mask.mrc` beside it, serves where it is None.
            progress: show a progress bar.

        Returns:
            The picks by falling score: positions x, y, z in voxels, the centre of voxel 0 at 0.0; class labels and
            names, scores in [0, 1], cluster sizes. `.to_dataframe()` makes a table of them.

        Raises:
            InputError: a file that cannot be read, an array that is no tomogram, a voxel size more than 2 % away from
                the model's, NaN or infinite voxels.
        """
        with (
            self._like_training(tomogram, voxel_size, mask) as (reader, sample),
            self._bar("picking", reader, progress) as on,
        ):
            return self.picker.pick(reader, on, mask=sample)

    def segment(
        self,
        tomogram: ArrayLike | PathLike,
        *,
        voxel_size: float | None = None,
        mask: ArrayLike | None = None,
        scores: bool = False,
        progress: bool = False,
    ) -> Segmentation:
        """The class map of a tomogram.

        Args:
            tomogram, voxel_size, mask, progress: as in `pick`; a mask serves the normalisation alone.
            scores: also keep the probabilities of all classes (4 bytes for each voxel and class).

        Returns:
            `classes` (z, y, x) uint8, 0 background; `probability` (z, y, x) float16 of that class; `scores`
            (z, y, x, classes) float32 or None.

        Raises:
            InputError: as `pick`.
        """
        with (
            self._like_training(tomogram, voxel_size, mask) as (reader, _),
            self._bar("segmenting", reader, progress) as on,
        ):
            return self.picker.segment(reader, on, keep_scores=scores)

    def with_options(self, *overrides: str) -> Model:
        """The model, applied in another way.

        Args:
            overrides: "dotted.key=value" strings of the sections data, inference, picking and parallel, such as
                "picking.min_score=0.5".

        Raises:
            InputError: an unknown key, an impossible value, or a field of the network itself.
        """
        return Model(replace(self.picker, model=self.picker.model.with_overrides(overrides)))

    def save(self, path: PathLike) -> None:
        """Write the model as one file, which `load_model` reads.

        Raises:
            InputError: the file cannot be written.
        """
        save_model(path, self.picker.model)

    def __repr__(self) -> str:
        card = self.card
        size = "" if card.voxel_size_angstrom is None else f", {card.voxel_size_angstrom:g} Å voxels"
        score = "" if card.score is None else f", {card.score_name} {card.score:.3f}"
        return f"Model({', '.join(self.species)}{size}; step {card.step}{score})"

    @contextmanager
    def _like_training(
        self, tomogram: ArrayLike | PathLike, voxel_size: float | None, mask: ArrayLike | None
    ) -> Iterator[tuple[Reader | np.ndarray, np.ndarray | None]]:
        """As `_opened`; densities that are unlike the training tomograms' draw a warning."""
        with self._opened(tomogram, voxel_size, mask) as (densities, sample):
            unlike = unlike_training(densities, self.picker.densities)
            if unlike is not None:
                warnings.warn(unlike, stacklevel=5)
            yield densities, sample

    @contextmanager
    def _opened(
        self, tomogram: ArrayLike | PathLike, voxel_size: float | None, mask: ArrayLike | None
    ) -> Iterator[tuple[OpenedTomogram | np.ndarray, np.ndarray | None]]:
        """Normalised densities, in memory or behind a reader, and the mask of the sample."""
        if voxel_size is not None and not voxel_size > 0:
            raise InputError(f"must be positive, got {voxel_size:g}", where="voxel_size")
        if not isinstance(tomogram, str | os.PathLike):
            self._check_voxel_size(voxel_size, "voxel_size")
            yield self._normalised(tomogram, mask, "the tomogram")
            return
        files = _one_tomogram(tomogram)
        with open_volume(files.volume_path) as volume:
            self._check_voxel_size(agreed_voxel_size([volume], voxel_size), str(tomogram))
            if mask is None:
                data = replace(self.card.data, voxel_size_angstrom=voxel_size)
                with open_tomogram(files, data, mode="streamed", reader=volume) as opened:
                    yield opened, opened.mask
                return
            density = volume.read()
        yield self._normalised(density, mask, str(tomogram))

    def _normalised(
        self, density: ArrayLike, mask: ArrayLike | None, where: str
    ) -> tuple[np.ndarray, np.ndarray | None]:
        array = np.asarray(density)
        if array.ndim != 3 or array.dtype.kind not in "fiub" or not array.size:
            raise InputError(
                f"needs an array (z, y, x) of numbers, got shape {array.shape} of {array.dtype}", where=where
            )
        sample = None if mask is None else np.asarray(mask, dtype=bool)
        if sample is not None and sample.shape != array.shape:
            raise InputError(f"mask of {sample.shape} voxels (z y x), tomogram of {array.shape}", where=where)
        values = np.array(array, np.float32, order="C")
        if self.card.data.invert_contrast:
            np.negative(values, out=values)
        with located(where):
            return normalise(values, self.card.data.normalise, mask=sample, copy=False), sample

    def _check_voxel_size(self, size: float | None, where: str) -> None:
        fix = "resample the tomogram, or correct the voxel size"
        check_voxel_size(size, self.card.voxel_size_angstrom, where, fix)

    @contextmanager
    def _bar(self, title: str, reader: Reader | np.ndarray, shown: bool) -> Iterator[Callable[[int], None] | None]:
        if not shown:
            yield None
            return
        shape = reader.shape if isinstance(reader, np.ndarray) else reader.shape_zyx
        with progress_bar(title, self.picker.tiles(shape)) as bar:
            yield bar.advance


def load_model(path: PathLike, overrides: Sequence[str] = ()) -> Model:
    """Load a trained model.

    Args:
        path: folder of a training run, or a file `model.rpk`.
        overrides: "dotted.key=value" strings, see `Model.with_options`.

    Raises:
        InputError: no model there, or a damaged one.
    """
    enable_persistent_cache()
    return Model(model_picker(Path(path), overrides))


def train(
    config: Config | PathLike | None = None, *, workdir: PathLike | None = None, overrides: Sequence[str] = ()
) -> Model:
    """Do the main job, as `python -m robpicker_jax.train` does: data, training, picks of the test set, report.

    The same call again goes on where an earlier one was interrupted, and loads the model of a finished run.

    Args:
        config: a YAML file, a configuration, or None: the embedded quickstart, which simulates its own data.
        workdir: the run's folder; default: runs/NAME[-VARIANT].
        overrides: "dotted.key=value" strings that override a file, such as "train.steps=200".

    Returns:
        The best model.

    Raises:
        InputError: bad data or configuration, another run in the folder, or a training that diverged.
    """
    loaded = _configuration(config, overrides)
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
    meta: Sequence[str] = (),
    test: Sequence[str] = (),
    overrides: Sequence[str] = (),
    overwrite: bool = False,
) -> Path:
    """Write a commented configuration for the tomograms and lists in a folder, as `robpicker init` does.

    Args:
        folder: the tomograms and lists, a data set, a copick project, or a project of RELION, Warp or others.
        out: the configuration's file; default: `robpicker.yaml` in the folder.
        species: radius in Å by name, in the order of class labels; None where it is to be estimated.
        meta, test: tomograms that are annotated with care, and those to be picked; by default proposed.
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
    write_text(path, propose(Path(folder), path, species=named, meta=meta, test=test, overrides=overrides).text)
    return path


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
        radii_vox=radii_vox,
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


def _one_tomogram(path: PathLike) -> TomogramFiles:
    found = tomograms_from([Path(path)], annotations=False)
    if len(found) != 1:
        raise InputError(f"a folder of {len(found)} tomograms", where=path, fix="give one of its files at a time")
    return found[0]
