"""`evaluate`: picks against true particles, as a table and as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robpicker_jax.commands.cli import configured_parser, console, split_overrides

if TYPE_CHECKING:
    import numpy as np

    from robpicker_jax.annotations import Particles
    from robpicker_jax.config import Config

_DESCRIPTION = """\
Compare picks with true particles. --truth and --picks are each a particle list of any supported format, a folder of
lists ({name}.xml, {name}_objl.xml, {name}.star, …), or a data set, of which --split is taken.

Rules: mask (a pick inside the label of a true particle of its class; the paper's), tolerance (within --tolerance
voxels), czii (within half the class's radius; beta 4). Matching is one-to-one unless --many-to-one asks for the
paper's literal count. Species, radii and shapes come from --config (a run's own is WORKDIR/config.yaml), or from
--classes and --radii; the rule's settings from --config unless given here. data.annotation_options says how
the truth is read (binning, unit, axes …; docs/formats.md); --truth-option and --picks-option add to it.

Masks of the sample (--masks, or {name}_mask.mrc beside the volumes of --truth): true particles outside are not missed,
picks outside that hit none inside are not false.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = configured_parser("evaluate", _DESCRIPTION)
    add = parser.add_argument
    add("--truth", metavar="DIR_OR_FILE", type=Path, required=True, help="true particles")
    add("--picks", metavar="DIR_OR_FILE", type=Path, required=True, help="picked particles")
    add("--json", metavar="FILE", type=Path, help="also write the evaluation as JSON")
    add("--rule", choices=["mask", "tolerance", "czii"], help="matching rule")
    add("--tolerance", metavar="VOX", type=float, help="largest distance of a hit, tolerance rule; voxels")
    add("--beta", type=float, help="beta of F-beta; default 1, under the czii rule 4")
    add("--many-to-one", action="store_true", help="count every pick that hits, as the paper's text has it")
    add("--labels", choices=["sphere", "shape"], help="labels of the mask rule; default: data.meta_labels, else sphere")
    add("--classes", metavar="NAME,…", type=names, help="name of class 1, 2, …, without --config")
    add("--radii", metavar="VOX,…", type=numbers, help="radius of class 1, 2, …, voxels, without --config")
    add("--split", default="test", choices=["train", "meta", "val", "test"], help="split of a data set; default: test")
    add("--voxel-size", metavar="ANGSTROM", type=float, help="voxel size, for lists in angstrom")
    add("--truth-format", metavar="NAME", help="annotation format of the truth, where its suffix does not tell")
    add("--truth-option", metavar="NAME=VALUE", action="append", default=[], help="how the truth is read; repeat")
    add("--picks-option", metavar="NAME=VALUE", action="append", default=[], help="how the picks are read; repeat")
    add("--picks-format", metavar="NAME", help="annotation format of the picks, where their suffix does not tell")
    add(
        "--masks",
        metavar="DIR_OR_FILE",
        type=Path,
        help="masks {name}_mask.mrc; default: those beside --truth's volumes",
    )
    add("--no-masks", action="store_true", help="count everything, also where a data set has masks")
    add("--missing-as-empty", action="store_true", help="a tomogram without a list of picks has no picks")
    rest, overrides = split_overrides(list(arguments or ()))
    options = parser.parse_args(rest)

    import json

    from robpicker_jax.annotations.conversion import parse_options
    from robpicker_jax.config import load_config
    from robpicker_jax.datasets.lists import agree_on_classes, header_voxel_size, pair_tomograms, read_lists
    from robpicker_jax.datasets.masks import masks_beside, read_masks
    from robpicker_jax.evaluation import evaluate, evaluation_table, options_from_config
    from robpicker_jax.system.errors import InputError
    from robpicker_jax.system.files import write_text

    # Without --config the embedded default gives the rule, but its species are not the user's.
    config = load_config(options.config, overrides)
    known = options.config is not None or any(override.startswith("data.species") for override in overrides)
    settings: dict[str, Any] = options_from_config(config)
    if not known:
        settings |= {"class_names": options.classes, "radii_vox": None, "molecular_weights_kda": None}
    given = {
        "rule": options.rule,
        "radii_vox": options.radii,
        "tolerance_vox": options.tolerance,
        "beta": options.beta,
        "one_to_one": False if options.many_to_one else None,
    }
    settings |= {name: value for name, value in given.items() if value is not None}
    if options.rule == "czii" and options.beta is None:
        settings["beta"] = None  # the rule's own
    voxel_size = header_voxel_size(
        options.truth, split=options.split, configured=options.voxel_size or config.data.voxel_size_angstrom
    )
    settings["voxel_size_angstrom"] = voxel_size

    reading = {"split": options.split, "voxel_size_angstrom": voxel_size, "class_names": settings["class_names"]}
    how = config.data.annotation_options | parse_options(options.truth_option, "--truth-option")
    truth = read_lists(options.truth, fmt=options.truth_format, options=how, **reading)
    how = parse_options(options.picks_option, "--picks-option")
    found = read_lists(options.picks, fmt=options.picks_format, allow_empty=True, options=how, **reading)
    picks, strange = pair_tomograms(truth, found)
    if strange:
        console.print(f"no truth, so left out: {', '.join(strange)}", highlight=False, soft_wrap=True)
    if not options.no_masks:
        given_masks = None if options.masks is None else read_masks(options.masks, truth, split=options.split)
        masks = masks_beside(options.truth, split=options.split) if given_masks is None else given_masks
        settings["regions"] = masks or None
        bare = [name for name in truth if name not in masks]
        if masks and bare:
            console.print(f"no mask, so counted whole: {', '.join(bare)}", highlight=False, soft_wrap=True)
    truth, picks, settings["class_names"] = agree_on_classes(truth, picks, settings["class_names"])
    labels = options.labels or (config.data.meta_labels if known and options.radii is None else "sphere")
    if settings["rule"] == "mask" and labels == "shape":
        if not known:
            raise InputError("needs the species' shapes", where="--labels shape", fix="give --config")
        settings["instance_maps"] = _shapes(config, truth, picks, voxel_size)
    evaluation = evaluate(truth, picks, missing_picks_as_empty=options.missing_as_empty, **settings)
    console.print(evaluation_table(evaluation))
    if options.json is not None:
        write_text(options.json, json.dumps(evaluation.as_dict(), indent=2) + "\n")
    return 0


def _shapes(
    config: Config, truth: Mapping[str, Particles], picks: Mapping[str, Particles], voxel_size_angstrom: float | None
) -> dict[str, np.ndarray]:
    """Instance maps from the species' rotated masks, just large enough for all particles."""
    import numpy as np

    from robpicker_jax.annotations import Particles
    from robpicker_jax.labels import label_maker

    maker = label_maker(config.data.species, "shape", voxel_size_angstrom=voxel_size_angstrom)
    maps = {}
    for name, particles in truth.items():
        both = Particles.concatenate([particles, picks.get(name, Particles.empty())]).positions_vox
        shape = np.ceil(both.max(axis=0, initial=0.0)).astype(int)[::-1] + 2
        maps[name] = maker.instances(shape.tolist(), particles)
    return maps


def names(text: str) -> list[str]:
    """Comma-separated names."""
    return [name.strip() for name in text.split(",")]


def numbers(text: str) -> list[float]:
    """Comma-separated numbers."""
    return [float(number) for number in text.split(",")]
