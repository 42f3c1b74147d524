"""What the commands that apply a trained run to tomograms share: their arguments and their checked input."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from robpicker_jax.cli import ArgumentParser, parser, split_overrides

if TYPE_CHECKING:
    from robpicker_jax.config import DataConfig
    from robpicker_jax.dataset import LoadedTomogram
    from robpicker_jax.discovery import Tomogram
    from robpicker_jax.picker import Picker


@dataclass(frozen=True)
class Queued:
    """A tomogram whose header was checked and whose voxels are read when its turn comes."""

    tomogram: Tomogram
    shape_zyx: tuple[int, int, int]
    data: DataConfig

    def load(self) -> LoadedTomogram:
        """Read and normalise it; its annotations, if any, are left alone."""
        from dataclasses import replace

        from robpicker_jax.dataset import load_tomogram

        return load_tomogram(replace(self.tomogram, split="test", annotation_path=None), self.data)


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
    from robpicker_jax.compilation import enable_persistent_cache
    from robpicker_jax.config import load_config
    from robpicker_jax.discovery import tomograms_from
    from robpicker_jax.picker import Picker
    from robpicker_jax.volumes import open_volume
    from robpicker_jax.workdir import read_config

    read_config(options.workdir)  # says what is wrong when this is no run
    config = load_config(options.workdir / "config.yaml", overrides)
    queue = []
    for tomogram in tomograms_from(options.tomograms, annotations=False):
        with open_volume(tomogram.volume_path) as reader:
            queue.append(Queued(tomogram, reader.shape_zyx, config.data))
    options.out.mkdir(parents=True, exist_ok=True)
    enable_persistent_cache()
    return options, Picker.from_workdir(options.workdir, config), queue
