"""What becomes of a training step whose loss or new parameters are not finite: `train.on_nan`.

`stop` ends the run at such a loss. `skip` and `rollback` look at every step as it is computed, on the devices, so that the
step that is at fault is known and not only the one after it, in which it shows. `skip` keeps the state from before the
step. `rollback` goes back to the newest checkpoint and on from there, without the steps that were at fault; they are kept
in the run's folder, so that a run which is stopped and started again leaves out the same ones.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from robpicker_jax import parallel
from robpicker_jax.bilevel import Metrics, Step, TrainState
from robpicker_jax.system.errors import InputError
from robpicker_jax.system.files import read_json_object, write_text

LEFT_OUT = "left_out.json"
MOST_IN_A_ROW = 20
"""Steps that may be left out one after another, or from one checkpoint on, before the run is given up."""

Kind = Literal["train", "meta"]
Place = Callable[[Kind, int, int], str]
"""(kind of batch, step from 0, row) → tomogram and position of a patch, in words."""

_MOST_NAMED = 3


class NotFinite(Exception):
    """A step whose loss, or whose new state, is not finite.

    Attributes:
        step: its number, from 1.
        what: what was found, with the patches, as a clause.
    """

    def __init__(self, step: int, what: str) -> None:
        self.step, self.what = step, what
        super().__init__(what)


def watched(step: Step, *, keep_former: bool) -> Step:
    """The step, which says by `Metrics.finite` whether its loss and the state after it are finite.

    Args:
        step: not compiled yet.
        keep_former: where they are not, the new state is the former one, counted as one step further.
    """

    def looked_at(state: TrainState, inner_batches: Any, outer_batch: Any) -> tuple[TrainState, Metrics]:
        new, metrics = step(state, inner_batches, outer_batch)
        finite = jnp.isfinite(metrics.inner_loss) & all_finite(new)
        if keep_former:
            former = state._replace(step=new.step)
            new = jax.tree.map(lambda after, before: jnp.where(finite, after, before), new, former)
        return new, metrics._replace(finite=finite)

    return looked_at


def all_finite(tree: Any) -> jax.Array:
    """Whether all floating-point numbers of a tree are finite."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in leaves]))


def found_in(values: Metrics, done: int, inner_steps: int, place: Place | None) -> str:
    """What is not finite in the metrics of a step, and in which patches, as a clause.

    Args:
        values: the metrics, on the host.
        done: number of the step, from 1.
        inner_steps: training batches of a step, of the last of which the metrics are.
        place: names a patch; None: rows are named by their number.
    """
    loss = float(values.inner_loss)
    if np.isfinite(loss):
        return f"the update of step {done} is not finite, though its loss is {loss:.4g}"
    patches = np.asarray(values.inner.loss)
    rows = np.flatnonzero(~np.isfinite(patches))
    what = f"the training loss became {loss} at step {done}"
    if len(rows) in (0, len(patches)):
        return f"{what}, in {'every' if len(rows) else 'no single'} patch of its batch"
    batch = done * inner_steps - 1
    named = [f"row {row}" if place is None else place("train", batch, int(row)) for row in rows[:_MOST_NAMED]]
    more = f" and {len(rows) - _MOST_NAMED} more" if len(rows) > _MOST_NAMED else ""
    return f"{what}, in {'the patch' if len(rows) == 1 else 'patches'} {'; '.join(named)}{more}"


def diverged(what: str, step: int | None) -> InputError:
    """The end of a run that cannot go on.

    Args:
        what: what happened, as a clause.
        step: step of the newest checkpoint; None: there is none.
    """
    kept = "no checkpoint had been written" if step is None else f"the checkpoint of step {step} is good and kept"
    return InputError(
        f"{what}; {kept}",
        fix="lower train.inner.learning_rate or set train.inner.clip_norm, and start again; --train.on_nan skip or "
        "rollback leaves such steps out",
    )


class LeftOut:
    """The steps that a run goes on without.

    Args:
        workdir: the run's folder; what an earlier start kept there counts.
        fresh: whether the run begins anew, so that what lies there is of another one.
    """

    def __init__(self, workdir: Path, *, fresh: bool) -> None:
        self._path = workdir / LEFT_OUT
        self._from_one: dict[int, int] = {}
        self.steps: set[int] = set()
        if fresh:
            if parallel.is_first():
                self._path.unlink(missing_ok=True)
            return
        try:
            found = read_json_object(self._path).get("steps") if self._path.exists() else None
        except InputError:  # damaged: steps that are at fault are found again
            found = None
        self.steps = {step for step in found if isinstance(step, int)} if isinstance(found, list) else set()

    def add(self, fault: NotFinite, checkpoint: int | None) -> None:
        """Leave a step out from now on.

        Raises:
            InputError: too many have been left out since the checkpoint that the run goes back to.
        """
        count = self._from_one[checkpoint or 0] = self._from_one.get(checkpoint or 0, 0) + 1
        if count > MOST_IN_A_ROW or fault.step in self.steps:
            raise diverged(f"{fault.what}; {count - 1} steps have been left out from there on already", checkpoint)
        self.steps.add(fault.step)
        if parallel.is_first():
            write_text(self._path, json.dumps({"steps": sorted(self.steps)}) + "\n")
