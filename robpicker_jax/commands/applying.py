"""What the commands that apply a trained run to tomograms share: their arguments and their checked input."""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from robpicker_jax.commands.cli import ArgumentParser, parser, split_overrides

if TYPE_CHECKING:
    from robpicker_jax.datasets import OpenedTomogram, TomogramFiles
    from robpicker_jax.picking.picker import Picker
    from robpicker_jax.volumes import VolumeReader


@dataclass(frozen=True)
class Queued:
    """A tomogram whose header was checked and whose voxels are read when its turn comes.

    Attributes:
        tomogram: the files.
        shape_zyx: size in voxels.
        resident_bytes: memory that its reader and mask take while it is open.
        reader: its volume, open since the header was checked.
    """

    tomogram: TomogramFiles
    shape_zyx: tuple[int, int, int]
    resident_bytes: int
    reader: VolumeReader


def apply_parser(verb: str, description: str) -> ArgumentParser:
    """Parser of `VERB --workdir W --out DIR TOMO…`."""
    result = parser(
        verb,
        description,
        epilog="dotted flags override the run's configuration, for example --picking.min_score 0.5 or "
        "--inference.overlap_vox 32;\n`robpicker train --help` lists them all",
    )
    result.add_argument("--workdir", metavar="DIR", type=Path, required=True, help="folder of a training run")
    result.add_argument("--out", metavar="DIR", type=Path, required=True, help="where to write")
    result.add_argument("tomograms", metavar="TOMO", nargs="+", help="volume files, or folders of them")
    return result


def prepared(
    argument_parser: ArgumentParser, arguments: Sequence[str]
) -> tuple[argparse.Namespace, Picker, list[Queued]]:
    """Parse, load the run's model, and check every tomogram's header before the first is segmented.

    Raises:
        InputError: bad arguments, no run, or a volume that cannot be read.
    """
    rest, overrides = split_overrides(arguments)
    options = argument_parser.parse_args(rest)
    from robpicker_jax.config import load_config
    from robpicker_jax.datasets import tomograms_from
    from robpicker_jax.picking.picker import Picker
    from robpicker_jax.system.compilation import enable_persistent_cache
    from robpicker_jax.training.run_folder import read_config
    from robpicker_jax.volumes import open_volume

    read_config(options.workdir)  # says what is wrong when this is no run
    config = load_config(options.workdir / "config.yaml", overrides)
    queue = []
    for tomogram in tomograms_from(options.tomograms, annotations=False):
        reader = open_volume(tomogram.volume_path)
        mask = 0 if tomogram.mask_path is None else math.prod(reader.shape_zyx)
        queue.append(Queued(tomogram, reader.shape_zyx, reader.resident_bytes + mask, reader))
    options.out.mkdir(parents=True, exist_ok=True)
    enable_persistent_cache()
    return options, Picker.from_workdir(options.workdir, config), queue


def plan(picker: Picker, queue: Sequence[Queued], *, keep_scores: bool = False) -> str:
    """What the work will take, for the user to read before it starts: tiles, and the bound on memory."""
    # While one tomogram is segmented, the next one is open already.
    following = [tomogram.resident_bytes for tomogram in queue[1:]] + [0]
    bounds = [
        picker.memory(
            tomogram.shape_zyx, keep_scores=keep_scores, resident_bytes=tomogram.resident_bytes + resident_bytes
        )
        for tomogram, resident_bytes in zip(queue, following, strict=True)
    ]
    tiles = sum(picker.tiles(tomogram.shape_zyx) for tomogram in queue)
    whole = "; all class probabilities are held" if keep_scores else ""
    return (
        f"{len(queue)} tomogram{'s' * (len(queue) > 1)}, {tiles} tiles; "
        f"memory: {max(bounds, key=lambda bound: bound.host + bound.device)}{whole}"
    )


def streamed(picker: Picker, queue: Sequence[Queued]) -> Iterator[OpenedTomogram]:
    """The tomograms, opened one by one; the next one's normalisation is found while the present one is segmented.

    Raises:
        InputError: a volume that cannot be used, when its turn comes.
    """
    from robpicker_jax.datasets import stream_tomograms

    readers = [queued.reader for queued in queue]
    return stream_tomograms([queued.tomogram for queued in queue], picker.config.data, readers)
