"""`doctor`: what is wrong with a data set, before hours of training."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from robpicker_jax.commands.cli import ArgumentParser, configured_parser, console, positive_number, split_overrides
from robpicker_jax.system.progress import say

if TYPE_CHECKING:
    from robpicker_jax.diagnosis import Diagnosis

_DESCRIPTION = """\
Examine a data set before training: headers and voxel sizes; coordinates (inside the volume? in voxels? axes, mirroring,
binning: each reading is scored by the density at the picks); contrast; classes, sizes, overlaps, duplicates; the same
data in two splits; power spectra; and, with --config, patches, radii, memory and time.

Prints each finding with its remedy. Exit code 2 where there are errors, 0 otherwise. docs/doctor.md explains the codes.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, examine, report; refuse a data set that has errors."""
    rest, overrides = split_overrides(list(arguments or ()))
    options = _parser().parse_args(rest)
    from robpicker_jax.system.errors import InputError
    from robpicker_jax.system.files import from_here

    _check_output(options)
    data, diagnosis = _examine(options, overrides)
    _report(diagnosis, options.json)
    if diagnosis.count("error"):
        raise InputError(diagnosis.summary, where=data, fix="fix the errors above, then train")
    say(f"{from_here(data)}: {diagnosis.summary}")
    return 0


def _parser() -> ArgumentParser:
    result = configured_parser("doctor", _DESCRIPTION)
    add = result.add_argument
    add("--data", metavar="DIR", type=Path, help="folder of the data set; default: data.dir of --config")
    add(
        "--voxel-size",
        metavar="ANGSTROM",
        type=positive_number,
        help="voxel size, where headers and --config do not say",
    )
    add("--json", metavar="FILE", type=Path, help="also write the findings, with their evidence, as JSON")
    add("--overwrite", action="store_true", help="replace the file of --json")
    add("--no-resources", action="store_true", help="do not estimate memory and time")
    return result


def _check_output(options: Namespace) -> None:
    """Refuse, before anything is examined, to replace what stands at --json."""
    from robpicker_jax.datasets.lists import files_read
    from robpicker_jax.system.outputs import check_outputs

    if options.json is not None:
        read = [] if options.data is None else files_read(options.data)
        check_outputs([options.json], inputs=[options.config, *read], overwrite=options.overwrite)


def _examine(options: Namespace, overrides: list[str]) -> tuple[Path, Diagnosis]:
    """The data set's folder and what is found in it."""
    from robpicker_jax.annotations.options import KEY
    from robpicker_jax.config import load_config
    from robpicker_jax.diagnosis import diagnose
    from robpicker_jax.system.errors import InputError
    from robpicker_jax.system.progress import status

    config = load_config(options.config, overrides)
    # The embedded default's species are not the user's, nor are they when the flags only say how lists are read.
    about_lists = (f"{KEY}.", "data.name_pattern=", "data.splits.", "data.lists", "data.volumes=")
    is_users = options.config is not None or not all(override.startswith(about_lists) for override in overrides)
    data = options.data or (Path(config.data.dir) if config.data.dir else None)
    if data is None:
        raise InputError("no data set", fix="give --data DIR")
    with status(f"examining {data}") as show:
        diagnosis = diagnose(
            data,
            config if is_users else None,
            voxel_size_angstrom=options.voxel_size,
            annotation_options=config.data.annotation_options,
            name_pattern=config.data.name_pattern,
            layout=config.data,
            resources_too=not options.no_resources,
            on_tomogram=lambda name, _: show(f"examined {name}"),
        )
    return data, diagnosis


def _report(diagnosis: Diagnosis, path: Path | None) -> None:
    """Print the findings, and write the JSON file where one is asked for."""
    import json

    from robpicker_jax.diagnosis.table import findings_table, readings_table
    from robpicker_jax.system.files import write_text

    console.print(findings_table(diagnosis))
    readings = readings_table(diagnosis)
    if readings is not None:
        console.print(readings)
    if path is not None:
        write_text(path, json.dumps(diagnosis.as_dict(), indent=2) + "\n")
