"""The manifest of a simulated data set: what it was made from, its files, and whether it is finished."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

from robpicker_jax.config.differences import differing_keys
from robpicker_jax.datasets import SPLITS
from robpicker_jax.simulation.jobs import DatasetRecipe
from robpicker_jax.system.errors import InputError
from robpicker_jax.system.files import write_text
from robpicker_jax.system.version import __version__

MANIFEST = "simulation.json"

_FORMAT = 2  # raised whenever the same settings would give other data


def settings_of(recipe: DatasetRecipe) -> dict[str, Any]:
    """All that the data depend on, as JSON has it; input files count by their content, not by their path.

    Raises:
        InputError: an input file is missing.
    """
    species = []
    for entry in recipe.species:
        fields = dataclasses.asdict(entry)
        fields.pop("min_cluster_vox")
        for kind in ("density", "mask"):
            fields[kind] = None if fields[kind] is None else _content(fields[kind])
        species.append(fields)
    settings: dict[str, Any] = {
        "format": _FORMAT,
        "species": species,
        "simulation": dataclasses.asdict(recipe.simulation),
        "label_noise": dataclasses.asdict(recipe.label_noise),
    }
    if recipe.placements:
        for split in SPLITS:
            del settings["simulation"][split]
        settings["placements"] = [[p.split, p.tomogram, _content(p.path)] for p in recipe.placements]
    return dict(json.loads(json.dumps(settings)))  # tuples become lists, as in the file


def _content(path: str | Path) -> str:
    if not Path(path).is_file():
        raise InputError("no such file", where=path)
    return f"sha256:{digest(Path(path))}"


def digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def open_manifest(out: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """The manifest of a folder, a fresh one where there is none.

    Raises:
        InputError: it belongs to other settings, or the folder holds tomograms of another origin.
    """
    path = out / MANIFEST
    versions = {"robpicker_jax": __version__, "python": platform.python_version()}
    versions |= {name: metadata.version(name) for name in ("numpy", "scipy", "mrcfile")}
    fresh: dict[str, Any] = {"finished": False, "settings": settings, "versions": versions, "tomograms": {}}
    if not path.exists():
        foreign = sorted(file for split in SPLITS for file in out.glob(f"{split}/[!.]*"))
        if foreign:
            raise InputError(
                f"holds files but no {MANIFEST} ({foreign[0].name} …)", where=out, fix="use another folder"
            )
        return fresh
    try:
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        found = manifest["settings"]
        manifest["finished"], manifest["tomograms"].items()
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InputError("is no manifest of a simulation", where=path, fix="delete the folder") from None
    different = differing_keys(found, settings)
    if different and not manifest["tomograms"]:
        return fresh  # a start that was ended before its first tomogram was whole
    if different:
        shown = ", ".join(different[:3]) + (" …" if len(different) > 3 else "")
        raise InputError(
            f"holds a data set simulated with other settings ({shown})",
            where=out,
            fix="use another folder, or delete this one",
        )
    return manifest


def write_manifest(out: Path, manifest: dict[str, Any]) -> None:
    """Write the manifest of a folder in one step."""
    write_text(out / MANIFEST, json.dumps(manifest, indent=1) + "\n")


def is_complete(out: Path, entry: dict[str, Any] | None) -> bool:
    """Whether all files of a tomogram are there in full; `entry` is its entry in the manifest."""
    if entry is None:
        return False
    files = [(out / name, facts["bytes"]) for name, facts in entry["files"].items()]
    return all(file.is_file() and file.stat().st_size == size for file, size in files)
