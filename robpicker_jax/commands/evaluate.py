"""`evaluate`: picks against true particles, as a table and as JSON."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robpicker_jax.commands.cli import ArgumentParser, configured_parser, console, positive_number, split_overrides
from robpicker_jax.system.progress import say

if TYPE_CHECKING:
    import numpy as np

    from robpicker_jax.annotations import Particles
    from robpicker_jax.annotations.names import NameRule
    from robpicker_jax.config import Config, DataConfig
    from robpicker_jax.evaluation import Evaluation, EvaluationOptions

_DESCRIPTION = """\
Compare picks with true particles. --truth and --picks are each a particle list of any supported format, a folder of
lists ({name}.xml, {name}_objl.xml, {name}.star, …), or a data set, of which --split is taken, or the copick_config.json
of a copick project, whose runs are tomograms (data.copick, or the options user and session, say whose picks count).

Rules: mask (a pick inside the label of a true particle of its class; the paper's), tolerance (within --tolerance
voxels), czii (within half the class's radius; beta 4). Matching is one-to-one unless --many-to-one asks for the
paper's literal count. Published scorers, counting as they do: czii_scorer, robpicker, deepict, deepfinder, shrec
(docs/training.md). Species, radii and shapes come from --config (a run's own is WORKDIR/config.yaml), or from
--classes and --radii-angstrom; the rule's settings from --config unless given here. data.annotation_options says how
the truth is read (binning, unit, axes …; docs/formats.md); --truth-option and --picks-option add to it.

Label correction should learn from the errors that the labels have: --corruption compares a rough list of carefully
annotated tomograms (--picks) with the careful one (--truth), and prints their rates for the configuration.

Masks of the sample (--masks, or {name}_mask.mrc beside the volumes of --truth): true particles outside are not missed,
picks outside that hit none inside are not false.
"""


_RULES = ["mask", "tolerance", "czii", "czii_scorer", "robpicker", "deepict", "deepfinder", "shrec"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, read the lists and the masks, compare, report."""
    rest, overrides = split_overrides(list(arguments or ()))
    options = _parser().parse_args(rest)
    settings = _settings(options, overrides)
    _check_output(options, settings.config.data)
    truth, picks = _read(options, settings)
    if options.corruption:
        _say_corruption(options, settings, truth, picks)
        return 0
    regions = None if options.no_masks else _masks(options, truth, settings.names, settings.config.data)
    evaluation = _compare(options, settings, truth, picks, regions)
    _report(evaluation, options.json)
    return 0


def _parser() -> ArgumentParser:
    result = configured_parser("evaluate", _DESCRIPTION, ("data", "evaluation"))
    add = result.add_argument
    add("--truth", metavar="DIR_OR_FILE", type=Path, required=True, help="true particles")
    add("--picks", metavar="DIR_OR_FILE", type=Path, required=True, help="picked particles")
    add("--json", metavar="FILE", type=Path, help="also write the evaluation as JSON")
    add("--rule", choices=_RULES, help="matching rule")
    add(
        "--tolerance",
        metavar="VOX",
        type=positive_number,
        help="largest distance of a hit by tolerance, deepict, deepfinder; voxels",
    )
    add("--beta", type=positive_number, help="beta of F-beta; default 1, under CZII's rules 4")
    add("--many-to-one", action="store_true", help="count every pick that hits, as the paper's text has it")
    add("--labels", choices=["sphere", "shape"], help="labels of the mask rule; default: data.meta_labels, else sphere")
    add("--classes", metavar="NAME,…", type=names, help="name of class 1, 2, …, without --config")
    add("--radii-angstrom", metavar="ANGSTROM,…", type=numbers, help="radius of class 1, 2, …, Å, without --config")
    add("--radii", metavar="VOX,…", type=numbers, help="the same in voxels")
    add("--split", default="test", choices=["train", "meta", "val", "test"], help="split of a data set; default: test")
    add("--voxel-size", metavar="ANGSTROM", type=positive_number, help="voxel size, for lists in angstrom")
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
    add("--overwrite", action="store_true", help="replace the file of --json")
    add(
        "--corruption",
        action="store_true",
        help="instead: print the section train.corruption by which clean labels err as the picks do",
    )
    add("--missing-as-empty", action="store_true", help="a tomogram without a list of picks has no picks")
    return result


def _check_output(options: Namespace, data: DataConfig) -> None:
    """Refuse, before anything is compared, to replace what stands at --json."""
    from robpicker_jax.datasets.lists import files_read
    from robpicker_jax.system.outputs import check_outputs

    if options.json is not None:
        read = [
            file for path in (options.truth, options.picks, options.masks) if path for file in files_read(path, data)
        ]
        check_outputs([options.json], inputs=[options.config, *read], overwrite=options.overwrite)


@dataclass(frozen=True)
class _Settings:
    """What configuration and flags say together.

    Attributes:
        config: the configuration, with its overrides.
        has_species: whether the user named its species; those of the embedded default are not the user's.
        class_names: names of class 1, 2, …, None where the lists must tell.
        voxel_size_angstrom: voxel size, None where it is not known.
        radii_vox: radius of class 1, 2, … that the flags give, voxels; None without such flags.
        names: which names mean the same tomogram.
    """

    config: Config
    has_species: bool
    class_names: list[str] | None
    voxel_size_angstrom: float | None
    radii_vox: list[float] | None
    names: NameRule


def _settings(options: Namespace, overrides: list[str]) -> _Settings:
    from robpicker_jax.annotations.names import NameRule
    from robpicker_jax.annotations.stated import agreed_length
    from robpicker_jax.commands.radii import in_voxels
    from robpicker_jax.config import load_config
    from robpicker_jax.datasets.lists import header_voxel_size

    config = load_config(options.config, overrides)
    has_species = options.config is not None or any(override.startswith("data.species") for override in overrides)
    configured = agreed_length(
        [("--voxel-size", options.voxel_size), ("data.voxel_size_angstrom", config.data.voxel_size_angstrom)]
    )
    voxel_size = header_voxel_size(options.truth, split=options.split, configured=configured, data=config.data)
    return _Settings(
        config=config,
        has_species=has_species,
        class_names=[species.name for species in config.data.species] if has_species else options.classes,
        voxel_size_angstrom=voxel_size,
        radii_vox=in_voxels(options.radii, options.radii_angstrom, voxel_size),
        names=NameRule.of(config.data.name_pattern, "data.name_pattern"),
    )


def _read(options: Namespace, settings: _Settings) -> tuple[dict[str, Particles], dict[str, Particles]]:
    """Truth and picks by tomogram, under the truth's names."""
    from robpicker_jax.annotations.conversion import parse_options
    from robpicker_jax.datasets.lists import pair_tomograms, read_lists

    reading: dict[str, Any] = {
        "split": options.split,
        "voxel_size_angstrom": settings.voxel_size_angstrom,
        "class_names": settings.class_names,
        "rule": settings.names,
        "copick": settings.config.data.copick,
        "data": settings.config.data,
    }
    how = settings.config.data.annotation_options | parse_options(options.truth_option, "--truth-option")
    truth = read_lists(options.truth, fmt=options.truth_format, options=how, **reading)
    how = parse_options(options.picks_option, "--picks-option")
    found = read_lists(options.picks, fmt=options.picks_format, allow_empty=True, options=how, **reading)
    picks, without_truth = pair_tomograms(truth, found, settings.names)
    if without_truth:
        say(f"no truth, so left out: {', '.join(without_truth)}")
    return truth, picks


def _masks(
    options: Namespace, truth: Mapping[str, Particles], rule: NameRule, data: DataConfig
) -> dict[str, np.ndarray] | None:
    """The masks of the sample by tomogram, None where there are none."""
    from robpicker_jax.datasets.masks import masks_beside, read_masks

    if options.masks is None:
        masks = masks_beside(options.truth, split=options.split, data=data)
    else:
        masks = read_masks(options.masks, truth, split=options.split, rule=rule)
    bare = [name for name in truth if name not in masks]
    if masks and bare:
        say(f"no mask, so counted whole: {', '.join(bare)}")
    return masks or None


def _compare(
    options: Namespace,
    settings: _Settings,
    truth: dict[str, Particles],
    picks: dict[str, Particles],
    regions: dict[str, np.ndarray] | None,
) -> Evaluation:
    from robpicker_jax.datasets.lists import agree_on_classes
    from robpicker_jax.evaluation import evaluate
    from robpicker_jax.evaluation.rules import LABEL_RULES
    from robpicker_jax.system.errors import InputError

    truth, picks, class_names = agree_on_classes(truth, picks, settings.class_names)
    how = _evaluation_options(options, settings, class_names)
    by_species = settings.has_species and settings.radii_vox is None
    labels = options.labels or (settings.config.data.meta_labels if by_species else "sphere")
    instance_maps = None
    if how.rule in LABEL_RULES and labels == "shape":
        if not settings.has_species:
            raise InputError("needs the species' shapes", where="--labels shape", fix="give --config")
        instance_maps = _shapes(settings.config, truth, picks, settings.voxel_size_angstrom)
    return evaluate(
        truth,
        picks,
        how,
        instance_maps=instance_maps,
        regions=regions,
        missing_picks_as_empty=options.missing_as_empty,
    )


def _evaluation_options(options: Namespace, settings: _Settings, class_names: Sequence[str]) -> EvaluationOptions:
    """The configuration's rule, with what the flags change."""
    from robpicker_jax.evaluation import EvaluationOptions

    section = settings.config.evaluation
    species = settings.config.data.species
    radii = [entry.radius_vox for entry in species] if settings.has_species else None
    weights = [entry.molecular_weight_kda for entry in species] if settings.has_species else None
    # A rule that is given on the command line has a beta of its own, not that of the configuration's rule.
    beta = None if options.rule in ("czii", "czii_scorer") else section.beta
    return EvaluationOptions(
        class_names=class_names,
        rule=options.rule or section.rule,
        tolerance_vox=section.tolerance_vox if options.tolerance is None else options.tolerance,
        one_to_one=section.one_to_one and not options.many_to_one,
        beta=beta if options.beta is None else options.beta,
        radii_vox=settings.radii_vox or radii,
        weights=section.weights,
        molecular_weights_kda=weights,
        voxel_size_angstrom=settings.voxel_size_angstrom,
    )


def _say_corruption(
    options: Namespace, settings: _Settings, truth: dict[str, Particles], picks: dict[str, Particles]
) -> None:
    """Print the section `train.corruption` that errs as the picks do."""
    from robpicker_jax.config.loading import yaml_text
    from robpicker_jax.datasets.lists import agree_on_classes
    from robpicker_jax.evaluation.label_errors import label_errors
    from robpicker_jax.system.errors import InputError

    truth, picks, class_names = agree_on_classes(truth, picks, settings.class_names)
    species = settings.config.data.species if settings.has_species else None
    radii = settings.radii_vox or (None if species is None else [entry.radius_vox for entry in species])
    if radii is None or len(radii) != len(class_names):
        where = "--corruption"
        raise InputError(
            "needs a radius for each class", where=where, fix="give --config, or --classes and --radii-angstrom"
        )
    section = label_errors(truth, picks, radii, class_names).corruption(settings.config.patches.size)
    text = yaml_text({"train": {"corruption": section}})
    say(text.rstrip("\n"))


def _report(evaluation: Evaluation, path: Path | None) -> None:
    """Print the table, and write the JSON file where one is asked for."""
    import json

    from robpicker_jax.evaluation import evaluation_table
    from robpicker_jax.system.files import write_text

    console.print(evaluation_table(evaluation))
    if path is not None:
        write_text(path, json.dumps(evaluation.as_dict(), indent=2) + "\n")


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
