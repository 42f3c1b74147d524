"""What the commands that apply a trained model to tomograms share: their arguments and their checked input."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from robpicker_jax.commands.cli import ArgumentParser, parser, split_overrides
from robpicker_jax.system.progress import say

if TYPE_CHECKING:
    from robpicker_jax.annotations import Particles
    from robpicker_jax.datasets import OpenedTomogram, TomogramFiles
    from robpicker_jax.picking.inference import MemoryBound
    from robpicker_jax.picking.picker import Picker
    from robpicker_jax.system.errors import InputError
    from robpicker_jax.volumes import Origin, VolumeReader
    from robpicker_jax.volumes.rescaling import RescaledReader


@dataclass(frozen=True)
class Queued:
    """A tomogram whose header was checked and whose file is opened again when its turn comes.

    With --rescale it is segmented on another grid than its file's; what users see is always on the file's.

    Attributes:
        tomogram: the files.
        header: its volume as the model is applied to it. It is closed, since a process may hold only so many files
            open, and tells sizes and the origin alone.
        voxel_size_angstrom: edge of the file's voxels; None where it is not known.
        resident_bytes: memory that its reader and mask take while it is open.
    """

    tomogram: TomogramFiles
    header: VolumeReader
    voxel_size_angstrom: float | None
    resident_bytes: int

    def open(self) -> VolumeReader:
        """Its volume as the model is applied to it, to be read and then closed.

        Raises:
            InputError: the file cannot be read any more, or has another header than the one that was checked.
        """
        from robpicker_jax.system.errors import InputError
        from robpicker_jax.volumes import open_volume
        from robpicker_jax.volumes.rescaling import RescaledReader

        reader = open_volume(self.tomogram.volume_path)
        checked = self.header if self.rescaled is None else self.rescaled.source
        if _geometry(reader) != _geometry(checked):
            reader.close()
            what = "has another size, voxel size or origin than when its header was checked"
            raise InputError(what, where=reader.path, fix="run the same command again once it is written")
        if self.rescaled is None:
            return reader
        assert self.rescaled.voxel_size_angstrom is not None
        assert self.voxel_size_angstrom is not None
        return RescaledReader(reader, self.rescaled.voxel_size_angstrom, self.voxel_size_angstrom)

    @property
    def shape_zyx(self) -> tuple[int, int, int]:
        """Size in voxels of the grid on which it is segmented."""
        return self.header.shape_zyx

    @property
    def origin_angstrom(self) -> Origin:
        """Where viewers place the first voxel of the file, x y z in Å."""
        return self.header.origin_angstrom

    @property
    def rescaled(self) -> RescaledReader | None:
        """How it is resampled, closed as `header` is; None: it is not."""
        from robpicker_jax.volumes.rescaling import RescaledReader

        return self.header if isinstance(self.header, RescaledReader) else None

    @property
    def file_shape_zyx(self) -> tuple[int, int, int]:
        """Size in voxels of the file."""
        return self.shape_zyx if self.rescaled is None else self.rescaled.source.shape_zyx

    @property
    def factor(self) -> float:
        """Voxels of the segmented grid in one of the file's."""
        return 1.0 if self.rescaled is None else self.rescaled.factor

    def on_file_grid(self, found: Particles) -> Particles:
        """Particles of the segmented grid in voxels of the file."""
        import numpy as np

        if self.rescaled is None:
            return found
        sizes = found.cluster_sizes
        in_file = None if sizes is None else np.maximum(1, np.rint(sizes / self.factor**3)).astype(np.int64)
        return found.with_(positions_vox=found.positions_vox / self.factor, cluster_sizes=in_file)


def model_parser(verb: str, description: str, out: str | None = None) -> ArgumentParser:
    """Parser of `VERB --workdir W --out DIR`; `out` is the folder where none is given, None: one has to be."""
    result = parser(
        verb,
        description,
        epilog="dotted flags of the sections data, inference, picking and parallel override the model's own settings, "
        "for example\n--picking.min_score 0.5 or --inference.overlap_vox 32; `robpicker train --help` lists them all",
    )
    result.add_argument(
        "--workdir",
        "--model",
        metavar="PATH",
        type=Path,
        required=True,
        help="folder of a training run, a model's file, or the name of a model that ships with the package",
    )
    result.add_argument(
        "--out",
        metavar="DIR",
        type=Path,
        required=out is None,
        default=None if out is None else Path(out),
        help="where to write" + (f"; default: {out}" if out else ""),
    )
    result.add_argument(
        "--rescale",
        action="store_true",
        help="resample tomograms of other voxels than the training tomograms'; what is written is in the file's voxels",
    )
    return result


def apply_parser(verb: str, description: str, out: str) -> ArgumentParser:
    """Parser of `VERB --workdir W [--out DIR] TOMO…`; `out` is the folder where none is given."""
    result = model_parser(verb, description, out)
    result.add_argument(
        "tomograms",
        metavar="TOMO",
        nargs="+",
        help="volume files, folders of them, patterns such as 'in/*.mrc' in quotes, or a copick_config.json",
    )
    result.add_argument(
        "--run",
        metavar="NAME",
        action="append",
        default=[],
        help="of a copick project: a run to take, or a pattern of names such as 'TS_0*'; repeat; default: all",
    )
    result.add_argument("--skip-bad", action="store_true", help="leave out tomograms that cannot be used, and go on")
    result.add_argument(
        "--shard",
        metavar="I/N",
        type=shard,
        default=(1, 1),
        help="do the I-th of N parts of the tomograms, such as one of an array of jobs; all parts may share --out",
    )
    result.add_argument(
        "--overwrite", action="store_true", help="replace files in DIR that no interrupted run of this command began"
    )
    result.add_argument(
        "--name-pattern",
        metavar="REGEX",
        help="what of a volume's name is the tomogram's in what is written, such as 'rec_(.*)'; default: all",
    )
    return result


def shard(text: str) -> tuple[int, int]:
    """`I/N` of the command line."""
    from robpicker_jax.picking.finished import shard_of

    return shard_of(text)


def parse(argument_parser: ArgumentParser, arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """The parsed arguments, and the dotted flags as "key=value" overrides.

    Raises:
        InputError: bad arguments.
    """
    rest, overrides = split_overrides(arguments, None)
    return argument_parser.parse_args(rest), overrides


def queued(
    tomograms: Sequence[TomogramFiles],
    options: argparse.Namespace,
    picker: Picker,
    on_bad: Callable[[TomogramFiles, InputError], None] | None = None,
) -> list[Queued]:
    """The tomograms, every header checked before the first is segmented, and no file left open.

    Args:
        tomograms: the tomograms.
        options: the parsed arguments of `model_parser`.
        picker: what they are queued for.
        on_bad: called with each volume that the picker cannot be applied to, and the reason, once all were checked;
            None: the first such ends the command.

    Raises:
        InputError: without `on_bad`, a volume that cannot be read, or whose voxels are not those of the training
            tomograms and are not to be resampled.
    """
    from robpicker_jax.system.compilation import enable_persistent_cache
    from robpicker_jax.system.errors import InputError
    from robpicker_jax.system.files import clear_temporary

    queue: list[Queued] = []
    bad: list[tuple[TomogramFiles, InputError]] = []
    for tomogram in tomograms:
        try:
            queue.append(_checked(tomogram, options, picker))
        except InputError as error:
            if on_bad is None:
                raise
            bad.append((tomogram, error))
    options.out.mkdir(parents=True, exist_ok=True)
    clear_temporary(options.out)
    enable_persistent_cache()
    for tomogram, reason in bad:
        assert on_bad is not None
        on_bad(tomogram, reason)
    return queue


def _checked(tomogram: TomogramFiles, options: argparse.Namespace, picker: Picker) -> Queued:
    """A tomogram whose header fits the picker; its file is closed again."""
    from robpicker_jax.models.trained_model import VOXEL_SIZE_TOLERANCE
    from robpicker_jax.picking.agreement import at_trained_size, voxel_size_of
    from robpicker_jax.picking.picker import Trained
    from robpicker_jax.volumes import open_volume

    trained = picker.voxel_size_angstrom
    tolerance = picker.voxel_size_tolerance if isinstance(picker, Trained) else VOXEL_SIZE_TOLERANCE
    fix = "--rescale resamples it; if the header is wrong, correct it"
    with open_volume(tomogram.volume_path) as reader:
        here = voxel_size_of(reader, picker.data.voxel_size_angstrom, trained)
        header = at_trained_size(reader, here, trained, rescale=options.rescale, fix=fix, tolerance=tolerance)
        mask = 0 if tomogram.mask_path is None else math.prod(header.shape_zyx)
        return Queued(tomogram, header, here, header.resident_bytes + mask)


def _geometry(reader: VolumeReader) -> tuple[object, ...]:
    """What of a header was checked."""
    return reader.shape_zyx, reader.voxel_size_zyx_angstrom, reader.origin_angstrom


def say_plan(picker: Picker, queue: Sequence[Queued], bounds: Sequence[MemoryBound], *, whole: bool = False) -> None:
    """Say what the work will take before it starts: tiles, and the bound on memory.

    Args:
        picker: what the tomograms are picked or segmented with.
        queue: the tomograms.
        bounds: the bound on memory of each.
        whole: whether all class probabilities are held.
    """
    tiles = sum(picker.tiles(queued.shape_zyx) for queued in queue)
    held = "; all class probabilities are held" if whole else ""
    largest = max(bounds, key=lambda bound: bound.host + bound.device)
    say(f"{len(queue)} tomogram{'s' * (len(queue) > 1)}, {tiles} tiles; memory: {largest}{held}")
    trained = picker.voxel_size_angstrom
    for queued in queue:
        here = queued.voxel_size_angstrom
        if queued.rescaled is not None:
            say(f"{queued.tomogram.name}: resampled from voxels of {here:.4g} Å to {trained:.4g} Å, as in training")
        elif here is None and trained is not None:
            say(
                f"{queued.tomogram.name}: its voxel size is not known; {trained:.4g} Å, as in training, is assumed "
                "(--data.voxel_size_angstrom says another)"
            )


def resident_bytes(queue: Sequence[Queued]) -> list[int]:
    """Memory that readers and masks take while each tomogram is segmented: the next one is open already then."""
    following = [queued.resident_bytes for queued in queue[1:]] + [0]
    return [queued.resident_bytes + after for queued, after in zip(queue, following, strict=True)]


def streamed(
    picker: Picker, queue: Sequence[Queued], on_bad: Callable[[TomogramFiles, InputError], None] | None = None
) -> Iterator[OpenedTomogram]:
    """The tomograms, opened one by one; the next one's normalisation is found while the present one is segmented.

    One whose densities are unlike the training tomograms' draws a warning.

    Args:
        picker: what they are opened for.
        queue: the tomograms.
        on_bad: called with a tomogram that cannot be used, when its turn comes, and the reason.

    Raises:
        InputError: a volume that cannot be used, without `on_bad`.
    """
    from robpicker_jax.datasets import stream_tomograms
    from robpicker_jax.picking.agreement import unlike_training
    from robpicker_jax.picking.picker import Trained

    items = {item.tomogram: item for item in queue}
    # Voxel sizes were settled when the headers were checked.
    data = replace(picker.data, voxel_size_angstrom=None)
    trained = picker.densities if isinstance(picker, Trained) else None
    for tomogram in stream_tomograms(list(items), data, lambda files: items[files].open(), on_bad=on_bad):
        unlike = unlike_training(tomogram, trained)
        if unlike is not None:
            say(f"warning: {tomogram.name}: {unlike}")
        yield tomogram
