"""Checkpoints through Orbax; nothing else in the project knows Orbax.

A checkpoint is the whole training state (parameters, batch statistics, meta networks, every optimiser's state, step).
Batches are a function of (seed, step), so a resumed run is the uninterrupted one. The best checkpoint carries its
validation score: both are committed by one renaming, so neither can be lost without the other.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp

from robpicker_jax import parallel
from robpicker_jax.system.errors import InputError
from robpicker_jax.system.files import disk_fault, one_line
from robpicker_jax.system.progress import say

State = TypeVar("State")
_PROBE = "probe"


class Checkpoints:
    """The latest few checkpoints of a run and the best one, by validation score.

    Args:
        folder: where they live: `folder/latest/STEP` and `folder/best/STEP`.
        keep: how many of the latest are kept.
        read_only: leave the folder as it is. Otherwise it is made, and temporary folders of killed runs are removed,
            so that the run must be this process's own.
    """

    def __init__(self, folder: Path, keep: int = 2, *, read_only: bool = False) -> None:
        self._folder, self._keep, self._read_only = folder.resolve(), keep, read_only
        self._latest = self._manager("latest", keep)
        self._best = self._manager("best", 1)

    def _manager(self, name: str, keep: int) -> ocp.CheckpointManager:
        with _writing(self._folder):
            return ocp.CheckpointManager(
                self._folder / name,
                options=ocp.CheckpointManagerOptions(
                    max_to_keep=keep,
                    create=not self._read_only,
                    cleanup_tmp_directories=not self._read_only,
                    read_only=self._read_only,
                ),
            )

    def latest_step(self) -> int | None:
        """Step of the newest checkpoint, None before the first."""
        step: int | None = self._latest.latest_step()
        return step

    def best_step(self) -> int | None:
        """Step of the best checkpoint, None before the first validation."""
        step: int | None = self._best.latest_step()
        return step

    def best_score(self) -> float | None:
        """The score that the best checkpoint was kept for; None where there is none, or where it was not recorded."""
        step = self.best_step()
        if step is None:
            return None
        try:
            score = (self._best.metadata(step).custom_metadata or {}).get("score")
        except (OSError, ValueError, AttributeError):  # a damaged record: the score counts as unknown
            return None
        return score if isinstance(score, float) else None

    def check_readable(self) -> None:
        """Write a small checkpoint and read it back, so that a folder in which that fails is refused before training.

        Raises:
            InputError: what was written could not be read.
        """
        wanted = {"probe": np.arange(3.0)}
        folder = self._folder / _PROBE
        reason: str | None
        try:
            with _writing(self._folder), ocp.CheckpointManager(folder) as manager:
                manager.save(0, args=ocp.args.StandardSave(wanted), force=True)
                manager.wait_until_finished()
                found = manager.restore(0, args=ocp.args.StandardRestore(wanted))
                reason = None if np.array_equal(found["probe"], wanted["probe"]) else "other numbers came back"
                manager.delete(0)
        except InputError:
            raise
        except Exception as error:  # whatever the library raises, the folder cannot hold a run
            reason = one_line(error)
            shutil.rmtree(folder, ignore_errors=True)
        if parallel.is_first():
            with contextlib.suppress(OSError):
                folder.rmdir()
        if reason is not None:
            raise InputError(
                f"a checkpoint that was written here cannot be read back ({reason})",
                where=self._folder,
                fix="use a --workdir whose path has no [ ] * or ?, on a disk that works",
            )

    def save(self, step: int, state: Any) -> None:
        """Write the state after `step` steps; a step already written is left alone.

        Raises:
            InputError: the disk is full or cannot be written.
        """
        _save(self._latest, self._folder, step, state)

    def save_best(self, step: int, state: Any, score: float | None = None) -> None:
        """Write the state as the best so far, in place of the former best, and wait until it is on disk.

        Args:
            step: the state's step.
            state: the state.
            score: its validation score.

        Raises:
            InputError: the disk is full or cannot be written.
        """
        for later in self._best.all_steps():
            if later > step:  # left by a run that was killed after it and resumed from before it
                self._best.delete(later)
        _save(self._best, self._folder, step, state, {} if score is None else {"score": float(score)})
        with _writing(self._folder):
            self._best.wait_until_finished()

    def restore(self, like: State, *, best: bool = False) -> State:
        """Read the newest (or the best) state; where it is damaged, the newest one before it that is whole.

        A damaged checkpoint is removed once an older one has been read, unless the folder is opened to read only.

        Args:
            like: a state of the same structure, shapes and shardings; arrays come back placed as its arrays are.
            best: the best instead of the newest.

        Raises:
            InputError: no checkpoint, or none that can be read: of another structure, or damaged.
        """
        with _writing(self._folder):
            self._latest.wait_until_finished()  # what is still being written is there for whoever reads it
        candidates = [(self._latest, step) for step in sorted(self._latest.all_steps(), reverse=True)]
        if best and self._best.latest_step() is not None:
            candidates.insert(0, (self._best, int(self._best.latest_step())))
        if not candidates:
            raise InputError("no checkpoint", where=self._folder, fix="train first")
        target = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        failures: list[tuple[ocp.CheckpointManager, int, str]] = []
        for manager, step in candidates:
            restored, reason = _read(manager, step, target)
            if not parallel.any_process(reason is not None):
                self._pass_over(failures, step)
                return restored  # type: ignore[no-any-return]
            failures.append((manager, step, reason or "another process could not read it"))
        _, step, reason = failures[0]
        raise InputError(
            f"no checkpoint here can be read; that of step {step} is damaged or does not fit this configuration ({reason})",
            where=self._folder,
            fix="use the configuration it was trained with, or another --workdir",
        )

    def _pass_over(self, failures: list[tuple[ocp.CheckpointManager, int, str]], used: int) -> None:
        """Say which checkpoints were damaged, and take them away: a step that is there cannot be written again."""
        for _, step, reason in failures:
            say(f"{self._folder}: the checkpoint of step {step} is damaged ({reason}); that of step {used} is used")
        if failures and not self._read_only:
            with _writing(self._folder):
                for manager, step, _ in failures:
                    manager.delete(step)
                self._latest.close()
                self._best.close()
            # A manager takes the form of its checkpoints from the newest one, so it has to look again.
            self._latest = self._manager("latest", self._keep)
            self._best = self._manager("best", 1)

    def close(self) -> None:
        """Wait until everything is on disk.

        Raises:
            InputError: the disk is full or cannot be written.
        """
        with _writing(self._folder):
            self._latest.wait_until_finished()
            self._best.wait_until_finished()
            self._latest.close()
            self._best.close()


def _save(
    manager: ocp.CheckpointManager, folder: Path, step: int, state: Any, facts: dict[str, Any] | None = None
) -> None:
    if step in manager.all_steps():
        return
    with _writing(folder):
        saved = manager.save(step, args=ocp.args.StandardSave(state), force=True, custom_metadata=facts or None)
    if not saved:  # Orbax declines silently to save a step that is not newer than its newest
        raise RuntimeError(f"Orbax did not save step {step} (newest: {manager.latest_step()})")


def _read(manager: ocp.CheckpointManager, step: int, target: Any) -> tuple[Any, str | None]:
    """The state of a step, or why it cannot be read."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.CRITICAL)  # the reason goes into one line of ours, not into a page of the library's
    try:
        # Not by the manager, which cannot read any step where the newest one is damaged in some ways.
        with ocp.StandardCheckpointer() as reader:
            return reader.restore(Path(manager.directory) / str(step) / "default", target), None
    except Exception as error:  # damaged files make the library raise whatever its parts raise
        return None, one_line(error)
    finally:
        logger.setLevel(level)


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Turn a fault of the user's disk into one line; the library wraps it in errors of several kinds."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        fault = disk_fault(error, folder)
        if fault is None:
            raise
        raise fault from None
