"""What a run's results were made with, so that those which fit no longer, or were damaged since, are made again.

`results.json` is written last, when picks, evaluation and report lie there, and taken away before any of them is made
anew: as long as it exists it tells the truth about all of them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from robpicker_jax.config import Config, as_plain_values
from robpicker_jax.config.differences import differing_keys
from robpicker_jax.datasets.stamps import changed_files, stamp
from robpicker_jax.system.errors import InputError
from robpicker_jax.system.files import read_json_object, write_text

RESULTS = "results.json"
_FILES = ("evaluation.json", "model.rpk", "report/index.html")
_STAMPED = ("evaluation.json", "model.rpk", "calibration.json", "report/inputs.npz")
_SECTIONS = ("inference", "picking", "evaluation")


def record(workdir: Path, config: Config, best_step: int, inputs: Mapping[str, Any]) -> None:
    """Say what the results in a folder were made with.

    Args:
        workdir: the run's folder.
        config: the configuration.
        best_step: the step of the model that picked.
        inputs: the state of the data set's files.
    """
    found = {"steps": config.train.steps, "best_step": best_step, "settings": _settings(config), "inputs": dict(inputs)}
    files = {name: stamp(workdir / name) for name in _STAMPED if (workdir / name).is_file()}
    picks = sorted(path.name for path in (workdir / "picks").glob("[!.]*"))
    found |= {"files": files, "picks": picks}
    write_text(workdir / RESULTS, json.dumps(found, indent=1) + "\n")


def outdated(workdir: Path, config: Config, inputs: Mapping[str, Any] | None) -> list[str] | None:
    """What has changed since the results in a folder were made; empty: nothing; None: there are no results.

    Args:
        workdir: the run's folder.
        config: the configuration that is asked for now.
        inputs: the state of the data set's files now; None where they are not there any more.
    """
    if not all((workdir / name).is_file() for name in (RESULTS, *_FILES)):
        return None
    try:
        found = read_json_object(workdir / RESULTS)
        read_json_object(workdir / "evaluation.json")
    except InputError:  # damaged: they are made again
        return None
    changed = _damaged(workdir, found) + ([] if found.get("steps") == config.train.steps else ["train.steps"])
    changed += differing_keys(found.get("settings"), _settings(config))
    return changed + ([] if inputs is None else changed_files(found.get("inputs"), inputs))


def _damaged(workdir: Path, found: Mapping[str, Any]) -> list[str]:
    """Files among the results that are gone, or no longer what was written; a record that cannot be read counts as one."""
    files, picks = found.get("files", {}), found.get("picks", [])  # neither in records of earlier versions
    if not isinstance(files, dict) or not isinstance(picks, list):
        return [RESULTS]
    changed = [
        f"{name} is damaged" for name, known in files.items() if _content(workdir / str(name)) != _timeless(known)
    ]
    return changed + [f"picks/{name} is gone" for name in picks if not (workdir / "picks" / str(name)).exists()]


def _content(path: Path) -> Any:
    return _timeless(stamp(path)) if path.is_file() else None


def _timeless(found: Any) -> Any:
    """A stamp without its time, which a copy of a run does not share."""
    return {key: value for key, value in found.items() if key != "time"} if isinstance(found, dict) else found


def discard(workdir: Path) -> None:
    """Take the record away: from here on the results are being made."""
    (workdir / RESULTS).unlink(missing_ok=True)


def _settings(config: Config) -> dict[str, Any]:
    """The settings that results depend on and that may change after training, as JSON has them."""
    return {name: as_plain_values(getattr(config, name)) for name in _SECTIONS}
