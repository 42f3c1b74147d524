"""Clean patches that are never trained on: which they are, and the loss on them.

The outer loss of a step is taken on patches that the meta networks learn from, and with `train.meta_share` or
fine-tuning the segmentation network as well. Whether the networks learn what clean labels have in common, or these
patches by heart, is seen only on clean patches that no step gets. Those of the validation tomograms are such patches.
Otherwise `train.meta_held_out` keeps a part of the meta set: whole tomograms, or where there is one, a slab at the far
end of its longest axis. Half a patch between the slab and the rest belongs to neither, and the rest is cut as if the
tomogram ended there, so that no voxel and no particle is on both sides.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from robpicker_jax import parallel
from robpicker_jax.annotations import Particles
from robpicker_jax.annotations.bounds import nearest_voxel
from robpicker_jax.bilevel import TrainState
from robpicker_jax.config import Species, TrainConfig
from robpicker_jax.labels import Region
from robpicker_jax.patches import PatchTomogram, TomogramSet
from robpicker_jax.patches.device import Stack
from robpicker_jax.patches.loader import cut_box
from robpicker_jax.system.errors import InputError
from robpicker_jax.training.experiment import Experiment
from robpicker_jax.training.input_forms import Shape
from robpicker_jax.training.objective import Batch

_MOST_PATCHES = 48  # enough for a mean by class, and some seconds a validation on two cores
_MOST_ROWS = 16  # a validation runs on one device, whatever the number of devices that share a meta batch


@dataclass(frozen=True)
class MetaParts:
    """The boxes of the meta tomograms that meta batches are cut from, and those that only measure.

    Attributes:
        kept: of each meta tomogram, the box for meta batches, from voxel 0 on; None: the whole tomogram is held out.
            Tomograms with a box come first.
        held: of each meta tomogram, the box that is held out; None: nothing of it.
    """

    kept: tuple[Region | None, ...]
    held: tuple[Region | None, ...]

    @property
    def is_divided(self) -> bool:
        """Whether anything is held out."""
        return any(region is not None for region in self.held)


def divide(shapes_zyx: Sequence[Shape], train: TrainConfig, size: int) -> MetaParts:
    """The parts of meta tomograms that `train.meta_held_out` and `train.held_out_share` ask for.

    Args:
        shapes_zyx: sizes of the meta tomograms, voxels.
        train: the section `train`.
        size: edge of a patch, voxels.

    Raises:
        InputError: one tomogram cannot be divided into tomograms, or is too small for two parts of a patch's size.
    """
    whole = [_box(np.zeros(3, int), np.array(shape)) for shape in shapes_zyx]
    how, count = train.meta_held_out, len(shapes_zyx)
    if how in ("val", "none") or not count:
        return MetaParts(tuple(whole), (None,) * count)
    if how == "auto":
        how = "tomograms" if count > 1 else "space"
    if how == "space":
        slabs = [_slabs(shape, train.held_out_share, size) for shape in shapes_zyx]
        return MetaParts(tuple(kept for kept, _ in slabs), tuple(held for _, held in slabs))
    if count < 2:
        raise InputError(
            "train.meta_held_out: tomograms needs two meta tomograms at least, and there is one",
            fix="use train.meta_held_out: space, or none",
        )
    n_kept = count - count // 2
    kept = [region if index < n_kept else None for index, region in enumerate(whole)]
    held = [None if index < n_kept else region for index, region in enumerate(whole)]
    return MetaParts(tuple(kept), tuple(held))


def _slabs(shape_zyx: Shape, share: float, size: int) -> tuple[Region, Region]:
    """The kept box and the held-out slab of one tomogram, with half a patch between them."""
    shape = np.array(shape_zyx)
    axis = int(shape.argmax())
    start, stop = np.zeros(3, int), shape.copy()
    start[axis] = shape[axis] - max(size, round(share * shape[axis]))
    stop[axis] = start[axis] - size // 2
    if stop[axis] < size:
        raise InputError(
            f"a meta tomogram of {shape_zyx} voxels (z, y, x) is too small to hold out a slab: patches of {size} voxels "
            f"need {2 * size + size // 2} along an axis at least",
            fix="use train.meta_held_out: none, smaller patches, or a smaller train.held_out_share",
        )
    return _box(np.zeros(3, int), stop), _box(start, shape)


def check_species(particles: Sequence[Particles], parts: MetaParts, species: Sequence[Species]) -> None:
    """Refuse a division after which meta batches lack a species that the meta set has, or the held-out part has none.

    Args:
        particles: of each meta tomogram.
        parts: its boxes.
        species: in the order of their labels from 1.

    Raises:
        InputError: naming the species.
    """
    if not parts.is_divided:
        return

    def labels(regions: Sequence[Region | None]) -> np.ndarray:
        pairs = [(one, box) for one, box in zip(particles, regions, strict=True) if box is not None]
        return np.concatenate([one.labels[_inside(one, box)] for one, box in pairs])

    lost = set(np.concatenate([one.labels for one in particles]).tolist()) - set(labels(parts.kept).tolist())
    names = [species[label - 1].name for label in sorted(lost) if 0 < label <= len(species)]
    fix = "use another train.held_out_share, or train.meta_held_out: none"
    if names:
        raise InputError(f"train.meta_held_out leaves no particle of {', '.join(names)} for the meta batches", fix=fix)
    if not len(labels(parts.held)):
        raise InputError("there is no particle in the part of the meta set that train.meta_held_out keeps", fix=fix)


def part_of(tomogram: PatchTomogram, region: Region) -> PatchTomogram:
    """A box of a tomogram as a tomogram of its own, with the particles whose nearest voxel lies in it."""
    start, stop = _corners(region)
    if not start.any() and tuple(stop) == tuple(tomogram.density.shape):
        return tomogram
    chosen = tomogram.particles.select(_inside(tomogram.particles, region))
    labels: Any = _Box(tomogram.labels_in, start, stop)
    return PatchTomogram(
        tomogram.name,
        _Box(tomogram.density_in, start, stop),
        chosen.with_(positions_vox=chosen.positions_vox - start[::-1]),
        labels.__getitem__,
        None if tomogram.mask is None else tomogram.mask[region],
    )


def kept_stack(stack: Stack, parts: MetaParts) -> Stack:
    """The stack of the meta tomograms without those that are held out, each as long as its kept part."""
    stops = [_corners(region)[1] for region in parts.kept if region is not None]
    labels = None if stack.labels is None else stack.labels[: len(stops)]
    return Stack(stack.density[: len(stops)], labels, np.array(stops, np.int32))


def fixed_batches(tomograms: Sequence[PatchTomogram], size: int, rows: int) -> list[Batch]:
    """The patches of the held-out loss: around particles, the classes by turns, without shifts or augmentation.

    Args:
        tomograms: the held-out parts or tomograms; may be empty.
        size: edge of a patch, voxels.
        rows: patches of a batch, at most; all batches have the same number.

    Returns:
        Batches on the host, the same at every call; none where there is no tomogram.

    Raises:
        InputError: the masks leave no particle.
    """
    if not tomograms:
        return []
    chosen = TomogramSet(tomograms, size, name="set of held-out clean patches")
    chosen.require_particles()
    rng = np.random.default_rng(0)
    order = rng.permutation(chosen.n_particles)
    turn = np.zeros(chosen.n_particles, int)
    for label in np.unique(chosen.labels):
        members = order[chosen.labels[order] == label]
        turn[members] = np.arange(len(members))
    order = order[np.lexsort((chosen.labels[order], turn[order]))][:_MOST_PATCHES]
    rows = min(rows, _MOST_ROWS, len(order))
    plans = [chosen.around(int(particle), rng, 0) for particle in order]

    def cut(index: int, read: str) -> np.ndarray:
        tomogram = tomograms[plans[index].tomogram]
        return cut_box(getattr(tomogram, read), tomogram.density.shape, plans[index].corner_zyx, size, 0)

    batches: list[Any] = []
    for first in range(0, len(order) - rows + 1, rows):
        indices = range(first, first + rows)
        image = np.stack([cut(index, "density_in") for index in indices])[..., None]
        label = np.stack([cut(index, "labels_in") for index in indices])
        classes = np.array([plans[index].label for index in indices], np.int32)
        batches.append(Batch(image, label, classes))  # type: ignore[arg-type]
    return batches


def held_out_scores(
    experiment: Experiment, state: TrainState, batches: Sequence[Batch], class_names: Sequence[str]
) -> dict[str, float]:
    """The loss of the segmentation network on held-out clean patches, in the form of the outer loss.

    Args:
        experiment: networks and loss.
        state: the state to measure; its last parameters, not their average, as the outer loss has it.
        batches: the patches.
        class_names: species, in the order of their labels from 1.

    Returns:
        `held_out_loss`, and `held_out_loss/NAME`: what a species contributes to it, as the mean over the patches that
        hold the species (NaN where none does). Empty without batches, and on all processes but the first.
    """
    if not batches or not parallel.is_first():
        return {}
    values = [experiment.clean_loss(state, batch) for batch in batches]
    by_class = np.concatenate([np.asarray(each.per_class) for each in values])
    scores = {"held_out_loss": float(np.concatenate([np.asarray(each.per_patch) for each in values]).mean())}
    for label, name in enumerate(class_names, start=1):
        holds = np.concatenate([(np.asarray(batch.label) == label).any(axis=(1, 2, 3)) for batch in batches])
        scores[f"held_out_loss/{name}"] = float(by_class[holds, label].mean()) if holds.any() else float("nan")
    return scores


class _Box:
    """A box of a volume that is read box by box, as a volume of its own."""

    def __init__(self, read: Callable[[Region], np.ndarray], start: np.ndarray, stop: np.ndarray) -> None:
        self._read, self._start = read, start
        self.shape: tuple[int, ...] = tuple((stop - start).tolist())

    def __getitem__(self, region: Any, /) -> np.ndarray:
        bounds = [part.indices(edge) for part, edge in zip(region, self.shape, strict=True)]
        low, high = (np.array([bound[end] for bound in bounds]) + self._start for end in (0, 1))
        return self._read(_box(low, high))


def _box(start: np.ndarray, stop: np.ndarray) -> Region:
    z, y, x = (slice(low, high) for low, high in zip(start.tolist(), stop.tolist(), strict=True))
    return z, y, x


def _corners(region: Region) -> tuple[np.ndarray, np.ndarray]:
    return np.array([part.start for part in region]), np.array([part.stop for part in region])


def _inside(particles: Particles, region: Region) -> np.ndarray:
    """Which particles have the voxel nearest to them in a box, bool (n,)."""
    start, stop = _corners(region)
    voxels = nearest_voxel(particles.positions_vox)[:, ::-1]
    return np.asarray(((voxels >= start) & (voxels < stop)).all(axis=1))
