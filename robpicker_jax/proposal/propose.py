"""From a folder to a configuration, with the reasons beside the values."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from robpicker_jax.annotations.names import NameRule
from robpicker_jax.config import Config, apply_overrides, config_of
from robpicker_jax.datasets import SPLITS
from robpicker_jax.datasets.copick_project import is_project
from robpicker_jax.diagnosis.observation import Observation
from robpicker_jax.proposal import sizes
from robpicker_jax.proposal.commented import commented_yaml
from robpicker_jax.proposal.sources import Source, find_source
from robpicker_jax.proposal.species import Proposed, as_section, observed, parsed, with_radii
from robpicker_jax.proposal.splits import ProposedSplits, propose_splits
from robpicker_jax.system.errors import InputError

_SUPERVISED = (
    "there is no meta tomogram by which a label correction could learn, and no other one to judge by. With a second "
    "annotated tomogram, write this file anew"
)
_NOWHERE = ""
"""The split of a tomogram that is used for nothing, such as one without a list where others are named for test."""


@dataclass(frozen=True)
class Proposal:
    """A configuration for some data.

    Attributes:
        text: YAML with comments.
        config: the same, read.
        inputs: the folders and files that it rests on.
        lines: what was found, for the terminal.
    """

    text: str
    config: Config
    inputs: tuple[Path, ...]
    lines: tuple[str, ...]


def propose(
    folder: str | Path,
    out: str | Path,
    *,
    species: str | None = None,
    lists: Sequence[str] = (),
    meta: Sequence[str] = (),
    val: Sequence[str] = (),
    test: Sequence[str] = (),
    voxel_size: float | None = None,
    name_pattern: str | None = None,
    overrides: Sequence[str] = (),
) -> Proposal:
    """Look at a folder and propose a configuration for it; every annotated volume is read once.

    Args:
        folder: tomograms and lists: a data set, a copick project, or a project of RELION, Warp or others.
        out: where the configuration will be written; its paths are relative to this.
        species: NAME:RADIUS,… in Å and in the order of labels; names alone where the radius is to be estimated.
        lists: where the lists are, PATH or CLASS=PATH, where they are not found.
        meta, val, test: tomograms of these splits.
        voxel_size: Å, where headers do not say it.
        name_pattern: as `data.name_pattern`.
        overrides: "dotted.key=value", which go before what is proposed.

    Raises:
        InputError: what cannot be found out and has to be said.
    """
    folder, out = Path(folder), Path(out)
    source = find_source(folder, lists=lists, voxel_size=voxel_size, name_pattern=name_pattern)
    if not source.is_flat and (meta or val or test):
        fix = "leave out --meta, --val and --test, or move the tomograms between these folders"
        raise InputError("its folders train/, meta/ … say what each tomogram is for", where=folder, fix=fix)
    stated = dict(source.radii_angstrom)
    given = {name: radius or stated.get(name) for name, radius in parsed(species).items()} or dict(stated)
    observations, classes = observed(source.tomograms, source.data, list(given), source.voxel_size_angstrom)
    found, scores = with_radii(observations, classes, given, source.voxel_size_angstrom)
    if source.radii_angstrom and not species:
        found = [replace(entry, how="as the project says") for entry in found]
    proposed = None
    if source.is_flat:
        rule = NameRule.of(name_pattern)
        proposed = propose_splits(observations, scores, len(classes), meta=meta, test=test, val=val, rule=rule)
        observations = [_in_split(o, proposed.split_of.get(o.tomogram.name, _NOWHERE)) for o in observations]
    used = [o for o in observations if o.tomogram.split != _NOWHERE]
    values, comments = _data(source, found, proposed, used, out)
    radii = [entry.radius_vox for entry in as_section(found, source.voxel_size_angstrom)]
    shapes = [o.header.shape_zyx for o in used if o.header and o.tomogram.split in ("train", "meta")]
    supervised = not any(o.tomogram.split == "meta" for o in used)
    patches = sizes.patches(radii, shapes, supervised=supervised)
    common = {"patches": patches, "inference": sizes.inference(radii, patches["size"])}

    def build(choice: Mapping[str, Any], base: Mapping[str, Any] = values) -> Config:
        return config_of(apply_overrides({**base, **common, **choice}, overrides), out)

    choices = sizes.networks(radii, len(classes), supervised=supervised)
    chosen, estimate = sizes.fitting_network(choices, build, used)
    merged = apply_overrides({**values, "patches": patches, **chosen, "inference": common["inference"]}, overrides)
    comments |= _remarks(estimate, sizes.derived_remark(classes, radii))
    head = [
        f"Proposed by `robpicker init` for {folder.resolve().name}. Everything may be edited; `robpicker train --help` lists",
        "all keys.",
        "",
        f"command   robpicker doctor --config {out.name}",
        f"          robpicker train --config {out.name} --workdir RUN",
    ]
    text = commented_yaml(merged, comments, head)
    config = build(chosen)
    lines = _lines(found, observations, proposed, estimate)
    if not config.train.uses_meta_tomograms and supervised:
        lines.insert(-1, f"variant supervised: {_SUPERVISED}")
    return Proposal(text, config, (folder,), tuple(lines))


def _in_split(observation: Observation, split: str) -> Observation:
    return replace(observation, tomogram=replace(observation.tomogram, split=split))


def _data(
    source: Source,
    species: Sequence[Proposed],
    proposed: ProposedSplits | None,
    observations: Sequence[Observation],
    out: Path,
) -> tuple[dict[str, Any], dict[str, str]]:
    """The section `data` and its comments."""
    data, home = source.data, out.resolve().parent
    project = is_project(data.dir or "")
    section: dict[str, Any] = {"dir": _relative(data.dir or "", home)}
    if data.volumes:
        section["volumes"] = data.volumes
    splits = {} if proposed is None else {split: list(getattr(proposed.splits, split)) for split in SPLITS}
    if project:
        splits = _runs(splits, observations)
        section["copick"] = {split: names for split, names in splits.items() if names} | {
            "voxel_spacing_angstrom": data.copick.voxel_spacing_angstrom,
            "tomo_type": data.copick.tomo_type,
        }
        if data.copick.user is not None:
            section["copick"] |= {"user": data.copick.user, "session": data.copick.session}
        if data.copick.prefer:
            section["copick"]["prefer"] = list(data.copick.prefer)
    elif proposed is not None:
        section["splits"] = {split: names for split, names in splits.items() if names}
    if isinstance(data.lists, Mapping):
        section["lists"] = {name: _relative(path, home) for name, path in data.lists.items()}
    elif data.lists:
        paths = [_relative(path, home) for path in ([data.lists] if isinstance(data.lists, str) else data.lists)]
        section["lists"] = paths[0] if len(paths) == 1 else paths
    if data.annotation_options:
        section["annotation_options"] = {
            name: {"tomograms": _relative(options["tomograms"], home)}
            for name, options in data.annotation_options.items()
        }
    if data.name_pattern:
        section["name_pattern"] = data.name_pattern
    section["voxel_size_angstrom"] = source.voxel_size_angstrom
    section |= {"train_labels": "sphere", "meta_labels": "sphere"}
    section["species"] = [{"name": entry.name, "radius_angstrom": round(entry.radius_angstrom, 2)} for entry in species]
    counts: dict[str, int] = {}
    for observation in observations:
        counts[observation.tomogram.split] = counts.get(observation.tomogram.split, 0) + 1
    counted = ", ".join(f"{n} {split}" for split, n in counts.items())
    where = "copick" if project else "splits"
    chosen = "" if proposed is None else (
        f"meta should be annotated with the most care; proposed {', '.join(proposed.splits.meta)}: {proposed.reason}"
        if proposed.splits.meta else f"{', '.join(proposed.splits.train)} is {proposed.reason}"
    )  # fmt: skip
    why = "" if proposed is None else (
        f"{counted}. {chosen}. To change it, name others here ("
        + ("names of runs); runs that are named nowhere are " + ("left out" if proposed.splits.test else "picked")
           if project
           else "names, or patterns such as TS_0*); what is named nowhere is train where it has a list, else "
           + ("left out" if proposed.splits.test else "test"))
    )  # fmt: skip
    remarks = {
        f"data.{where}" if key.startswith("copick") else f"data.{key}": text for key, text in source.remarks.items()
    }
    radii = "; ".join(f"{entry.name} {entry.how}" for entry in species)
    extra = remarks.pop("data.species", "")
    comments = {
        "data": "where the tomograms and their lists are, used as they lie",
        "data.voxel_size_angstrom": "as the headers say",
        "data.train_labels": "spheres; where a density map or a mask of each species is at hand, meta_labels: shape is cleaner",
        "data.species": f"in the order of their labels; radii in Å (half the diameter): {radii}"
        + (f"; {extra}" * bool(extra)),
        **remarks,
    }
    if why:
        comments[f"data.{where}"] = "; ".join(text for text in (why, remarks.get(f"data.{where}", "")) if text)
    return {"data": section}, comments


def _runs(splits: Mapping[str, Sequence[str]], observations: Sequence[Observation]) -> dict[str, list[str]]:
    """The splits of a copick project, whose section takes the names of runs alone, and no patterns.

    Those that are picked stand there only where they were chosen, since a section that names them leaves out all others.
    """
    runs = {split: [o.tomogram.name for o in observations if o.tomogram.split == split] for split in SPLITS}
    return runs | ({} if splits["test"] else {"test": []})


def _remarks(estimate: str, derived: str) -> dict[str, str]:
    return {
        "patches": "six times the largest radius, in multiples of 16, and no more than the thinnest tomogram",
        "patches.meta_background_share": "what is no particle is clean there too, and shows false labels",
        "model": f"the largest of three networks that this machine trains in twelve hours: {estimate}",
        "train.variant": _SUPERVISED,
        "train.meta_class_entropy": "the correction is taught small species as much as large ones",
        "train.meta_warmup_steps": "share of the steps: labels and weights are left alone until particles are known",
        "train.meta_share": "share of training patches that are taken from the meta tomograms, with their labels as they are",
        "train.fine_tune_steps": "share of the steps, the last ones, on meta patches alone at a tenth of the learning rate",
        "train.corruption": "the errors that the correction learns to undo, as rough lists usually have them. Your own rates "
        "are better: robpicker evaluate --corruption --truth CLEAN --picks ROUGH prints them from the careful and the rough "
        "list of a meta tomogram",
        "inference": f"what is not said follows the radii: {derived} (picking.min_cluster_vox, picking.min_distance_vox)",
    }


def _lines(
    species: Sequence[Proposed], observations: Sequence[Observation], proposed: ProposedSplits | None, estimate: str
) -> list[str]:
    found = [f"{entry.name}: radius {entry.radius_angstrom:g} Å, {entry.how}" for entry in species]
    for split in SPLITS:
        names = [o.tomogram.name for o in observations if o.tomogram.split == split]
        if names:
            why = f" ({proposed.reason})" if proposed is not None and split == "meta" else ""
            found.append(f"{split}: {_some(names)}{why}")
    if left := [o.tomogram.name for o in observations if o.tomogram.split == _NOWHERE]:
        found.append(f"left out, without a list and not named for test: {_some(left)}")
    return [*found, estimate]


def _some(names: Sequence[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _relative(path: str, home: Path) -> str:
    """A path relative to the configuration, where that is short."""
    relative = os.path.relpath(path, home)
    return path if relative.count("..") > 2 else Path(relative).as_posix()
