"""What the commands that apply a trained model to tomograms share: their arguments and their checked input."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from robpicker_jax.commands.cli import ArgumentParser, console, parser, split_overrides
from robpicker_jax.system.progress import error_console

if TYPE_CHECKING:
    from robpicker_jax.config import DataConfig
    from robpicker_jax.datasets import OpenedTomogram, TomogramFiles
    from robpicker_jax.picking.finished import Finished
    from robpicker_jax.picking.inference import MemoryBound
    from robpicker_jax.picking.picker import Picker
    from robpicker_jax.system.errors import InputError
    from robpicker_jax.volumes import VolumeReader

VOXEL_SIZE_TOLERANCE = 0.02
"""Largest relative difference of a tomogram's voxel size from that of the training tomograms for which no warning is given."""


@dataclass(frozen=True)
class Queued:
    """A tomogram whose header was checked and whose voxels are read when its turn comes.

    Attributes:
        tomogram: the files.
        shape_zyx: size in voxels.
        reader: its volume, open since the header was checked.
        resident_bytes: memory that its reader and mask take while it is open.
    """

    tomogram: TomogramFiles
    shape_zyx: tuple[int, int, int]
    reader: VolumeReader
    resident_bytes: int


def model_parser(verb: str, description: str) -> ArgumentParser:
    """Parser of `VERB --workdir W --out DIR`."""
    result = parser(
        verb,
        description,
        epilog="dotted flags of the sections data, inference, picking and parallel override the model's own settings, "
        "for example\n--picking.min_score 0.5 or --inference.overlap_vox 32; `robpicker train --help` lists them all",
    )
    result.add_argument(
        "--workdir", metavar="PATH", type=Path, required=True, help="folder of a training run, or its file model.rpk"
    )
    result.add_argument("--out", metavar="DIR", type=Path, required=True, help="where to write")
    return result


def apply_parser(verb: str, description: str) -> ArgumentParser:
    """Parser of `VERB --workdir W --out DIR TOMO…`."""
    result = model_parser(verb, description)
    result.add_argument(
        "tomograms", metavar="TOMO", nargs="+", help="volume files, folders of them, or a copick_config.json"
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
        "--name-pattern",
        metavar="REGEX",
        help="what of a volume's name is the tomogram's in what is written, such as 'rec_(.*)'; default: all",
    )
    return result


def parse(argument_parser: ArgumentParser, arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """The parsed arguments, and the dotted flags as "key=value" overrides.

    Raises:
        InputError: bad arguments.
    """
    rest, overrides = split_overrides(arguments, None)
    return argument_parser.parse_args(rest), overrides


def checked_tomograms(options: argparse.Namespace, data: DataConfig) -> list[Queued]:
    """The tomograms named on the command line, every header checked before the first is segmented; makes `--out`.

    Raises:
        InputError: a volume that cannot be read.
    """
    from robpicker_jax.datasets import tomograms_from
    from robpicker_jax.datasets.copick_project import is_project, project_tomograms

    tomograms = []
    for path in options.tomograms:
        if is_project(path):
            splits = project_tomograms(path, data.copick, picks=False)
            tomograms += [tomogram for split in splits.values() for tomogram in split]
        else:
            tomograms += tomograms_from([path], annotations=False)
    return queued(list(dict.fromkeys(tomograms)), options.out, skip_bad=options.skip_bad)


def queued(tomograms: Sequence[TomogramFiles], out: Path, *, skip_bad: bool = False) -> list[Queued]:
    """The tomograms, every header checked; makes the folder `out`.

    Args:
        tomograms: the tomograms.
        out: the folder.
        skip_bad: leave out volumes that cannot be read, and say so.

    Raises:
        InputError: a volume that cannot be read; with `skip_bad`, none that can.
    """
    from robpicker_jax.system.compilation import enable_persistent_cache
    from robpicker_jax.system.errors import InputError
    from robpicker_jax.volumes import open_volume

    queue: list[Queued] = []
    for tomogram in tomograms:
        try:
            reader = open_volume(tomogram.volume_path)
        except InputError as error:
            if not skip_bad or (not queue and tomogram is tomograms[-1]):
                raise
            say_bad(tomogram, error)
            continue
        mask = 0 if tomogram.mask_path is None else math.prod(reader.shape_zyx)
        queue.append(Queued(tomogram, reader.shape_zyx, reader, reader.resident_bytes + mask))
    out.mkdir(parents=True, exist_ok=True)
    enable_persistent_cache()
    return queue


def share(queue: Sequence[Queued], options: argparse.Namespace) -> list[Queued]:
    """The part of the tomograms that `--shard` names: every N-th, so that parts of a sorted batch take about as long."""
    number, total = options.shard
    return list(queue[number - 1 :: total])


def unfinished(queue: Sequence[Queued], finished: Finished, names: Mapping[TomogramFiles, str]) -> list[Queued]:
    """The tomograms that are not finished; says how many are. Readers of finished ones are closed."""
    waiting = []
    for item in queue:
        if finished.has(names[item.tomogram], item.tomogram):
            item.reader.close()
        else:
            waiting.append(item)
    if len(waiting) < len(queue):
        _say(f"{len(queue) - len(waiting)} of {len(queue)} tomograms are finished already, by the same settings")
    return waiting


def say_bad(tomogram: TomogramFiles, error: InputError) -> None:
    """Say that a tomogram is left out, and why."""
    error_console.print(f"left out: {tomogram.name}: {error}", highlight=False, markup=False, soft_wrap=True)


def shard(text: str) -> tuple[int, int]:
    """`I/N` of the command line."""
    from robpicker_jax.picking.finished import shard_of

    return shard_of(text)


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
    _say(f"{len(queue)} tomogram{'s' * (len(queue) > 1)}, {tiles} tiles; memory: {largest}{held}")
    for queued in queue:
        here, trained = queued.reader.voxel_size_angstrom, picker.voxel_size_angstrom
        if here is not None and trained is not None and abs(here - trained) > VOXEL_SIZE_TOLERANCE * trained:
            _say(
                f"{queued.tomogram.name}: voxels of {here:.4g} Å, but trained on {trained:.4g} Å; "
                "resample the tomogram for picks that can be relied on"
            )


def resident_bytes(queue: Sequence[Queued]) -> list[int]:
    """Memory that readers and masks take while each tomogram is segmented: the next one is open already then."""
    following = [queued.resident_bytes for queued in queue[1:]] + [0]
    return [queued.resident_bytes + after for queued, after in zip(queue, following, strict=True)]


def streamed(
    picker: Picker, queue: Sequence[Queued], on_bad: Callable[[TomogramFiles, InputError], None] | None = None
) -> Iterator[OpenedTomogram]:
    """The tomograms, opened one by one; the next one's normalisation is found while the present one is segmented.

    Args:
        picker: what they are opened for.
        queue: the tomograms.
        on_bad: called with a tomogram that cannot be used, when its turn comes, and the reason.

    Raises:
        InputError: a volume that cannot be used, without `on_bad`.
    """
    from robpicker_jax.datasets import stream_tomograms

    readers = [queued.reader for queued in queue]
    return stream_tomograms([queued.tomogram for queued in queue], picker.data, readers, on_bad=on_bad)


def _say(text: str) -> None:
    console.print(text, highlight=False, soft_wrap=True)
