"""Checkpoints through Orbax; nothing else in the project knows Orbax.

A checkpoint is the whole training state (parameters, batch statistics, meta networks, every optimiser's state, step).
Batches are a function of (seed, step), so a resumed run is the uninterrupted one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import jax
import orbax.checkpoint as ocp

from robpicker_jax.system.errors import InputError

State = TypeVar("State")


class Checkpoints:
    """The latest few checkpoints of a run and the best one, by validation score.

    Args:
        folder: where they live: `folder/latest/STEP` and `folder/best/STEP`.
        keep: how many of the latest are kept.
    """

    def __init__(self, folder: Path, keep: int = 2) -> None:
        self._folder = folder.resolve()
        self._latest = ocp.CheckpointManager(
            self._folder / "latest", options=ocp.CheckpointManagerOptions(max_to_keep=keep, create=True)
        )
        self._best = ocp.CheckpointManager(
            self._folder / "best", options=ocp.CheckpointManagerOptions(max_to_keep=1, create=True)
        )

    def latest_step(self) -> int | None:
        """Step of the newest checkpoint, None before the first."""
        step: int | None = self._latest.latest_step()
        return step

    def best_step(self) -> int | None:
        """Step of the best checkpoint, None before the first validation."""
        step: int | None = self._best.latest_step()
        return step

    def save(self, step: int, state: Any) -> None:
        """Write the state after `step` steps; a step already written is left alone."""
        _save(self._latest, step, state)

    def save_best(self, step: int, state: Any) -> None:
        """Write the state as the best so far, in place of the former best."""
        for later in self._best.all_steps():
            if later > step:  # left by a run that was killed after it and resumed from before it
                self._best.delete(later)
        _save(self._best, step, state)

    def restore(self, like: State, *, best: bool = False) -> State:
        """Read the newest (or the best) state.

        Args:
            like: a state of the same structure, shapes and shardings; arrays come back placed as its arrays are.
            best: the best instead of the newest.

        Raises:
            InputError: no checkpoint, or one of another structure.
        """
        manager = self._best if best and self._best.latest_step() is not None else self._latest
        step = manager.latest_step()
        if step is None:
            raise InputError("no checkpoint", where=self._folder, fix="train first")
        target = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        try:
            restored: State = manager.restore(step, args=ocp.args.StandardRestore(target))
            return restored
        except (ValueError, KeyError) as error:
            raise InputError(
                f"the checkpoint of step {step} does not fit this configuration ({str(error).splitlines()[0]})",
                where=self._folder,
                fix="use the configuration it was trained with, or another --workdir",
            ) from error

    def close(self) -> None:
        """Wait until everything is on disk."""
        self._latest.wait_until_finished()
        self._best.wait_until_finished()
        self._latest.close()
        self._best.close()


def _save(manager: ocp.CheckpointManager, step: int, state: Any) -> None:
    if step in manager.all_steps():
        return
    # Orbax declines silently to save a step that is not newer than its newest.
    if not manager.save(step, args=ocp.args.StandardSave(state), force=True):
        raise RuntimeError(f"Orbax did not save step {step} (newest: {manager.latest_step()})")
