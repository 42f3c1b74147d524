"""Where a run stands: whether it is finished, with which data it was begun, and what its results were made with."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

from robpicker_jax import parallel
from robpicker_jax.config import Config, DataConfig
from robpicker_jax.datasets import dataset
from robpicker_jax.datasets.stamps import Stamps, changed_files, stamps
from robpicker_jax.system.errors import InputError
from robpicker_jax.system.files import clear_temporary, read_json_object, write_text
from robpicker_jax.system.progress import progress, say
from robpicker_jax.training import results
from robpicker_jax.training import run_folder as folders
from robpicker_jax.training.optimizers import rate_jumps

if TYPE_CHECKING:
    from robpicker_jax.simulation import DatasetRecipe

_INPUTS = "inputs.json"
_SHOWN = 3


def is_finished(config: Config, workdir: Path) -> bool:
    """Whether the run is trained, and its results were made with this configuration and these data; it is said if so.

    Nothing is written, so that a finished run on a disk that cannot be written is one too.

    Raises:
        InputError: the folder holds another run.
    """
    folders.check_same_run(workdir, config)
    if folders.trained_to(workdir) != config.train.steps:
        return False
    changed = results.outdated(workdir, config, _stamps_now(config, workdir))
    if changed is None:
        return False
    if changed:
        say(f"{workdir}: made again, since something has changed ({_listed(changed)}): picks, evaluation, report")
        return False
    macro = read_json_object(workdir / "evaluation.json").get("macro")
    score = macro.get("f1") if isinstance(macro, dict) else None
    scored = "" if not isinstance(score, float) else f", macro F1 {score:.3f} on the test set"
    say(f"{workdir}: this run is finished ({config.train.steps} steps{scored}); nothing to do")
    say(f"report: {workdir / 'report' / 'index.html'}")
    return True


def schedule_changes(config: Config, workdir: Path) -> list[str]:
    """One line for each learning rate that jumps where a run goes on, because it was prolonged or its schedule changed."""
    done = folders.trained_to(workdir)
    if done is None or done >= config.train.steps:
        return []
    try:
        former = folders.read_config(workdir).train
    except InputError:
        return []
    # Where the configuration describes results of fewer steps than were trained since, it tells nothing of this step.
    return rate_jumps(former, config.train, done) if done <= former.steps else []


def clear_leftovers(config: Config, workdir: Path) -> None:
    """Delete the simulated data of a start with other settings that failed before its first checkpoint.

    They stay where another run may be using them: one beside it with the settings that they were made with. What a
    killed process left half-written in the run's folders goes, too.
    """
    for folder in (workdir, workdir / "picks", workdir / "report"):
        clear_temporary(folder)
    from robpicker_jax.simulation import is_finished as is_simulated
    from robpicker_jax.simulation.manifest import MANIFEST

    own = workdir / "data"
    if config.data.dir is not None or folders.trained_to(workdir) is not None or not (own / MANIFEST).is_file():
        return
    try:
        is_simulated(_recipe(config), own)
        return
    except InputError:
        pass
    try:
        former = folders.read_config(workdir)
    except InputError:
        return
    if not folders.siblings(workdir, former):
        say(f"{own}: data of a start that failed, with other settings; they are simulated anew")
        shutil.rmtree(own)


def data_folder(config: Config, workdir: Path) -> Path:
    """The data set: `data.dir`, or one simulated in the workdir (or by a sibling run with the same settings).

    Of several processes the first one simulates, and the others wait for it.
    """
    if config.data.dir is not None:
        return Path(config.data.dir)
    from robpicker_jax.simulation import is_finished as is_simulated
    from robpicker_jax.simulation import simulate_dataset

    recipe = _recipe(config)
    own = workdir / "data"
    while not parallel.is_first() and not is_simulated(recipe, own):
        if any(is_simulated(recipe, sibling / "data") for sibling, _ in folders.siblings(workdir, config)):
            break
        time.sleep(1.0)
    for folder in (own, *(sibling / "data" for sibling, _ in folders.siblings(workdir, config))):
        if is_simulated(recipe, folder):
            return folder
    with progress("simulating", recipe.count()) as bar:
        simulate_dataset(recipe, own, bar)
    return own


def check_inputs(folder: Path, data: DataConfig, workdir: Path) -> None:
    """Compare the data set with that which the training in a folder was begun with; remember it where none was.

    Tomograms of val and test may change: they take no part in a step, and results are made again.

    Raises:
        InputError: training or meta tomograms have changed since; the message names the files.
    """
    path, now = workdir / _INPUTS, stamps(dataset(folder, data))
    if folders.trained_to(workdir) is not None and path.exists():
        try:
            before = read_json_object(path)
        except InputError:  # damaged: nothing to compare with
            before = None
        changed = [] if before is None else changed_files(before, now, ("train", "meta"), surely=True)
        if changed:
            raise InputError(
                f"the data have changed since this run was begun: {_listed(changed)}",
                where=folder,
                fix="put the files back, or train anew in another --workdir",
            )
        touched = [] if before is None else changed_files(before, now, ("train", "meta"))
        if touched:
            files = _listed([line.removesuffix(" changed") for line in touched])
            say(f"warning: written again since this run was begun, with the same size and samples: {files}")
    write_text(path, json.dumps(now, indent=1) + "\n")


def begin_results(config: Config, workdir: Path) -> None:
    """From here on the results in a folder are being made, by this configuration."""
    results.discard(workdir)
    folders.write_config(workdir, config)


def end_results(config: Config, workdir: Path, best_step: int) -> None:
    """All results in a folder are made."""
    results.record(workdir, config, best_step, _stamps_now(config, workdir) or {})


def _stamps_now(config: Config, workdir: Path) -> Stamps | None:
    """Stamps of the data set's files; None where it is not there, or simulated in another run's folder."""
    folder = workdir / "data" if config.data.dir is None else Path(config.data.dir)
    try:
        return stamps(dataset(folder, config.data))
    except (InputError, OSError):
        return None


def _recipe(config: Config) -> DatasetRecipe:
    from robpicker_jax.simulation import DatasetRecipe

    return DatasetRecipe(config.data.species, config.simulation, config.label_noise)


def _listed(changed: list[str]) -> str:
    return ", ".join(changed[:_SHOWN]) + (f" and {len(changed) - _SHOWN} more" if len(changed) > _SHOWN else "")
