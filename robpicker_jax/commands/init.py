"""`init`: write a configuration for your own data, from what lies in a folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from robpicker_jax.commands.cli import ArgumentParser, parser, positive_number, split_overrides
from robpicker_jax.system.progress import say

_DESCRIPTION = """\
Look at the tomograms and particle lists in a folder, and write a commented configuration for them: species with radii
in Å, voxel size, splits, sizes of patches and tiles, and the network and the number of steps that this machine can
train. Nothing is moved, linked or edited.

DIR is a flat folder of tomograms, a data set (train/, meta/ …), a copick project (its folder or its JSON file), or a
project of RELION, Warp or another program, in which tomograms and the lists that name them are looked for. Dotted
flags (--train.steps 500) go before what is proposed.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, look, write."""
    rest, overrides = split_overrides(list(arguments or ()), None)
    options = _parser().parse_args(rest)
    from robpicker_jax.proposal import propose
    from robpicker_jax.system.files import write_text
    from robpicker_jax.system.outputs import check_outputs
    from robpicker_jax.system.progress import status

    check_outputs([options.out], overwrite=options.overwrite)
    with status(f"looking at {options.folder}"):
        found = propose(
            options.folder,
            options.out,
            species=options.species,
            lists=options.lists,
            meta=options.meta,
            val=options.val,
            test=options.test,
            voxel_size=options.voxel_size,
            name_pattern=options.name_pattern,
            overrides=overrides,
        )
    write_text(options.out, found.text)
    for line in found.lines:
        say(line)
    say(f"written: {options.out}; next: robpicker doctor --config {options.out}")
    return 0


def _parser() -> ArgumentParser:
    result = parser("init", _DESCRIPTION)
    add = result.add_argument
    add("folder", metavar="DIR", type=Path, help="the tomograms and lists, or a copick project")
    add(
        "--species",
        metavar="NAME:ANGSTROM,…",
        help="species in the order of their labels, with their radii in Å (half the diameter), such as "
        "ribosome:150,apoferritin:60; default: those of the lists or the project, radii estimated where none is stated",
    )
    add(
        "--meta",
        metavar="NAME,…",
        type=_names,
        default=(),
        help="tomograms annotated with care, as names or patterns such as 'TS_0*'; default: one proposed",
    )
    add("--val", metavar="NAME,…", type=_names, default=(), help="tomograms that choose the best model")
    add("--test", metavar="NAME,…", type=_names, default=(), help="tomograms to pick; default: those without a list")
    add(
        "--lists",
        metavar="[CLASS=]PATH",
        action="append",
        default=[],
        help="particle lists, files or folders, where they are not found or too many are; repeat",
    )
    add("--voxel-size", metavar="ANGSTROM", type=positive_number, help="voxel size, where headers do not say it")
    add("--name-pattern", metavar="REGEX", help="what of a tomogram's name counts, such as 'TS_[0-9]+'")
    add("--out", metavar="FILE", type=Path, default=Path("robpicker.yaml"), help="default: robpicker.yaml")
    add("--overwrite", action="store_true", help="replace an earlier FILE")
    return result


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())
