"""Keeping a report's inputs in a run's folder, and making the report again from that folder alone.

Curves, scores, configuration and versions are always read from the run's own files; what cannot be computed again without
the network (slices, label corrections, sample weights) is kept in report/inputs.npz.
"""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from robpicker_jax.annotations.particles import Particles
from robpicker_jax.config.loading import parse_yaml
from robpicker_jax.evaluation.calibration_counts import ClassCalibration
from robpicker_jax.picking.expectation import expected_curve, expected_curve_of_all
from robpicker_jax.reporting.data import (
    AfterReview,
    ClassWeights,
    Command,
    Comparison,
    LabelExample,
    ReportData,
    SpeciesInfo,
    TomogramView,
)
from robpicker_jax.reporting.image import grey, window
from robpicker_jax.reporting.rejected import COLUMN, Rejected
from robpicker_jax.reporting.tables import read_evaluation
from robpicker_jax.system.errors import InputError
from robpicker_jax.system.files import atomic_path, one_line, read_arrays, read_json_object, read_text
from robpicker_jax.training.metrics_log import read_metrics

INPUTS = Path("report") / "inputs.npz"
MAX_EDGE_VOX = 512
MAX_DEPTH_VOX = 256
_PRECISIONS = (0.5, 0.7, 0.8, 0.9, 0.95)
_KEPT = ("scores", "cluster_sizes", "rotations")
_EXAMPLE_MAPS = ("image", "noisy", "corrected", "true", "confidence", "probabilities")


def save_inputs(data: ReportData, workdir: Path) -> Path:
    """Keep what `load_workdir` cannot find in the run's other files: 8-bit densities, binned to ≤ 256 × 512 × 512."""
    arrays: dict[str, np.ndarray] = {}
    meta: dict[str, Any] = {
        "title": data.title,
        "machine": data.machine,
        "variant": data.variant,
        "validated_on": data.validated_on,
        "absent": dict(data.absent),
        "species": [list(s) for s in data.species],
        "tomograms": [],
        "examples": [e.name for e in data.label_examples],
        "weights": [[row.name, float(row.size), row.unit] for row in data.weights],
    }
    if data.comparison is not None:
        meta["comparison"] = {
            "name": data.comparison.name,
            "evaluation": dict(data.comparison.evaluation),
            "history": [dict(row) for row in data.comparison.history],
        }
    for index, view in enumerate(data.tomograms):
        small = binned(view)
        arrays[f"tomogram{index}.density"] = grey(small.density, window(small.density, 0.05, 99.95))
        _pack(arrays, f"tomogram{index}.picks", view.picks)
        if view.truth is not None:
            _pack(arrays, f"tomogram{index}.truth", view.truth)
        if view.matches is not None:
            arrays[f"tomogram{index}.matches"] = view.matches
        entry: dict[str, Any] = {
            "name": view.name,
            "bin_zyx": list(small.bin_zyx),
            "voxel_size_angstrom": view.voxel_size_angstrom,
        }
        if view.rejected is not None:
            _pack(arrays, f"tomogram{index}.rejected", view.rejected.shown)
            arrays[f"tomogram{index}.rejected.by"] = view.rejected.shown.extra[COLUMN]
            entry["rejected"] = {name: dict(counts) for name, counts in view.rejected.counts.items()}
        meta["tomograms"].append(entry)
    for index, example in enumerate(data.label_examples):
        for name in _EXAMPLE_MAPS:
            value = getattr(example, name)
            if value is not None:
                kind = np.float32 if np.issubdtype(np.asarray(value).dtype, np.floating) else np.int32
                arrays[f"example{index}.{name}"] = np.asarray(value, kind)
    for index, row in enumerate(data.weights):
        arrays[f"weights{index}"] = np.asarray(row.weights, np.float32)
    path = Path(workdir) / INPUTS
    arrays["meta"] = np.frombuffer(json.dumps(meta, default=_plain).encode(), np.uint8)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    return path


def load_workdir(workdir: Path, *, compare: Path | None = None) -> ReportData:
    """Everything a report can show of a run, from its folder.

    Args:
        workdir: folder of a run; an unfinished one gives a report with fewer sections.
        compare: folder of another run on the same data. None: an evaluated run beside this one that differs from it
            in the variant alone, else the kept comparison.

    Raises:
        InputError: not a run's folder, or a file in it cannot be read.
    """
    workdir = Path(workdir)
    if not (workdir / "config.yaml").is_file() and not (workdir / "metrics.jsonl").is_file():
        raise InputError(
            "not the folder of a run: no config.yaml in it", where=workdir, fix="give --workdir of a training"
        )
    config = workdir / "config.yaml"
    text = read_text(config) if config.is_file() else ""
    settings = _settings(text, config)
    waiting = "the run has not come to its report yet"
    versions = _read_json(workdir / "versions.json")
    calibrated = _calibrated(workdir)
    data = ReportData(
        machine=str(versions.pop("machine", "")),
        title=f"RobPicker run {workdir.resolve().name}",
        config_yaml=text,
        versions=versions,
        species=_species(settings, config),
        history=_history(workdir),
        evaluation=_evaluation(workdir),
        variant=str((settings.get("train") or {}).get("variant", "robpicker")),
        absent={"tomograms": waiting, "evaluation": waiting},
        calibration=_operating_points(calibrated),
        expected={name: expected_curve(entry) for name, entry in calibrated.items()},
        expected_of_all={name: expected_curve_of_all(entry) for name, entry in calibrated.items()},
        command=Command(before=f"robpicker pick --workdir {shlex.quote(str(workdir))} --out PICKS"),
        after_review=AfterReview(after=f" --picks {shlex.quote(str(workdir / 'picks'))} --out CORRECTED"),
    )
    if (workdir / INPUTS).is_file():
        data = _with_inputs(data, workdir / INPUTS)
    if compare is None and config.is_file():
        compare = _sibling(workdir)
    if compare is not None:
        data = dataclasses.replace(data, comparison=load_comparison(compare))
    return data


def load_comparison(workdir: Path, *, name: str | None = None) -> Comparison:
    """Scores and history of another run; its name is its variant unless given.

    Raises:
        InputError: the folder holds no evaluation.
    """
    workdir = Path(workdir)
    if not (workdir / "evaluation.json").is_file():
        raise InputError(
            "no evaluation.json in the run to compare with", where=workdir, fix="let that training finish first"
        )
    if name is None:
        config = workdir / "config.yaml"
        settings = _settings(read_text(config), config) if config.is_file() else {}
        name = str((settings.get("train") or {}).get("variant", workdir.name))
    return Comparison(name, _evaluation(workdir), _history(workdir))


def binned(view: TomogramView, *, max_edge: int = MAX_EDGE_VOX, max_depth: int = MAX_DEPTH_VOX) -> TomogramView:
    """The view with its density averaged over blocks where it is large, see `binned_density`."""
    small, (z, y, x) = binned_density(view.density, max_edge=max_edge, max_depth=max_depth)
    if small.shape == view.density.shape:
        return view
    old = view.bin_zyx
    return dataclasses.replace(view, density=small, bin_zyx=(old[0] * z, old[1] * y, old[2] * x))


def binned_density(
    density: Any, *, max_edge: int = MAX_EDGE_VOX, max_depth: int = MAX_DEPTH_VOX
) -> tuple[np.ndarray, tuple[int, int, int]]:
    """A density averaged over blocks, so that it is at most `max_depth` × `max_edge` × `max_edge`, and the blocks' size.

    Voxels at the far ends that fill no block are left out.

    Args:
        density: (z, y, x): an array, or what three slices index, such as an opened tomogram.
        max_edge: of y and x, voxels.
        max_depth: of z, voxels.
    """
    depth, height, width = density.shape
    z, yx = -(-depth // max_depth), -(-max(height, width) // max_edge)
    if z == yx == 1:
        return np.asarray(density), (1, 1, 1)
    nz, ny, nx = max(depth // z, 1), max(height // yx, 1), max(width // yx, 1)
    z, y, x = min(z, depth), min(yx, height), min(yx, width)
    small = np.empty((nz, ny, nx), np.float32)
    for index in range(nz):  # slab by slab: the density may be in a file larger than memory
        slab = density[index * z : (index + 1) * z, : ny * y, : nx * x]
        small[index] = np.asarray(slab, np.float32).mean(0).reshape(ny, y, nx, x).mean((1, 3))
    return small, (z, y, x)


def _with_inputs(data: ReportData, path: Path) -> ReportData:
    try:
        arrays = read_arrays(path)
        meta = json.loads(arrays["meta"].tobytes())
        views = [
            TomogramView(
                entry["name"],
                arrays[f"tomogram{i}.density"],
                _unpack(arrays, f"tomogram{i}.truth") if f"tomogram{i}.truth.positions_vox" in arrays else None,
                _unpack(arrays, f"tomogram{i}.picks"),
                matches=arrays.get(f"tomogram{i}.matches"),
                bin_zyx=tuple(entry["bin_zyx"]),
                voxel_size_angstrom=entry["voxel_size_angstrom"],
                rejected=_rejected(arrays, f"tomogram{i}.rejected", entry["rejected"]) if "rejected" in entry else None,
            )
            for i, entry in enumerate(meta["tomograms"])
        ]
        examples = [
            _example(name, {key: arrays.get(f"example{i}.{key}") for key in _EXAMPLE_MAPS})
            for i, name in enumerate(meta["examples"])
        ]
        weights = [
            ClassWeights(n, size, arrays[f"weights{i}"], unit) for i, (n, size, unit) in enumerate(meta["weights"])
        ]
        comparison = Comparison(**meta["comparison"]) if "comparison" in meta else None
        return dataclasses.replace(
            data,
            title=meta["title"],
            machine=meta["machine"] or data.machine,
            variant=meta["variant"],
            validated_on=meta.get("validated_on", "val"),
            absent=meta["absent"],
            species=[SpeciesInfo(*row) for row in meta["species"]],
            tomograms=views,
            label_examples=examples,
            weights=weights,
            comparison=comparison,
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = error.what if isinstance(error, InputError) else error
        raise InputError(
            f"the kept report inputs cannot be read ({reason})", where=path, fix="run train again"
        ) from None


def _calibrated(workdir: Path) -> Mapping[str, ClassCalibration]:
    """What the calibration tomograms showed, by class; empty where the run is not calibrated."""
    from robpicker_jax.picking import calibration

    return calibration.load(workdir).classes if (workdir / calibration.FILE).is_file() else {}


def _operating_points(calibrated: Mapping[str, ClassCalibration]) -> dict[str, list[tuple[float, float, float]]]:
    """What `pick --precision` would choose for some precisions, by class."""
    from robpicker_jax.picking import calibration

    found = {}
    for name, entry in calibrated.items():
        points = calibration.operating_points(entry)
        chosen = [(wanted, calibration.lowest(points, wanted)) for wanted in _PRECISIONS]
        found[name] = [(wanted, point.threshold, point.recall) for wanted, point in chosen if point is not None]
    return found


def _sibling(workdir: Path) -> Path | None:
    """An evaluated run of another variant beside this one; the supervised one, or for that the full one, first."""
    from robpicker_jax.training.run_folder import read_config, siblings

    try:
        config = read_config(workdir)
    except InputError:
        return None  # written by another version: a report needs no valid configuration
    preferred = "supervised" if config.train.is_bilevel else "robpicker"
    found = [
        (other.train.variant != preferred, path)
        for path, other in siblings(workdir, config)
        if other.train.variant != config.train.variant and (path / "evaluation.json").is_file()
    ]
    return min(found)[1] if found else None


def _example(name: str, maps: dict[str, Any]) -> LabelExample:
    return LabelExample(name, **maps)


def _pack(arrays: dict[str, np.ndarray], key: str, particles: Particles) -> None:
    arrays[f"{key}.positions_vox"] = particles.positions_vox
    arrays[f"{key}.labels"] = particles.labels
    for name in _KEPT:
        values = getattr(particles, name)
        if values is not None:
            arrays[f"{key}.{name}"] = values


def _unpack(arrays: Mapping[str, np.ndarray], key: str) -> Particles:
    kept: dict[str, Any] = {name: arrays.get(f"{key}.{name}") for name in _KEPT}
    return Particles(arrays[f"{key}.positions_vox"], arrays[f"{key}.labels"], **kept)


def _rejected(arrays: Mapping[str, np.ndarray], key: str, counts: Mapping[str, Mapping[str, int]]) -> Rejected:
    shown = _unpack(arrays, key).with_(extra={COLUMN: arrays[f"{key}.by"].astype(str)})
    return Rejected({name: {reason: int(n) for reason, n in own.items()} for name, own in counts.items()}, shown)


def _history(workdir: Path) -> list[dict[str, Any]]:
    """Rows of metrics.jsonl; a line cut short by a killed run is left out."""
    return read_metrics(workdir / "metrics.jsonl")


def _read_json(path: Path) -> dict[str, Any]:
    return read_json_object(path) if path.is_file() else {}


def _evaluation(workdir: Path) -> dict[str, Any]:
    """The evaluation in a run's folder, of which a report can be made; empty where there is none."""
    path = workdir / "evaluation.json"
    found = _read_json(path)
    try:
        read_evaluation(found)
    except (TypeError, ValueError, AttributeError, KeyError, OverflowError) as error:
        raise InputError(f"damaged: not an evaluation ({one_line(error)})", where=path, fix="run train again") from None
    return found


def _settings(text: str, where: Path) -> dict[str, Any]:
    """The configuration's sections, as far as they are sections; a report needs no valid configuration."""
    value = parse_yaml(text, where)
    return {key: entry for key, entry in value.items() if isinstance(entry, dict)} if isinstance(value, dict) else {}


def _species(settings: Mapping[str, Any], where: Path) -> list[SpeciesInfo]:
    """The species of a configuration, whatever else is wrong with it.

    Raises:
        InputError: an entry without a name or a radius.
    """
    entries = (settings.get("data") or {}).get("species") or []
    try:
        weights = [entry.get("molecular_weight_kda") for entry in entries]
        return [
            SpeciesInfo(str(entry["name"]), float(entry["radius_vox"]), None if weight is None else float(weight))
            for entry, weight in zip(entries, weights, strict=True)
        ]
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        raise InputError("damaged: its species cannot be read", where=where, fix="run train again") from None


def _plain(value: object) -> object:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"cannot keep {type(value).__name__} in a report's inputs")
