"""The working folder of a run: what it holds, whether a command belongs to it, and its siblings.

config.yaml  versions.json  inputs.json  densities.json  metrics.jsonl  checkpoints/  tensorboard/  [trackers.json]
[data/]  [left_out.json]
model.rpk  calibration.json  picks/  evaluation.json  report/  results.json

A folder without a checkpoint holds no run: whatever an earlier start left there is written over. `config.yaml` says how
the results in the folder were made; where settings of picking or evaluation have changed, it changes with the results.
"""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Mapping
from dataclasses import asdict, replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from robpicker_jax.config import Config, ParallelConfig, default_config_path, dump_config, load_config, validated
from robpicker_jax.config.differences import differing_keys
from robpicker_jax.datasets.densities import DensityStatistics
from robpicker_jax.system.errors import InputError
from robpicker_jax.system.files import read_json_object, write_text
from robpicker_jax.system.outputs import check_outputs
from robpicker_jax.system.version import __version__
from robpicker_jax.training.results import RESULTS

CHECKPOINTS = "checkpoints"
PICKS, REPORT = "picks", "report"
_DENSITIES = "densities.json"
_VERSIONS = "versions.json"
_WRITTEN = (
    "config.yaml",
    "metrics.jsonl",
    "model.rpk",
    "calibration.json",
    PICKS,
    "evaluation.json",
    REPORT,
    RESULTS,
)
# With other values of these a run is still the same training: it may be prolonged, or picked and evaluated differently.
_FREE = (
    "data.errors",
    "train.beside",
    "train.steps",
    "train.validate_every",
    "train.checkpoint_every",
    "train.checkpoint_minutes",
    "train.on_nan",
    "train.keep_checkpoints",
    "train.log_every",
    "train.trackers",
    *(f"train.{name}.{key}" for name in ("inner", "correction", "reweighting") for key in ("schedule", "final_share")),
    "patches.input",
    "patches.labels",
    "patches.threads",
    "parallel",
    "inference",
    "picking",
    "evaluation",
)
_FIXED = ("evaluation.choose_by",)  # the best model was chosen by it
_PACKAGES = (
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "numpy",
    "scipy",
    "scikit-learn",
    "mrcfile",
    "starfile",
)


def default_workdir(variant: str, config_path: str | None) -> Path:
    """`runs/NAME` in the working folder, NAME after the configuration file and, unless it is robpicker, the variant."""
    stem = (Path(config_path) if config_path else default_config_path()).stem
    return Path("runs") / (stem if variant == "robpicker" else f"{stem}-{variant}")


def trained_to(workdir: Path) -> int | None:
    """Step of the newest checkpoint in a run's folder, told by the names of files alone; None: the folder holds no run."""
    latest = workdir / CHECKPOINTS / "latest"
    names = [path.name for path in latest.iterdir()] if latest.is_dir() else []
    return max((int(name) for name in names if name.isdecimal()), default=None)


def is_run_folder(folder: Path) -> bool:
    """Whether a training run has been started in a folder."""
    return all((folder / name).is_file() for name in ("config.yaml", _VERSIONS, "metrics.jsonl"))


def check_same_run(workdir: Path, config: Config) -> None:
    """Check that a run in the folder, if there is one, is the one that `config` describes; nothing is written.

    Raises:
        InputError: the folder holds another run, or this one trained further than it is asked to, or files of other
            origin that a run would replace.
    """
    path, done = workdir / "config.yaml", trained_to(workdir)
    if done is None and not (workdir / _VERSIONS).exists():  # no start of a run left these files
        check_outputs([workdir / name for name in _WRITTEN], fix="use another --workdir, or move it away")
    if done is None or not path.exists():
        return
    different = [
        key
        for key in differing_keys(asdict(load_config(path)), asdict(config))
        if key.startswith(_FIXED) or not key.startswith(_FREE)
    ]
    if different:
        shown = ", ".join(different[:3]) + (f" and {len(different) - 3} more" if len(different) > 3 else "")
        raise InputError(
            f"holds a run with other settings ({shown})", where=workdir, fix="use another --workdir, or delete it"
        )
    if done > config.train.steps:
        raise InputError(
            f"holds a run that is trained to step {done}, past train.steps = {config.train.steps}",
            where=workdir,
            fix=f"ask for {done} steps or more, or use another --workdir",
        )


def prepare(workdir: Path, config: Config) -> None:
    """Make the folder, or check that the run in it is the one that `config` describes; write config and versions.

    Raises:
        InputError: the folder holds another run, or cannot be written.
    """
    check_same_run(workdir, config)
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        if trained_to(workdir) is None:
            (workdir / RESULTS).unlink(missing_ok=True)
        plan = _stored_plan(workdir)
        found = versions() | ({} if plan is None else {"plan": plan})
        write_text(workdir / _VERSIONS, json.dumps(found, indent=2) + "\n")  # first: it marks the folder as a run's
        write_config(workdir, config)
    except OSError as error:
        raise InputError(f"cannot be written: {error.strerror}", where=workdir) from None


def write_config(workdir: Path, config: Config) -> None:
    """Write config.yaml, unless it describes results that are there and are not yet made again."""
    if not ((workdir / RESULTS).exists() and (workdir / "config.yaml").exists()):
        write_text(workdir / "config.yaml", dump_config(config))


def as_planned(workdir: Path, settings: ParallelConfig) -> ParallelConfig:
    """The section `parallel` with the micro-batches that an earlier start of the run chose, so that it goes on alike.

    A number that the user has changed since is the user's.
    """
    plan = _stored_plan(workdir)
    if plan is None or not settings.auto_micro_batches:
        return settings
    if plan.get("configured_micro_batches") != settings.micro_batches:
        return settings
    return replace(settings, micro_batches=int(plan["micro_batches"]))


def record_plan(workdir: Path, config: Config, plan: Mapping[str, Any]) -> None:
    """Keep a run's plan in versions.json, and the configuration as planned in config.yaml."""
    path = workdir / "versions.json"
    found = read_json_object(path) | {"plan": dict(plan)}
    write_config(workdir, config)
    write_text(path, json.dumps(found, indent=2) + "\n")


def _stored_plan(workdir: Path) -> dict[str, Any] | None:
    """The plan of an earlier start; None where no checkpoint depends on it."""
    if trained_to(workdir) is None:
        return None
    try:
        found = read_json_object(workdir / "versions.json").get("plan")
    except InputError:  # a file that was edited
        return None
    parts = found.get("micro_batches") if isinstance(found, dict) else None
    return found if isinstance(parts, int) and parts >= 1 else None


def record_densities(workdir: Path, found: DensityStatistics | None) -> None:
    """Keep the statistics of the training tomograms' densities, for a model that is made of a checkpoint later."""
    if found is not None:
        write_text(workdir / _DENSITIES, json.dumps(asdict(found)) + "\n")


def stored_densities(workdir: Path) -> DensityStatistics | None:
    """The statistics that `record_densities` kept; None: none, or a file that was edited."""
    try:
        found = json.loads((workdir / _DENSITIES).read_text(encoding="utf-8"))
        return validated(DensityStatistics, found, workdir / _DENSITIES)
    except (OSError, ValueError, RecursionError):  # InputError is a ValueError
        return None


def read_config(workdir: Path) -> Config:
    """The configuration of the run in a folder.

    Raises:
        InputError: it holds none.
    """
    if not (workdir / "config.yaml").is_file():
        raise InputError("holds no run (no config.yaml)", where=workdir, fix="give the --workdir of a training")
    return load_config(workdir / "config.yaml")


def siblings(workdir: Path, config: Config) -> list[tuple[Path, Config]]:
    """Runs beside this one that differ from it in the variant alone, so that the two can be compared."""
    found = []
    for path in sorted(workdir.resolve().parent.glob("*/config.yaml")):
        if path.parent == workdir.resolve():
            continue
        try:
            other = load_config(path)
        except InputError:
            continue  # not a run of this program
        alike = replace(
            other,
            train=replace(
                other.train, variant=config.train.variant, beside=config.train.beside, trackers=config.train.trackers
            ),
            # These settings change how a run is computed, not what.
            parallel=config.parallel,
            patches=replace(
                other.patches,
                input=config.patches.input,
                labels=config.patches.labels,
                threads=config.patches.threads,
            ),
        )
        if alike == config:
            found.append((path.parent, other))
    return found


def versions() -> dict[str, Any]:
    """What a result depends on: package versions, Python, machine, devices, date and command."""
    import jax

    found: dict[str, Any] = {"robpicker_jax": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = None
    found["machine"] = machine()
    found["devices"] = [device.device_kind for device in jax.devices()]
    found["date"] = datetime.now(UTC).isoformat(timespec="seconds")
    found["command"] = [Path(sys.argv[0]).name, *sys.argv[1:]]
    return found


def machine() -> str:
    """Processor and core count, in words."""
    import os

    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return f"{name}, {os.cpu_count()} cores"
