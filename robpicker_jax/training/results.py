"""What a run's results were made with, so that those which fit no longer are made again.

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
from robpicker_jax.datasets.stamps import changed_files
from robpicker_jax.system.errors import InputError
from robpicker_jax.system.files import read_json_object, write_text

RESULTS = "results.json"
_FILES = ("evaluation.json", "model.rpk", "report/index.html")
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
    changed = [] if found.get("steps") == config.train.steps else ["train.steps"]
    changed += differing_keys(found.get("settings"), _settings(config))
    return changed + ([] if inputs is None else changed_files(found.get("inputs"), inputs))


def discard(workdir: Path) -> None:
    """Take the record away: from here on the results are being made."""
    (workdir / RESULTS).unlink(missing_ok=True)


def _settings(config: Config) -> dict[str, Any]:
    """The settings that results depend on and that may change after training, as JSON has them."""
    return {name: as_plain_values(getattr(config, name)) for name in _SECTIONS}
