"""`spectrum`: filter tomograms so that they have the amplitude spectrum of another one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from robpicker_jax.commands.cli import ArgumentParser, parser
from robpicker_jax.system.progress import say

_DESCRIPTION = """\
Write each tomogram, DIR/{name}.mrc, with the radial amplitude spectrum of another one, such as one that a model was
trained on: each spatial frequency is made as strong as it is there (DeePiCt's pre-processing). Volumes are held in memory
whole. Both should have voxels of about the same size.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    options = _parser().parse_args(arguments)
    from robpicker_jax.datasets import tomograms_from
    from robpicker_jax.system.outputs import check_outputs
    from robpicker_jax.volumes import open_volume, read_volume, write_mrc
    from robpicker_jax.volumes.spectrum import match_spectrum, radial_spectrum

    tomograms = tomograms_from(options.tomograms, annotations=False)
    outputs = [options.out / f"{tomogram.name}.mrc" for tomogram in tomograms]
    inputs = [options.target, *(tomogram.volume_path for tomogram in tomograms)]
    check_outputs(outputs, inputs=inputs, overwrite=options.overwrite)
    target = radial_spectrum(read_volume(options.target).data)
    options.out.mkdir(parents=True, exist_ok=True)
    for tomogram, path in zip(tomograms, outputs, strict=True):
        with open_volume(tomogram.volume_path) as reader:
            voxel_size, origin = reader.voxel_size_angstrom, reader.origin_angstrom
        volume = read_volume(tomogram.volume_path).data
        matched = match_spectrum(volume, target, cutoff=options.cutoff, smooth=options.smooth)
        write_mrc(path, matched, voxel_size, origin)
        say(str(path))
    return 0


def _parser() -> ArgumentParser:
    result = parser("spectrum", _DESCRIPTION)
    add = result.add_argument
    add("tomograms", metavar="TOMO", nargs="+", type=Path, help="volume files, or folders of them")
    add("--target", metavar="TOMO", type=Path, required=True, help="the tomogram whose spectrum they get")
    add("--out", metavar="DIR", type=Path, required=True, help="where to write")
    add(
        "--cutoff",
        metavar="F",
        type=float,
        help="frequency from which on nothing is left, cycles a voxel (Nyquist: 0.5)",
    )
    add("--smooth", metavar="F", type=float, default=0.0, help="width of the fall there, cycles a voxel")
    add("--overwrite", action="store_true", help="replace files in DIR")
    return result
